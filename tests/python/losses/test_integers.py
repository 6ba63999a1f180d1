"""Class indices and labels of every integer type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastoptim import losses

INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
OF_CLASSES = [
    losses.CrossEntropyLoss(),
    losses.CrossEntropyLoss(label_smoothing=0.1),
    losses.NLLLoss(),
    losses.FocalLoss(),
    losses.MultiMarginLoss(),
]
OF_PAIRS = [losses.ContrastiveLoss(), losses.CosineEmbeddingLoss()]
RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 4))
Y = np.array([0, 1, 1, 3, 2, 0])


def same(a: Any, b: Any) -> None:
    assert a[0] == b[0]
    np.testing.assert_array_equal(a[1], b[1])


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("loss", OF_CLASSES, ids=repr)
def test_every_integer_type_is_a_class_index(loss: Any, dtype: str) -> None:
    same(loss.value_and_grad(X, Y.astype(dtype)), loss.value_and_grad(X, Y))


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("loss", OF_PAIRS, ids=repr)
def test_every_integer_type_is_a_target_of_pairs(loss: Any, dtype: str) -> None:
    target = np.minimum(Y, 1)
    other = X[::-1].copy()
    same(
        loss.value_and_grad(X, other, target.astype(dtype)),
        loss.value_and_grad(X, other, target.astype(float)),
    )


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("kind", ["semihard", "hard", "all"])
def test_every_integer_type_is_a_label(kind: Any, dtype: str) -> None:
    expected = losses.mine_triplets(X, Y, kind, 1.0)
    found = losses.mine_triplets(X, Y.astype(dtype), kind, 1.0)
    np.testing.assert_array_equal(found, expected)
    assert len(found[0]) > 0


def test_labels_beyond_int64_are_labels() -> None:
    labels = np.array([2**64 - 1, 2**64 - 1, 1, 2**63, 2**63, 1], "u8")
    _, known = np.unique(labels, return_inverse=True)
    for found, expected in zip(
        losses.mine_triplets(X, labels, "all"),
        losses.mine_triplets(X, known, "all"),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            np.array([0, 1, 200, 0, 0, 0], "u1"),
            r"target\[2\] is 200, which is not one of 4 classes",
        ),
        (np.array([0, -1, 0, 0, 0, 0], "i1"), r"target\[1\] is -1,"),
        (np.array([0, 1, 1, 4, 0, 0], "u4"), r"target\[3\] is 4,"),
        # Converted to int64 it would be -100, which is ignored.
        (np.array([0, 2**64 - 100, 0, 0, 0, 0], "u8"), r"target\[1\] is 18446744073709551516"),
    ],
)
@pytest.mark.parametrize("loss", OF_CLASSES, ids=repr)
def test_invalid_classes_are_named(loss: Any, target: Any, message: str) -> None:
    x = X.copy()
    with pytest.raises(IndexError, match=message):
        loss.value_and_grad(x, target, out=x)
    np.testing.assert_array_equal(x, X)


def test_ignored_classes_of_every_type() -> None:
    for dtype in INTEGERS:
        same(
            losses.NLLLoss(ignore_index=3).value_and_grad(X, Y.astype(dtype)),
            losses.NLLLoss(ignore_index=3).value_and_grad(X, Y),
        )


@pytest.mark.parametrize("loss", OF_CLASSES, ids=repr)
def test_flags_and_numbers_are_not_class_indices(loss: Any) -> None:
    for target in np.ones(6, bool), np.ones(6, "f4"), np.ones(6, ">i8"), np.array(["0"] * 6):
        with pytest.raises(TypeError, match=r"target must be class indices .* got .*astype"):
            loss(X, target)
    with pytest.raises(TypeError, match="labels must be of an integer type, got bool"):
        losses.mine_triplets(X, np.ones(6, bool))


def test_integers_beside_numbers_get_the_remedy() -> None:
    remedy = r"target must be float32 as the input is, got {}: target.astype\(input.dtype\)"
    x = np.zeros(3, "f4")
    for loss in (
        losses.MSELoss(),
        losses.BCEWithLogitsLoss(),
        losses.HingeLoss(),
        losses.KLDivLoss(),
    ):
        for dtype in np.uint8, np.int64, np.bool_:
            target = np.ones(3, dtype)
            with pytest.raises(TypeError, match=remedy.format(target.dtype)):
                loss(x, target)
