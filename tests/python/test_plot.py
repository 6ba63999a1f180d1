"""Pictures: what is drawn, and that nothing is moved by drawing it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def test_a_schedule_is_drawn_as_it_is() -> None:
    curve = fo.schedules.cosine(0.1, 50)
    (line,) = fo.plot.schedule(curve, 60).lines
    assert np.array_equal(line.get_ydata(), curve(np.arange(60)))
    (line,) = fo.plot.schedule(curve, [3, 9]).lines
    assert np.array_equal(line.get_xdata(), [3, 9])
    axes = fo.plot.schedule({"a": curve, "b": lambda t: 0.1 / (1 + t)}, 10)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert axes.lines[1].get_ydata()[4] == 0.02


def test_a_scheduler_is_drawn_from_where_it_is_and_stays_there() -> None:
    opt = fo.SGD([{"params": [np.zeros(2)], "lr": lr} for lr in (0.1, 0.2)])
    scheduler = fo.lr_scheduler.ExponentialLR(opt, 0.5)
    scheduler.step()
    before = scheduler.state_dict()
    first, second = fo.plot.schedule(scheduler, 3).lines
    assert first.get_ydata().tolist() == [0.05, 0.025, 0.0125]
    assert second.get_ydata().tolist() == [0.1, 0.05, 0.025]
    assert scheduler.state_dict() == before
    assert opt.param_groups[0]["lr"] == 0.05


def test_a_plateau_is_drawn_by_its_metrics() -> None:
    opt = fo.SGD(np.zeros(2), lr=1.0)
    plateau = fo.lr_scheduler.ReduceLROnPlateau(opt, patience=0, factor=0.5)
    (line,) = fo.plot.schedule(plateau, 4, metrics=[1.0, 1.0, 0.5, 0.5]).lines
    assert line.get_ydata().tolist() == [1.0, 1.0, 0.5, 0.5]
    with pytest.raises(ValueError, match="metrics"):
        fo.plot.schedule(plateau, 4)
    with pytest.raises(ValueError, match="metrics"):
        fo.plot.schedule(plateau, 4, metrics=[1.0])


@pytest.mark.parametrize(("f", "steps"), [(0.1, 5), (fo.schedules.constant(1.0), -1)])
def test_what_cannot_be_drawn(f: Any, steps: int) -> None:
    with pytest.raises((TypeError, ValueError)):
        fo.plot.schedule(f, steps)


def test_the_pictures_of_the_pages_render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[2] / "docs" / "pictures.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    found = runpy.run_path(str(script), run_name="__main__")
    assert (tmp_path / "schedules.png").read_bytes().startswith(b"\x89PNG")
    drawn = " ".join(found["all_schedules"]())
    pure = set(fo.schedules.__all__) - {"Schedule", "linear_scaling"}
    assert all(name in drawn for name in pure)
