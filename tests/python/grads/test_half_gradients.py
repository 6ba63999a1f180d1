"""16-bit gradients in every function that takes gradients, compared with NumPy."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastoptim as fo
from snapshot import snapshot

HALVES = [np.dtype("f2"), np.dtype(ml_dtypes.bfloat16)]
# Near the sizes of tiles (1024), blocks (4096) and chunks (16384).
SIZES = [1, 1023, 1025, 4099, 40_001]

half_dtypes = pytest.mark.parametrize("half", HALVES, ids=str)


def gradients(half: Any, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(n), "f4").astype(half) for n in SIZES]


def wide(arrays: Any) -> Any:
    return np.concatenate([np.asarray(array, "f8").ravel() for array in arrays])


@half_dtypes
@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, math.inf])
def test_the_norm_is_that_of_numpy(half: Any, p: float) -> None:
    g = gradients(half)
    x = np.abs(wide(g))
    expected = x.max() if p == math.inf else (x**p).sum() ** (1 / p)
    assert fo.get_total_norm(g, p) == pytest.approx(expected, rel=1e-13)
    assert fo.get_total_norm([array.astype("f4") for array in g], p) == fo.get_total_norm(g, p)


@half_dtypes
def test_extremes_have_a_finite_norm(half: Any) -> None:
    limits = ml_dtypes.finfo(half)
    for x in float(limits.max), float(limits.smallest_subnormal):
        g = np.full(3, x, half)
        assert fo.get_total_norm(g) == pytest.approx(math.sqrt(3) * x, rel=1e-14)
    for bad in math.inf, math.nan:
        g = np.array([1.0, bad], half)
        before = g.tobytes()
        norm = fo.clip_grad_norm_(g, 0.1)
        assert math.isnan(norm) if math.isnan(bad) else norm == bad
        assert g.tobytes() == before
        with pytest.raises(RuntimeError, match="total norm"):
            fo.get_total_norm(g, error_if_nonfinite=True)


@half_dtypes
def test_clipping_by_norm_rounds_once(half: Any) -> None:
    for function in "clip_grad_norm_", "clip_grads_with_norm_":
        g = gradients(half)
        before = [array.astype("f4") for array in g]
        norm = fo.get_total_norm(g)
        if function == "clip_grad_norm_":
            assert fo.clip_grad_norm_(g, 2.0) == norm
        else:
            fo.clip_grads_with_norm_(g, 2.0, norm)
        factor = np.float32(2.0 / (norm + 1e-6))
        assert snapshot(g) == snapshot([(x * factor).astype(half) for x in before])
        assert fo.get_total_norm(g) == pytest.approx(2.0, rel=1e-3)
        fo.clip_grad_norm_(g, 3.0)
        assert snapshot(g) == snapshot([(x * factor).astype(half) for x in before])


@half_dtypes
@pytest.mark.parametrize("bound", [0.3, 1.0, 0.0])
def test_clipping_by_value(half: Any, bound: float) -> None:
    g = gradients(half)
    g[1][0] = math.nan
    limit = np.float32(bound)
    expected = [np.clip(x.astype("f4"), -limit, limit).astype(half) for x in g]
    fo.clip_grad_value_(g, bound)
    assert [x.astype("f4").tolist()[1:] for x in g] == [
        x.astype("f4").tolist()[1:] for x in expected
    ]
    assert np.isnan(g[1][:1].astype("f4")).all()


@half_dtypes
def test_dtypes_are_mixed(half: Any) -> None:
    g = {"half": np.array([3.0], half), "single": np.array([4.0], "f4"), "double": np.array([12.0])}
    assert fo.clip_grad_norm_(g, 6.5) == 13.0
    assert {name: float(x[0]) for name, x in g.items()} == pytest.approx(
        {"half": 1.5, "single": 2.0, "double": 6.0}, rel=1e-3
    )


@half_dtypes
def test_clipping_is_that_of_the_step(half: Any) -> None:
    """A step clips without the final rounding of clipping in place."""
    g = gradients(half)
    stepped, expected = (np.zeros(SIZES[-1], "f4") for _ in range(2))
    info = fo.SGD(stepped, lr=1.0).step(g[-1], max_norm=2.0)
    assert info.grad_norm == fo.clip_grad_norm_(g[-1], 2.0)
    fo.SGD(expected, lr=1.0).step(g[-1])
    limits = ml_dtypes.finfo(half)
    tolerance = float(limits.eps), float(limits.smallest_subnormal)
    np.testing.assert_allclose(stepped, expected, *tolerance)


@half_dtypes
def test_history_records_their_norms(half: Any) -> None:
    g = dict(zip("abcde", gradients(half), strict=True))
    history = fo.History()
    history.record(grads=g)
    history.record(grads=list(g.values()))
    history.record(grads=g["a"])
    for names in g, range(len(g)):
        found = [history[f"grad_norm/{name}"][0] for name in names]
        norms = [float(np.linalg.norm(wide([x]))) for x in g.values()]
        np.testing.assert_allclose(found, norms, 1e-13)
    total = float(np.linalg.norm(wide(g.values())))
    expected = [total, total, abs(float(g["a"][0]))]
    np.testing.assert_allclose(history["grad_norm"], expected, 1e-13)


REGULARIZERS = [
    fo.regularizers.L1(0.3),
    fo.regularizers.L2(0.7),
    fo.regularizers.ElasticNet(0.3, 0.7),
]


@half_dtypes
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_penalties_are_added_in_single_precision(half: Any, own: bool, regularizer: Any) -> None:
    w, g = gradients(half, 1), gradients(half, 2)
    if not own:
        w = [array.astype("f4") for array in w]
    l1, l2 = regularizer.l1, regularizer.l2
    x = wide(w)
    expected = l1 * np.abs(x).sum() + l2 * (x * x).sum()
    slopes = [
        (np.float32(l1) * np.sign(a) if l1 else 0) + (np.float32(2 * l2) * a if l2 else 0)
        for a in (array.astype("f4") for array in w)
    ]
    sums = [(b.astype("f4") + slope).astype(half) for b, slope in zip(g, slopes, strict=True)]
    before = snapshot(w)
    value = regularizer.add_grad(w, g)
    assert value == regularizer.value(w) == pytest.approx(expected, rel=1e-13)
    assert snapshot(g) == snapshot(sums)
    assert snapshot(w) == before


def test_a_gradient_in_more_bits_than_its_parameter_is_refused() -> None:
    w, g = np.ones(3, "f2"), np.ones(3, "f4")
    with pytest.raises(TypeError, match=r'grads\["0"\] must be float16 as its parameter is'):
        fo.regularizers.L2(1.0).add_grad(w, g)
    with pytest.raises(TypeError, match=r'grads\["0"\] must be float64 as its parameter is'):
        fo.regularizers.L2(1.0).add_grad(np.ones(3), np.ones(3, "f2"))
    assert g.tolist() == [1.0] * 3


@half_dtypes
@pytest.mark.parametrize("own", [False, True])
def test_unscaling_divides_in_single_precision(half: Any, own: bool) -> None:
    g = gradients(half)
    before = [array.astype("f4") for array in g]
    opt = fo.SGD([np.zeros(n, half if own else "f4") for n in SIZES], lr=1.0)
    scaler = fo.amp.GradScaler(init_scale=48.0)
    scaler.unscale_(opt, g)
    assert snapshot(g) == snapshot([(x * np.float32(1 / 48)).astype(half) for x in before])
    assert scaler.step(opt, g, max_norm=1e9).grad_norm == fo.get_total_norm(g)


def test_other_dtypes_are_refused_by_name() -> None:
    words = "must be float32, float64, float16 or bfloat16"
    for bad in np.ones(2, int), np.ones(2, complex), np.ones(2, np.longdouble), np.ones(2, "i1"):
        calls = [
            lambda bad=bad: fo.get_total_norm({"w": bad}),
            lambda bad=bad: fo.clip_grad_norm_({"w": bad}, 1.0),
            lambda bad=bad: fo.clip_grad_value_({"w": bad}, 1.0),
            lambda bad=bad: fo.History().record(grads={"w": bad}),
        ]
        for call in calls:
            with pytest.raises(TypeError, match=rf'grads\["w"\] {words}'):
                call()
