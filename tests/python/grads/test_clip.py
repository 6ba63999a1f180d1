"""Norms and clipping: exact arithmetic, comparison with torch, extremes, and clipping in a step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastoptim as fo
from snapshot import snapshot

NORM_TYPES = [0.5, 1.0, 2.0, 3.0, math.inf]
SHAPES = [(7, 5), (1000,), (), (0, 3), (129,)]


def gradients(dtype: Any = "f4", seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES]


def exact_norm(arrays: Sequence[Any], p: float) -> float:
    x = np.concatenate([np.abs(a).ravel().astype(np.longdouble) for a in arrays])
    if p == math.inf:
        return float(x.max(initial=0))
    largest = x.max(initial=0)
    return float(largest * ((x / largest) ** p).sum() ** (1 / np.longdouble(p))) if largest else 0.0


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("p", NORM_TYPES)
def test_agrees_with_torch(p: float, dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rtol = 1e-6 if dtype == "f4" else 1e-12
    for max_norm in 0.1, 30.0, 1e9, math.inf:
        mine = [g for g in gradients(dtype) if g.size]
        theirs = [torch.zeros(g.shape, dtype=torch.tensor(g).dtype) for g in mine]
        for tensor, g in zip(theirs, mine, strict=True):
            tensor.grad = torch.tensor(g)
        expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, p)
        norm = fo.clip_grad_norm_(mine, max_norm, p)
        np.testing.assert_allclose(norm, expected, rtol=rtol)
        for tensor, g in zip(theirs, mine, strict=True):
            np.testing.assert_allclose(g, tensor.grad.numpy(), rtol=rtol)


def grid(dtype: Any) -> list[float]:
    """Return numbers for which a sum of squares overflows, underflows, or loses a term."""
    limits = np.finfo(dtype)
    safmin, ulp = float(limits.tiny), float(limits.eps)
    return [0.0, float(limits.smallest_subnormal), 2 * safmin, ulp, 1.0, 1 / ulp, 1 / safmin]


@pytest.mark.parametrize("n", [1, 2, 3, 17, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_finite_gradients_have_the_right_norm(dtype: Any, n: int) -> None:
    for first, rest in itertools.product(grid(dtype), repeat=2):
        x = np.full(n, rest, dtype)
        x[0] = first
        expected = math.hypot(*x.tolist())
        assert fo.get_total_norm(x) == pytest.approx(expected, rel=1e-14, abs=0)
        assert fo.get_total_norm([x[:1], -x[1:]]) == pytest.approx(expected, rel=1e-14, abs=0)
        info = fo.SGD(np.zeros_like(x)).step(x, max_norm=math.inf)
        assert info.grad_norm == fo.get_total_norm(x)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", NORM_TYPES)
def test_nonfinite_gradients_are_not_clipped(p: float, dtype: Any, bad: float) -> None:
    for first, n in itertools.product([*grid(dtype), math.inf, math.nan], [2, 1000]):
        x = np.full(n, first, dtype)
        x[-1] = bad
        before, norm = snapshot(x), fo.clip_grad_norm_([np.ones(3), x], 1.0, p)
        assert math.isnan(norm) if np.isnan(x).any() else norm == math.inf
        fo.clip_grads_with_norm_(x, 1.0, norm)
        for call in (
            lambda x=x: fo.clip_grad_norm_(x, 1.0, p, error_if_nonfinite=True),
            lambda x=x: fo.get_total_norm(x, p, error_if_nonfinite=True),
        ):
            with pytest.raises(RuntimeError, match="norm"):
                call()
        assert snapshot(x) == before


@pytest.mark.parametrize("p", NORM_TYPES)
def test_ten_million_elements(p: float) -> None:
    n, c = 10_000_000, np.float32(0.1)
    expected = float(c) * (1 if p == math.inf else n ** (1 / p))
    assert fo.get_total_norm(np.full(n, c), p) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("p", NORM_TYPES)
@given(
    arrays=st.lists(
        hnp.arrays(
            st.sampled_from(["f4", "f8"]),
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40),
            elements=st.floats(-(2.0**100), 2.0**100, width=32),
        ),
        max_size=4,
    ),
    max_norm=st.floats(1e-3, 1e6),
)
def test_any_gradients(p: float, arrays: list[Any], max_norm: float) -> None:
    expected = exact_norm(arrays, p) if arrays else 0.0
    before = [g.copy() for g in arrays]
    norm = fo.clip_grad_norm_(arrays, max_norm, p)
    assert norm == pytest.approx(expected, rel=1e-12, abs=0)
    factor = min(1.0, max_norm / (norm + 1e-6))
    for g, old in zip(arrays, before, strict=True):
        tiny = 2 * float(np.finfo(g.dtype).smallest_subnormal)
        np.testing.assert_allclose(g, old.astype(float) * factor, rtol=3e-7, atol=tiny)
        assert factor < 1 or g.tobytes() == old.tobytes()


@given(
    g=hnp.arrays(st.sampled_from(["f4", "f8"]), st.integers(0, 200), elements=st.floats(width=32)),
    bound=st.floats(0, 2.0**100, width=32) | st.just(math.inf),
)
def test_clipping_by_value(g: Any, bound: float) -> None:
    expected = np.clip(g, -bound, bound)
    fo.clip_grad_value_(g, bound)
    np.testing.assert_array_equal(g, expected)


@pytest.mark.parametrize("p", NORM_TYPES)
def test_a_buffer_is_a_list_of_arrays_to_the_bit(p: float) -> None:
    arrays = gradients()
    names = [str(i) for i in range(len(arrays))]
    mapping = dict(zip(names, [g.copy() for g in arrays], strict=True))
    buffer = fo.FlatBuffer.from_arrays(mapping)
    with_none: list[Any] = [None, *(g.copy() for g in arrays), None]
    forms = (buffer, mapping, tuple(g.copy() for g in arrays), with_none)
    assert fo.clip_grad_norm_(iter(with_none), math.inf, p) == fo.get_total_norm(arrays, p)
    norm = fo.clip_grad_norm_(arrays, 0.5, p)
    for form in forms:
        assert fo.clip_grad_norm_(form, 0.5, p) == norm
    for form in forms:
        values = form.values() if isinstance(form, fo.FlatBuffer | dict) else form
        found = [g for g in values if g is not None]
        assert snapshot(found) == snapshot(arrays)


def test_dtypes_may_be_mixed() -> None:
    single, double = np.array([3.0], "f4"), np.array([[4.0]])
    assert fo.clip_grad_norm_([single, double], 2.5) == 5.0
    assert single[0] == pytest.approx(1.5, rel=1e-6)
    assert double[0, 0] == pytest.approx(2.0, rel=1e-6)
    assert fo.get_total_norm([single, double, None, np.array([np.inf])], math.inf) == math.inf


@pytest.mark.parametrize("nothing", [[], [None], {}, [np.zeros((0, 3))], np.zeros((), "f4")])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 0.5, math.inf])
def test_the_norm_of_nothing_is_zero(nothing: Any, p: float) -> None:
    # Not -0.0.
    assert str(fo.get_total_norm(nothing, p)) == str(fo.clip_grad_norm_(nothing, 1.0, p)) == "0.0"
    fo.clip_grad_value_(nothing, 1.0)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("options", [{}, {"clip_value": 1.0}, {"nonfinite": "skip"}])
def test_the_norm_of_a_step_without_gradients_is_zero(dtype: str, options: Any) -> None:
    for maximize in False, True:
        opt = fo.SGD([np.ones(2, dtype), np.ones(3, dtype)], maximize=maximize)
        info = opt.step([None, None], max_norm=1.0, **options)
        assert (info.applied, str(info.grad_norm)) == (True, "0.0")


@pytest.mark.parametrize("max_norm", [1e-2, 1e-6])
def test_a_factor_below_the_normal_numbers_of_float32(max_norm: float) -> None:
    """The gradients must not be rounded to its few bits."""
    g = np.array([3e38, -3e38], "f4")
    w, expected = np.zeros(2, "f4"), np.array([-max_norm, max_norm]) / math.sqrt(2)
    fo.SGD(w, lr=1.0).step(g, max_norm=max_norm)
    np.testing.assert_allclose(w, expected, rtol=1e-6)
    fo.clip_grad_norm_(g, max_norm)
    np.testing.assert_allclose(g, -expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [2.0**-130, 2.0**130, 1e-310, 1e300])
def test_an_extreme_loss_scale(scale: float) -> None:
    g = np.array([1.0, -2.0]) * (min(scale, 1.0) if scale < 1 else scale)
    w = np.zeros(2)
    norm = fo.SGD(w, lr=1.0).step(g, loss_scale=scale, max_norm=math.inf).grad_norm
    np.testing.assert_allclose(w, [-1.0, 2.0], rtol=1e-12)
    assert norm == pytest.approx(math.sqrt(5), rel=1e-12)


@pytest.mark.parametrize("bound", [1e-200, 1e200])
def test_the_norm_of_what_clipping_by_value_left_does_not_overflow(bound: float) -> None:
    w = np.zeros(2)
    options: dict[str, Any] = {"clip_value": bound, "max_norm": math.inf}
    info = fo.SGD(w, lr=1.0).step(np.array([1e300, -1e300]), **options)
    assert info.grad_norm == pytest.approx(bound * math.sqrt(2), rel=1e-12, abs=0)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e9, math.inf])
def test_clipping_in_a_step_is_clipping_before_it(
    optimizer: Any, max_norm: float, dtype: str
) -> None:
    a, b = ([np.ones((3, 4), dtype), np.ones((50, 7), dtype)] for _ in range(2))
    fused, after = optimizer(a, lr=0.1), optimizer(b, lr=0.1)
    rng = np.random.default_rng(2)
    for _ in range(5):
        grads = [rng.standard_normal(w.shape).astype(dtype) for w in a]
        info = fused.step(grads, max_norm=max_norm)
        assert info == fo.StepInfo(True, fo.clip_grad_norm_(grads, max_norm))
        after.step(grads)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-6 if dtype == "f4" else 1e-14)


@given(
    g=hnp.arrays("f8", st.integers(1, 50), elements=st.floats(-1e6, 1e6)),
    loss_scale=st.floats(1e-3, 1e5),
    clip_value=st.none() | st.floats(0, 1e3),
    max_norm=st.none() | st.floats(1e-3, 1e3) | st.just(math.inf),
    maximize=st.booleans(),
)
def test_order_unscale_then_value_then_norm(
    g: Any, loss_scale: float, clip_value: float | None, max_norm: float | None, maximize: bool
) -> None:
    w, before = np.zeros(g.shape), g.tobytes()
    options: dict[str, Any] = {
        "loss_scale": loss_scale,
        "clip_value": clip_value,
        "max_norm": max_norm,
    }
    info = fo.SGD(w, lr=1.0, maximize=maximize).step(g, **options)
    expected = g / loss_scale
    if clip_value is not None:
        expected = np.clip(expected, -clip_value, clip_value)
    if max_norm is None:
        assert info.grad_norm is None
    else:
        norm = math.hypot(*expected)
        assert info.grad_norm == pytest.approx(norm, rel=1e-12, abs=1e-150)
        expected = expected * min(1.0, max_norm / (norm + 1e-6))
    np.testing.assert_allclose(w if maximize else -w, expected, rtol=1e-12, atol=1e-300)
    assert g.tobytes() == before


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_on_gradients_that_are_not_finite_propagates(bad: float) -> None:
    w = np.zeros(3)
    info = fo.SGD(w, lr=1.0).step(np.array([1.0, bad, 50.0]), max_norm=1.0)
    assert info.applied
    assert np.array_equal(info.grad_norm or 0, bad, equal_nan=True)
    assert np.array_equal(w, [-1.0, -bad, -50.0], equal_nan=True)


def test_an_iterator_is_used_once() -> None:
    g = np.array([3.0, 4.0])
    assert fo.clip_grad_norm_((x for x in [g, None]), 1.0) == 5.0
    np.testing.assert_allclose(g, [0.6, 0.8], rtol=1e-6)


def test_measuring_writes_nothing() -> None:
    g = np.array([3.0, 4.0])
    g.flags.writeable = False
    assert fo.clip_grad_norm_([g, g], math.inf) == pytest.approx(math.sqrt(50))
    with pytest.raises(ValueError, match="read-only"):
        fo.clip_grad_norm_(g, 1.0)


@pytest.mark.parametrize(
    "grads", [None, 5, "text", {1.0}, {"w": 1.0}, [[1.0]], ["text"], [None, 1]]
)
def test_bad_forms_of_grads(grads: Any) -> None:
    for call, _ in SETTINGS.values():
        with pytest.raises(TypeError, match="grads"):
            call(grads, 1.0)


SETTINGS: dict[str, tuple[Any, list[float]]] = {
    "max_norm": (fo.clip_grad_norm_, [0.0, -1.0, math.nan]),
    "norm_type": (lambda g, p: fo.get_total_norm(g, norm_type=p), [0.0, -2.0, math.nan]),
    "clip_value": (fo.clip_grad_value_, [-1.0, math.nan]),
    "max_norm ": (lambda g, x: fo.clip_grads_with_norm_(g, x, 5.0), [0.0, -1.0, math.nan]),
    "total_norm": (lambda g, x: fo.clip_grads_with_norm_(g, 1.0, x), [-1.0, -math.inf]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_bad_settings_change_nothing(name: str) -> None:
    call, values = SETTINGS[name]
    g = np.array([3.0, 4.0])
    for value in [*values, 10**400]:
        with pytest.raises(ValueError, match=name.strip()):
            call(g, value)
    for bad in "1", b"1", None, 1j, [1.0], np.ones(2):
        with pytest.raises(TypeError, match=name.strip()):
            call(g, bad)
    assert g.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("name", ["max_norm", "clip_value", "loss_scale"])
def test_bad_options_of_a_step_change_nothing(optimizer: Any, name: str) -> None:
    w = np.ones((2, 2))
    opt = optimizer(w)
    before = snapshot(opt)
    values = [-1.0, math.nan] + ([] if name == "clip_value" else [0.0])
    values += [math.inf] if name == "loss_scale" else []
    for value in values:
        with pytest.raises(ValueError, match=name):
            opt.step(w.copy(), **{name: value})
    for bad in "1", [1.0], 1j:
        with pytest.raises(TypeError, match=name):
            opt.step(w.copy(), **{name: bad})
    assert snapshot(opt) == before
