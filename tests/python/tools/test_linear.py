"""The linear score function: einsum, numerical gradients, and invalid input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastoptim as fo

SHAPES = [(), (1,), (5,), (0,)]


def arrays(rows: tuple[int, ...], dtype: str = "f8") -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(0)
    shapes = [(4, 3), (*rows, 3), (4,), (*rows, 4)]
    W, x, b, d = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return W, x, b, d


@pytest.mark.parametrize("rows", SHAPES)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_scores(rows: tuple[int, ...], dtype: str) -> None:
    W, x, b, _ = arrays(rows, dtype)
    given = [a.copy() for a in (W, x, b)]
    expected = np.einsum("cd,...d->...c", W.astype("f8"), x.astype("f8"))
    tolerance = 10 * float(np.finfo(dtype).eps)
    for scores, wanted in (
        (fo.linear_scores(W, x), expected),
        (fo.linear_scores(W, x, b), expected + b),
    ):
        assert scores.dtype == dtype
        assert scores.shape == (*rows, 4)
        np.testing.assert_allclose(scores, wanted, rtol=tolerance, atol=tolerance)
    assert all(np.array_equal(a, old) for a, old in zip((W, x, b), given, strict=True))


def numerical(f: Any, a: Any, eps: float = 1e-6) -> Any:
    gradient = np.zeros_like(a)
    for index in np.ndindex(a.shape):
        old = a[index]
        a[index] = old + eps
        above = f()
        a[index] = old - eps
        gradient[index] = (above - f()) / (2 * eps)
        a[index] = old
    return gradient


@pytest.mark.parametrize("rows", SHAPES)
def test_gradients_are_numerical_ones(rows: tuple[int, ...]) -> None:
    W, x, b, d = arrays(rows)
    found = fo.linear_scores_grad(d, W, x)
    for a, gradient in zip((W, x, b), found, strict=True):
        assert gradient.shape == a.shape
        assert gradient.flags.c_contiguous
        assert not np.shares_memory(gradient, d)
        expected = numerical(lambda: float(np.sum(d * fo.linear_scores(W, x, b))), a)
        np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-8)


def test_the_bias_may_be_a_column() -> None:
    W, x, b, d = arrays((5,))
    trick, ones = np.column_stack([W, b]), np.column_stack([x, np.ones(5)])
    np.testing.assert_allclose(fo.linear_scores(trick, ones), fo.linear_scores(W, x, b))
    dW, _, db = fo.linear_scores_grad(d, W, x)
    dtrick, _, _ = fo.linear_scores_grad(d, trick, ones)
    np.testing.assert_allclose(dtrick, np.column_stack([dW, db]), rtol=1e-13)


def test_a_classifier_is_trained() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 300)
    x = (rng.standard_normal((300, 2)) + 4 * np.array([[1, 0], [0, 1], [-1, -1]])[y]).astype("f4")
    params = fo.FlatBuffer({"W": (3, 2), "b": (3,)})
    opt, loss_fn = fo.SGD(params, lr=0.5), fo.losses.CrossEntropyLoss()
    regularizer = fo.regularizers.L2(1e-4)
    losses = []
    for _ in range(100):
        scores = fo.linear_scores(params["W"], x, params["b"])
        value, dscores = loss_fn.value_and_grad(scores, y, out=scores)
        dW, _, db = fo.linear_scores_grad(dscores, params["W"], x)
        losses.append(value + regularizer.add_grad(params, [dW, db]))
        opt.step([dW, db])
    assert losses[-1] < 0.1 * losses[0]
    scores = fo.linear_scores(params["W"], x, params["b"])
    assert np.mean(scores.argmax(axis=1) == y) > 0.97


GOOD = arrays((5,))


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        (name, bad, error)
        for name, array in zip("Wxbd", GOOD, strict=True)
        for bad, error in (
            (array.tolist(), TypeError),
            (array.astype("i4"), TypeError),
            (array.astype("f2"), TypeError),
            (array.astype(">f8"), TypeError),
            (np.ma.masked_array(array), TypeError),
            (array[..., :-1], ValueError),
            (array[None], ValueError),
        )
    ]
    + [
        *(
            (name, array.astype("f4"), TypeError)
            for name, array in zip("xbd", GOOD[1:], strict=True)
        ),
        ("x", np.array(1.0), ValueError),
        ("d", GOOD[3][0], ValueError),
        ("b", np.zeros(1), ValueError),
    ],
)
def test_invalid_arrays_are_refused(name: str, bad: Any, error: type[Exception]) -> None:
    W, x, b, d = GOOD
    given = {"W": W, "x": x, "b": b, "d": d, name: bad}
    message = {"W": "(W|x) ", "d": "dscores "}.get(name, f"{name} ")
    if name != "d":
        with pytest.raises(error, match=message):
            fo.linear_scores(given["W"], given["x"], given["b"])
    if name != "b":
        with pytest.raises(error, match=message):
            fo.linear_scores_grad(given["d"], given["W"], given["x"])
