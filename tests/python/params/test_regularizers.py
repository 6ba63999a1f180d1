"""Regularizers: the formula, every form of parameters, and invalid input."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

REGULARIZERS = [
    (fo.regularizers.L1(0.3), 0.3, 0.0),
    (fo.regularizers.L2(0.7), 0.0, 0.7),
    (fo.regularizers.ElasticNet(0.3, 0.7), 0.3, 0.7),
    (fo.regularizers.ElasticNet(0.0, 0.0), 0.0, 0.0),
]


def numbers(seed: int, shape: Any, dtype: str) -> Any:
    w = np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)
    w[np.abs(w) < 0.1] = 0.0
    return w


def penalty(arrays: Any, l1: float, l2: float) -> float:
    exact = [np.asarray(w, "f8").ravel() for w in arrays]
    return l1 * math.fsum(math.fsum(np.abs(w)) for w in exact) + l2 * math.fsum(
        math.fsum(w * w) for w in exact
    )


@pytest.mark.parametrize(("regularizer", "l1", "l2"), REGULARIZERS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (31, 3), (4097,), (70_001,)])
def test_the_formula(regularizer: Any, l1: float, l2: float, dtype: str, shape: Any) -> None:
    w, g = numbers(0, shape, dtype), numbers(1, shape, dtype)
    assert (regularizer.l1, regularizer.l2) == (l1, l2)
    expected = np.asarray(g, "f8") + l1 * np.sign(w) + 2 * l2 * np.asarray(w, "f8")
    before = w.copy()
    value = regularizer.add_grad(w, g)
    assert isinstance(value, float)
    assert value == regularizer.value(w) == pytest.approx(penalty([w], l1, l2), rel=1e-14)
    assert np.array_equal(w, before)
    bound = 4 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(g, expected, rtol=bound, atol=bound * 10)


def test_pytorch_agrees() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    w, g = numbers(2, (50, 7), "f8"), np.zeros((50, 7))
    tensor = torch.tensor(w, requires_grad=True)
    loss = 0.3 * tensor.abs().sum() + 0.7 * tensor.square().sum()
    loss.backward()
    value = fo.regularizers.ElasticNet(0.3, 0.7).add_grad(w, g)
    assert value == pytest.approx(loss.item(), rel=1e-13)
    np.testing.assert_allclose(g, tensor.grad.numpy(), rtol=1e-15)


def test_a_penalty_is_weight_decay() -> None:
    w, g = numbers(3, 20, "f8"), numbers(4, 20, "f8")
    decayed = w.copy()
    fo.SGD(decayed, lr=0.1, weight_decay=0.5).step(g)
    fo.regularizers.L2(0.25).add_grad(w, g)
    fo.SGD(w, lr=0.1).step(g)
    np.testing.assert_allclose(w, decayed, rtol=1e-14)


def test_every_form_gives_the_same_bits() -> None:
    regularizer = fo.regularizers.ElasticNet(0.3, 0.7)
    params = fo.FlatBuffer({"a": (77, 129), "b": (5000,), "c": ()})
    params.flat[:] = numbers(5, params.size, "f4")
    arrays = {name: view.copy() for name, view in params.items()}
    split = [{"params": {"a": arrays["a"]}}, {"params": {"b": arrays["b"], "c": arrays["c"]}}]
    opt = fo.SGD(split)

    def grads() -> Any:
        buffer = params.zeros_like()
        buffer.flat[:] = numbers(6, params.size, "f4")
        return buffer

    def reverse(buffer: Any) -> Any:
        return {name: buffer[name] for name in reversed(buffer.names)}

    expected = grads()
    value = regularizer.add_grad(params, expected)
    forms: list[tuple[Any, Any]] = [
        (params, lambda g: g.flat),
        (params, reverse),
        (params, lambda g: list(g.values())),
        (arrays, lambda g: g),
        (arrays, reverse),
        (list(arrays.values()), lambda g: tuple(g.values())),
        (list(arrays.values()), lambda g: iter(g.values())),
        (list(arrays.values()), lambda g: dict(zip("012", g.values(), strict=True))),
        (split, reverse),
        (opt.param_groups, reverse),
        ([{"params": list(arrays.values())}], lambda g: list(g.values())),
    ]
    for given, form in forms:
        g = grads()
        assert regularizer.value(given) == value
        assert regularizer.add_grad(given, form(g)) == value
        assert np.array_equal(g.flat, expected.flat)
    assert regularizer.value(iter(arrays.values())) == value


def test_dtypes_may_differ_between_parameters() -> None:
    w = [numbers(7, 5000, "f4"), numbers(8, 3, "f8")]
    g = [np.zeros(5000, "f4"), np.zeros(3)]
    assert fo.regularizers.L2(1.0).add_grad(w, g) == pytest.approx(penalty(w, 0, 1), rel=1e-14)
    assert np.array_equal(g[0], 2 * w[0])
    assert np.array_equal(g[1], 2 * w[1])


@pytest.mark.parametrize("form", [list, lambda grads: dict(zip("01", grads, strict=True))])
def test_a_parameter_without_gradient_is_left_out(form: Any) -> None:
    w, g = [np.array([1.0, -2.0]), np.array([5.0])], np.zeros(2)
    regularizer = fo.regularizers.L1(0.5)
    assert regularizer.add_grad(w, form([g, None])) == regularizer.value(w[0]) == 1.5
    assert g.tolist() == [0.5, -0.5]
    # Not -0.
    assert str(regularizer.add_grad(w, form([None, None]))) == str(regularizer.value([])) == "0.0"


def test_nonfinite_values_propagate() -> None:
    w = np.array([math.nan, -math.inf, 1.0])
    for regularizer, l1, l2 in REGULARIZERS[:3]:
        g = np.zeros(3)
        assert math.isnan(regularizer.add_grad(w, g))
        assert math.isnan(g[0])
        assert g[1] == (-math.inf if l2 else -l1)
        assert g[2] == l1 + 2 * l2
        assert regularizer.value(w[1:]) == math.inf
    # A float32 whose square overflows has a finite penalty.
    assert fo.regularizers.L2(1.0).value(np.array([1e30], "f4")) == pytest.approx(1e60)


def test_regularizers_are_immutable_values() -> None:
    r: Any = fo.regularizers
    assert repr(r.L1(1)) == "L1(lam=1.0)"
    assert repr(r.L2(lam=0.5)) == "L2(lam=0.5)"
    assert repr(r.ElasticNet(0.1, 2)) == "ElasticNet(l1=0.1, l2=2.0)"
    assert r.L1(1) == r.L1(np.float32(1)) != r.L1(2)
    assert r.L1(1) != r.L2(1)
    assert r.L1(1) != r.ElasticNet(1, 0)
    assert len({r.L1(1), r.L1(1.0), r.L2(1)}) == 2
    for regularizer, *_ in REGULARIZERS:
        for same in (pickle.loads(pickle.dumps(regularizer)), copy.deepcopy(regularizer)):
            assert same == regularizer
            assert (same.l1, same.l2) == (regularizer.l1, regularizer.l2)
        with pytest.raises(dataclasses.FrozenInstanceError):
            regularizer.l1 = 3.0  # type: ignore[misc]


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "0.1", None, True, 1j])
def test_bad_coefficients(bad: Any) -> None:
    error = ValueError if isinstance(bad, float) else TypeError
    r = fo.regularizers
    for name, make in (("lam", r.L1), ("lam", r.L2), ("l1", lambda x: r.ElasticNet(x, 1.0))):
        with pytest.raises(error, match=name):
            make(bad)
    with pytest.raises(error, match="l2"):
        r.ElasticNet(1.0, bad)
    with pytest.raises(TypeError, match="abstract"):
        r.Regularizer()  # type: ignore[abstract]


L2 = fo.regularizers.L2(1.0)


def test_errors_name_the_array() -> None:
    w, g = {"a": np.ones(3), "b": np.ones(3)}, np.ones(3)
    with pytest.raises(ValueError, match="share memory") as shared:
        L2.add_grad(w, {"a": w["b"], "b": g})
    assert {'params["b"]', 'grads["a"]'} < set(str(shared.value).split())
    with pytest.raises(
        TypeError, match=r'params\["b"\] must be float32, float64, float16 or bfloat16'
    ):
        L2.add_grad({**w, "b": np.ones(3, int)}, {"a": g, "b": None})
    with pytest.raises(TypeError, match=r'grads\["1"\] must be float64'):
        L2.add_grad([g, g], [np.ones(3), np.ones(3, "f4")])


def test_read_only() -> None:
    w, g = np.ones(3), np.ones(3)
    w.setflags(write=False)
    assert L2.add_grad(w, g) == 3.0
    g.setflags(write=False)
    with pytest.raises(ValueError, match=r'grads\["0"\] is read-only'):
        L2.add_grad(w, g)
    assert g.tolist() == [3.0] * 3


@pytest.mark.parametrize(
    ("params", "grads", "error"),
    [
        ([np.ones(2)], [], ValueError),
        (np.ones(2), [np.ones(2)] * 2, ValueError),
        ({"a": np.ones(2)}, {"b": np.ones(2)}, ValueError),
        ({"a": np.ones(2)}, {"a": np.ones(2), "b": np.ones(2)}, ValueError),
        (fo.FlatBuffer({"a": (2,)}), np.ones(3, "f4"), ValueError),
        (fo.FlatBuffer({"a": (2,)}), fo.FlatBuffer({"b": (2,)}), ValueError),
        (np.ones(2), None, TypeError),
        (np.ones(2), "g", TypeError),
    ],
)
def test_gradients_in_another_structure(params: Any, grads: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="grads"):
        L2.add_grad(params, grads)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        (None, TypeError),
        ("w", TypeError),
        (1.0, TypeError),
        ({1: np.ones(2)}, TypeError),
        ([None], TypeError),
        ([{"params": [np.ones(2)], "param_names": ["a", "b"]}], ValueError),
        ([{"params": [np.ones(2)], "param_names": [1]}], TypeError),
    ],
)
def test_invalid_parameters_are_refused(params: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="param"):
        L2.value(params)
