"""Progress bars: only for long work and an interactive standard error."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim.checkpoint import pieces
from fastoptim.tools import progress


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


CALLS: dict[str, Any] = {
    "numerical gradient": lambda quiet: fo.numerical_gradient(np.sum, np.ones(5), quiet=quiet),
    "learning rates": lambda quiet: fo.LRFinder(
        fo.SGD(np.ones(2)), lambda w: (float(w @ w), 2 * w)
    ).run(num_iter=5, quiet=quiet),
    "landscape": lambda quiet: fo.landscape.line(
        np.sum, np.ones(2), np.ones(2), range(5), quiet=quiet
    ),
}


def written(call: Any, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the output of a call to standard error."""
    monkeypatch.setattr(sys, "stderr", stream)
    call()
    return stream.getvalue()


@pytest.mark.parametrize("what", CALLS)
def test_a_bar_unless_quiet_or_quick(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    call = CALLS[what]
    assert written(lambda: call(False), Terminal(), monkeypatch) == "", "quick"
    monkeypatch.setattr(progress, "DELAY", 0)
    assert f"{what}:   0%" in written(lambda: call(False), Terminal(), monkeypatch)
    assert written(lambda: call(True), Terminal(), monkeypatch) == ""


@pytest.mark.parametrize("what", [*CALLS, "check"])
def test_no_bar_in_a_file(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(quiet: bool) -> None:
        fo.check_grad(np.sum, np.ones(5), np.ones(5), quiet=quiet)

    monkeypatch.setattr(progress, "DELAY", 0)
    call = {**CALLS, "check": check}[what]
    assert written(lambda: call(False), io.StringIO(), monkeypatch) == ""


def test_a_large_file_has_a_bar_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(pieces, "_BAR_FROM", 0)

    def save() -> None:
        fo.save(tmp_path / "file", w=np.ones(5))

    assert written(save, io.StringIO(), monkeypatch) == ""
    assert "%" in written(save, Terminal(), monkeypatch)


def test_a_notebook_is_interactive_and_a_closed_stream_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    closed = Terminal()
    closed.close()
    for stream, looked_at in [
        (cell(), True),
        (Terminal(), True),
        (io.StringIO(), False),
        (closed, False),
        (None, False),
    ]:
        monkeypatch.setattr(sys, "stderr", stream)
        assert progress.watched() is looked_at


def test_nothing_is_lost_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress.progress(iter(range(3)), 3, "items", quiet=False)) == [0, 1, 2]
