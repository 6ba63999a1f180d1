"""Landscapes of quadratics with known values; directions; sharpness in closed form."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

LANDSCAPE: Any = fo.landscape
HESSIAN = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 2.0]])


def quadratic(w: Any) -> float:
    return float(0.5 * w @ HESSIAN @ w)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_line_over_a_quadratic_is_a_parabola(workers: int) -> None:
    w, d = np.array([1.0, -2.0, 0.5]), np.array([0.5, 1.0, -1.0])
    alphas = np.linspace(-2, 3, 41)
    found = LANDSCAPE.line(quadratic, w, d, alphas, workers=workers)
    parabola = quadratic(w) + alphas * (d @ HESSIAN @ w) + alphas**2 * quadratic(d)
    np.testing.assert_allclose(found.values, parabola, rtol=1e-12, atol=1e-12)
    assert np.array_equal(found.alphas, alphas)
    assert w.tolist() == [1.0, -2.0, 0.5]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_plane_has_alphas_first(workers: int) -> None:
    w, (d1, d2) = np.array([1.0, -2.0, 0.5]), np.array([[0.5, 1.0, -1.0], [2.0, 0.0, 1.0]])
    alphas, betas = np.linspace(-1, 1, 5), np.linspace(0, 3, 8)
    found = LANDSCAPE.plane(quadratic, w, d1, d2, alphas, betas, workers=workers)
    assert found.values.shape == (5, 8)
    for i, alpha in enumerate(alphas):
        for j, beta in enumerate(betas):
            expected = quadratic(w + alpha * d1 + beta * d2)
            assert found.values[i, j] == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert (found.alphas.tolist(), found.betas.tolist()) == (alphas.tolist(), betas.tolist())


def forms() -> dict[str, Any]:
    w, b = np.arange(6.0).reshape(2, 3), np.ones(2)
    return {
        "buffer": fo.FlatBuffer.from_arrays({"w": w, "b": b}),
        "mapping": {"w": w, "b": b},
        "list": [w, b],
        "array": w,
        "transposed": np.asfortranarray(w),
        "float32": fo.FlatBuffer.from_arrays({"w": w.astype("f4"), "b": b.astype("f4")}),
    }


@pytest.mark.parametrize("form", forms())
def test_the_objective_gets_a_copy_in_the_same_form(form: str) -> None:
    params = forms()[form]

    def arrays(p: Any) -> Any:
        if isinstance(p, np.ndarray):
            return [p]
        return list(p.values()) if hasattr(p, "values") else list(p)

    before = [array.tobytes() for array in arrays(params)]

    def objective(p: Any) -> float:
        assert type(p) is type(params)
        total = 0.0
        for mine, theirs in zip(arrays(p), arrays(params), strict=True):
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
            assert not np.shares_memory(mine, theirs)
            total += float(mine.sum())
            mine[...] = np.nan  # The objective may write to its copy.
        return total

    direction = LANDSCAPE.random_direction(params, normalize=None)
    start = sum(float(array.sum()) for array in arrays(params))
    rise = sum(float(d.sum()) for d in direction.values())
    for d in (direction, dict(direction), list(direction.values())):
        found = LANDSCAPE.line(objective, params, d, [0.0, 0.5, -1.0])
        expected = [start, start + 0.5 * rise, start - rise]
        np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    if isinstance(params, fo.FlatBuffer):
        flat = LANDSCAPE.line(objective, params, direction.flat, [0.0, 0.5, -1.0])
        assert np.array_equal(flat.values, found.values)
        assert direction.dtype == params.dtype
    assert [array.tobytes() for array in arrays(params)] == before


def test_workers_run_concurrently_and_an_error_stops_them() -> None:
    meet = threading.Barrier(3, timeout=20)

    def objective(w: Any) -> float:
        meet.wait()
        return float(w[0])

    found = LANDSCAPE.line(objective, np.zeros(1), np.ones(1), range(6), workers=3)
    assert found.values.tolist() == [0, 1, 2, 3, 4, 5]
    for threads, share in ((7, 2), (1, 1)):
        with fo.num_threads(threads):
            found = LANDSCAPE.line(
                lambda _: fo.get_num_threads(), np.zeros(1), np.ones(1), range(6), workers=3
            )
            assert fo.get_num_threads() == threads
        assert found.values.tolist() == [share] * 6
    calls = []

    def failing(w: Any) -> float:
        calls.append(float(w[0]))
        time.sleep(0.01)
        raise KeyError("objective")

    for workers in (1, 2):
        calls.clear()
        with pytest.raises(KeyError):
            LANDSCAPE.line(failing, np.zeros(1), np.ones(1), np.arange(500), workers=workers)
        assert len(calls) < 100


def test_between_two_solutions() -> None:
    ours = fo.FlatBuffer.from_arrays({"w": np.array([[1.0, 2.0]]), "b": np.array([3.0])})
    theirs = {"b": np.array([-1.0]), "w": np.array([[0.0, 7.0]])}
    direction = LANDSCAPE.difference(ours, theirs)
    ends: list[Any] = []

    def objective(p: Any) -> float:
        ends.append(p.flat.tolist())
        return 0.0

    LANDSCAPE.line(objective, ours, direction, [0, 1])
    assert ends == [[1, 2, 3], [0, 7, -1]]


def test_coordinates_are_those_of_the_plane() -> None:
    rng = np.random.default_rng(0)
    start, d1, d2, beside = rng.standard_normal((4, 9))
    beside -= (
        np.linalg.qr(np.stack([d1, d2]).T)[0] @ np.linalg.qr(np.stack([d1, d2]).T)[0].T @ beside
    )
    wanted = rng.standard_normal((5, 2))
    points = [{"w": start + a * d1 + b * d2 + beside} for a, b in wanted]
    found = LANDSCAPE.coordinates(points, {"w": start}, {"w": d1}, {"w": d2})
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)
    assert LANDSCAPE.coordinates([], start, d1, d2).shape == (0, 2)
    with pytest.raises(ValueError, match="plane"):
        LANDSCAPE.coordinates([start], start, d1, -2 * d1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_directions_have_the_norms_of_the_filters(dtype: str) -> None:
    rng = np.random.default_rng(1)
    params = fo.FlatBuffer(
        {
            "conv": (8, 3, 5, 5),
            "dense": (10, 20),
            "dead": (2, 3),
            "bias": (10,),
            "t": (),
            "no": (0, 4),
        },
        dtype,
    )
    params.flat[:] = rng.standard_normal(params.size)
    params["dead"][0] = 0
    found = LANDSCAPE.random_direction(params, seed=3)
    assert isinstance(found, fo.FlatBuffer)
    assert found.dtype == params.dtype
    assert found.shapes == params.shapes
    for name in ("conv", "dense", "dead"):
        ours, theirs = (x[name].astype("f8").reshape(len(x[name]), -1) for x in (found, params))
        np.testing.assert_allclose(
            np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1), rtol=2e-3
        )
    assert not found["bias"].any()
    assert found["t"] == 0
    layer = LANDSCAPE.random_direction(params, normalize="layer", seed=3)
    for name in ("conv", "dense", "dead"):
        ours, theirs = (x[name].astype("f8") for x in (layer, params))
        assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=2e-3)
    assert not layer["bias"].any()


def test_directions_are_normal_and_follow_the_seed() -> None:
    params = {"w": np.zeros((100, 100), "f4"), "b": np.zeros(1000, "f4")}
    one, again, other = (
        LANDSCAPE.random_direction(params, normalize=None, seed=seed) for seed in (5, 5, 6)
    )
    assert np.array_equal(one.flat, again.flat)
    assert abs(float(one.flat.astype("f8") @ other.flat) / one.size) < 0.05
    assert abs(float(one.flat.mean())) < 0.05
    assert float(one.flat.std()) == pytest.approx(1, abs=0.05)
    with fo.num_threads(1):
        alone = LANDSCAPE.random_direction(params, normalize=None, seed=5)
    assert np.array_equal(alone.flat, one.flat)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rho", [0.0, 0.05, 2.0])
def test_the_sharpness_of_a_quadratic(dtype: str, rho: float) -> None:
    params = fo.FlatBuffer({"a": (2,), "b": (1,)}, dtype)
    params.flat[:] = [1.0, -2.0, 0.5]
    before = params.flat.tobytes()
    grads = params.zeros_like()

    def objective(p: Any) -> Any:
        w = p.flat.astype("f8")
        grads.flat[:] = HESSIAN @ w  # The same memory at each call.
        p.flat[:] = np.nan
        return quadratic(w), grads

    g = HESSIAN @ np.array([1.0, -2.0, 0.5])
    e = rho * g / np.linalg.norm(g)
    expected = e @ g + quadratic(e)
    found = LANDSCAPE.sharpness(objective, params, rho)
    assert found == pytest.approx(expected, rel=1e-6 if dtype == "float32" else 1e-9)
    assert params.flat.tobytes() == before


def test_the_sharpness_of_a_flat_loss_is_zero() -> None:
    assert LANDSCAPE.sharpness(lambda w: (3.0, 0 * w), np.ones(3)) == 0.0
    assert LANDSCAPE.sharpness(lambda p: (3.0, [None, None]), [np.ones(3), np.ones(1)]) == 0.0


def test_nonfinite_values_are_returned() -> None:
    found = LANDSCAPE.line(
        lambda w: [1.0, np.nan, np.inf][int(w[0])], np.zeros(1), np.ones(1), range(3)
    )
    assert np.array_equal(found.values, [1.0, np.nan, np.inf], equal_nan=True)


W = np.ones((2, 3))
BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: LANDSCAPE.line(np.sum, W, np.ones((3, 2)), [0]), ValueError, "direction"),
    (lambda: LANDSCAPE.line(np.sum, W, [W, W], [0]), ValueError, "direction"),
    (lambda: LANDSCAPE.line(np.sum, {"w": W}, {"v": W}, [0]), ValueError, "direction"),
    (lambda: LANDSCAPE.line(np.sum, W, 3, [0]), TypeError, "direction"),
    (lambda: LANDSCAPE.line(np.sum, W.astype(int), W, [0]), TypeError, "params"),
    (lambda: LANDSCAPE.line(np.sum, "W", W, [0]), TypeError, "params"),
    (lambda: LANDSCAPE.line(np.sum, W, W, 0.5), ValueError, "alphas"),
    (lambda: LANDSCAPE.line(np.sum, W, W, [np.nan]), ValueError, "alphas"),
    (lambda: LANDSCAPE.line(np.sum, W, W, [0], workers=0), ValueError, "workers"),
    (lambda: LANDSCAPE.line(np.sum, W, W, [0], workers=1.5), TypeError, "workers"),
    (lambda: LANDSCAPE.line(lambda w: w, W, W, [0]), TypeError, "objective"),
    (lambda: LANDSCAPE.plane(np.sum, W, W, W[0], [0], [0]), ValueError, "d2"),
    (lambda: LANDSCAPE.plane(np.sum, W, W, W, [0], [[0]]), ValueError, "betas"),
    (lambda: LANDSCAPE.difference(W, W[0]), ValueError, "other"),
    (lambda: LANDSCAPE.random_direction(W, normalize="rows"), ValueError, "normalize"),
    (lambda: LANDSCAPE.random_direction(W, seed=-1), ValueError, "seed"),
    (lambda: LANDSCAPE.random_direction([W, W.astype("f4")]), TypeError, "one dtype"),
    (lambda: LANDSCAPE.sharpness(lambda w: 1.0, W), TypeError, "objective_with_grad"),
    (lambda: LANDSCAPE.sharpness(lambda w: (1.0, W[0]), W), ValueError, "gradients"),
    (lambda: LANDSCAPE.sharpness(lambda w: (1.0, W), W, rho=-1), ValueError, "rho"),
    (lambda: LANDSCAPE.sharpness(lambda w: (1.0, W), W, rho=np.nan), ValueError, "rho"),
]


@pytest.mark.parametrize(("call", "error", "name"), BAD)
def test_bad_arguments(call: Any, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        call()


def test_principal_directions_are_those_of_the_spread() -> None:
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    heights = rng.standard_normal((40, 12)) * [100, 10, *[0.01] * 10]
    end = {"w": rng.standard_normal((3, 4))}
    points = [{"w": end["w"] + (row @ basis.T).reshape(3, 4)} for row in heights]
    directions = LANDSCAPE.principal_directions(points, end)
    for found, wanted in zip(directions, basis.T, strict=False):
        assert isinstance(found, fo.FlatBuffer)
        assert np.linalg.norm(found.flat) == pytest.approx(1, rel=1e-12)
        assert abs(found.flat @ wanted) == pytest.approx(1, rel=1e-3)
    where = LANDSCAPE.coordinates(points, end, *directions)
    assert (where[0] >= 0).all()
    np.testing.assert_allclose(np.abs(where[:, 0]), np.abs(heights[:, 0]), rtol=0.01, atol=1)
    for few in ([], points[:1], [points[0]] * 3):
        with pytest.raises(ValueError, match="one line"):
            LANDSCAPE.principal_directions(few, end)
