"""Norms and clipping over tensors."""

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastoptim.torch as ft  # noqa: E402
from tensor_losses import normal  # noqa: E402

utils = torch.nn.utils
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def parameters(dtype: Any = torch.float64) -> list[Any]:
    """Return parameters, whose gradients lie in memory in many ways, one of them without."""
    grads = [
        normal(0, 3, 4, dtype=dtype),
        normal(1, 2, 3, 4, 5, dtype=dtype).to(memory_format=torch.channels_last),
        normal(2, 6, 5, dtype=dtype)[::2, 1:4],
        normal(3, 1, dtype=dtype)[0],
        normal(4, 5, 0, dtype=dtype),
        normal(5, 7, 3, dtype=dtype).t(),
    ]
    params = [torch.nn.Parameter(torch.zeros(5, dtype=dtype))]
    for grad in grads:
        params.append(torch.nn.Parameter(torch.zeros_like(grad)))
        params[-1].grad = grad
    return params


def grads_of(params: list[Any]) -> list[Any]:
    return [p.grad for p in params if p.grad is not None]


@pytest.mark.parametrize("norm_type", [1, 2.0, 3.0, math.inf, "inf"])
@pytest.mark.parametrize("max_norm", [0.5, 1e6, math.inf])
def test_gradients_are_clipped_as_by_pytorch(norm_type: Any, max_norm: float) -> None:
    # PyTorch has no largest element of an empty gradient.
    ours, theirs = parameters(), [p for p in parameters() if p.numel()]
    norm = ft.clip_grad_norm_(ours, max_norm, norm_type)
    expected = utils.clip_grad_norm_(theirs, max_norm, float(norm_type))
    assert norm.shape == ()
    torch.testing.assert_close(norm, expected, rtol=1e-12, atol=0)
    clipped = [grad for grad in grads_of(ours) if grad.numel()]
    torch.testing.assert_close(clipped, grads_of(theirs), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_clipped(dtype: Any) -> None:
    params = parameters(dtype)
    before = [g.double().clone() for g in grads_of(params)]
    norm = ft.clip_grad_norm_(iter(params), torch.tensor(0.5), foreach=True)
    assert norm.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = math.sqrt(sum(float(g.square().sum()) for g in before))
    assert norm.item() == pytest.approx(expected, rel=1e-6)
    for grad, old in zip(grads_of(params), before, strict=True):
        assert grad.dtype == dtype
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(
            grad.double(), old * (0.5 / (expected + 1e-6)), rtol=eps, atol=eps * eps
        )


def test_values_are_clipped_as_by_pytorch() -> None:
    ours, theirs = parameters(), parameters()
    ft.clip_grad_value_((p for p in ours), 0.3)
    utils.clip_grad_value_(theirs, 0.3)
    torch.testing.assert_close(grads_of(ours), grads_of(theirs), rtol=0, atol=0)


def test_norms_and_scaling_may_be_two_calls() -> None:
    ours, theirs = parameters(), parameters()
    norm = ft.get_total_norm(grads_of(ours))
    ft.clip_grads_with_norm_(ours, 0.5, norm)
    ft.clip_grad_norm_(theirs, 0.5)
    torch.testing.assert_close(grads_of(ours), grads_of(theirs), rtol=0, atol=0)
    assert ft.get_total_norm(torch.tensor([3.0, 4.0])) == 5
    assert ft.get_total_norm([]) == 0
    assert ft.clip_grad_norm_(torch.zeros(3), 1.0) == 0


def test_large_gradients_have_a_norm() -> None:
    w = torch.nn.Parameter(torch.zeros(2))
    w.grad = torch.tensor([3e38, 3e38])
    ft.clip_grad_norm_(w, 1.0)
    torch.testing.assert_close(w.grad, torch.full((2,), math.sqrt(0.5)))


def test_gradients_stay_where_the_norm_is_not_finite() -> None:
    w = torch.nn.Parameter(torch.zeros(2))
    w.grad = torch.tensor([math.inf, 3.0])
    assert ft.clip_grad_norm_(w, 1.0) == math.inf
    with pytest.raises(RuntimeError, match=r"total norm of order 2.* is inf"):
        ft.clip_grad_norm_(w, 1.0, error_if_nonfinite=True)
    assert w.grad.tolist() == [math.inf, 3.0]


def test_a_gradient_may_stand_for_the_negative_of_its_memory() -> None:
    w = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    w.grad = torch.tensor([1 - 3j, 1 - 4j], dtype=torch.complex128).conj().imag
    assert w.grad.is_neg()
    assert ft.clip_grad_norm_(w, 1.0) == 5
    torch.testing.assert_close(w.grad.tolist(), [0.6, 0.8], rtol=1e-6, atol=0)


def test_a_change_of_gradients_is_counted() -> None:
    w = torch.nn.Parameter(torch.zeros(2))
    w.grad = torch.tensor([3.0, 4.0])
    saved = (torch.ones(2, requires_grad=True) * w.grad).sum()
    ft.clip_grad_norm_(w, 1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.backward()
    with torch.inference_mode():
        w.grad = torch.tensor([3.0, 4.0])
        ft.clip_grad_value_(w, 1.0)
        assert w.grad.tolist() == [1, 1]


def refused() -> list[Any]:
    expanded, sparse, shared = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    expanded.grad = torch.ones(1).expand(2)
    sparse.grad = torch.ones(2).to_sparse()
    shared.grad = expanded.grad.clone()
    twin = torch.nn.Parameter(torch.zeros(2))
    twin.grad = shared.grad
    return [
        ([expanded], 1.0, ValueError, r"grads\[0\] has elements that share memory"),
        ([shared, sparse], 1.0, TypeError, r"grads\[1\] must be dense"),
        ([shared, twin], 1.0, ValueError, "share memory"),
        ([shared], 0.0, ValueError, "max_norm must be > 0, got 0"),
        ([shared], math.nan, ValueError, "max_norm must be > 0, got NaN"),
    ]


@pytest.mark.parametrize("case", range(5))
def test_what_cannot_be_clipped_is_refused_before_anything_is_written(case: int) -> None:
    params, max_norm, error, message = refused()[case]
    with pytest.raises(error, match=message):
        ft.clip_grad_norm_(params, max_norm)
    assert all(p.grad.to_dense().tolist() == [1, 1] for p in params)
    with pytest.raises(ValueError, match="norm_type must be > 0"):
        ft.clip_grad_norm_([], 1.0, 0.0)
    with pytest.raises(ValueError, match="clip_value must be >= 0"):
        ft.clip_grad_value_([], -1.0)


def test_an_empty_generator_warns_as_in_pytorch() -> None:
    none: list[Any] = []
    with pytest.warns(UserWarning, match="empty generator"):
        assert ft.clip_grad_norm_((p for p in none), 1.0) == 0
