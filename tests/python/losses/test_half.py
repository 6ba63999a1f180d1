"""Losses of 16-bit numbers: the arithmetic of float32, and gradients of the input's type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import subclasses
from fastoptim import losses
from fastoptim.losses._base import BuiltinLoss

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
halves = pytest.mark.parametrize("half", HALVES, ids=str)
reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
CLASSES = ("cross_entropy", "nll", "focal", "multi_margin")
ALL = sorted(subclasses(losses, BuiltinLoss), key=lambda cls: cls.__name__)
every = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)


def inputs(cls: Any, rows: int, columns: int, dtype: Any, seed: int = 0) -> tuple[Any, ...]:
    """The arguments of a call, whose numbers are exact in 16 bits."""
    rng = np.random.default_rng(seed)

    def numbers() -> Any:
        return rng.uniform(0.05, 0.95, (rows, columns)).astype(dtype)

    name = cls._name
    if name in CLASSES:
        return numbers(), rng.integers(0, columns, rows)
    if name == "triplet_margin":
        return numbers(), numbers(), numbers()
    if name in ("contrastive", "cosine_embedding"):
        return numbers(), numbers(), rng.integers(0, 2, rows)
    if name == "gaussian_nll":
        return numbers(), numbers(), numbers()
    return numbers(), numbers()


def widened(arrays: tuple[Any, ...], half: Any) -> tuple[Any, ...]:
    return tuple(x.astype(np.float32) if x.dtype == half else x for x in arrays)


def grads(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


@halves
@reductions
@every
def test_losses_are_computed_in_float32_and_rounded_once(
    cls: Any, reduction: Any, half: Any
) -> None:
    loss = cls(reduction=reduction)
    for rows, columns in (0, 3), (1, 1), (3, 5), (900, 12), (5, 5000):
        given = inputs(cls, rows, columns, half)
        value, gradient = loss.value_and_grad(*given, loss_scale=8.0)
        expected, slopes = loss.value_and_grad(*widened(given, half), loss_scale=8.0)
        if reduction == "none":
            assert value.dtype == half
            np.testing.assert_array_equal(value, expected.astype(half))
        else:
            # Bitwise equal, since they are summed in the same order.
            assert isinstance(value, float)
            np.testing.assert_array_equal(value, expected)
        for found, slope in zip(grads(gradient), grads(slopes), strict=True):
            assert found.dtype == half
            np.testing.assert_array_equal(found, slope.astype(half))
        np.testing.assert_array_equal(loss(*given), value)


@halves
@every
def test_out_is_of_the_type_of_the_input(cls: Any, half: Any) -> None:
    loss, given = cls(), inputs(cls, 40, 7, half)
    expected = loss.grad(*given)
    if isinstance(expected, tuple):
        out = tuple(np.full_like(x, np.nan) for x in expected)
        assert loss.grad(*given, out=out) is not None
        for found, slope in zip(out, expected, strict=True):
            np.testing.assert_array_equal(found, slope)
        return
    out = given[0].copy()
    assert loss.grad(out, *given[1:], out=out) is out
    np.testing.assert_array_equal(out, expected)
    with pytest.raises(TypeError, match=f"out must be {half} as the input is, got float32"):
        loss.grad(*given, out=np.empty((40, 7), np.float32))


@halves
def test_targets_and_weights_may_be_float32(half: Any) -> None:
    x = inputs(losses.MSELoss, 30, 8, half)[0]
    rng = np.random.default_rng(1)
    y, w = rng.random((2, 30, 8), np.float32)
    wide = x.astype(np.float32)
    cases: list[tuple[Any, Any]] = [
        (losses.MSELoss(), y),
        (losses.BCEWithLogitsLoss(weight=w, pos_weight=w[0]), y),
        (losses.CrossEntropyLoss(weight=w[0], label_smoothing=0.1), y),
        (losses.NLLLoss(weight=w[0]), np.arange(30) % 8),
    ]
    for loss, target in cases:
        value, gradient = loss.value_and_grad(x, target)
        expected, slopes = loss.value_and_grad(wide, target)
        assert value == expected
        np.testing.assert_array_equal(gradient, slopes.astype(half))
        with pytest.raises(TypeError, match=f"{half} as the input is, or float32, got float64"):
            losses.MSELoss()(x, y.astype(np.float64))


@halves
def test_small_means_of_large_batches_are_those_of_float32(half: Any) -> None:
    # In 16 bits a sum of this many values would be infinite, or stop changing.
    x, y = np.full(200_000, 3, half), np.zeros(200_000, half)
    value, gradient = losses.MSELoss(reduction="sum").value_and_grad(x, y)
    assert value == 9 * 200_000
    assert (gradient == 6).all()
    assert losses.MSELoss()(x, y) == 9


@halves
def test_loss_scaling_keeps_gradients_that_would_vanish(half: Any) -> None:
    x, y = np.full(2**15, 1e-3, half), np.zeros(2**15, half)
    _, gradient = losses.MSELoss().value_and_grad(x, y, loss_scale=2.0**15)
    np.testing.assert_array_equal(gradient.astype(np.float32), 2 * x.astype(np.float32))


@halves
def test_the_first_element_out_of_range_is_named_before_any_write(half: Any) -> None:
    x = np.full((200, 100), 0.5, half)
    y = x.copy()
    x[70, 7] = 1.5
    x[150, 0] = -1
    before = x.tobytes()
    with pytest.raises(
        ValueError, match=r"input must be in \[0, 1\], got 1.5 as input.flat\[7007\]"
    ):
        losses.BCELoss().value_and_grad(x, y, out=x)
    with pytest.raises(ValueError, match=r"as target.flat\[7007\]"):
        losses.BCELoss().value_and_grad(y, x, out=y)
    assert x.tobytes() == before
    assert (y == 0.5).all()
    out = (np.zeros_like(x), np.zeros_like(x))
    with pytest.raises(ValueError, match="var must be >= 0, but its element 15000 is -1"):
        losses.GaussianNLLLoss().value_and_grad(y, y, x, out=out)
    assert not np.any(out)


@halves
def test_threads_do_not_change_a_bit(half: Any) -> None:
    x = inputs(losses.CrossEntropyLoss, 30_000, 10, half)
    found = []
    for n in 1, 2, 3:
        with fo.num_threads(n):
            value, gradient = losses.CrossEntropyLoss().value_and_grad(*x)
        found.append((value, gradient.tobytes()))
    assert found[0] == found[1] == found[2]


@halves
def test_against_pytorch(half: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    kind = {"float16": torch.float16, "bfloat16": torch.bfloat16}[str(half)]
    x, target = inputs(losses.CrossEntropyLoss, 64, 10, half)
    tensor = torch.tensor(x.astype(np.float32)).to(kind).requires_grad_()
    expected = torch.nn.functional.cross_entropy(tensor.float(), torch.tensor(target))
    expected.backward()
    value, gradient = losses.CrossEntropyLoss().value_and_grad(x, target)
    assert value == pytest.approx(expected.item(), rel=1e-6)
    unit = float(ml_dtypes.finfo(half).eps)
    np.testing.assert_allclose(
        gradient.astype(np.float32), tensor.grad.float().numpy(), rtol=unit, atol=1e-7
    )


@halves
def test_triplets_of_embeddings_in_16_bits(half: Any) -> None:
    x = inputs(losses.MSELoss, 30, 4, half)[0]
    labels = np.arange(30) % 4
    for kind in "semihard", "hard", "all":
        found = losses.mine_triplets(x, labels, kind)
        expected = losses.mine_triplets(x.astype(np.float32), labels, kind)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[2], expected[2])
