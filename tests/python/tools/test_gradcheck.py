"""Numerical gradients of known functions, and checks of right and wrong gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

WEIGHTS = np.linspace(0.5, 2.0, 6).reshape(2, 3)

# A function and its gradient.
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "linear": (lambda x: (WEIGHTS * x).sum(), lambda x: WEIGHTS + 0 * x),
    "square": (lambda x: (WEIGHTS * x**2).sum(), lambda x: 2 * WEIGHTS * x),
    "quartic": (lambda x: (x**4).sum(), lambda x: 4 * x**3),
    "sine": (lambda x: np.sin(x).sum(), np.cos),
    "log": (lambda x: np.log(np.abs(x)).sum(), lambda x: 1 / x),
    "softmax": (
        lambda x: np.log(np.exp(x - x.max()).sum()) + x.max(),
        lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(),
    ),
}


def start(scale: float = 1.0) -> Any:
    return scale * np.array([[1.0, -0.7, 0.3], [-1.9, 0.8, 1.2]])


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_gradient_is_accurate(name: str, order: Any) -> None:
    f, gradient = FUNCTIONS[name]
    x = np.array(start(), order=order)
    before = x.copy()
    found = fo.numerical_gradient(f, x)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, gradient(x), rtol=1e-8, atol=1e-9)
    assert x.tobytes() == before.tobytes()


def test_eps_is_half_the_width() -> None:
    seen: list[float] = []

    def cube(x: Any) -> Any:
        seen.append(float(x[0]))
        return x[0] ** 3

    slope = fo.numerical_gradient(cube, np.array([2.0]), eps=0.25)
    assert seen == [2.25, 1.75]
    assert slope.tolist() == [3 * 4 + 0.25**2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_result_has_the_form_of_the_argument(dtype: str) -> None:
    w, b = np.arange(6, dtype=dtype).reshape(2, 3) + 1, np.array([-1.0, 4.0], dtype)

    def f(w: Any, b: Any) -> float:
        assert w.dtype == b.dtype == np.float64
        return float((w**2).sum() * b[0] + b[1] ** 3)

    dw, db = 2 * w.astype("f8") * b[0], np.array([91.0, 48.0])
    params = fo.FlatBuffer.from_arrays({"w": w, "b": b})
    found = fo.numerical_gradient(lambda p: f(p["w"], p["b"]), params)
    assert isinstance(found, fo.FlatBuffer)
    assert found.dtype == np.float64
    assert found.shapes == params.shapes
    mapped = fo.numerical_gradient(lambda p: f(p["w"], p["b"]), {"w": w, "b": b})
    listed = fo.numerical_gradient(lambda p: f(*p), [w, b])
    for got in ([found["w"], found["b"]], [mapped["w"], mapped["b"]], listed):
        np.testing.assert_allclose(got[0], dw, rtol=1e-8)
        np.testing.assert_allclose(got[1], db, rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_a_function_may_read_the_array_from_elsewhere(dtype: str) -> None:
    params = fo.FlatBuffer({"w": (3,)}, dtype)
    params["w"] = [1.0, -200.0, 0.0]
    before = params.flat.tobytes()
    for fn in (
        lambda _: (params["w"].astype("f8") ** 2).sum(),
        lambda p: (p["w"] ** 2).sum(),
    ):
        found = fo.numerical_gradient(fn, params)
        np.testing.assert_allclose(found.flat, [2.0, -400.0, 0.0], rtol=1e-6, atol=1e-9)
        assert params.flat.tobytes() == before


def test_it_is_restored_to_the_byte_when_the_function_fails_or_writes() -> None:
    bits = np.array([0x8000000000000000, 0x7FF8000000000ABC, 0x0000000000000001], np.uint64)
    for stop in range(1, 7):
        x, calls = bits.view(np.float64).copy(), 0

        def f(x: Any, stop: int = stop) -> float:
            nonlocal calls
            calls += 1
            x[2] = 5.0
            if calls == stop:
                raise KeyError("objective")
            return 0.0

        with pytest.raises(KeyError):
            fo.numerical_gradient(f, x)
        assert calls == stop
        assert x.view(np.uint64).tolist() == bits.tolist()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1.0, 100.0])
@pytest.mark.parametrize("height", [1e-30, 1e-6, 1.0, 1e30])
def test_right_from_wrong_at_all_scales(name: str, scale: float, height: float) -> None:
    f, gradient = FUNCTIONS[name]
    x = start(scale)
    fn, right = (lambda x: height * f(x)), height * gradient(x)
    check = fo.check_grad(fn, right, x)
    assert check, check
    assert check.relative_error <= check.tol == 1e-6
    index = np.unravel_index(np.abs(right).argmax(), x.shape)
    for factor in (1.001, -1, 2, 0.5, 0):
        wrong = right.copy()
        wrong[index] *= factor
        check = fo.check_grad(fn, wrong, x)
        assert not check, (factor, check)
        assert check.worst_index == index
        error = abs(1 - factor) / max(1, abs(factor))
        assert check.relative_error == pytest.approx(error, rel=1e-3)


def test_zeros_among_large_gradients() -> None:
    def f(x: Any) -> float:
        return float(1e3 * np.exp(x[0]) + np.sin(x[1]) + x[2] ** 2 + 12345)

    x = np.array([0.5, np.pi / 2, 0.0, 7.0])
    right = np.array([1e3 * np.exp(0.5), np.cos(np.pi / 2), 0.0, 0.0])
    assert fo.check_grad(f, right, x)
    for k, wrong in ((1, 1e-3), (2, -1e-3), (3, 1e-3)):
        check = fo.check_grad(f, np.where(np.arange(4) == k, wrong, right), x)
        assert not check
        assert check.worst_index == (k,)


def test_the_gradient_of_a_layer_and_a_loss() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 4)), rng.integers(0, 3, 20)
    loss = fo.losses.CrossEntropyLoss(label_smoothing=0.1)
    params = fo.FlatBuffer({"w": (4, 3), "b": (3,)})
    params.flat[:] = rng.standard_normal(15)

    def grad(p: Any) -> Any:
        dz = loss.grad(x @ p["w"] + p["b"], y)
        return {"w": x.T @ dz, "b": dz.sum(axis=0)}

    def f(p: Any) -> Any:
        return loss(x @ p["w"] + p["b"], y)

    assert fo.check_grad(f, grad, params)
    wrong = params.zeros_like()
    wrong.assign(grad(params))
    wrong["b"][2] += 0.01
    for form in (wrong, wrong.flat, dict(wrong)):
        check = fo.check_grad(f, form, params)
        assert not check
        assert check.worst_index == ("b", (2,))
        assert check.analytic - check.numerical == pytest.approx(0.01, rel=1e-4)
    assert fo.check_grad(
        lambda p: f({"w": p[0], "b": p[1]}), list(grad(params).values()), list(params.views)
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_gradients_are_wrong(bad: float) -> None:
    x = np.ones(3)
    assert not fo.check_grad(lambda x: (x**2).sum(), np.array([2.0, bad, 2.0]), x)
    check = fo.check_grad(lambda x: x[0] * bad, np.ones(3), x)
    assert not check
    assert check.relative_error == np.inf


def test_nothing_to_check_is_right() -> None:
    check = fo.check_grad(lambda _: 1.0, np.empty(0), np.empty(0))
    assert check
    assert check.worst_index is None
    assert fo.numerical_gradient(lambda _: 1.0, np.empty((0, 3))).shape == (0, 3)
    assert fo.numerical_gradient(lambda x: x**2, np.array(3.0)) == pytest.approx(6)


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"eps": 0.0}, ValueError, "eps"),
        ({"eps": -1e-5}, ValueError, "eps"),
        ({"eps": np.nan}, ValueError, "eps"),
        ({"tol": -1.0}, ValueError, "tol"),
        ({"tol": np.inf}, ValueError, "tol"),
        ({"x": np.ones(3, int)}, TypeError, "x"),
        ({"x": "text"}, TypeError, "x"),
        ({"x": [1.0, 2.0]}, TypeError, "x"),
        ({"grad": np.ones(2)}, ValueError, "grad"),
        ({"grad": [np.ones(3), np.ones(3)]}, ValueError, "grad"),
        ({"fn": lambda x: x}, TypeError, "fn"),
        ({"fn": lambda _: None}, TypeError, "fn"),
        ({"fn": lambda _: "1.0x"}, TypeError, "fn"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], name: str) -> None:
    good = {"fn": lambda x: x.sum(), "grad": np.ones(3), "x": np.ones(3)}
    with pytest.raises(error, match=name):
        fo.check_grad(**{**good, **arguments})


def test_read_only_and_other_names_are_refused() -> None:
    x = np.ones(3)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        fo.numerical_gradient(lambda x: x.sum(), x)
    params = fo.FlatBuffer({"w": (3,)})
    with pytest.raises(ValueError, match="missing names"):
        fo.check_grad(lambda p: p.flat.sum(), {"v": np.ones(3)}, params)
