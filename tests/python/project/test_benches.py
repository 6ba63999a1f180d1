"""Small runs of the benchmarks, which compare the results of all contestants."""

import subprocess
import sys
from pathlib import Path

import pytest

from cases import OPTIMIZERS

SCRIPTS = sorted((Path(__file__).parents[3] / "benches" / "python").glob("bench_*.py"))


def test_every_optimizer_is_measured() -> None:
    rules = next(script for script in SCRIPTS if script.stem == "bench_rules").read_text()
    assert not [cls.__name__ for cls in OPTIMIZERS if f'"{cls.__name__}"' not in rules]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_results_of_all_contestants_agree(script: Path) -> None:
    if script.stem == "bench_distributed":
        pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    if script.stem == "bench_torch":
        pytest.importorskip("torch", reason="torch is not installed")
    command = [sys.executable, str(script), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "agree" in done.stdout
