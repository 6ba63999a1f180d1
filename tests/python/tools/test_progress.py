"""Progress bars: for those who wait, and for nobody else."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim.tools import progress

CALLS: dict[str, Any] = {
    "numerical gradient": lambda quiet: fo.numerical_gradient(np.sum, np.ones(5), quiet=quiet),
    "learning rates": lambda quiet: fo.LRFinder(
        fo.SGD(np.ones(2)), lambda w: (float(w @ w), 2 * w)
    ).run(num_iter=5, quiet=quiet),
    "landscape": lambda quiet: fo.landscape.line(
        np.sum, np.ones(2), np.ones(2), range(5), quiet=quiet
    ),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_bar_unless_quiet_or_quick(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    CALLS[what](False)
    assert capsys.readouterr().err == "", "quick"
    monkeypatch.setattr(progress, "DELAY", 0)
    CALLS[what](False)
    assert f"{what}:   0%" in capsys.readouterr().err
    CALLS[what](True)
    assert capsys.readouterr().err == ""


def test_nothing_is_lost_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert list(progress.progress(iter(range(3)), 3, "items", quiet=False)) == [0, 1, 2]
