"""Norms and clipping: torch live, extreme numbers, and the same inside the step."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fastoptim as fo

NORM_TYPES = [0.5, 1.0, 2.0, 3.0, math.inf]


@pytest.mark.parametrize("norm_type", NORM_TYPES)
@pytest.mark.parametrize("max_norm", [0.5, 1e3, math.inf])
def test_pytorch_agrees(norm_type: float, max_norm: float) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(shape) for shape in ((3, 5), (), (5000,))]
    tensors = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in grads]
    for tensor, g in zip(tensors, grads, strict=True):
        tensor.grad = torch.tensor(g)
    expected = torch.nn.utils.clip_grad_norm_(tensors, max_norm, norm_type)
    assert fo.get_total_norm(grads, norm_type) == pytest.approx(float(expected), rel=1e-13)
    assert fo.clip_grad_norm_(grads, max_norm, norm_type) == pytest.approx(float(expected), 1e-13)
    for tensor, g in zip(tensors, grads, strict=True):
        np.testing.assert_allclose(g, tensor.grad.numpy(), rtol=1e-13)
        tensor.grad.clamp_(-0.01, 0.01)
    fo.clip_grad_value_(grads, 0.01)
    for tensor, g in zip(tensors, grads, strict=True):
        assert np.abs(g).max(initial=0) <= 0.01
        np.testing.assert_allclose(g, tensor.grad.numpy(), rtol=1e-12)


def nrm2_grid(dtype: Any) -> list[float]:
    info = np.finfo(dtype)
    tiny, ulp = float(info.tiny), float(info.eps)
    return [0.0, 2 * tiny, ulp, 1.0, 1 / ulp, float(info.max) / 2, math.inf, math.nan]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_extreme_pairs(dtype: str) -> None:
    for a, b in itertools.product(nrm2_grid(dtype), repeat=2):
        norm = fo.get_total_norm([np.array([a, b], dtype)])
        if math.isnan(a) or math.isnan(b):
            assert math.isnan(norm)
        elif math.isinf(a) or math.isinf(b):
            assert norm == math.inf
        else:
            exact = Fraction(a) ** 2 + Fraction(b) ** 2
            assert abs(Fraction(norm) ** 2 - exact) <= exact * Fraction(1e-14)


def test_ten_million_elements() -> None:
    x = np.random.default_rng(1).standard_normal(10_000_000).astype("f4") * 1e-3
    exact = math.sqrt(math.fsum(np.square(x, dtype="f8").reshape(-1, 1000).sum(axis=1)))
    assert fo.get_total_norm(x) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_is_not_finite_is_left_alone(bad: float) -> None:
    g = np.array([1.0, bad, -3.0])
    before = g.copy()
    fo.clip_grad_norm_(g, 1.0)
    assert np.array_equal(g, before, equal_nan=True)
    with pytest.raises(RuntimeError, match="norm"):
        fo.clip_grad_norm_(g, 1.0, error_if_nonfinite=True)
    assert np.array_equal(g, before, equal_nan=True)
    fo.clip_grad_value_(g, 2.0)
    assert np.array_equal(g, np.clip(before, -2.0, 2.0), equal_nan=True)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_bad_bounds(value: float) -> None:
    g = np.ones(3)
    with pytest.raises(ValueError, match="max_norm"):
        fo.clip_grad_norm_(g, value)
    with pytest.raises(ValueError, match="max_norm"):
        fo.clip_grads_with_norm_(g, value, 1.0)
    with pytest.raises(ValueError, match="norm_type"):
        fo.get_total_norm(g, value)
    with pytest.raises(ValueError, match="max_norm"):
        fo.SGD(np.ones(3)).step(g, max_norm=value)
    if value != 0:
        with pytest.raises(ValueError, match="clip_value"):
            fo.clip_grad_value_(g, value)
        with pytest.raises(ValueError, match="clip_value"):
            fo.SGD(np.ones(3)).step(g, clip_value=value)
    assert g.tolist() == [1, 1, 1]


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_bad_loss_scale(scale: float) -> None:
    with pytest.raises(ValueError, match="loss_scale"):
        fo.SGD(np.ones(3)).step(np.ones(3), loss_scale=scale)


def test_a_buffer_and_its_arrays_have_one_norm() -> None:
    grads = fo.FlatBuffer({"a": (77, 129), "b": (5000,), "c": ()})
    grads.flat[...] = np.random.default_rng(2).standard_normal(grads.size)
    apart = [view.copy() for view in grads.values()]
    norm = fo.get_total_norm(grads)
    assert (
        norm == fo.get_total_norm(apart) == fo.get_total_norm(dict(zip("abc", apart, strict=True)))
    )
    infos = [
        fo.SGD(params).step(g, max_norm=math.inf)
        for params, g in (
            (grads.zeros_like(), grads),
            (grads.zeros_like(), grads.flat),
            ([np.zeros_like(g) for g in apart], apart),
        )
    ]
    assert [info.grad_norm for info in infos] == [norm] * 3


GRADIENTS = arrays("f8", st.integers(1, 40), elements=st.floats(-1e6, 1e6))


@given(
    g=GRADIENTS,
    max_norm=st.floats(1e-3, 1e6),
    clip_value=st.floats(0, 1e5),
    loss_scale=st.floats(1e-3, 1e5),
)
def test_the_order_inside_a_step(
    g: Any, max_norm: float, clip_value: float, loss_scale: float
) -> None:
    p = np.zeros_like(g)
    given_g = g.copy()
    info = fo.SGD(p, lr=1.0).step(
        g, max_norm=max_norm, clip_value=clip_value, loss_scale=loss_scale
    )
    assert np.array_equal(g, given_g)
    g = np.clip(g / loss_scale, -clip_value, clip_value)
    norm = math.sqrt(math.fsum(np.square(g)))
    assert info.grad_norm == pytest.approx(norm, rel=1e-12, abs=1e-300)
    np.testing.assert_allclose(-p, g * min(1.0, max_norm / (norm + 1e-6)), rtol=1e-12, atol=1e-300)
