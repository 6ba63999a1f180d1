"""Sharpness-aware minimization: the formula, restored parameters, and errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from papers import PAPERS


def loss(x: Any, y: Any) -> float:
    return float(np.sum(x**4) + np.sum(np.cos(y)))


def gradients(x: Any, y: Any) -> list[Any]:
    return [4 * x**3, -np.sin(y)]


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("base", ["SGD", "Adam"])
@pytest.mark.parametrize("maximize", [False, True])
def test_the_formula(base: str, adaptive: bool, maximize: bool) -> None:
    rng = np.random.default_rng(0)
    params = [rng.standard_normal((3, 2)), rng.standard_normal(4)]
    model = [p.copy() for p in params]
    opt = getattr(fo, base)(params, lr=0.01, maximize=maximize)
    sam = fo.SAM(opt, rho=0.1, adaptive=adaptive)
    hyper = dict(opt.param_groups[0])
    sign = -1 if hyper.pop("maximize") else 1
    states: list[dict[str, Any]] = [{}, {}]
    for t in range(1, 30):
        g = gradients(*model)
        weights = [np.abs(p) if adaptive else 1.0 for p in model]
        norm = np.sqrt(sum(np.sum((w * d) ** 2) for w, d in zip(weights, g, strict=True)))
        factor = sign * 0.1 / (norm + 1e-12)
        moved = [p + factor * w * w * d for p, w, d in zip(model, weights, g, strict=True)]
        g = gradients(*moved)
        before = loss(*model)
        model = [
            PAPERS[base](p, sign * d, s, t, **hyper)
            for p, d, s in zip(model, g, states, strict=True)
        ]
        found = sam.step(lambda: (loss(*params), gradients(*params)))
        assert found == pytest.approx(before, rel=1e-12)
        for p, q in zip(params, model, strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("flat", [False, True])
def test_parameters_are_restored_bit_for_bit(flat: bool) -> None:
    params = fo.FlatBuffer({"a": (300,), "b": (7, 5)})
    params.flat[:] = np.random.default_rng(1).standard_normal(params.size)
    grads = params.zeros_like()
    grads.flat[:] = np.random.default_rng(2).standard_normal(params.size)
    given: Any = grads.flat if flat else grads
    before = params.flat.copy()
    sam = fo.SAM(fo.SGD(params, lr=0.0))
    sam.first_step(given)
    assert not np.array_equal(params.flat, before)
    info = sam.second_step(given, max_norm=1.0)
    assert info.grad_norm == pytest.approx(fo.get_total_norm(grads))
    assert np.array_equal(params.flat, before)


def test_errors_leave_everything_as_it_was() -> None:
    w = np.array([1.0, 2.0])
    sam = fo.SAM(fo.SGD(w, lr=0.1))
    with pytest.raises(RuntimeError, match="after first_step"):
        sam.second_step(np.ones(2))
    with pytest.raises(ValueError, match="grads"):
        sam.first_step(np.ones(3))
    sam.first_step(np.ones(2))
    moved = w.copy()
    with pytest.raises(RuntimeError, match="called already"):
        sam.first_step(np.ones(2))
    with pytest.raises(TypeError, match="grads"):
        sam.second_step(np.ones(2, "f4"))
    assert np.array_equal(w, moved)
    sam.second_step(np.zeros(2))
    assert w.tolist() == [1.0, 2.0]
    calls = iter([(1.0, np.ones(2))])
    with pytest.raises(StopIteration):
        sam.step(lambda: next(calls))
    assert w.tolist() == [1.0, 2.0]
    assert sam.step(lambda: (3.0, np.zeros(2))) == 3.0


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_bad_rho(rho: float) -> None:
    with pytest.raises(ValueError, match="rho"):
        fo.SAM(fo.SGD(np.ones(1)), rho=rho)
    with pytest.raises(TypeError, match="rho"):
        fo.SAM(fo.SGD(np.ones(1)), rho=str(rho))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="base"):
        fo.SAM(np.ones(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_scale_of_the_loss_changes_no_bit_where_it_is_a_power_of_two(
    adaptive: bool, dtype: str
) -> None:
    found = []
    for scale in 1.0, 1024.0:
        w = np.random.default_rng(0).standard_normal(50).astype(dtype)
        sam = fo.SAM(fo.SGD(w, lr=0.1), rho=0.5, adaptive=adaptive)
        for t in range(3):
            sam.first_step(scale * np.cos(w + t), loss_scale=scale)
            sam.second_step(scale * np.sin(w + t), loss_scale=scale)
        found.append(w.tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan, "2", None])
def test_a_scale_out_of_range(scale: Any) -> None:
    w = np.ones(2)
    sam = fo.SAM(fo.SGD(w))
    with pytest.raises(ValueError if isinstance(scale, float) else TypeError, match="loss_scale"):
        sam.first_step(np.ones(2), loss_scale=scale)
    assert w.tolist() == [1.0, 1.0]
    sam.first_step(np.ones(2))


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("first", [False, True])
def test_a_step_is_skipped_for_the_gradients_of_either(first: bool, bad: float) -> None:
    w, good, wrong = np.array([1.0, -2.0]), np.ones(2), np.array([1.0, bad])
    sam = fo.SAM(fo.Adam(w, lr=0.1))
    sam.first_step(wrong if first else good)
    if first:
        with pytest.raises(FloatingPointError, match=r"first_step"):
            sam.second_step(good, nonfinite="raise")
    info = sam.second_step(good if first else wrong, nonfinite="skip")
    assert not info.applied
    assert w.tolist() == [1.0, -2.0]
    assert sam.state["0"]["step"] == 0
    # The next step is not affected.
    sam.first_step(good)
    assert sam.second_step(good, nonfinite="raise").applied


def test_an_overflowing_norm_is_not_an_infinite_gradient() -> None:
    w = np.array([1.0, -2.0])
    sam = fo.SAM(fo.SGD(w, lr=0.0))
    sam.first_step(np.full(2, 1e308))
    assert sam.second_step(np.ones(2), nonfinite="skip").applied
