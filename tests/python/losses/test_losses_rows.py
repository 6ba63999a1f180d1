"""Losses of rows of scores compared with NumPy in float64 and PyTorch, and edge cases."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import subclasses
from fastoptim import losses
from fastoptim.losses import CrossEntropyLoss, FocalLoss, MultiMarginLoss, NLLLoss
from fastoptim.losses._base import BuiltinLoss
from rows import CASES, inputs, made

# One row, few classes, many classes; remainders of lanes and groups.
SHAPES = [(1, 1), (3, 2), (33, 10), (70, 31), (5, 63), (5, 64), (4, 65), (3, 1000)]
each = pytest.mark.parametrize(("cls", "arguments"), CASES)
reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def reference(loss: Any, x: Any, target: Any) -> tuple[Any, Any, float]:
    """Return the value of each row, its gradient, and the divisor of the mean, in float64."""
    x = x.astype(np.float64)
    rows, classes = np.arange(len(x)), x.shape[1]
    weight = np.ones(classes) if loss.weight is None else loss.weight.astype(np.float64)
    hot = np.eye(classes)[target]
    w = weight[target] * (target != getattr(loss, "ignore_index", None))
    if isinstance(loss, NLLLoss):
        return -w * x[rows, target], -w[:, None] * hot, w.sum()
    if isinstance(loss, MultiMarginLoss):
        z = np.maximum(0, loss.margin - x[rows, target][:, None] + x) * (1 - hot)
        share = w / (classes if loss.average_classes else 1)
        slope = loss.p * z ** (loss.p - 1) * (z > 0)
        slope -= hot * slope.sum(1, keepdims=True)
        return share * (z**loss.p).sum(1), share[:, None] * slope, len(x)
    scale = loss.alpha if isinstance(loss.alpha, float) else 1.0
    log_p = x - x.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    p, log_t = np.exp(log_p), log_p[rows, target]
    p_t, rest = np.exp(log_t), (np.exp(log_p) * (1 - hot)).sum(1)
    power = scale * w * rest**loss.gamma
    with np.errstate(invalid="ignore"):
        # A single class has probability 1.
        ratio = np.where(rest > 0, p_t * -log_t / rest, 1.0)
    slope = (power * (1 + loss.gamma * ratio))[:, None] * (p - hot)
    return -power * log_t, slope, float((target != loss.ignore_index).sum())


def test_every_loss_of_rows_has_a_case() -> None:
    scores, target = np.zeros((2, 3)), np.zeros(2, int)

    def is_of_rows(cls: type[BuiltinLoss]) -> bool:
        try:
            return bool(cls(reduction="none")(scores, target).shape == target.shape)
        except (TypeError, ValueError):
            return False

    found = {cls for cls in subclasses(losses, BuiltinLoss) if is_of_rows(cls)}
    assert found == {cls for cls, _ in CASES} | {CrossEntropyLoss}


@each
@reductions
def test_against_the_formula(cls: Any, arguments: Any, reduction: Any) -> None:
    for shape in SHAPES:
        for dtype, tolerance in (np.float64, 1e-12), (np.float32, 3e-6):
            loss = made(cls, arguments, shape[1], dtype, reduction=reduction)
            x, target = inputs(cls, shape, dtype)
            values, slopes, count = reference(loss, x, target)
            with np.errstate(invalid="ignore"):
                expected = {"none": values, "sum": values.sum(), "mean": values.sum() / count}
            if reduction == "mean":
                slopes = slopes / (count or 1)
            value, gradient = loss.value_and_grad(x, target)
            least = tolerance / 10
            np.testing.assert_allclose(value, expected[reduction], rtol=tolerance, atol=least)
            np.testing.assert_allclose(gradient, slopes, rtol=tolerance, atol=least)
            assert gradient.dtype == dtype
            assert isinstance(value, np.ndarray if reduction == "none" else float)


# PyTorch has no softmax focal loss, and always averages over classes.
@pytest.mark.parametrize(
    ("cls", "arguments"),
    [case for case in CASES if case[0] != FocalLoss and "average_classes" not in case[1]],
)
@reductions
def test_against_pytorch(cls: Any, arguments: Any, reduction: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for shape in (1, 3), (40, 10), (5, 200):
        loss = made(cls, arguments, shape[1], np.float64, reduction=reduction)
        x, target = inputs(cls, shape)
        target[0] = 1
        theirs = dict(arguments, reduction=reduction)
        if loss.weight is not None:
            theirs["weight"] = torch.tensor(loss.weight)
        tensor = torch.tensor(x, requires_grad=True)
        expected = getattr(torch.nn, cls.__name__)(**theirs)(tensor, torch.tensor(target))
        expected.sum().backward()
        value, gradient = loss.value_and_grad(x, target)
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12)
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("classes", [4, 100])
def test_focal_against_autograd(gamma: float, classes: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, target = inputs(FocalLoss, (50, classes))
    tensor, labels = torch.tensor(x, requires_grad=True), torch.tensor(target)
    log_p = torch.log_softmax(tensor, 1).gather(1, labels[:, None])[:, 0]
    alpha = torch.linspace(0.5, 1.5, classes, dtype=torch.float64)
    expected = (-alpha[labels] * (1 - log_p.exp()) ** gamma * log_p).mean()
    expected.backward()
    loss = FocalLoss(gamma=gamma, alpha=alpha.numpy())
    value, gradient = loss.value_and_grad(x, target)
    assert value == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("classes", [2, 80])
def test_focal_without_gamma_is_cross_entropy(classes: int) -> None:
    x, target = inputs(FocalLoss, (9, classes))
    value, gradient = CrossEntropyLoss().value_and_grad(x, target)
    assert FocalLoss(gamma=0.0)(x, target) == value
    np.testing.assert_array_equal(FocalLoss(gamma=0.0).grad(x, target), gradient)


def test_textbook_example() -> None:
    scores, target = np.array([[3.2, 5.1, -1.7]]), np.array([0])
    assert MultiMarginLoss(average_classes=False)(scores, target) == pytest.approx(2.9, rel=1e-15)
    assert MultiMarginLoss()(scores, target) == pytest.approx(2.9 / 3, rel=1e-15)


@each
def test_calls_places_and_threads(cls: Any, arguments: Any) -> None:
    for shape in (30_000, 10), (300, 1000):
        loss = made(cls, arguments, shape[1], np.float32)
        x, target = inputs(cls, shape, np.float32)
        value, gradient = loss.value_and_grad(x, target)
        assert loss(x, target) == value
        narrow = target.astype(np.int32)
        for threads in 1, 2, 3:
            with fo.num_threads(threads):
                again, out = loss.value_and_grad(x, narrow, out=np.full_like(x, np.nan))
            assert again == value
            np.testing.assert_array_equal(out, gradient)
        in_place = x.copy()
        assert loss.grad(in_place, target, out=in_place) is in_place
        np.testing.assert_array_equal(in_place, gradient)
        scaled = loss.grad(x, target, loss_scale=1024.0)
        np.testing.assert_array_equal(scaled, gradient * 1024)


@each
def test_copies_agree(cls: Any, arguments: Any) -> None:
    loss = made(cls, arguments, 10, np.float64)
    x, target = inputs(cls, (7, 10))
    for twin in copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)):
        assert repr(twin) == repr(loss)
        assert twin(x, target) == loss(x, target)


@each
@pytest.mark.parametrize("classes", [3, 70])
def test_nan_is_never_dropped(cls: Any, arguments: Any, classes: int) -> None:
    loss = made(cls, arguments, classes, np.float64)
    for bad in 0, 1, classes - 1:
        x = np.zeros((2, classes))
        x[1, bad] = np.nan
        value, gradient = loss.value_and_grad(x, np.array([1, 1]))
        # A likelihood only reads the score of its target.
        assert np.isnan(value) == (cls is not NLLLoss or bad == 1)
        assert np.isfinite(gradient[0]).all()
        assert np.isnan(gradient[1]).any() == (cls is not NLLLoss)


@pytest.mark.parametrize("cls", [NLLLoss, FocalLoss])
@pytest.mark.parametrize("classes", [3, 70])
def test_an_ignored_row_adds_nothing(cls: Any, classes: int) -> None:
    x, target = inputs(cls, (3, classes))
    x[1], target[1] = np.nan, -100
    value, gradient = cls().value_and_grad(x, target)
    assert value == pytest.approx(cls()(x[[0, 2]], target[[0, 2]]), rel=1e-14)
    assert not gradient[1].any()
    assert cls(reduction="none")(x, target)[1] == 0


@each
def test_nothing_counts(cls: Any, arguments: Any) -> None:
    loss = made(cls, arguments, 3, np.float64)
    ignore_index = getattr(loss, "ignore_index", None)
    for rows in (0, 2) if ignore_index is not None else (0,):
        target = np.full(rows, ignore_index or 0)
        value, gradient = loss.value_and_grad(np.ones((rows, 3)), target)
        assert np.isnan(value)
        np.testing.assert_array_equal(gradient, np.zeros((rows, 3)))


def test_a_weight_of_zero_removes_infinity() -> None:
    x, weight = np.array([[-np.inf, 0.0], [0.0, -1.0]]), np.array([0.0, 1.0])
    value, gradient = NLLLoss(weight).value_and_grad(x, np.array([0, 1]))
    assert value == 1
    np.testing.assert_array_equal(gradient, [[0, 0], [0, -1]])
    assert FocalLoss(alpha=weight, reduction="sum")(x[:1], np.array([0])) == 0
    x[0, 0] = np.nan
    assert np.isnan(NLLLoss(weight)(x, np.array([0, 1])))


def test_an_alpha_that_is_set_later_takes_effect() -> None:
    x, target = inputs(FocalLoss, (7, 10))
    loss = FocalLoss()
    value = loss(x, target)
    loss.alpha = 2
    assert loss(x, target) == pytest.approx(2 * value, rel=1e-15)
    with pytest.raises(TypeError, match="alpha"):
        loss.alpha = "2"  # type: ignore[assignment]
    assert loss(x, target) == pytest.approx(2 * value, rel=1e-15)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("classes", [3, 40, 65])
def test_multi_margin_at_its_kinks(p: int, classes: int) -> None:
    loss = MultiMarginLoss(p=p, margin=1.0)
    x = np.zeros((1, classes))
    x[0, 1] = 1.0
    value, gradient = loss.value_and_grad(x, np.array([1]))
    assert value == 0
    assert not gradient.any()
    x[0, 1] = -np.inf
    assert loss(x, np.array([1])) == np.inf
    x[0, 1] = np.inf
    assert loss(x, np.array([1])) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("classes", [2, 90])
def test_focal_is_finite_and_accurate_in_the_tails(gamma: float, classes: int, dtype: Any) -> None:
    exact = 1e-12 if dtype == np.float64 else 1e-5
    for lead in 0.0, 5.0, 12.0:
        x = np.zeros((1, classes), dtype)
        x[0, 0] = lead
        # Computed from the other classes, whose probabilities avoid the rounding of 1 - p.
        others = (classes - 1) * np.exp(-lead)
        rest, log = others / (1 + others), np.log1p(others)
        value, gradient = FocalLoss(gamma=gamma).value_and_grad(x, np.array([0]))
        assert value == pytest.approx(rest**gamma * log, rel=exact)
        slope = rest**gamma * (1 + gamma * log / others) * rest
        assert -gradient[0, 0] == pytest.approx(slope, rel=exact)
        np.testing.assert_allclose(gradient[0, 1:], slope / (classes - 1), rtol=exact)
    for lead in 300.0, 1e4, 1e30:
        for target in 0, 1:
            x[0, 0] = lead
            value, gradient = FocalLoss(gamma=gamma).value_and_grad(x, np.array([target]))
            assert value == pytest.approx(lead * target, rel=1e-5, abs=1e-38)
            assert np.isfinite(gradient).all()
            assert gradient[0, target] == pytest.approx(-target, abs=1e-38)


def test_focal_of_impossible_classes() -> None:
    x = np.array([[-np.inf, 0.0, 0.0]])
    value, gradient = FocalLoss().value_and_grad(x, np.array([1]))
    assert value == pytest.approx(0.25 * np.log(2))
    assert gradient[0, 0] == 0
    value, gradient = FocalLoss().value_and_grad(x, np.array([0]))
    assert value == np.inf
    np.testing.assert_allclose(gradient, [[-1, 0.5, 0.5]])


@each
def test_bad_classes_are_named_before_any_write(cls: Any, arguments: Any) -> None:
    loss = made(cls, arguments, 3, np.float64)
    x = np.ones((4, 3))
    for bad in 3, -1, 2**40:
        with pytest.raises(IndexError, match=rf"target\[2\] is {bad}"):
            loss.value_and_grad(x, np.array([0, 1, bad, -7]), out=x)
    np.testing.assert_array_equal(x, np.ones((4, 3)))


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), CrossEntropyLoss(label_smoothing=0.1)])
def test_too_many_rows_without_elements_are_refused(loss: Any) -> None:
    # Zero rows of many classes have a value, like zero rows of few.
    x = np.empty((0, 2**40), np.float32)
    value, gradient = loss.value_and_grad(x, np.empty(0, np.int64))
    assert np.isnan(value)
    assert gradient.shape == x.shape
    with pytest.raises(ValueError, match="1099511627776 rows of 0 elements are too many"):
        loss(x.T.copy(), x.T.copy())


def test_multi_margin_ignores_nothing() -> None:
    with pytest.raises(IndexError, match=r"target\[0\] is -100"):
        MultiMarginLoss()(np.ones((1, 3)), np.array([-100]))


X, Y = np.ones((4, 3), np.float32), np.array([0, 1, 2, 0])


@pytest.mark.parametrize("cls", [NLLLoss, MultiMarginLoss, FocalLoss])
@pytest.mark.parametrize(
    ("error", "x", "target", "out"),
    [
        (TypeError, X.astype(np.float16), Y, X),
        (TypeError, X, Y.astype(bool), None),
        (TypeError, X, Y.astype(np.float32), None),
        (TypeError, X, X, None),
        (TypeError, X, Y, X.astype(np.float64)),
        (TypeError, X, Y, (X.copy(),)),
        (ValueError, X[0], Y, None),
        (ValueError, X, Y[:3], None),
        (ValueError, X, Y[:, None], None),
        (ValueError, X.T, Y, None),
        (ValueError, X, Y, X[:2]),
    ],
)
def test_bad_arrays(cls: Any, error: Any, x: Any, target: Any, out: Any) -> None:
    with pytest.raises(error):
        cls().value_and_grad(x, target, out=out)


@pytest.mark.parametrize(
    ("error", "cls", "arguments"),
    [
        (ValueError, FocalLoss, {"gamma": -1.0}),
        (ValueError, FocalLoss, {"gamma": np.nan}),
        (ValueError, FocalLoss, {"gamma": np.inf}),
        (TypeError, FocalLoss, {"gamma": "2"}),
        (TypeError, FocalLoss, {"gamma": np.complex128(2)}),
        (ValueError, FocalLoss, {"gamma": 10**400}),
        (ValueError, FocalLoss, {"alpha": -0.1}),
        (TypeError, FocalLoss, {"alpha": [1.0, "1", 1.0]}),
        (ValueError, FocalLoss, {"alpha": [1.0, 1.0]}),
        (ValueError, FocalLoss, {"alpha": np.ones((3, 1), np.float32)}),
        (ValueError, FocalLoss, {"alpha": np.ones(4, np.float32)}),
        (TypeError, FocalLoss, {"alpha": np.ones(3)}),
        (ValueError, MultiMarginLoss, {"p": 3}),
        (ValueError, MultiMarginLoss, {"p": 1.5}),
        (ValueError, MultiMarginLoss, {"p": np.nan}),
        (TypeError, MultiMarginLoss, {"p": "1"}),
        (ValueError, MultiMarginLoss, {"margin": -1.0}),
        (ValueError, MultiMarginLoss, {"margin": np.nan}),
        (ValueError, MultiMarginLoss, {"margin": np.inf}),
        (ValueError, MultiMarginLoss, {"weight": np.ones(2, np.float32)}),
        (TypeError, MultiMarginLoss, {"average_classes": 1}),
        (TypeError, NLLLoss, {"ignore_index": 1.5}),
        (ValueError, NLLLoss, {"ignore_index": 2**63}),
        (ValueError, NLLLoss, {"weight": [1.0, 1.0]}),
        (ValueError, NLLLoss, {"weight": ()}),
        (ValueError, NLLLoss, {"reduction": "batchmean"}),
    ],
)
def test_bad_options(error: Any, cls: Any, arguments: Any) -> None:
    (name,) = arguments
    with pytest.raises(error, match=name):
        cls(**arguments)(X, Y)
