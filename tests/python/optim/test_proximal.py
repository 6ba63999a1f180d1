"""Proximal regularizers: exact zeros, and the same step and order as in the papers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastoptim as fo
from cases import OPTIMIZERS
from snapshot import snapshot

R: Any = fo.regularizers
LAM = 0.75
REFUSED = ("ASGD", "Rprop", "ScheduleFreeAdamW", "ScheduleFreeSGD")
TAKING = [cls for cls in OPTIMIZERS if cls.__name__ not in REFUSED]
EXTRA: dict[str, dict[str, Any]] = {
    "Adagrad": {"lr_decay": 0.5},
    "Prodigy": {"d0": 0.5, "use_bias_correction": True},
    "SGD": {"momentum": 0.5},
}


def shrunk(p: Any, threshold: Any) -> Any:
    return np.sign(p) * np.maximum(np.abs(p) - threshold, 0)


def lasso() -> tuple[Any, Any]:
    """Return a problem with 8 relevant features of 50."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((80, 50))
    true = np.zeros(50)
    true[:8] = rng.choice([-2.0, 2.0], 8)
    return x, x @ true + 0.1 * rng.standard_normal(80)


@pytest.mark.parametrize("l2", [0.0, 0.05])
def test_the_lasso_is_solved_to_exact_zeros(l2: float) -> None:
    x, y = lasso()
    lam, lr = 0.1, 0.2
    regularizer = R.ElasticNet(lam, l2, proximal=True) if l2 else R.L1(lam, proximal=True)
    w, along = np.zeros(50), np.zeros(50)
    opt, subgradient = fo.SGD(w, lr=lr), fo.SGD(along, lr=lr)
    model = np.zeros(50)
    for _ in range(300):
        opt.step(x.T @ (x @ w - y) / len(y), regularizer=regularizer)
        subgradient.step(x.T @ (x @ along - y) / len(y), regularizer=R.ElasticNet(lam, l2))
        # ISTA: a gradient step on the smooth part, then the proximal operator.
        model -= lr * (x.T @ (x @ model - y) / len(y) + 2 * l2 * model)
        model = shrunk(model, lr * lam)
        np.testing.assert_allclose(w, model, rtol=1e-10, atol=1e-13)
    assert np.array_equal(w == 0, model == 0)
    assert 30 < (w == 0).sum() < 50
    assert w[:8].all()
    assert (along != 0).all()
    # The optimality conditions: the gradient of the smooth part is at most lam.
    slope = x.T @ (x @ w - y) / len(y) + 2 * l2 * w
    np.testing.assert_allclose(slope[w != 0], -lam * np.sign(w[w != 0]), rtol=1e-8)
    assert np.abs(slope[w == 0]).max() <= lam

    def objective(w: Any) -> float:
        return float(np.square(x @ w - y).sum() / 2 / len(y) + regularizer.value(w))

    assert objective(w) <= objective(along)


def rate(opt: Any) -> float:
    """Return the learning rate of the next step."""
    name, t = type(opt).__name__, opt.state["a"]["step"] + 1
    lr = float(opt.current("lr"))
    if name == "Adagrad":
        return float(lr / (1 + (t - 1) * 0.5))
    if name == "Prodigy":
        b1, b2 = opt.current("betas")
        return lr * float(opt.current("d")) * float(np.sqrt(1 - b2**t) / (1 - b1**t))
    return lr


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("optimizer", TAKING)
def test_a_step_is_the_plain_step_and_then_the_operator(
    optimizer: Any, flat: bool, dtype: str
) -> None:
    def make() -> tuple[Any, Any]:
        params: Any = fo.FlatBuffer({"a": (30, 40), "b": (1, 5)}, dtype)
        params.flat[:] = np.random.default_rng(0).standard_normal(params.size)
        given = params if flat else dict(params)
        return params, optimizer(given, lr=0.05, **EXTRA.get(optimizer.__name__, {}))

    (params, opt), (plain, model) = make(), make()
    rng, zeros = np.random.default_rng(1), 0
    for _ in range(4):
        grads = params.zeros_like()
        grads.flat[:] = rng.standard_normal(params.size)
        threshold = np.asarray(rate(opt) * LAM, dtype)
        info = opt.step(grads, regularizer=R.L1(LAM, proximal=True), max_norm=1e9)
        assert info == model.step(grads, max_norm=1e9)
        plain.flat[:] -= np.clip(plain.flat, -threshold, threshold)
        if optimizer is fo.Prodigy:  # Its rate is rounded differently.
            np.testing.assert_allclose(params.flat, plain.flat, rtol=1e-6, atol=1e-7)
            plain.flat[:] = params.flat
        assert params.flat.tobytes() == plain.flat.tobytes()
        assert snapshot(opt.state) == snapshot(model.state)
        zeros = max(zeros, int((params.flat == 0).sum()))
    assert zeros > 5


@pytest.mark.parametrize("dtype", ["f2", ml_dtypes.bfloat16])
@pytest.mark.parametrize("optimizer", [fo.SGD, fo.AdamW, fo.LAMB, fo.Adafactor])
def test_parameters_of_16_bits_have_exact_zeros(optimizer: Any, dtype: Any) -> None:
    w = np.random.default_rng(2).standard_normal((50, 60)).astype(dtype)
    before = w.astype("f8")
    opt = optimizer({"w": w}, lr=0.125)
    opt.step(np.zeros_like(w), regularizer=R.L1(2.0, proximal=True))
    found = w.astype("f8")
    kept = before * (1 - 0.125 * opt.param_groups[0]["weight_decay"])
    expected = shrunk(before if optimizer in (fo.SGD, fo.Adafactor) else kept, 0.25)
    if optimizer is not fo.LAMB:  # Its decay is part of a step with an adaptive length.
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-2)
    assert (found[np.abs(before) < 0.2] == 0).all()
    assert found[np.abs(before) > 0.5].all()


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_optimizers_refuse_proximal_terms(name: str) -> None:
    optimizer: Any = getattr(fo, name)
    w = np.ones(3)
    opt = optimizer([{"params": [w]}])
    before = snapshot(opt)
    proximal = R.L1(0.1, proximal=True)
    match = f"regularizer must not be proximal with {name}"
    with pytest.raises(ValueError, match=match):
        opt.step(w.copy(), regularizer=proximal)
    with pytest.raises(ValueError, match=match):
        opt.add_param_group({"params": {"b": np.ones(2)}, "regularizer": proximal})
    with pytest.raises(ValueError, match=match):
        optimizer([{"params": [w], "regularizer": proximal}])
    assert snapshot(opt) == before
    opt.param_groups[0]["regularizer"] = None
    assert opt.step(w.copy(), regularizer=proximal).applied
    # A coefficient of 0 shrinks nothing.
    opt.param_groups[0]["regularizer"] = R.ElasticNet(0.0, 0.1, proximal=True)
    assert opt.step(w.copy()).applied


def test_averages_and_copies_use_the_shrunk_parameters() -> None:
    w, idle = np.array([1.0, 0.25, -2.0], "f4"), np.array([0.25], "f4")
    opt, ema = fo.SGD([w, idle], lr=1.0, maximize=True), fo.EMA([w, idle], decay=0.0)
    copies = [np.ones(3, "f2"), np.ones(1, "f2")]
    zeros = np.zeros(3, "f4")
    regularizer = R.L1(0.5, proximal=True)
    opt.step([zeros, None], regularizer=regularizer, ema=ema, copy_to=copies)
    assert w.tolist() == ema.shadow["0"].tolist() == copies[0].tolist() == [0.5, 0.0, -1.5]
    # A parameter without a gradient does not change.
    assert idle.tolist() == copies[1].tolist() == [0.25]
    # A skipped step shrinks nothing.
    zeros[0] = np.nan
    assert not opt.step([zeros, None], regularizer=regularizer, nonfinite="skip").applied
    assert w.tolist() == [0.5, 0.0, -1.5]


def test_the_proximal_term_is_not_part_of_the_gradient() -> None:
    w, g = np.array([3.0, -4.0]), np.array([0.3, 0.4])
    regularizer = R.ElasticNet(1.0, 0.5, proximal=True)
    opt = fo.SGD(w, lr=0.1)
    # The gradient is that of the squares: 3.3 and -3.6.
    info = opt.step(g, regularizer=regularizer, max_norm=np.inf)
    assert info.grad_norm == pytest.approx(np.hypot(3.3, -3.6))
    np.testing.assert_allclose(w, [3 - 0.33 - 0.1, -4 + 0.36 + 0.1])
    assert regularizer.value(np.array([3.0, -4.0])) == 7.0 + 12.5
    for proximal in regularizer, R.L1(1.0, proximal=True):
        with pytest.raises(ValueError, match="has no gradient to add"):
            proximal.add_grad(w, g)
    assert g.tolist() == [0.3, 0.4]


def test_nan_and_infinity_propagate() -> None:
    w = np.array([np.nan, np.inf, -np.inf, -0.0])
    fo.SGD(w, lr=1.0).step(np.zeros(4), regularizer=R.L1(0.5, proximal=True))
    assert np.isnan(w[0])
    assert w[1:3].tolist() == [np.inf, -np.inf]


def test_the_bits_are_the_same_for_any_number_of_threads() -> None:
    found = []
    for threads in 1, 3:
        w = np.random.default_rng(0).standard_normal(300_001).astype("f4")
        with fo.num_threads(threads):
            fo.AdamW(w, lr=0.1).step(w.copy(), regularizer=R.L1(1.0, proximal=True))
        found.append(w)
    assert found[0].tobytes() == found[1].tobytes()


def test_proximal_must_be_a_bool() -> None:
    for make in (lambda x: R.L1(0.1, proximal=x), lambda x: R.ElasticNet(0.1, 0.1, proximal=x)):
        with pytest.raises(TypeError, match="proximal must be a bool"):
            make(1)
    assert repr(R.L1(0.5, proximal=True)) == "L1(lam=0.5, proximal=True)"
    assert repr(R.ElasticNet(1, 2, proximal=True)) == "ElasticNet(l1=1.0, l2=2.0, proximal=True)"
    assert R.L1(0.5, proximal=True) != R.L1(0.5)
