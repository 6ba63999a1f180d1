"""A single row, classes on the second of several axes, and broadcast arguments."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import losses

RNG = np.random.default_rng(0)
STATE = RNG.bit_generator.state
WEIGHT = [0.5, 1.0, 2.0, 0.25]
OF_CLASSES: list[Any] = [
    losses.CrossEntropyLoss(),
    losses.CrossEntropyLoss(WEIGHT, ignore_index=1, label_smoothing=0.1),
    losses.NLLLoss(WEIGHT, ignore_index=1),
    losses.FocalLoss(alpha=WEIGHT, ignore_index=1),
    losses.MultiMarginLoss(p=2, weight=WEIGHT),
]
each = pytest.mark.parametrize("loss", OF_CLASSES, ids=repr)
SHAPES = [(2, 4, 3), (1, 4, 1), (3, 4, 5, 7), (2, 4, 1, 1), (2, 4, 90, 80), (0, 4, 3), (2, 4, 0)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    RNG.bit_generator.state = STATE


def as_rows(x: Any) -> Any:
    """Return an array with classes on the second axis as rows."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(-1, x.shape[1])


def as_columns(rows: Any, shape: tuple[int, ...]) -> Any:
    moved = rows.reshape(shape[0], *shape[2:], shape[1])
    return np.moveaxis(moved, -1, 1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@each
def test_classes_on_the_second_axis_are_rows(loss: Any, reduction: Any) -> None:
    loss.reduction = reduction
    for shape, dtype in itertools.product(SHAPES, ["f4", "f8", "f2"]):
        x = RNG.standard_normal(shape).astype(dtype)
        target = RNG.integers(0, 4, (shape[0], *shape[2:]), np.uint8)
        value, gradient = loss.value_and_grad(x, target)
        expected, slopes = loss.value_and_grad(as_rows(x), target.ravel())
        np.testing.assert_array_equal(value, np.reshape(expected, np.shape(value)))
        assert np.shape(value) == (target.shape if reduction == "none" else ())
        np.testing.assert_array_equal(gradient, as_columns(slopes, shape))
        assert gradient.flags.c_contiguous
        in_place = x.copy()
        loss.value_and_grad(in_place, target, out=in_place)
        np.testing.assert_array_equal(in_place, gradient)
    loss.reduction = "mean"


@pytest.mark.parametrize("classes", [1, 2, 100, 1000, 5000])
def test_any_number_of_classes_and_positions(classes: int) -> None:
    for positions in (1, 2), (33,), (7, 19):
        shape = (2, classes, *positions)
        x = RNG.standard_normal(shape).astype("f4")
        target = RNG.integers(0, classes, (2, *positions))
        value, gradient = losses.CrossEntropyLoss().value_and_grad(x, target)
        expected, slopes = losses.CrossEntropyLoss().value_and_grad(as_rows(x), target.ravel())
        assert value == expected
        np.testing.assert_array_equal(gradient, as_columns(slopes, shape))


def test_probabilities_on_the_second_axis() -> None:
    shape = (3, 4, 5, 6)
    x, y = RNG.standard_normal(shape), np.moveaxis(RNG.dirichlet(np.ones(4), (3, 5, 6)), -1, 1)
    loss = losses.CrossEntropyLoss(WEIGHT, label_smoothing=0.2)
    value, gradient = loss.value_and_grad(x, np.ascontiguousarray(y))
    expected, slopes = loss.value_and_grad(as_rows(x), as_rows(y))
    assert value == expected
    np.testing.assert_array_equal(gradient, as_columns(slopes, shape))
    with pytest.raises(ValueError, match="target must have shape"):
        loss(x, as_rows(y))


def oracle(x: Any, target: Any) -> Any:
    """Return the mean cross-entropy and its gradient over axis 1, in float64."""
    shifted = x - x.max(1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    hot = np.moveaxis(np.eye(x.shape[1])[target], -1, 1)
    return -(hot * np.log(p)).sum() / target.size, (p - hot) / target.size


def test_against_the_formula() -> None:
    x, target = RNG.standard_normal((3, 5, 4, 6)), RNG.integers(0, 5, (3, 4, 6))
    for found, expected in zip(
        losses.CrossEntropyLoss().value_and_grad(x, target), oracle(x, target), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(4,), (3, 4, 5), (2, 4, 3, 6)])
def test_against_pytorch(shape: tuple[int, ...], reduction: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = RNG.standard_normal(shape)
    outer = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    target = RNG.integers(0, 4, outer)
    weight = np.array(WEIGHT)
    for name, arguments in ("CrossEntropyLoss", {"label_smoothing": 0.1}), ("NLLLoss", {}):
        theirs = getattr(torch.nn, name)(torch.tensor(weight), reduction=reduction, **arguments)
        tensor = torch.tensor(x, requires_grad=True)
        expected = theirs(tensor, torch.tensor(target))
        expected.sum().backward()
        loss = getattr(losses, name)(WEIGHT, reduction=reduction, **arguments)
        value, gradient = loss.value_and_grad(x, np.asarray(target, np.uint8))
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12)
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(4,), (3, 4, 5), (2, 4, 3, 6)])
def test_probabilities_are_pytorchs(shape: tuple[int, ...], reduction: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, y = RNG.standard_normal(shape), RNG.uniform(0, 1, shape)
    theirs = torch.nn.CrossEntropyLoss(
        torch.tensor(WEIGHT, dtype=torch.float64), reduction=reduction, label_smoothing=0.1
    )
    tensor = torch.tensor(x, requires_grad=True)
    expected = theirs(tensor, torch.tensor(y))
    expected.sum().backward()
    loss = losses.CrossEntropyLoss(WEIGHT, reduction=reduction, label_smoothing=0.1)
    value, gradient = loss.value_and_grad(x, y)
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-11, atol=1e-15)


@each
def test_a_single_row(loss: Any) -> None:
    x = RNG.standard_normal(4)
    value, gradient = loss.value_and_grad(x[None], np.array([2]))
    for target in 2, np.array(2), np.array(2, np.uint8), np.int64(2), np.uint8(2):
        found, slopes = loss.value_and_grad(x, target)
        assert found == value
        np.testing.assert_array_equal(slopes, gradient[0])
        loss.reduction = "none"
        assert loss(x, target).shape == ()
        loss.reduction = "mean"
    for beyond in 4, -1, 2**70, np.uint64(2**63):
        with pytest.raises(IndexError, match=f"target.* is {beyond}"):
            loss(x, beyond)
    for wrong in True, 2.0, "2", None, np.bool_(True):
        with pytest.raises(TypeError, match="target"):
            loss(x, wrong)
    with pytest.raises(ValueError, match=r"target must have shape \[1\], got the number 2"):
        loss(x[None], 2)


def test_a_single_pair_and_triplet() -> None:
    a, b, c = RNG.standard_normal((3, 5))
    for loss in losses.ContrastiveLoss(), losses.CosineEmbeddingLoss():
        value, gradients = loss.value_and_grad(a[None], b[None], np.array([1]))
        for target in 1, np.array(1.0):
            found, slopes = loss.value_and_grad(a, b, target)
            assert found == value
            np.testing.assert_array_equal(slopes, np.array(gradients)[:, 0])
    triplets: Any = losses.TripletMarginLoss()
    value, gradients = triplets.value_and_grad(a[None], b[None], c[None])
    found, slopes = triplets.value_and_grad(a, b, c)
    assert found == value
    np.testing.assert_array_equal(slopes, np.array(gradients)[:, 0])


def sums(by_var: Any, shape: tuple[int, ...]) -> Any:
    """Sum derivatives to the shape before broadcasting."""
    if shape == ():
        return by_var.sum()
    kept = by_var.sum(-1, keepdims=True) if shape != by_var.shape else by_var
    return kept.reshape(shape)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "shape", [(), (1,), (7,), (3, 1), (3, 5), (2, 3, 4), (700, 13), (2, 9000), (3, 4096), (0, 4)]
)
def test_a_variance_for_the_last_axis(shape: Any, dtype: Any, reduction: Any) -> None:
    x, y = (np.asarray(RNG.standard_normal(shape), dtype) for _ in range(2))
    loss: Any = losses.GaussianNLLLoss(reduction=reduction)
    outers: list[tuple[int, ...]] = [()]
    if shape:
        outers += [shape[:-1], (*shape[:-1], 1)]
    for outer in outers:
        var = np.asarray(RNG.uniform(0.5, 2, outer)).astype(dtype)
        each = var if outer != shape[:-1] or outer == () else var[..., None]
        full = np.broadcast_to(each, shape).copy()
        value, (by_x, by_var) = loss.value_and_grad(x, y, var)
        expected, (slopes, by_each) = loss.value_and_grad(x, y, full)
        np.testing.assert_array_equal(value, expected)
        np.testing.assert_array_equal(by_x, slopes)
        assert by_var.shape == outer
        assert by_var.dtype == dtype
        exact = 1e-6 if dtype == "f4" else 1e-13
        scale = max(1e-3, float(np.abs(by_each).sum())) if by_each.size else 1
        np.testing.assert_allclose(
            by_var, sums(by_each.astype("f8"), outer), rtol=exact, atol=exact * scale
        )


def test_a_variance_is_a_number() -> None:
    x, y = RNG.standard_normal((2, 3, 4)).astype("f4")
    loss = losses.GaussianNLLLoss()
    expected = loss.value_and_grad(x, y, np.full((3, 4), 2, "f4"))
    for var in 2, 2.0, np.float32(2), np.float64(2), np.int64(2):
        value, (by_x, by_var) = loss.value_and_grad(x, y, var)
        assert value == expected[0]
        np.testing.assert_array_equal(by_x, expected[1][0])
        assert by_var.shape == ()
        np.testing.assert_allclose(by_var, expected[1][1].sum(), rtol=1e-5)
    for wrong in True, "2", None, 1j, [2.0]:
        with pytest.raises(TypeError, match="var must be"):
            loss(x, y, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="var must be >= 0"):
        loss(x, y, -1.0)
    with pytest.raises(ValueError, match="var is too large"):
        loss(x, y, 10**400)
    for shape in (4,), (1, 4), (2, 1), (1, 1, 1):
        with pytest.raises(ValueError, match="var must have shape"):
            loss(x, y, np.ones(shape, "f4"))


def test_a_broadcast_variance_is_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, y = RNG.standard_normal((2, 6, 5))
    for shape in (6, 5), (6, 1), (6,):
        var = RNG.uniform(0.1, 2, shape)
        tensors = [torch.tensor(a, requires_grad=True) for a in (x, var)]
        expected = torch.nn.GaussianNLLLoss(full=True)(tensors[0], torch.tensor(y), tensors[1])
        expected.backward()
        value, found = losses.GaussianNLLLoss(full=True).value_and_grad(x, y, var)
        assert value == pytest.approx(expected.item(), rel=1e-13)
        for gradient, tensor in zip(found, tensors, strict=True):
            np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    "shape", [(), (1,), (5,), (4, 1), (3, 1, 1), (1, 4, 1), (3, 1, 5), (3, 4, 5), (1, 1, 1)]
)
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_weights_of_elements_are_broadcast(shape: Any, dtype: str) -> None:
    x, y = RNG.uniform(0.1, 0.9, (2, 3, 4, 5)).astype(dtype)
    w = np.asarray(RNG.uniform(0.5, 2, shape)).astype(dtype)
    full = np.broadcast_to(w, x.shape).copy()
    cases: list[tuple[Any, Any]] = [
        (losses.BCELoss(weight=w), losses.BCELoss(weight=full)),
        (losses.BCEWithLogitsLoss(weight=w), losses.BCEWithLogitsLoss(weight=full)),
        (losses.BCEWithLogitsLoss(pos_weight=w), losses.BCEWithLogitsLoss(pos_weight=full)),
        (losses.BCEWithLogitsLoss(w, w), losses.BCEWithLogitsLoss(full, full)),
    ]
    for loss, expected in cases:
        value, gradient = loss.value_and_grad(x, y)
        other, slopes = expected.value_and_grad(x, y)
        assert value == other
        np.testing.assert_array_equal(gradient, slopes)


def test_broadcast_weights_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, y = RNG.uniform(0.1, 0.9, (2, 3, 4, 5))
    for shape in (5,), (1,), (4, 1), (3, 1, 1):
        w, positive = RNG.uniform(0.5, 2, (2, *shape))
        tensor = torch.tensor(x, requires_grad=True)
        theirs = torch.nn.BCEWithLogitsLoss(torch.tensor(w), pos_weight=torch.tensor(positive))
        expected = theirs(tensor, torch.tensor(y))
        expected.backward()
        value, gradient = losses.BCEWithLogitsLoss(w, positive).value_and_grad(x, y)
        assert value == pytest.approx(expected.item(), rel=1e-13)
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-11)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_lists_are_weights_of_the_type_of_the_input(dtype: str) -> None:
    x, target = RNG.standard_normal((6, 4)).astype(dtype), RNG.integers(0, 4, 6)
    array = np.array(WEIGHT, dtype)
    y = np.abs(x)
    lists: list[Any] = [WEIGHT, tuple(WEIGHT), [np.float32(w) for w in WEIGHT]]
    for given in lists:
        pairs: list[tuple[Any, Any, Any]] = [
            (losses.NLLLoss(given), losses.NLLLoss(array), target),
            (losses.FocalLoss(alpha=given), losses.FocalLoss(alpha=array), target),
            (losses.BCEWithLogitsLoss(given), losses.BCEWithLogitsLoss(array), y),
            (losses.BCEWithLogitsLoss(None, given), losses.BCEWithLogitsLoss(None, array), y),
        ]
        for loss, expected, third in pairs:
            value, gradient = loss.value_and_grad(x, third)
            other, slopes = expected.value_and_grad(x, third)
            assert value == other
            np.testing.assert_array_equal(gradient, slopes)
    # The loss has a copy, which cannot change without a check.
    mutable = list(WEIGHT)
    kept: Any = losses.CrossEntropyLoss(mutable)
    mutable[0] = 1e9
    assert kept.weight == tuple(WEIGHT)
    kept.weight = [1, 2]
    assert kept.weight == (1.0, 2.0)
    with pytest.raises(TypeError, match="weight"):
        kept.weight = ["1"]


def test_threads_do_not_change_a_bit() -> None:
    x, target = RNG.standard_normal((4, 21, 60, 70)).astype("f4"), RNG.integers(0, 21, (4, 60, 70))
    a, b = RNG.standard_normal((2, 50, 6000)).astype("f4")
    found = []
    for n in 1, 2, 3:
        with fo.num_threads(n):
            value, gradient = losses.CrossEntropyLoss().value_and_grad(x, target)
            other, (_, by_var) = losses.GaussianNLLLoss().value_and_grad(a, b, np.ones(50, "f4"))
            _, (_, by_one) = losses.GaussianNLLLoss().value_and_grad(a, b, 2.0)
        found.append((value, gradient.tobytes(), other, by_var.tobytes(), by_one.tobytes()))
    assert found[0] == found[1] == found[2]


@each
def test_shapes_that_do_not_match(loss: Any) -> None:
    x = np.zeros((2, 4, 3))
    for target in np.zeros(2, int), np.zeros((2, 4), int), np.zeros((2, 3, 1), int), 0:
        with pytest.raises(ValueError, match=r"target must have shape \[2, 3\]"):
            loss(x, target)
    with pytest.raises(ValueError, match=r"\(N, C\), \(C,\) or \(N, C, d1, ...\), got \[\]"):
        loss(np.zeros(()), 0)
    with pytest.raises(IndexError, match=r"target\[5\] is 4"):
        loss(x, np.array([[0, 0, 0], [0, 0, 4]]))
