"""Training continues bit for bit in another process, with other threads, on another tier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fastoptim as fo
from processes import run
from trainings import KINDS, STEPS, Training, first_half

pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")

SCRIPT = """
import json, sys, trainings
import fastoptim as fo
print(json.dumps([fo.get_num_threads(), fo._core.tier(), trainings.resumed({directory!r})]))
"""


def test_every_training_goes_on_to_the_bit(tmp_path: Path) -> None:
    expected = []
    for number in range(len(KINDS)):
        training = Training(number)
        for step in range(STEPS):
            if step == first_half(number):
                training.save(tmp_path / str(number))
            training.step()
        expected.append(training.digest())
    threads = "3" if fo.get_num_threads() != 3 else "2"
    done = run(
        SCRIPT.format(directory=str(tmp_path)),
        FASTOPTIM_NUM_THREADS=threads,
        FASTOPTIM_ISA="baseline",
    )
    assert done.returncode == 0, done.stderr
    used, tier, found = json.loads(done.stdout)
    assert (str(used), tier) == (threads, "baseline")
    assert {KINDS[n]: d for n, d in enumerate(found)} == {
        KINDS[n]: d for n, d in enumerate(expected)
    }
