"""Small runs of every example, in separate directories."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("tqdm", reason="tqdm is not installed")

EXAMPLES = Path(__file__).parents[3] / "examples"
SHARED = {"images.py", "networks.py", "report.py"}  # Modules that the examples import.
# Matrices are small, so BLAS threads would only wait for each other during other tests.
BLAS = ("MKL", "OMP", "OPENBLAS", "VECLIB")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in BLAS}
SMALL = {
    "optimizers.py": ["--epochs", "3", "--output", "picture.png"],
    "linear_classifier.py": ["--quick", "--output", "."],
    "surfaces.py": ["--quick", "--output", "."],
    "batches.py": ["--quick", "--output", "."],
    "letters.py": ["--quick", "--output", "."],
    "schedules_and_decay.py": ["--quick", "--output", "."],
    "gradients.py": ["--quick", "--output", "."],
    "losses.py": ["--quick", "--output", "."],
    "embeddings.py": ["--quick", "--output", "."],
    "focal.py": ["--quick", "--output", "."],
    "large_batches.py": ["--quick", "--output", "."],
    "sam.py": ["--quick", "--output", "."],
    "precision.py": ["--quick", "--output", "."],
    "resume.py": ["--quick", "--output", "."],
    "your_own.py": ["--quick", "--output", "."],
    "distributed.py": ["--quick", "--output", "."],
    "torch_convolution.py": ["--quick", "--output", "."],
    "torch_transformer.py": ["--quick", "--output", "."],
}


def test_every_example_has_a_small_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SMALL) | SHARED


@pytest.mark.parametrize("name", SMALL)
def test_every_example_has_a_page_with_its_picture_and_source(name: str) -> None:
    page = EXAMPLES.parent / f"docs/examples/{Path(name).stem}.md"
    text = page.read_text(encoding="utf-8")
    (picture,) = re.findall(r"^!\[[^\]]+\]\((\S+\.png)\)$", text, re.MULTILINE)
    assert (page.parent / picture).read_bytes().startswith(b"\x89PNG")
    assert f"```{{literalinclude}} ../../examples/{name}" in text


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_and_draws(name: str, tmp_path: Path) -> None:
    if name.startswith("torch_"):
        pytest.importorskip("torch", reason="torch is not installed")
    if name == "distributed.py":
        pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *SMALL[name]],
        cwd=tmp_path,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (picture,) = tmp_path.iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")
