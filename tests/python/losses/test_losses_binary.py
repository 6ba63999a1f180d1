"""Binary losses and log-cosh: tails, infinities, class weights, and invalid input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fastoptim.losses import BCELoss, BCEWithLogitsLoss, LogCoshLoss, SigmoidFocalLoss

SMALLEST = float(np.finfo("f4").tiny)


def bce(x: Any, y: Any) -> Any:
    return np.logaddexp(0, -x) if y else np.logaddexp(0, x)


def bce_slope(x: Any, y: Any) -> Any:
    return -1 / (1 + np.exp(x)) if y else 1 / (1 + np.exp(-x))


def focal(x: Any, y: Any, gamma: float) -> Any:
    return np.abs(bce_slope(x, y)) ** gamma * bce(x, y)


def focal_slope(x: Any, y: Any, gamma: float) -> Any:
    error = np.abs(bce_slope(x, y))
    rise = (-1 if y else 1) * (gamma * np.exp(-bce(x, y)) * bce(x, y) + error)
    return error**gamma * rise


def tails(loss_fn: Any, x: Any, y: float, value: Any, slope: Any, rtol: float) -> None:
    """Compare in both types, if the exact result is a normal number of float32."""
    loss_fn.reduction = "none"
    for dtype, bound in (("f4", rtol), ("f8", 1e-12)):
        found = loss_fn.value_and_grad(x.astype(dtype), np.full(x.shape, y, dtype))
        for got, exact in zip(found, (value, slope), strict=True):
            normal = np.abs(exact) >= SMALLEST
            assert normal.sum() > 100
            np.testing.assert_allclose(got[normal], exact[normal], rtol=bound)
            assert np.all(np.abs(got[~normal]) <= SMALLEST)


# Multiples of 1/4 are exact in both types.
LOGITS = np.arange(-95, 95, 0.25)


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_logits_keep_relative_accuracy_in_the_tails(y: float) -> None:
    tails(BCEWithLogitsLoss(), LOGITS, y, bce(LOGITS, y), bce_slope(LOGITS, y), 5e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_focal_keeps_relative_accuracy_in_the_tails(y: float, gamma: float) -> None:
    value, slope = focal(LOGITS, y, gamma), focal_slope(LOGITS, y, gamma)
    tails(SigmoidFocalLoss(gamma, None), LOGITS, y, value, slope, 1e-6)


def test_log_cosh_keeps_relative_accuracy_everywhere() -> None:
    d = 2.0 ** np.arange(-60, 100, 0.5).astype("f4").astype("f8")
    d = d.astype("f4").astype("f8")
    # ln(cosh(d)) = d^2 / 2 - d^4 / 12 + d^6 / 45 - ...
    series = d**2 / 2 - d**4 / 12 + d**6 / 45
    value = np.where(d < 1e-2, series, d + np.log1p(np.expm1(-2 * d) / 2))
    for sign in (1.0, -1.0):
        tails(LogCoshLoss(), sign * d, 0.0, value, sign * np.tanh(d), 1e-6)


LOSSES_OF_LOGITS = [
    BCEWithLogitsLoss(reduction="sum"),
    *(SigmoidFocalLoss(gamma, None, reduction="sum") for gamma in (0.0, 0.5, 1.0, 2.0, 4.0)),
]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("loss_fn", LOSSES_OF_LOGITS, ids=repr)
def test_infinite_and_extreme_logits(loss_fn: Any, dtype: str) -> None:
    largest = float(np.finfo(dtype).max)
    for size in (math.inf, largest, 1e30):
        for sign, y in ((1, 1.0), (-1, 0.0)):
            x, target = np.array([sign * size], dtype), np.array([y], dtype)
            value, gradient = loss_fn.value_and_grad(x, target)
            assert value == 0
            assert gradient[0] == 0
            value, gradient = loss_fn.value_and_grad(x, 1 - target)
            assert value == float(np.array(size, dtype))
            assert gradient[0] == sign


def test_infinite_differences() -> None:
    x = np.array([math.inf, -math.inf, 3e38, 0.0], "f4")
    loss: Any = LogCoshLoss(reduction="none")
    value, gradient = loss.value_and_grad(x, np.zeros(4, "f4"))
    assert value[:2].tolist() == [math.inf, math.inf]
    assert value[2:].tolist() == [x[2], 0.0]
    assert gradient.tolist() == [1.0, -1.0, 1.0, 0.0]


def test_probabilities_at_the_ends_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = np.array([0.0, 0.0, 1.0, 1.0, 1e-30, 1e-13, 1 - 1e-13, 1e-50, 0.5])
    y = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.25, 0.75])
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.binary_cross_entropy(tensor, torch.tensor(y), reduction="none")
    expected.sum().backward()
    value, gradient = BCELoss(reduction="none").value_and_grad(x, y)
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-12)


def test_small_probabilities_keep_relative_accuracy() -> None:
    x = 10.0 ** -np.arange(0.5, 30)
    single = x.astype("f4")
    value = BCELoss(reduction="none")(single, np.zeros_like(single))
    np.testing.assert_allclose(value, -np.log1p(-single.astype("f8")), rtol=3e-7)


@pytest.mark.parametrize("shape", [(7,), (5, 3), (4, 31), (3, 33), (2, 5, 40), (300, 64)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_of_classes_are_pytorchs(shape: Any, weighted: bool, reduction: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape), rng.random(shape)
    weight = rng.random(shape) if weighted else None
    for pos_weight in (3 * rng.random(shape[-1]), 3 * rng.random(shape)):
        tensor = torch.tensor(x, requires_grad=True)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(
            tensor,
            torch.tensor(y),
            None if weight is None else torch.tensor(weight),
            pos_weight=torch.tensor(pos_weight),
            reduction=reduction,
        )
        expected.sum().backward()
        loss_fn = BCEWithLogitsLoss(weight, pos_weight, reduction=reduction)
        value, gradient = loss_fn.value_and_grad(x, y)
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12)
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_a_weight_of_zero_removes_an_element() -> None:
    x, y, weight = np.array([math.inf, 0.0]), np.array([0.0, 1.0]), np.array([0.0, 1.0])
    value, gradient = BCEWithLogitsLoss(weight, reduction="sum").value_and_grad(x, y)
    assert value == pytest.approx(math.log(2))
    assert gradient.tolist() == [0.0, -0.5]


def test_zero_dimensional_and_empty() -> None:
    one = np.array(1.0)
    value, gradient = BCEWithLogitsLoss(one, np.array(2.0)).value_and_grad(np.array(0.0), one)
    assert value == pytest.approx(2 * math.log(2))
    assert gradient == -1.0
    for shape, classes in (((0, 3), 3), ((3, 0), 0)):
        nothing = np.zeros(shape)
        loss_fn = BCEWithLogitsLoss(nothing, np.zeros(classes))
        value, gradient = loss_fn.value_and_grad(nothing, nothing)
        assert math.isnan(value)
        assert gradient.shape == shape
        assert math.isnan(BCELoss()(nothing, nothing))


@pytest.mark.parametrize("bad", [-0.1, 1.0000001, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["input", "target"])
@pytest.mark.parametrize("weighted", [False, True])
def test_invalid_probabilities_are_named(bad: float, which: str, weighted: bool) -> None:
    arrays = {name: np.full((100, 200), 0.5, "f4") for name in ("input", "target")}
    arrays[which][70, 7] = arrays[which][80, 9] = bad
    x, y = arrays.values()
    before = x.tobytes()
    with pytest.raises(ValueError, match=rf"{which}.flat\[14007\]"):
        BCELoss(x if weighted else None).value_and_grad(x, y, out=None if weighted else x)
    assert x.tobytes() == before
    with pytest.raises(ValueError, match=which):
        BCELoss()(x, y)


def test_nan_is_not_an_error() -> None:
    x, y = np.array([math.nan, 0.5]), np.array([0.5, math.nan])
    value, gradient = BCELoss(reduction="none").value_and_grad(x, y)
    assert np.isnan(value).all()
    assert np.isnan(gradient).all()


X = np.full((4, 3), 0.5, "f4")
MEMORY = np.full(24, 0.5, "f4")


@pytest.mark.parametrize(
    ("error", "weights", "out"),
    [
        (TypeError, {"weight": X.astype("f8")}, None),
        (TypeError, {"pos_weight": np.ones(3)}, None),
        (ValueError, {"weight": np.ones(4, "f4")}, None),
        (ValueError, {"weight": np.ones((2, 3), "f4")}, None),
        (ValueError, {"weight": X.T}, None),
        (ValueError, {"weight": X[::-1]}, None),
        (ValueError, {"weight": np.ones((1, 4, 3), "f4")}, None),
        (ValueError, {"weight": [1.0, 2.0]}, None),
        (ValueError, {"pos_weight": np.ones(4, "f4")}, None),
        (ValueError, {"pos_weight": np.ones((3, 1), "f4")}, None),
        (ValueError, {"pos_weight": np.ones(6, "f4")[::2]}, None),
        (ValueError, {"weight": MEMORY[:12].reshape(4, 3)}, MEMORY[:12].reshape(4, 3)),
        (ValueError, {"pos_weight": MEMORY[11:14]}, MEMORY[:12].reshape(4, 3)),
    ],
)
def test_bad_weights(error: Any, weights: Any, out: Any) -> None:
    before = MEMORY.tobytes()
    (name,) = weights
    with pytest.raises(error, match=name):
        BCEWithLogitsLoss(**weights).value_and_grad(X, X, out=out)
    if name == "weight":
        with pytest.raises(error, match=name):
            BCELoss(**weights).value_and_grad(X, X, out=out)
    assert MEMORY.tobytes() == before
