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


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


SHAPES: dict[str, Any] = {
    "MSE": lambda d: (d**2, 2 * d),
    "MAE": lambda d: (np.abs(d), np.sign(d)),
    "Huber, delta 0.5": lambda d: (
        np.where(np.abs(d) < 0.5, d**2 / 2, 0.5 * (np.abs(d) - 0.25)),
        np.clip(d, -0.5, 0.5),
    ),
    "Huber, delta 2": lambda d: (
        np.where(np.abs(d) < 2, d**2 / 2, 2 * (np.abs(d) - 1)),
        np.clip(d, -2, 2),
    ),
    "hinge": lambda m: (np.maximum(0, 1 - m), np.where(m < 1, -1.0, 0.0)),
    "cross-entropy": lambda m: (np.log1p(np.exp(-m)), -sigmoid(-m)),
}


def test_losses_are_drawn_as_their_formulas() -> None:
    panels = fo.plot.losses().figure.axes
    drawn = [{line.get_label(): line for line in axes.lines} for axes in panels]
    errors, margins = list(SHAPES)[:4], list(SHAPES)[4:]
    assert list(drawn[0]) == list(drawn[1]) == errors
    assert sorted(drawn[2]) == sorted([*margins, *(f"gradient of {name}" for name in margins)])
    lines = [(name, drawn[0][name], drawn[1][name]) for name in errors]
    lines += [(name, drawn[2][name], drawn[2][f"gradient of {name}"]) for name in margins]
    for name, *pair in lines:
        for line, expected in zip(pair, SHAPES[name](pair[0].get_xdata()), strict=True):
            np.testing.assert_allclose(line.get_ydata(), expected, atol=1e-14)


def test_the_focal_loss_is_drawn_as_its_formula() -> None:
    axes = fo.plot.focal()
    for gamma, line in zip((0, 1, 2, 5), axes.lines, strict=True):
        p = line.get_xdata()
        assert 0 < p.min() < 0.01
        assert p.max() == 1
        np.testing.assert_allclose(line.get_ydata(), -((1 - p) ** gamma) * np.log(p))
    assert fo.plot.focal(ax=axes) is axes
    assert len(axes.lines) == 8


def test_the_pictures_of_the_pages_render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[2] / "docs" / "pictures.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    found = runpy.run_path(str(script), run_name="__main__")
    for name in ("schedules", "losses", "focal"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    drawn = " ".join(found["all_schedules"]())
    pure = set(fo.schedules.__all__) - {"Schedule", "linear_scaling"}
    assert all(name in drawn for name in pure)
