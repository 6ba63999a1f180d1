"""Losses with several gradients compared with NumPy in float64 and PyTorch, and edge cases."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import subclasses
from fastoptim import _core, losses
from fastoptim.losses import (
    ContrastiveLoss,
    CosineEmbeddingLoss,
    GaussianNLLLoss,
    TripletMarginLoss,
)
from fastoptim.losses._base import BuiltinLoss

SHAPES = [(1, 1), (3, 2), (9, 15), (5, 16), (70, 33), (40, 128)]
CASES: list[tuple[Any, dict[str, Any]]] = [
    (ContrastiveLoss, {}),
    (ContrastiveLoss, {"margin": 4.0}),
    (CosineEmbeddingLoss, {}),
    (CosineEmbeddingLoss, {"margin": 0.3}),
    (GaussianNLLLoss, {}),
    (GaussianNLLLoss, {"full": True, "eps": 0.5}),
    (TripletMarginLoss, {}),
    (TripletMarginLoss, {"margin": 0.5, "swap": True}),
    (TripletMarginLoss, {"squared": True}),
    (TripletMarginLoss, {"squared": True, "swap": True, "margin": 3.0}),
    (TripletMarginLoss, {"p": 1.0, "eps": 0.0}),
    (TripletMarginLoss, {"p": 3.0, "swap": True}),
    (TripletMarginLoss, {"p": 0.7, "eps": 0.01}),
    (TripletMarginLoss, {"p": math.inf}),
    (TripletMarginLoss, {"p": math.inf, "swap": True}),
]
each = pytest.mark.parametrize(("cls", "arguments"), CASES)
reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def inputs(cls: Any, shape: tuple[int, int], dtype: Any = np.float64) -> list[Any]:
    """Return arguments of a call."""
    rng = np.random.default_rng(shape)
    x = [rng.standard_normal(shape).astype(dtype) for _ in range(3)]
    if cls is ContrastiveLoss:
        x[2] = rng.integers(0, 2, shape[0])
    elif cls is CosineEmbeddingLoss:
        x[2] = rng.choice([-1, 1], shape[0])
    elif cls is GaussianNLLLoss:
        x[2] = rng.random(shape).astype(dtype)
    return x


def gradients(cls: Any) -> tuple[int, ...]:
    """Return the indices of the arguments with gradients."""
    if cls is GaussianNLLLoss:
        return (0, 2)
    return (0, 1, 2) if cls is TripletMarginLoss else (0, 1)


def reference(loss: Any, *inputs: Any) -> Any:
    """Return the values by the formula, in float64."""
    a, b, c = (x.astype(np.float64) for x in inputs)
    if isinstance(loss, GaussianNLLLoss):
        v = np.maximum(c, loss.eps)
        return 0.5 * (np.log(v) + (a - b) ** 2 / v) + loss.full * 0.5 * np.log(2 * np.pi)
    if isinstance(loss, ContrastiveLoss):
        d = np.sqrt(((a - b) ** 2).sum(1))
        return c / 2 * d**2 + (1 - c) / 2 * np.maximum(0, loss.margin - d) ** 2
    if isinstance(loss, CosineEmbeddingLoss):
        lengths = np.sqrt(((a**2).sum(1) + 1e-12) * ((b**2).sum(1) + 1e-12))
        cos = (a * b).sum(1) / lengths
        return np.where(c == 1, 1 - cos, np.maximum(0, cos - loss.margin))

    def distance(u: Any, v: Any) -> Any:
        if loss.squared:
            return ((u - v) ** 2).sum(1)
        d = np.abs(u - v + loss.eps)
        return d.max(1) if loss.p == math.inf else (d**loss.p).sum(1) ** (1 / loss.p)

    far = distance(a, c)
    if loss.swap:
        far = np.minimum(far, distance(b, c))
    return np.maximum(0, loss.margin + distance(a, b) - far)


def test_every_loss_of_several_gradients_has_a_case() -> None:
    x = np.ones((2, 3))

    def has_several_gradients(cls: type[BuiltinLoss]) -> bool:
        for third in x, x[:, 0].copy():
            try:
                return isinstance(cls().grad(x, x, third), tuple)
            except (TypeError, ValueError):
                continue
        return False

    found = {cls for cls in subclasses(losses, BuiltinLoss) if has_several_gradients(cls)}
    assert found == {cls for cls, _ in CASES}


@each
@reductions
def test_against_the_formula(cls: Any, arguments: Any, reduction: Any) -> None:
    loss = cls(**arguments, reduction=reduction)
    for shape in SHAPES:
        for dtype, tolerance in (np.float64, 1e-12), (np.float32, 1e-6):
            x = inputs(cls, shape, dtype)
            values = reference(loss, *x)
            expected = {"none": values, "sum": values.sum(), "mean": values.mean()}[reduction]
            value, found = loss.value_and_grad(*x)
            np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)
            assert isinstance(value, np.ndarray if reduction == "none" else float)
            assert [g.dtype for g in found] == [dtype] * len(gradients(cls))
            assert [g.shape for g in found] == [shape] * len(gradients(cls))


@each
def test_gradients_by_central_differences(cls: Any, arguments: Any) -> None:
    loss = cls(**arguments, reduction="sum")
    x = inputs(cls, (6, 5))
    if cls is GaussianNLLLoss:
        # Away from eps, which the gradients do not contain.
        x[2] += loss.eps
    h = 1e-6
    found = loss.grad(*x)
    for place, gradient in zip(gradients(cls), found, strict=True):
        for index in np.ndindex(gradient.shape):
            step = np.zeros_like(gradient)
            step[index] = h
            ahead, behind = list(x), list(x)
            ahead[place], behind[place] = x[place] + step, x[place] - step
            slope = (reference(loss, *ahead).sum() - reference(loss, *behind).sum()) / (2 * h)
            assert gradient[index] == pytest.approx(slope, rel=1e-5, abs=1e-7)


def triplet_of_torch(torch: Any, arguments: Any, reduction: str) -> Any:
    """Return PyTorch's loss, or FaceNet's form in PyTorch operations."""
    arguments = {"margin": 1.0, **arguments}
    if not arguments.pop("squared", False):
        return torch.nn.TripletMarginLoss(**arguments, reduction=reduction)

    def loss(a: Any, p: Any, n: Any) -> Any:
        far = ((a - n) ** 2).sum(1)
        if arguments.get("swap"):
            far = torch.minimum(far, ((p - n) ** 2).sum(1))
        values = torch.relu(arguments["margin"] + ((a - p) ** 2).sum(1) - far)
        return {"none": values, "sum": values.sum(), "mean": values.mean()}[reduction]

    return loss


# PyTorch has no contrastive loss.
@pytest.mark.parametrize(
    ("cls", "arguments"), [case for case in CASES if case[0] is not ContrastiveLoss]
)
@reductions
def test_against_pytorch(cls: Any, arguments: Any, reduction: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if cls is TripletMarginLoss:
        theirs = triplet_of_torch(torch, arguments, reduction)
    else:
        theirs = getattr(torch.nn, cls.__name__)(**arguments, reduction=reduction)
    loss = cls(**arguments, reduction=reduction)
    for shape in SHAPES:
        x = inputs(cls, shape)
        tensors = [torch.tensor(a, requires_grad=a.dtype == np.float64) for a in x]
        expected = theirs(*tensors)
        expected.sum().backward()
        value, found = loss.value_and_grad(*x)
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
        for place, gradient in zip(gradients(cls), found, strict=True):
            theirs_is = tensors[place].grad.numpy()
            np.testing.assert_allclose(gradient, theirs_is, rtol=1e-11, atol=1e-14)


@each
def test_calls_places_and_threads(cls: Any, arguments: Any) -> None:
    loss = cls(**arguments)
    for shape in (100_000, 3), (2000, 150):
        x = inputs(cls, shape, np.float32)
        value, found = loss.value_and_grad(*x)
        assert loss(*x) == value
        for threads in 1, 2, 3:
            out = tuple(np.full(shape, np.nan, np.float32) for _ in found)
            with fo.num_threads(threads):
                again, places = loss.value_and_grad(*x, out=out)
            assert again == value
            for place, mine, gradient in zip(places, out, found, strict=True):
                assert place is mine
                np.testing.assert_array_equal(place, gradient)
        for scaled, gradient in zip(loss.grad(*x, loss_scale=256.0), found, strict=True):
            np.testing.assert_array_equal(scaled, gradient * 256)
    for twin in copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)):
        assert repr(twin) == repr(loss)
        assert twin(*x) == value


@each
def test_nan_is_never_dropped(cls: Any, arguments: Any) -> None:
    for place in gradients(cls):
        x = inputs(cls, (2, 20))
        x[place][1, 7] = np.nan
        values, found = cls(**arguments, reduction="none").value_and_grad(*x)
        assert np.isfinite(values[0]).all()
        assert np.isnan(values[1]).any()
        for gradient in found:
            assert np.isfinite(gradient[0]).all()
            assert np.isnan(gradient[1]).any()


@each
def test_an_empty_batch(cls: Any, arguments: Any) -> None:
    x = inputs(cls, (0, 5))
    value, found = cls(**arguments).value_and_grad(*x)
    assert np.isnan(value)
    assert all(gradient.shape == (0, 5) for gradient in found)
    assert cls(**arguments, reduction="sum")(*x) == 0


def test_too_many_rows_without_elements_are_refused() -> None:
    x = np.empty((2**40, 0), np.float32)
    with pytest.raises(ValueError, match="1099511627776 rows of 0 elements are too many"):
        TripletMarginLoss()(x, x, x)


class Class:
    """An index that empties a dictionary when it is read."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments

    def __index__(self) -> int:
        self.arguments.clear()
        self.arguments["reduction"] = "sum"
        return -100


def test_weights_are_held_until_the_call_ends() -> None:
    # Large enough that the memory is unmapped as soon as it is freed.
    classes = 2**21
    arguments: dict[str, Any] = {"weight": np.full(classes, 0.5)}
    arguments["ignore_index"] = Class(arguments)
    x = np.zeros((1, classes))
    x[0, 1] = -3.0
    value, _ = _core.compute_loss("nll", arguments, (x, np.array([1])), None, 1.0, False)
    assert value == 1.5
    assert set(arguments) == {"reduction"}


def test_arguments_are_found_by_name() -> None:
    x = np.zeros(3)
    call = (x, x), None, 1.0, False
    assert _core.compute_loss("mse", {"reduction": "sum", "more": 1}, *call) == (0.0, None)
    with pytest.raises(ValueError, match="unknown loss"):
        _core.compute_loss("square", {"reduction": "sum"}, *call)
    with pytest.raises(ValueError, match="huber lacks the argument delta"):
        _core.compute_loss("huber", {"reduction": "sum"}, *call)
    with pytest.raises(ValueError, match="delta must be finite and > 0, got -1"):
        _core.compute_loss("huber", {"reduction": "sum", "delta": -1}, *call)
    with pytest.raises(TypeError, match="expected input, target, got 1 arguments"):
        _core.compute_loss("mse", {"reduction": "sum"}, (x,), None, 1.0, False)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"p": 1.0}, {"p": 3.0}, {"p": 0.5}, {"p": math.inf}, {"squared": True}, {"swap": True}],
)
def test_triplets_at_distance_zero(arguments: Any) -> None:
    a = np.ones((2, 3))
    n = a.copy()
    n[1, 0] = 1.25
    loss: Any = TripletMarginLoss(**arguments, eps=0.0, reduction="none")
    values, found = loss.value_and_grad(a, a.copy(), n)
    assert values[0] == 1
    for gradient in found:
        assert np.isfinite(gradient).all()
        assert not gradient[0].any()
    assert found[2][1, 0] < 0


def test_a_triplet_at_its_kink_has_no_gradient() -> None:
    a, p, n = np.zeros((1, 1)), np.full((1, 1), 1.0), np.full((1, 1), 2.0)
    value, found = TripletMarginLoss(margin=1.0, eps=0.0).value_and_grad(a, p, n)
    assert value == 0
    assert not np.any(found)


def test_swap_takes_the_shorter_way_and_shares_equal_ones() -> None:
    loss: Any = TripletMarginLoss(margin=5.0, eps=0.0, swap=True)
    a, p, n = np.array([[0.0]]), np.array([[3.0]]), np.array([[4.0]])
    value, (by_a, by_p, by_n) = loss.value_and_grad(a, p, n)
    assert value == 5 + 3 - 1
    assert (by_a, by_p, by_n) == (-1, 2, -1)
    # The distance from (0, 3) and from (0, -3) to (4, 0) is 5.
    a, p, n = np.array([[0.0, 3.0]]), np.array([[0.0, -3.0]]), np.array([[4.0, 0.0]])
    value, found = loss.value_and_grad(a, p, n)
    assert value == 5 + 6 - 5
    np.testing.assert_allclose(found[0], [[0.4, 1 - 0.3]])
    np.testing.assert_allclose(found[1], [[0.4, -1 + 0.3]])
    np.testing.assert_allclose(found[2], [[-0.8, 0.0]], atol=1e-16)


def test_what_does_not_count_is_not_multiplied_by_infinity() -> None:
    far, origin = np.full((1, 3), 1e200), np.zeros((1, 3))
    value, found = ContrastiveLoss().value_and_grad(far, origin, np.array([0]))
    assert value == 0
    assert not np.any(found)


def test_short_vectors_have_the_cosine_of_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = [
        scale * a
        for scale, a in zip((1e-5, 2e-6), inputs(TripletMarginLoss, (20, 2)), strict=False)
    ]
    tensors = [torch.tensor(a, requires_grad=True) for a in x]
    target = np.ones(20, np.int64)
    expected = torch.nn.CosineEmbeddingLoss()(*tensors, torch.tensor(target))
    expected.backward()
    value, found = CosineEmbeddingLoss().value_and_grad(x[0], x[1], target)
    assert value == pytest.approx(expected.item(), rel=1e-12)
    for gradient, tensor in zip(found, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-11)


def test_equally_large_differences_share_the_slope() -> None:
    a, p, n = np.zeros((1, 4)), np.array([[2.0, -2.0, 1.0, 0.0]]), np.zeros((1, 4))
    _, (by_a, by_p, by_n) = TripletMarginLoss(p=math.inf, eps=0.0).value_and_grad(a, p, n)
    np.testing.assert_array_equal(by_a, [[-0.5, 0.5, 0, 0]])
    np.testing.assert_array_equal(by_p, [[0.5, -0.5, 0, 0]])
    assert not by_n.any()


def test_pairs_at_distance_zero_and_at_the_margin() -> None:
    x = np.ones((2, 3))
    values, found = ContrastiveLoss(reduction="none").value_and_grad(x, x.copy(), np.array([0, 1]))
    np.testing.assert_array_equal(values, [0.5, 0])
    assert not np.any(found)
    far = x + np.array([1.0, 0.0, 0.0])
    value, found = ContrastiveLoss().value_and_grad(x, far, np.array([0, 0]))
    assert value == 0
    assert not np.any(found)


def test_cosines_of_nothing_at_the_margin_and_without_a_target() -> None:
    zero, x = np.zeros((1, 3)), np.array([[0.0, 3.0, 4.0]])
    value, found = CosineEmbeddingLoss().value_and_grad(zero, x, np.array([1]))
    assert value == 1
    assert np.isfinite(found).all()
    right = np.array([[5.0, 0.0, 0.0]])
    value, found = CosineEmbeddingLoss().value_and_grad(right, x, np.array([-1]))
    assert value == 0
    assert not np.any(found)
    value, found = CosineEmbeddingLoss().value_and_grad(x, x.copy(), np.array([0]))
    assert value == 0
    assert not np.any(found)


def test_variances_at_and_below_eps() -> None:
    x, y = np.array([1.0, 1.0]), np.array([0.0, 1.0])
    loss = GaussianNLLLoss(eps=0.25, reduction="none")
    values, (by_x, by_v) = loss.value_and_grad(x, y, np.array([0.0, -0.0]))
    np.testing.assert_allclose(values, 0.5 * np.log(0.25) + np.array([2, 0]))
    np.testing.assert_array_equal(by_x, [4, 0])
    np.testing.assert_array_equal(by_v, [2 * (1 - 4), 2])
    out = (np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match=r"var must be >= 0, but its element 1 is -0\.5"):
        loss.value_and_grad(x, y, np.array([1.0, -0.5]), out=out)
    np.testing.assert_array_equal(out, np.ones((2, 2)))


def test_zero_dimensional() -> None:
    value, (by_x, by_v) = GaussianNLLLoss().value_and_grad(*map(np.array, (3.0, 1.0, 1.0)))
    assert (value, by_x.item(), by_v.item()) == (2, 2, -1.5)
    assert by_x.shape == ()


A = np.ones((4, 3), np.float32)
MEMORY = np.zeros(60, np.float32)
TWO = (A.copy(), A.copy())


@pytest.mark.parametrize("cls", [ContrastiveLoss, CosineEmbeddingLoss])
@pytest.mark.parametrize(
    ("error", "x1", "x2", "target", "out"),
    [
        (TypeError, A, A.astype(np.float64), np.ones(4, int), None),
        (TypeError, A.astype(np.float16), A, np.ones(4, int), None),
        (TypeError, A, A, np.ones(4), None),
        (TypeError, A, A, np.ones(4, bool), None),
        (TypeError, A, A, np.ones(4, np.float16), None),
        (TypeError, A, A, [1, 1, 1, 1], None),
        (TypeError, A, A, np.ones(4, int), A.copy()),
        (TypeError, A, A, np.ones(4, int), list(TWO)),
        (TypeError, A, A, np.ones(4, int), (A.copy(), A.astype(np.float64))),
        (ValueError, A, A[:3], np.ones(4, int), None),
        (ValueError, A[0], A[0], np.ones(4, int), None),
        (ValueError, A, A, np.ones(3, int), None),
        (ValueError, A, A, np.ones((4, 1), int), None),
        (ValueError, A, A[:, ::-1], np.ones(4, int), None),
        (ValueError, A, A, np.ones(4, int), (A.copy(),)),
        (ValueError, A, A, np.ones(4, int), (*TWO, A.copy())),
        (ValueError, A, A, np.ones(4, int), (A.copy(), A[:3].copy())),
        (ValueError, A, A, np.ones(4, int), (TWO[0], TWO[0])),
        (ValueError, TWO[0], TWO[1], np.ones(4, int), TWO),
        (
            ValueError,
            A,
            A,
            np.ones(4, int),
            (MEMORY[:12].reshape(4, 3), MEMORY[11:23].reshape(4, 3)),
        ),
        (ValueError, A, A, MEMORY[:4], (MEMORY[:12].reshape(4, 3), TWO[0])),
        (ValueError, A, A, np.ones(4, int), (TWO[0], np.broadcast_to(np.float32(0), (4, 3)))),
    ],
)
def test_bad_arrays(cls: Any, error: Any, x1: Any, x2: Any, target: Any, out: Any) -> None:
    before = [x.tobytes() for x in out] if isinstance(out, tuple) else None
    with pytest.raises(error):
        cls().value_and_grad(x1, x2, target, out=out)
    assert before is None or [x.tobytes() for x in out] == before


def test_names_in_messages() -> None:
    with pytest.raises(ValueError, match="negative must have shape"):
        TripletMarginLoss()(A, A, A[:3])
    with pytest.raises(ValueError, match="same must have shape"):
        ContrastiveLoss()(A, A, np.ones(3, int))
    with pytest.raises(ValueError, match="var must have shape"):
        GaussianNLLLoss()(A, A, A[:3])
    with pytest.raises(TypeError, match="'negative'"):
        TripletMarginLoss()(A, A)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'var'"):
        GaussianNLLLoss()(A, A)  # type: ignore[call-arg]
    # Arguments that are only read may be the same array.
    assert TripletMarginLoss(eps=0.0)(A, A, A) == 1


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
@each
def test_bad_loss_scale(cls: Any, arguments: Any, scale: float) -> None:
    x = inputs(cls, (4, 3))
    with pytest.raises(ValueError, match="loss_scale"):
        cls(**arguments).grad(*x, loss_scale=scale)


@pytest.mark.parametrize(
    ("error", "cls", "arguments"),
    [
        (ValueError, ContrastiveLoss, {"margin": -1.0}),
        (ValueError, ContrastiveLoss, {"margin": np.nan}),
        (ValueError, ContrastiveLoss, {"reduction": "average"}),
        (ValueError, CosineEmbeddingLoss, {"margin": -1.1}),
        (ValueError, CosineEmbeddingLoss, {"margin": 1.1}),
        (ValueError, CosineEmbeddingLoss, {"margin": np.nan}),
        (ValueError, GaussianNLLLoss, {"eps": 0.0}),
        (ValueError, GaussianNLLLoss, {"eps": np.nan}),
        (TypeError, GaussianNLLLoss, {"full": 1}),
        (ValueError, TripletMarginLoss, {"margin": 0.0}),
        (ValueError, TripletMarginLoss, {"margin": np.inf}),
        (ValueError, TripletMarginLoss, {"margin": np.nan}),
        (ValueError, TripletMarginLoss, {"p": 0.0}),
        (ValueError, TripletMarginLoss, {"p": -math.inf}),
        (ValueError, TripletMarginLoss, {"p": np.nan}),
        (TypeError, TripletMarginLoss, {"p": "2"}),
        (ValueError, TripletMarginLoss, {"eps": -1e-6}),
        (TypeError, TripletMarginLoss, {"swap": 1}),
        (TypeError, TripletMarginLoss, {"margin": True}),
    ],
)
def test_bad_options(error: Any, cls: Any, arguments: Any) -> None:
    (name,) = arguments
    with pytest.raises(error, match=name):
        cls(**arguments)
    with pytest.raises(ValueError, match="squared"):
        TripletMarginLoss(p=1.0, squared=True)
