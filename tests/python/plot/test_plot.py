"""Plots: the data that is drawn, and that drawing changes nothing."""

from __future__ import annotations

import io
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
def test_invalid_schedules_are_refused(f: Any, steps: int) -> None:
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
    script = Path(__file__).parents[3] / "docs" / "pictures.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    found = runpy.run_path(str(script), run_name="__main__")
    for name in ("schedules", "losses", "focal"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    drawn = " ".join(found["all_schedules"]())
    pure = set(fo.schedules.__all__) - {"Schedule", "linear_scaling"}
    assert all(name in drawn for name in pure)


STEPS = np.linspace(-1, 2, 7)


def test_a_line_is_drawn_as_it_is() -> None:
    found = fo.landscape.line(lambda w: float(w @ w), np.ones(2), np.ones(2), STEPS)
    axes = fo.plot.landscape(found)
    (line,) = axes.lines
    assert np.array_equal(line.get_xdata(), found.alphas)
    assert np.array_equal(line.get_ydata(), found.values)


@pytest.mark.parametrize(
    ("objective", "logarithmic"),
    [
        (lambda w: 1e-3 + float(w @ w), True),
        (lambda w: float(w[0]), False),
        (lambda w: 5.0, False),
        (lambda w: np.nan if w[0] > 1 else 1 + float(w @ w), False),
    ],
)
def test_a_plane_and_the_paths_over_it(objective: Any, logarithmic: bool) -> None:
    from matplotlib.colors import LogNorm

    x, y = np.eye(2)
    found = fo.landscape.plane(objective, np.zeros(2), x, y, STEPS, STEPS[:4])
    paths: dict[str, Any] = {
        "SGD": np.array([[1, 0.5], [0.5, 0.2]]),
        "Adam": [[1, 0.5], [0, 0.1], [0, 0]],
    }
    axes = fo.plot.landscape(found, paths)
    filled = axes.collections[0]
    assert isinstance(filled.norm, LogNorm) is logarithmic
    assert axes.get_xlim() == (-1, 2), "alphas lie along x"
    assert axes.get_ylim() == (-1, 0.5)
    drawn = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert [line.get_label() for line in drawn] == ["SGD", "Adam"]
    assert np.array_equal(drawn[1].get_xydata(), paths["Adam"])
    axes.figure.savefig(io.BytesIO())
    assert len(fo.plot.landscape(found, paths["SGD"]).lines) == 3
    assert len(fo.plot.landscape(found).lines) == 0


def test_a_sweep_is_drawn_with_its_suggestion() -> None:
    w = np.ones(2)
    found = fo.LRFinder(fo.SGD(w), lambda w: (float(w @ w), 2 * w)).run()
    axes = fo.plot.lr_finder(found)
    raw, smoothed, mark = axes.lines
    assert np.array_equal(raw.get_ydata(), found.losses)
    assert np.array_equal(smoothed.get_ydata(), found.smoothed)
    assert set(mark.get_xdata()) == {found.suggestion}
    assert axes.get_ylim()[1] < found.losses.max()
    flat = fo.LRFinder(fo.SGD(w), lambda w: (1.0, 0 * w)).run()
    assert len(fo.plot.lr_finder(flat).lines) == 2


def test_a_history_is_drawn() -> None:
    history = fo.History()
    for step in range(4):
        history.record(loss=2.0**-step, rate=0.1)
    history.record(score=-1.0)
    axes = history.plot()
    assert [line.get_label() for line in axes.lines] == ["loss", "rate", "score"]
    assert axes.get_yscale() == "linear"
    assert axes.lines[2].get_xdata().tolist() == [4]
    axes = history.plot("loss")
    (line,) = axes.lines
    assert line.get_ydata().tolist() == [1, 0.5, 0.25, 0.125]
    assert axes.get_yscale() == "log"
    assert fo.plot.history(history, "loss", ax=axes) is axes
    assert len(axes.lines) == 2
    assert len(fo.plot.history({}).lines) == 0


PLOT: Any = fo.plot
PLANE = fo.landscape.Plane(STEPS, STEPS, np.ones((7, 7)))
LINE = fo.landscape.Line(STEPS, np.ones(7))


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda: PLOT.landscape(np.ones(3)), TypeError, "result"),
        (lambda: fo.plot.landscape(LINE, np.ones((3, 2))), ValueError, "paths"),
        (lambda: fo.plot.landscape(PLANE, np.ones(3)), ValueError, "paths"),
        (lambda: fo.plot.landscape(PLANE, {"SGD": np.ones((2, 3))}), ValueError, "SGD"),
        (
            lambda: fo.plot.landscape(fo.landscape.Line(STEPS, STEPS * np.nan)),
            ValueError,
            "finite",
        ),
        (
            lambda: fo.plot.landscape(fo.landscape.Plane(STEPS, STEPS[:1], np.ones((7, 1)))),
            ValueError,
            "2 by 2",
        ),
        (lambda: PLOT.lr_finder([1.0]), TypeError, "result"),
        (lambda: PLOT.history([1.0]), TypeError, "values"),
        (lambda: fo.plot.history({"loss": 1.0}), ValueError, "loss"),
        (lambda: fo.plot.history({"loss": [1.0]}, "lr"), KeyError, "lr"),
    ],
)
def test_invalid_results_are_refused(call: Any, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        call()
