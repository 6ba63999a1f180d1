"""Accumulated gradients: equal to the full batch, in every form, and invalid input."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastoptim as fo
from snapshot import snapshot


def digits(dtype: str) -> tuple[Any, Any]:
    data = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    x, y = data.load_digits(return_X_y=True)
    return (x / 16).astype(dtype), y


def gradients(params: fo.FlatBuffer, x: Any, y: Any) -> fo.FlatBuffer:
    """Return the gradients of the mean cross-entropy of a linear classifier for these rows."""
    scores = fo.linear_scores(params["w"], x, params["b"])
    dscores = fo.losses.CrossEntropyLoss().grad(scores, y)
    dw, _, db = fo.linear_scores_grad(dscores, params["w"], x)
    return fo.FlatBuffer.from_arrays({"w": dw, "b": db})


@pytest.mark.parametrize(("dtype", "tolerance"), [("f4", 1e-6), ("f8", 1e-15)])
@pytest.mark.parametrize("size", [1, 7, 100, 1000, 1797])
def test_uneven_batches_give_the_gradient_of_the_full_batch(
    size: int, dtype: str, tolerance: float
) -> None:
    x, y = digits(dtype)
    rng = np.random.default_rng(0)
    params = fo.FlatBuffer({"w": (10, 64), "b": (10,)}, dtype)
    params["w"] = 0.1 * rng.standard_normal((10, 64))
    accumulator = fo.GradAccumulator(params)
    for _ in range(2):
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            accumulator.add(gradients(params, x[rows], y[rows]), len(x[rows]))
        assert accumulator.weight == len(x)
        full = gradients(params, x, y)
        mean = accumulator.grads
        assert isinstance(mean, fo.FlatBuffer)
        np.testing.assert_allclose(mean.flat, full.flat, rtol=0, atol=tolerance)
        fo.SGD(params, lr=0.5).step(mean)
        accumulator.reset()
    # The last batch is smaller, so a mean of means would be wrong.
    if size == 1000:
        parts = [
            gradients(params, x[rows], y[rows]).flat for rows in (slice(1000), slice(1000, None))
        ]
        assert np.abs(np.mean(parts, axis=0) - gradients(params, x, y).flat).max() > 1e3 * tolerance


@given(
    st.lists(
        st.tuples(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), st.floats(1e-3, 1e6)),
        min_size=1,
        max_size=20,
    )
)
def test_the_mean_is_that_of_exact_arithmetic(batches: list[tuple[list[float], float]]) -> None:
    accumulator = fo.GradAccumulator(np.zeros(3))
    for g, weight in batches:
        accumulator.add(np.array(g), weight)
    total = sum(Fraction(weight) for _, weight in batches)
    exact = [
        float(sum(Fraction(g[i]) * Fraction(weight) for g, weight in batches) / total)
        for i in range(3)
    ]
    assert accumulator.weight == pytest.approx(float(total), rel=1e-14)
    np.testing.assert_allclose(accumulator.grads["0"], exact, rtol=1e-12, atol=1e-11)


def test_gradients_of_none_count_as_in_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    always, late, never = (torch.ones(2, requires_grad=True, dtype=torch.float64) for _ in "123")
    accumulator = fo.GradAccumulator({"always": np.ones(2), "late": np.ones(2), "never": W})
    rows = [2, 3, 1, 4]
    for k, n in enumerate(rows):
        loss = (k + 1) * always.sum()
        grads: dict[str, Any] = {"always": np.full(2, k + 1.0), "late": None, "never": None}
        if k in (1, 3):
            loss = loss + (late**2).sum() * k
            grads["late"] = np.full(2, 2.0 * k)
        (loss * n / sum(rows)).backward()
        accumulator.add(grads, n)
    mean = accumulator.grads
    np.testing.assert_allclose(mean["always"], always.grad, rtol=1e-14)
    np.testing.assert_allclose(mean["late"], late.grad, rtol=1e-14)
    assert mean["never"] is None
    assert never.grad is None


W = np.ones((2, 3))


def test_a_parameter_without_gradient_does_not_step() -> None:
    params = fo.FlatBuffer.from_arrays({"w": W, "b": np.ones(3)})
    opt, accumulator = fo.AdamW(params), fo.GradAccumulator(params)
    for g in [None, W], [None, None]:
        accumulator.add([g[1], None], 2)
    opt.step(accumulator.grads)
    assert opt.state["w"]["step"] == 1
    assert opt.state["b"]["step"] == 0
    assert (params["b"] == 1).all()
    mean = accumulator.grads["w"]
    assert mean is not None
    assert (mean == 0.5).all()


FORMS: dict[str, Any] = {
    "buffer": lambda x: fo.FlatBuffer.from_arrays(x),
    "mapping": dict,
    "list": lambda x: list(x.values()),
    "generator": lambda x: (array for array in x.values()),
    "groups": lambda x: [{"params": {name: array}} for name, array in x.items()],
    "groups of arrays": lambda x: [{"params": array} for array in x.values()],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_mean_is_accepted_by_a_step(form: str) -> None:
    rng = np.random.default_rng(0)
    start = {"w": rng.standard_normal((4, 3)), "b": rng.standard_normal((1, 2))}
    named = form in ("buffer", "mapping", "groups")
    results = []
    for accumulate in False, True:
        params = FORMS[form]({name: w.copy() for name, w in start.items()})
        if form == "generator":
            params = list(params)
        opt = fo.AdamW(params, lr=0.1)
        grads: Any = {name: w + 1 for name, w in start.items()}
        given = [grads if named else list(grads.values()), list(grads.values())]
        if form == "buffer":
            buffer = fo.FlatBuffer.from_arrays(grads)
            given += [buffer, buffer.flat]
        if accumulate:
            accumulator = fo.GradAccumulator(params)
            for form_of_grads in given:
                accumulator.add(form_of_grads, 0.5)
            grads = accumulator.grads
            assert "weight" in repr(accumulator)
        else:
            grads = given[0]
        opt.step(grads)
        results.append(snapshot([w for group in opt.param_groups for w in group["params"]]))
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", ["f2", ml_dtypes.bfloat16])
@pytest.mark.parametrize("flat", [False, True])
def test_gradients_of_16_bits_have_a_mean_of_32(dtype: Any, flat: bool) -> None:
    rng = np.random.default_rng(0)
    named = {"w": np.ones((30, 40), dtype), "b": np.ones(40, dtype)}
    params = fo.FlatBuffer.from_arrays(named) if flat else named
    accumulator = fo.GradAccumulator(params)
    exact: Any = 0.0
    for k in range(1, 101):
        g = rng.standard_normal((30, 40)).astype(dtype)
        exact = exact + k * g.astype("f8")
        accumulator.add({"w": g, "b": None}, k)
    mean = accumulator.grads
    # Rounded once, at the end: half a unit in the last place, and the error of float32.
    atol = float(np.spacing(np.abs(mean["w"]).max().astype(dtype))) * 0.51
    assert mean["w"].dtype == dtype
    np.testing.assert_allclose(mean["w"].astype("f8"), exact / 5050, rtol=0, atol=atol)
    assert fo.SGD(params, lr=0.1).step(mean).applied
    # For 32-bit parameters the dtype is theirs.
    wide = fo.GradAccumulator(np.ones(40, "f4"))
    wide.add(np.ones(40, dtype), 1)
    assert wide.grads["0"].dtype == np.float32


def test_one_batch_is_its_own_mean_to_the_bit() -> None:
    g = np.array([math.nan, math.inf, -0.0, 1e-310, 1e308, 1 / 3])
    accumulator = fo.GradAccumulator(np.zeros(6))
    for weight in 3, 1e-300, 1e300:
        accumulator.reset()
        accumulator.add(g, weight)
        assert accumulator.grads["0"].tobytes() == g.tobytes()
    accumulator.add(np.zeros(6), 1e300)
    assert not np.isfinite(accumulator.grads["0"][:2]).any()


def test_there_is_nothing_before_the_first_add() -> None:
    accumulator = fo.GradAccumulator(W)
    for _ in range(2):
        assert accumulator.weight == 0
        with pytest.raises(RuntimeError, match="add"):
            _ = accumulator.grads
        accumulator.add(W, 1)
        accumulator.reset()


@pytest.mark.parametrize(
    ("grads", "weight", "error", "match"),
    [
        ([W], 0, ValueError, "grads"),
        ([W, None, None], 0, ValueError, "grads"),
        ([W[0], W], 0, ValueError, "grads"),
        ([W, W[0].astype("f4")], 0, TypeError, "grads"),
        ({"w": W, "c": W[0]}, 0, ValueError, "grads"),
        (None, 0, TypeError, "grads"),
        ([W, W[0]], -1.0, ValueError, "weight"),
        ([W, W[0]], math.nan, ValueError, "weight"),
        ([W, W[0]], math.inf, ValueError, "weight"),
        ([W, W[0]], 1.7e308, ValueError, "weight"),
        ([W, W[0]], "1", TypeError, "weight"),
        ([W, W[0]], None, TypeError, "weight"),
        ([W], 1, ValueError, "grads"),
        ([W, None, None], 1, ValueError, "grads"),
        ([W[0], W], 1, ValueError, "grads"),
        ([W, W[0].astype("f4")], 1, TypeError, "grads"),
        ([W, W[0].tolist()], 1, TypeError, "grads"),
        ([W, np.ones(6)[::2]], 1, ValueError, "grads"),
        ({"w": W}, 1, ValueError, "grads"),
        ({"w": W, "c": W[0]}, 1, ValueError, "grads"),
        (np.ones(8), 1, ValueError, "grads"),
        (fo.FlatBuffer({"w": (2, 3), "b": (3,)}), 1, TypeError, "grads"),
        (None, 1, TypeError, "grads"),
        ("wb", 1, TypeError, "grads"),
    ],
)
def test_bad_input_changes_nothing(grads: Any, weight: Any, error: Any, match: str) -> None:
    accumulator = fo.GradAccumulator(fo.FlatBuffer.from_arrays({"w": W, "b": W[0]}))
    accumulator.add([3 * W, None], 1.7e308)
    before = snapshot(accumulator.grads)
    with pytest.raises(error, match=match):
        accumulator.add(grads, weight)
    assert snapshot(accumulator.grads) == before
    assert accumulator.weight == 1.7e308
    with pytest.raises(ValueError, match="share memory"):
        accumulator.add([accumulator.grads["w"], None], 1)


def test_a_micro_batch_of_weight_0_adds_nothing() -> None:
    accumulator = fo.GradAccumulator([W, W[0]])
    nothing = [np.full_like(W, math.nan), np.full_like(W[0], math.inf)]
    accumulator.add(nothing, 0)
    assert accumulator.weight == 0
    with pytest.raises(RuntimeError, match="call add before reading the gradients"):
        _ = accumulator.grads
    accumulator.add([W, None], 3)
    accumulator.add(nothing, 0.0)
    assert accumulator.weight == 3
    # It does not count as a gradient of a parameter.
    assert accumulator.grads["1"] is None
    assert np.array_equal(accumulator.grads["0"], W)
    # If all targets of a batch are ignored, the mean is NaN with weight 0.
    loss_fn = fo.losses.CrossEntropyLoss()
    logits, target = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]]), np.array([1, -100, -100])
    whole, parts = loss_fn.grad(logits, target), fo.GradAccumulator(logits[0])
    for rows in (slice(1), slice(1, 3)):
        kept = int((target[rows] != -100).sum())
        parts.add(loss_fn.grad(logits[rows], target[rows]).sum(0), kept)
    np.testing.assert_allclose(parts.grads["0"], whole.sum(0))
