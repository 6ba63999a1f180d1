"""The losses compared with NumPy in float64, PyTorch, and central differences."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastoptim as fo
from cases import subclasses
from fastoptim.losses import CrossEntropyLoss, Loss, MSELoss

LOSSES = [MSELoss(), CrossEntropyLoss(), CrossEntropyLoss(label_smoothing=0.2)]
SHAPES = [(1, 1), (3, 2), (33, 10), (4, 48), (4, 49), (5, 130), (2, 1500)]


def cases(loss, shape, dtype, seed=0):
    """Return inputs and targets for the loss."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(dtype)
    yield x, rng.dirichlet(np.ones(shape[1]), shape[0]).astype(dtype)
    if isinstance(loss, CrossEntropyLoss):
        yield x, rng.integers(0, shape[1], shape[0])
        yield x, rng.integers(0, shape[1], shape[0], dtype=np.int32)


def reference(loss, x, target):
    """Return the value of each item, its gradient, and the divisor of the mean, in float64."""
    x = x.astype(np.float64)
    if isinstance(loss, MSELoss):
        d = x - target.astype(np.float64)
        return d**2, 2 * d, d.size
    rows, classes = x.shape
    weight = np.ones(classes) if loss.weight is None else loss.weight.astype(np.float64)
    if target.ndim == 1:
        counts = target != loss.ignore_index
        known = np.where(counts, target, 0)
        y = np.eye(classes)[known] * counts[:, None]
        count = (weight[known] * counts).sum()
    else:
        counts, y, count = np.ones(rows, bool), target.astype(np.float64), rows
    e = loss.label_smoothing
    q = weight * ((1 - e) * y + e / classes) * counts[:, None]
    log_p = x - x.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    mass = q.sum(1, keepdims=True)
    return -(q * log_p).sum(1), mass * np.exp(log_p) - q, count


def tolerance(dtype):
    return {"rtol": 1e-12, "atol": 1e-14} if dtype == np.float64 else {"rtol": 3e-6, "atol": 3e-7}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_agrees_with_numpy(loss, reduction, dtype):
    loss = copy.copy(loss)
    loss.reduction = reduction
    for shape in SHAPES:
        for x, target in cases(loss, shape, dtype):
            values, gradient, count = reference(loss, x, target)
            if reduction == "mean":
                gradient = gradient / count
            expected = {"none": values, "sum": values.sum(), "mean": values.sum() / count}
            value, found = loss.value_and_grad(x, target)
            np.testing.assert_allclose(value, expected[reduction], **tolerance(dtype))
            np.testing.assert_allclose(found, gradient, **tolerance(dtype))
            assert found.dtype == dtype
            assert isinstance(value, np.ndarray if reduction == "none" else float)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_every_call_gives_the_same(loss):
    for shape in SHAPES:
        for x, target in cases(loss, shape, np.float32):
            value, gradient = loss.value_and_grad(x, target)
            assert loss(x, target) == value
            np.testing.assert_array_equal(loss.grad(x, target), gradient)
            out = np.full_like(x, np.nan)
            assert loss.grad(x, target, out=out) is out
            np.testing.assert_array_equal(out, gradient)
            in_place = x.copy()
            assert loss.value_and_grad(in_place, target, out=in_place)[0] == value
            np.testing.assert_array_equal(in_place, gradient)
            scaled = loss.grad(x, target, loss_scale=1024.0)
            np.testing.assert_array_equal(scaled, gradient * 1024)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_gradient_by_central_differences(loss):
    for x, target in cases(loss, (3, 5), np.float64):
        gradient, eps = loss.grad(x, target), 1e-5
        for index in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[index] = eps
            slope = (loss(x + step, target) - loss(x - step, target)) / (2 * eps)
            assert slope == pytest.approx(gradient[index], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(17, 10), (5, 100)])
def test_cross_entropy_is_pytorchs(shape, weighted, smoothing, reduction):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    weight = rng.random(shape[1]) + 0.1 if weighted else None
    loss = CrossEntropyLoss(weight, ignore_index=3, label_smoothing=smoothing, reduction=reduction)
    for x, target in cases(loss, shape, np.float64):
        # PyTorch refuses `ignore_index` with probabilities; here it has no effect.
        theirs = torch.nn.CrossEntropyLoss(
            None if weight is None else torch.tensor(weight),
            ignore_index=3 if target.ndim == 1 else -100,
            reduction=reduction,
            label_smoothing=smoothing,
        )
        inputs = torch.tensor(x, requires_grad=True)
        expected = theirs(inputs, torch.tensor(target.astype("i8") if target.ndim == 1 else target))
        expected.sum().backward()
        value, gradient = loss.value_and_grad(x, target)
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12)
        np.testing.assert_allclose(gradient, inputs.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_squared_error_is_pytorchs():
    torch = pytest.importorskip("torch")
    x, target = np.random.default_rng(0).standard_normal((2, 999))
    inputs = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.mse_loss(inputs, torch.tensor(target))
    expected.backward()
    value, gradient = MSELoss().value_and_grad(x, target)
    assert value == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, inputs.grad.numpy(), rtol=1e-12)


@given(
    rows=st.integers(0, 40),
    classes=st.integers(1, 140),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_any_shape(rows, classes, seed, scale, smoothing):
    rng = np.random.default_rng(seed)
    x = scale * rng.standard_normal((rows, classes))
    target = rng.integers(-1, classes, rows)
    loss = CrossEntropyLoss(
        weight=rng.random(classes), ignore_index=-1, label_smoothing=smoothing, reduction="sum"
    )
    values, gradient, _ = reference(loss, x, target) if rows else (np.zeros(0), x, 0)
    value, found = loss.value_and_grad(x, target)
    np.testing.assert_allclose(value, values.sum(), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found, gradient, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 60])
def test_confident_rows_keep_relative_accuracy(classes):
    x = np.full((1, classes), -40.0, np.float32)
    x[0, 1] = 20.0
    others = (classes - 1) * np.exp(-60.0)
    for target in np.array([1]), np.eye(classes, dtype=np.float32)[[1]]:
        value, gradient = CrossEntropyLoss().value_and_grad(x, target)
        assert value == pytest.approx(others, rel=1e-5)
        assert gradient[0, 1] == pytest.approx(-others, rel=1e-5)


@pytest.mark.parametrize("classes", [3, 60])
class TestInfinities:
    def logits(self, classes, *first):
        x = np.zeros((1, classes))
        x[0, : len(first)] = first
        return x

    def test_minus_infinity_is_probability_zero(self, classes):
        value, gradient = CrossEntropyLoss().value_and_grad(
            self.logits(classes, -np.inf), np.array([1])
        )
        assert value == pytest.approx(np.log(classes - 1))
        assert gradient[0, 0] == 0
        np.testing.assert_allclose(gradient.sum(), 0, atol=1e-15)

    def test_a_target_of_probability_zero_is_infinite(self, classes):
        x = self.logits(classes, -np.inf)
        value, gradient = CrossEntropyLoss().value_and_grad(x, np.array([0]))
        assert value == np.inf
        assert gradient[0, 0] == -1
        smoothed = CrossEntropyLoss(label_smoothing=0.1)
        assert smoothed(x, np.array([1])) == np.inf

    def test_zero_times_infinity_adds_nothing(self, classes):
        x, hot = self.logits(classes, -np.inf), np.eye(classes)[[1]]
        assert CrossEntropyLoss()(x, hot) == pytest.approx(np.log(classes - 1))
        weight = np.ones(classes)
        weight[0] = 0
        smoothed = CrossEntropyLoss(weight, label_smoothing=0.1)
        assert np.isfinite(smoothed(x, np.array([1])))

    @pytest.mark.parametrize("bad", [np.inf, np.nan])
    def test_nothing_hides(self, classes, bad):
        for target in np.array([0]), np.array([1]), np.eye(classes)[[1]]:
            value, gradient = CrossEntropyLoss().value_and_grad(self.logits(classes, bad), target)
            assert np.isnan(value)
            assert np.isnan(gradient).any()

    def test_a_row_of_minus_infinities_is_nan(self, classes):
        assert np.isnan(CrossEntropyLoss()(np.full((1, classes), -np.inf), np.array([0])))

    def test_an_ignored_row_adds_nothing(self, classes):
        x = np.zeros((2, classes))
        x[0] = np.nan
        value, gradient = CrossEntropyLoss(ignore_index=1).value_and_grad(x, np.array([1, 0]))
        assert value == pytest.approx(np.log(classes))
        assert not gradient[0].any()


def test_nothing_counts():
    value, gradient = CrossEntropyLoss().value_and_grad(np.ones((2, 3)), np.array([-100, -100]))
    assert np.isnan(value)
    assert not gradient.any()
    # A class of weight 0 with label smoothing: the contribution of its row is divided by 0.
    smoothed = CrossEntropyLoss(np.array([0.0, 1.0, 1.0]), label_smoothing=0.1)
    value, gradient = smoothed.value_and_grad(np.ones((1, 3)), np.array([0]))
    assert np.isnan(value)
    assert not gradient.any()
    for loss, target in (CrossEntropyLoss(), np.zeros(0, int)), (MSELoss(), np.zeros((0, 3))):
        value, gradient = loss.value_and_grad(np.zeros((0, 3)), target)
        assert np.isnan(value)
        assert gradient.shape == (0, 3)


def test_label_smoothing_conventions():
    x, target = np.zeros((1, 5)), np.array([2])
    gradient = CrossEntropyLoss(label_smoothing=0.1).grad(x, target)
    np.testing.assert_allclose(0.2 - gradient[0], [0.02, 0.02, 0.92, 0.02, 0.02])
    # The other convention: 0.1 / 4 for other classes.
    gradient = CrossEntropyLoss(label_smoothing=0.1 * 5 / 4).grad(x, target)
    np.testing.assert_allclose(0.2 - gradient[0], [0.025, 0.025, 0.9, 0.025, 0.025])


def test_zero_dimensional():
    value, gradient = MSELoss().value_and_grad(np.array(3.0), np.array(1.0))
    assert value == 4
    assert gradient.shape == ()
    assert gradient == 4


X = np.ones((4, 3), np.float32)
Y = np.array([0, 1, 2, 0])
MEMORY = np.zeros(40, np.float32)


class Subclass(np.ndarray):
    pass


@pytest.mark.parametrize(
    ("error", "x", "target", "out"),
    [
        (TypeError, X.tolist(), Y, None),
        (TypeError, X.astype(np.float16), X.astype(np.float64), None),
        (TypeError, X.astype(int), Y, None),
        (TypeError, X.astype(object), Y, None),
        (TypeError, X.astype(">f4"), Y, None),
        (TypeError, X.view(Subclass), Y, None),
        (TypeError, X, Y.tolist(), None),
        (TypeError, X, Y.astype(bool), None),
        (TypeError, X, Y.astype(">i8"), None),
        (TypeError, X.astype(np.float16), Y, X),
        (TypeError, X, X.astype(np.float64), None),
        (TypeError, X, Y, X.astype(np.float64)),
        (TypeError, X, Y, Y),
        (ValueError, X[0], Y, None),
        (ValueError, X, 1, None),
        (ValueError, X[None], Y, None),
        (ValueError, X[0, 0, ...], Y, None),
        (ValueError, X, Y[:3], None),
        (ValueError, X, Y[:, None], None),
        (ValueError, X, X[:3], None),
        (ValueError, np.asfortranarray(X), Y, None),
        (ValueError, X[::-1], Y, None),
        (ValueError, X, Y[::-1], None),
        (ValueError, X, Y, np.empty((3, 4), np.float32)),
        (ValueError, X, Y, np.broadcast_to(np.float32(0), (4, 3))),
        (ValueError, MEMORY[:12].reshape(4, 3), Y, MEMORY[1:13].reshape(4, 3)),
        (
            ValueError,
            MEMORY[:12].reshape(4, 3),
            MEMORY[12:24].reshape(4, 3),
            MEMORY[12:24].reshape(4, 3),
        ),
        (IndexError, X, np.array([0, 3, 2, 0]), None),
        (IndexError, X, np.array([0, 1, -1, 0]), None),
        (IndexError, X, np.array([0, 1, 2**40, 0]), None),
    ],
)
def test_bad_arrays(error, x, target, out):
    before = None if out is None else out.tobytes()
    with pytest.raises(error):
        CrossEntropyLoss().value_and_grad(x, target, out=out)
    assert out is None or out.tobytes() == before


def test_the_first_bad_row_is_named_before_any_write():
    x = X.copy()
    with pytest.raises(IndexError, match=r"target\[1\] is 3"):
        CrossEntropyLoss().value_and_grad(x, np.array([0, 3, -1, 0]), out=x)
    np.testing.assert_array_equal(x, X)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_read_only(loss):
    for x, target in cases(loss, (4, 3), np.float32):
        x.flags.writeable = target.flags.writeable = False
        loss.value_and_grad(x, target)
        with pytest.raises(ValueError, match="read-only"):
            loss.value_and_grad(x, target, out=x)


def test_nothing_is_broadcast():
    with pytest.raises(ValueError, match="broadcast"):
        MSELoss()(np.ones((4, 1)), np.ones(4))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_bad_loss_scale(loss, scale):
    for x, target in cases(loss, (4, 3), np.float32):
        with pytest.raises(ValueError, match="loss_scale"):
            loss.grad(x, target, loss_scale=scale)


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ValueError, {"reduction": "average"}),
        (TypeError, {"reduction": None}),
        (ValueError, {"label_smoothing": -0.1}),
        (ValueError, {"label_smoothing": 1.1}),
        (ValueError, {"label_smoothing": np.nan}),
        (TypeError, {"label_smoothing": "some"}),
        (TypeError, {"label_smoothing": np.array(0.1)}),
        (TypeError, {"weight": ["1", "2", "3"]}),
        (TypeError, {"weight": [1.0, None, 3.0]}),
        (ValueError, {"weight": [1.0, 2.0]}),
        (ValueError, {"weight": [[1.0, 2.0, 3.0]]}),
        (ValueError, {"weight": np.ones((3, 1), np.float32)}),
        (ValueError, {"weight": np.ones(4, np.float32)}),
        (TypeError, {"weight": np.ones(3)}),
        (TypeError, {"ignore_index": 1.5}),
    ],
)
def test_bad_options(error, arguments):
    with pytest.raises(error):
        CrossEntropyLoss(**arguments)(X, Y)


@pytest.mark.parametrize("cls", subclasses(fo.losses, Loss), ids=lambda cls: cls.__name__)
def test_attributes_are_checked_as_in_the_constructor(cls):
    loss = cls()
    for name, value in vars(cls()).items():
        setattr(loss, name, value)
        for bad in math.nan, -1.5, object():
            with pytest.raises((TypeError, ValueError), match=name):
                setattr(loss, name, bad)
        assert getattr(loss, name) == value


def test_losses_are_plain_objects():
    for loss in LOSSES:
        assert isinstance(loss, Loss)
        assert repr(pickle.loads(pickle.dumps(loss))) == repr(loss)
        with pytest.raises(TypeError, match="target"):
            loss(X)
    with pytest.raises(TypeError, match="abstract"):
        Loss()  # type: ignore[abstract]


def test_threads_do_not_change_a_bit():
    rng = np.random.default_rng(0)
    for shape in (3000, 1000), (100_000, 10):
        x = rng.standard_normal(shape, dtype=np.float32)
        target = rng.integers(0, shape[1], shape[0])
        found = []
        for n in 1, 2, 3:
            with fo.num_threads(n):
                value, gradient = CrossEntropyLoss().value_and_grad(x, target)
            found.append((value, gradient.tobytes()))
        assert found[0] == found[1] == found[2]
