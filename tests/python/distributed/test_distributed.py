"""Training on several ranks. Each test starts one job, which makes several checks in `ranks`."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mpi4py", reason="mpi4py is not installed")

TESTS = Path(__file__).parents[1]
BLAS = ("MKL", "OMP", "OPENBLAS")


def launcher() -> Path:
    """Return mpiexec beside this interpreter: that of the MPI that mpi4py has loaded."""
    found = Path(sysconfig.get_path("scripts")) / "mpiexec"
    if not found.exists():
        pytest.skip("mpich is not installed: there is no mpiexec beside python")
    return found


def job(
    ranks: int, *checks: str, directory: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run checks on some ranks, each with one thread unless the environment says otherwise."""
    places = [TESTS, TESTS / "distributed", os.environ.get("PYTHONPATH", "")]
    one = {"FASTOPTIM_NUM_THREADS": "1", **{f"{name}_NUM_THREADS": "1" for name in BLAS}}
    changed = {**one, "PYTHONPATH": os.pathsep.join(map(str, places)), **environment}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "MPI"))}
    return subprocess.run(
        [launcher(), "-n", str(ranks), sys.executable, TESTS / "distributed" / "ranks.py", *checks],
        cwd=directory,
        env={k: v for k, v in {**inherited, **changed}.items() if v},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def passed(done: subprocess.CompletedProcess[Any]) -> None:
    assert done.returncode == 0, done.stderr or done.stdout


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_results_have_the_bits_of_one_process(ranks: int) -> None:
    checks = ["bits_of_rules", "skipped_steps"]
    if ranks < 4:
        checks += ["averages", "errors"]
    passed(job(ranks, *checks))


@pytest.mark.parametrize("ranks", [1, 3])
def test_options_and_low_precision_have_the_bits_of_one_process(ranks: int) -> None:
    checks = ["bits_of_options", "bits_of_storage", "groups_and_schedules", "schedule_free", "page"]
    passed(job(ranks, *checks))


def test_checkpoints_move_between_numbers_of_ranks(tmp_path: Path) -> None:
    passed(job(2, "save", directory=tmp_path))
    for ranks in (1, 3):
        passed(job(ranks, "load", directory=tmp_path))


def test_the_examples_run_on_one_rank() -> None:
    passed(job(1, "examples"))


def test_a_bad_file_on_one_rank_raises_on_all(tmp_path: Path) -> None:
    passed(job(2, "bad_files", directory=tmp_path))


@pytest.mark.parametrize("given", ["", "1"])
def test_ranks_share_the_processors(given: str) -> None:
    passed(job(2, "threads", FASTOPTIM_NUM_THREADS=given))


@pytest.mark.parametrize("end", ["killed", "uncaught"])
def test_the_end_of_one_rank_ends_the_job(end: str) -> None:
    start = time.monotonic()
    done = job(3, end)
    assert done.returncode != 0
    assert time.monotonic() - start < 30
    if end == "uncaught":
        assert "LookupError: outside of a step" in done.stderr
        assert "rank 2 ended by an error and ends the job" in done.stderr


def test_info_says_the_share() -> None:
    command = [sys.executable, "-m", "fastoptim", "info"]
    environment = {k: v for k, v in os.environ.items() if k != "FASTOPTIM_NUM_THREADS"}
    done = subprocess.run(
        [launcher(), "-n", "2", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    passed(done)
    (threads,) = [line for line in done.stdout.splitlines() if line.startswith("threads ")]
    assert threads.endswith("(share of one of 2 ranks on this machine)")
