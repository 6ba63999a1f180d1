"""Loss scaling: comparison with PyTorch's scaler, the order of calls, and invalid input."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastoptim as fo
from snapshot import snapshot

NAMES = ["scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"]


def pair(lr: float = 0.1) -> tuple[Any, Any]:
    w = np.array([1.0, -2.0])
    return w, fo.SGD(w, lr=lr)


# One iteration of an optimizer: whether its gradients are not finite, and whether they are unscaled
# first. None makes no step.
CALLS = st.none() | st.tuples(st.sampled_from([0.0, math.inf, -math.inf, math.nan]), st.booleans())


@given(
    scale=st.floats(1.0, 2.0**20),
    growth=st.floats(1.5, 4.0),
    backoff=st.floats(0.25, 0.75),
    interval=st.integers(1, 4),
    iterations=st.lists(st.tuples(CALLS, CALLS, st.none() | st.floats(1.0, 1e6)), max_size=30),
)
def test_agrees_with_torch(
    scale: float, growth: float, backoff: float, interval: int, iterations: list[Any]
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    arguments = (float(np.float32(scale)), growth, backoff, interval)
    mine, theirs = fo.amp.GradScaler(*arguments), torch.amp.GradScaler("cpu", *arguments)
    arrays = [np.ones(3, "f4") for _ in range(2)]
    tensors = [torch.ones(3, requires_grad=True) for _ in range(2)]
    opts = [fo.SGD(w, lr=0.1) for w in arrays]
    their_opts = [torch.optim.SGD([t], lr=0.1) for t in tensors]
    theirs.scale(torch.ones(()))
    for *calls, new_scale in iterations:
        for i, call in enumerate(calls):
            if call is None:
                continue
            bad, first = call
            g = mine.scale(np.array([0.3, 0.7 + bad, -1.0], "f4"))
            tensors[i].grad = theirs.scale(torch.tensor([0.3, 0.7 + bad, -1.0]))
            assert g.tobytes() == tensors[i].grad.numpy().tobytes() or math.isnan(bad)
            if first:
                mine.unscale_(opts[i], g)
                theirs.unscale_(their_opts[i])
                np.testing.assert_array_equal(g, tensors[i].grad.numpy())
            info = mine.step(opts[i], g)
            theirs.step(their_opts[i])
            assert info == fo.StepInfo(bad == 0.0, None)
            # It uses fused multiply-add.
            np.testing.assert_allclose(arrays[i], tensors[i].detach().numpy(), rtol=1e-6)
        if calls == [None, None] and new_scale is None:
            with pytest.raises(RuntimeError, match="update"):
                mine.update()
            continue
        mine.update(new_scale)
        theirs.update(new_scale)
        assert mine.state_dict() == theirs.state_dict()
        assert mine.get_scale() == theirs.get_scale()


def test_states_move_both_ways() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    mine, theirs = fo.amp.GradScaler(8.0, 4.0, 0.25, 3), torch.amp.GradScaler("cpu")
    w, opt = pair()
    mine.step(opt, w.copy())
    mine.update()
    theirs.load_state_dict(mine.state_dict())
    assert (
        theirs.state_dict()
        == mine.state_dict()
        == dict(zip(NAMES, [8, 4, 0.25, 3, 1], strict=True))
    )
    other = fo.amp.GradScaler()
    other.load_state_dict(theirs.state_dict())
    assert repr(other) == repr(mine)


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("scale", [1.0, 1024.0, 1000.0, 3e38, 2e-38])
def test_a_step_is_that_of_gradients_that_never_were_scaled(
    optimizer: Any, scale: float, dtype: str, unscaled: bool
) -> None:
    scale = float(np.float32(scale))
    rng = np.random.default_rng(0)
    arrays = [[np.ones((3, 4), dtype), np.ones((50, 7), dtype)] for _ in range(2)]
    plain, scaled = (optimizer(params, lr=0.1) for params in arrays)
    scaler = fo.amp.GradScaler(init_scale=scale, growth_interval=10**6)
    for _ in range(4):
        grads = [rng.standard_normal(w.shape).astype(dtype) for w in arrays[0]]
        if scale > 1e30:
            grads = [g / 16 for g in grads]
        given = [scaler.scale(g) for g in grads]
        if unscaled:
            scaler.unscale_(scaled, given)
        info = scaler.step(scaled, given, max_norm=1.0, clip_value=0.5)
        scaler.update()
        expected = plain.step(grads, max_norm=1.0, clip_value=0.5)
        assert info.applied
        assert info.grad_norm == pytest.approx(expected.grad_norm, rel=1e-6)
        for x, y in zip(*arrays, strict=True):
            if math.log2(scale).is_integer():
                assert x.tobytes() == y.tobytes()
            else:
                np.testing.assert_allclose(x, y, rtol=2e-5 if dtype == "f4" else 1e-9, atol=1e-6)


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_skipped_step_changes_nothing(optimizer: Any, bad: float, unscaled: bool) -> None:
    opt = optimizer([np.ones((3, 4)), np.ones((2, 2))], lr=0.1)
    opt.step([np.ones((3, 4)), np.ones((2, 2))])
    scaler = fo.amp.GradScaler(init_scale=16.0)
    before = snapshot(opt)
    grads = [np.ones((3, 4)), np.full((2, 2), bad)]
    if unscaled:
        scaler.unscale_(opt, grads)
        assert (grads[0] == 1 / 16).all()
    assert not scaler.step(opt, grads, max_norm=1.0).applied
    assert snapshot(opt) == before
    scaler.update()
    assert scaler.get_scale() == 8.0


def test_nonfinite_gradients_that_were_replaced_are_skipped() -> None:
    w, opt = pair()
    scaler = fo.amp.GradScaler(init_scale=16.0)
    g = np.array([1.0, math.nan])
    scaler.unscale_(opt, g)
    g[...] = 1.0
    assert scaler.step(opt, g) == fo.StepInfo(False, None)
    assert w.tolist() == [1.0, -2.0]
    scaler.update()
    assert scaler.get_scale() == 8.0


def test_gradients_that_became_nonfinite_are_skipped() -> None:
    w, opt = pair()
    scaler = fo.amp.GradScaler(init_scale=16.0)
    g = np.ones(2)
    scaler.unscale_(opt, g)
    g[0] = math.inf
    assert not scaler.step(opt, g).applied
    scaler.update()
    assert (w.tolist(), scaler.get_scale()) == ([1.0, -2.0], 8.0)


def test_training_in_half_precision_needs_the_scaler() -> None:
    """A loss of small scale: float16 gradients vanish unless they are scaled."""
    data = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    x, y = data.load_digits(return_X_y=True)
    x = (x / 16).astype("f4")
    loss = fo.losses.CrossEntropyLoss()

    def train(scaler: Any) -> float:
        params = fo.FlatBuffer({"w": (10, 64), "b": (10,)})
        opt = fo.SGD(params, lr=4e6)
        skipped = 0
        for _ in range(60):
            scores = fo.linear_scores(params["w"], x, params["b"])
            # The loss is small, as for one of many tasks.
            dscores = loss.grad(scores, y, loss_scale=1e-6 * scaler.get_scale())
            with np.errstate(all="ignore"):
                half = dscores.astype("f2").astype("f4")
                dw, _, db = fo.linear_scores_grad(half, params["w"], x)
            skipped += not scaler.step(opt, {"w": dw, "b": db}).applied
            scaler.update()
        assert (skipped > 0) == scaler.is_enabled()
        return float(loss(fo.linear_scores(params["w"], x, params["b"]), y))

    assert train(fo.amp.GradScaler(enabled=False)) == pytest.approx(math.log(10))
    assert train(fo.amp.GradScaler(init_scale=2.0**60)) < 0.5


@pytest.mark.parametrize("dtype", ["f2", ml_dtypes.bfloat16, "f4", "f8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_scale_gives_a_new_array_of_the_same_dtype(dtype: Any, shape: Any) -> None:
    x = np.full(shape, 0.3, dtype)
    before = snapshot(x)
    scaled = fo.amp.GradScaler(init_scale=1000.0).scale(x)
    assert (type(scaled), scaled.dtype, scaled.shape) == (np.ndarray, x.dtype, shape)
    expected = (x.astype("f8") * 1000.0).astype(x.dtype)
    np.testing.assert_array_equal(scaled.astype("f8"), expected.astype("f8"))
    assert snapshot(x) == before
    assert np.isinf(fo.amp.GradScaler().scale(np.array([10.0], "f2"))).all()


@pytest.mark.parametrize("x", [2, 2.0, np.float32(2), np.int64(2)])
def test_scale_of_a_number_is_a_float(x: Any) -> None:
    scaled = fo.amp.GradScaler(init_scale=4.0).scale(x)
    assert (type(scaled), scaled) == (float, 8.0)


def test_scale_refuses_other_types() -> None:
    scaler = fo.amp.GradScaler()
    for bad in "1", None, [1.0], np.ones(2, "i4"), np.ones(2, "c8"):
        with pytest.raises(TypeError, match="x must"):
            scaler.scale(bad)


def test_the_scale_stays_a_normal_number() -> None:
    _, opt = pair()
    for start, bad in (2.0**-126, math.nan), (2.0**127, 0.0):
        scaler = fo.amp.GradScaler(init_scale=start, growth_interval=1)
        scaler.step(opt, np.array([1.0, bad]))
        scaler.update()
        assert scaler.get_scale() == start
        assert scaler.state_dict()["_growth_tracker"] == 0


def test_a_shorter_interval_grows_the_scale_at_once() -> None:
    w, opt = pair()
    scaler = fo.amp.GradScaler(init_scale=4.0, growth_interval=10)
    for _ in range(5):
        scaler.step(opt, w.copy())
        scaler.update()
    scaler.set_growth_interval(3)
    scaler.step(opt, w.copy())
    scaler.update()
    assert scaler.get_scale() == 8.0


def test_calls_out_of_order() -> None:
    (_, opt), (_, other) = pair(), pair()
    scaler = fo.amp.GradScaler(init_scale=2.0)
    with pytest.raises(RuntimeError, match="update"):
        scaler.update()
    g = np.ones(2)
    scaler.unscale_(opt, g)
    before = snapshot([g, opt, scaler.state_dict()])
    wrong: list[Callable[[], object]] = [
        lambda: scaler.unscale_(opt, g),
        lambda: pickle.dumps(scaler),
    ]
    for call in wrong:
        with pytest.raises(RuntimeError):
            call()
    assert snapshot([g, opt, scaler.state_dict()]) == before
    scaler.step(opt, g)
    before = snapshot([g, opt, scaler.state_dict()])
    for call in [*wrong, lambda: scaler.step(opt, g), lambda: copy.deepcopy(scaler)]:
        with pytest.raises(RuntimeError):
            call()
    assert snapshot([g, opt, scaler.state_dict()]) == before
    # Optimizers are independent, and an update resets all of them.
    scaler.step(other, g)
    scaler.update()
    scaler.step(opt, g)
    scaler.update()
    with pytest.raises(RuntimeError, match="update"):
        scaler.update()
    scaler.update(4.0)
    assert scaler.get_scale() == 4.0
    # unscale_ without step also checks the gradients.
    scaler.unscale_(opt, np.array([1.0, math.inf]))
    scaler.update()
    assert scaler.get_scale() == 2.0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(copied: Any) -> None:
    w, opt = pair()
    scaler = fo.amp.GradScaler(8.0, 4.0, 0.25, 3)
    scaler.step(opt, w.copy())
    scaler.update()
    assert copied(scaler).state_dict() == scaler.state_dict()


def test_a_disabled_scaler_does_nothing() -> None:
    (w, opt), (v, plain) = pair(), pair()
    scaler = fo.amp.GradScaler(enabled=False)
    g = np.array([1.0, 4.0])
    assert scaler.scale(g) is g
    assert scaler.scale("anything") == "anything"
    for _ in range(2):
        scaler.unscale_(opt, g)
        assert scaler.step(opt, g, max_norm=1.0, loss_scale=2.0) == plain.step(
            g, max_norm=1.0, loss_scale=2.0
        )
    scaler.update()
    assert w.tobytes() == v.tobytes()
    assert scaler.state_dict() == {}
    scaler.load_state_dict({})
    assert scaler.get_scale() == 1.0
    assert not scaler.is_enabled()


W = np.ones((2, 3))


@pytest.mark.parametrize("call", ["unscale_", "step"])
@pytest.mark.parametrize(
    ("grads", "error"),
    [
        ([W], ValueError),
        ([W, W[0], W], ValueError),
        ([W[0], W], ValueError),
        ([2 * W, W[0].astype("f4")], TypeError),
        ([2 * W, [1.0, 1.0, 1.0]], TypeError),
        ([2 * W, np.ones(6)[::2]], ValueError),
        ({"w": W}, ValueError),
        (np.ones(8), ValueError),
        (None, TypeError),
    ],
)
def test_bad_gradients_change_nothing(grads: Any, error: type[Exception], call: str) -> None:
    opt = fo.SGD(fo.FlatBuffer.from_arrays({"w": W, "b": W[0]}))
    scaler = fo.amp.GradScaler()
    before = snapshot([opt, grads, scaler.state_dict()])
    with pytest.raises(error, match="grads"):
        getattr(scaler, call)(opt, grads)
    assert snapshot([opt, grads, scaler.state_dict()]) == before
    good = [2 * W, W[0].copy()]
    getattr(scaler, call)(opt, good)


def test_gradients_that_cannot_be_unscaled_in_place() -> None:
    opt = fo.SGD(params := [W.copy(), W.copy()])
    scaler = fo.amp.GradScaler()
    locked = W.copy()
    locked.flags.writeable = False
    for bad in locked, params[0]:
        good = W.copy()
        with pytest.raises(ValueError, match=r"read-only|share memory"):
            scaler.unscale_(opt, [good, bad])
        assert (good == 1).all()
    scaler.unscale_(opt, [W.copy(), None])


@pytest.mark.parametrize("dtype", ["f2", ml_dtypes.bfloat16])
@pytest.mark.parametrize("own", [False, True])
def test_the_step_unscales_gradients_of_16_bits_without_rounding(dtype: Any, own: bool) -> None:
    """A quotient below the smallest number of float16 still changes the parameters."""
    w = np.zeros(2, dtype if own else "f4")
    opt = fo.SGD(w, lr=2.0**30, rounding="nearest") if own else fo.SGD(w, lr=2.0**30)
    scaler = fo.amp.GradScaler(init_scale=2.0**30)
    g = np.array([1.0, -2.0], dtype)
    before = g.tobytes()
    assert scaler.step(opt, g).applied
    assert w.astype("f8").tolist() == [-1.0, 2.0]
    assert g.tobytes() == before
    scaler.update()
    assert not scaler.step(opt, np.array([1.0, math.inf], dtype)).applied
    assert w.astype("f8").tolist() == [-1.0, 2.0]


def test_options_that_the_scaler_sets_are_refused() -> None:
    w, opt = pair()
    scaler = fo.amp.GradScaler()
    for option in {"loss_scale": 2.0}, {"nonfinite": "raise"}, {"max_norm": "1"}:
        with pytest.raises(TypeError):
            scaler.step(opt, w.copy(), **option)
    assert w.tolist() == [1.0, -2.0]
    assert scaler.step(opt, w.copy()).applied


@pytest.mark.parametrize("opt", [None, "sgd", fo.RandomSearch(np.ones(2))])
def test_other_objects_than_optimizers_are_refused(opt: Any) -> None:
    scaler = fo.amp.GradScaler()
    for call in scaler.step, scaler.unscale_:
        with pytest.raises(TypeError, match="opt must be an optimizer"):
            call(opt, np.ones(2))


ARGUMENTS: dict[str, list[Any]] = {
    "init_scale": [0.0, -1.0, math.inf, math.nan, 1e39, 1e-39],
    "growth_factor": [1.0, 0.5, math.inf, math.nan],
    "backoff_factor": [0.0, 1.0, 2.0, -0.5, math.nan],
    "growth_interval": [0, -1, 2**63],
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_out_of_range(name: str) -> None:
    scaler = fo.amp.GradScaler()
    before = scaler.state_dict()
    setters: list[Callable[[Any], object]] = [lambda x: fo.amp.GradScaler(**{name: x})]
    if name == "init_scale":
        setters.append(scaler.update)
    else:
        setters.append(getattr(scaler, f"set_{name}"))
        good = getattr(scaler, f"get_{name}")()
        setters[-1](good)
        assert getattr(scaler, f"get_{name}")() == good
    key = "scale" if name == "init_scale" else name
    for value in ARGUMENTS[name]:
        for call in setters:
            with pytest.raises(ValueError, match=key):
                call(value)
        with pytest.raises(fo.CheckpointError, match=key):
            scaler.load_state_dict({**before, key: value})
    for bad in "2", [2.0], 1j:
        for call in setters:
            with pytest.raises(TypeError, match=key):
                call(bad)
    assert scaler.state_dict() == before
    with pytest.raises(TypeError, match="enabled"):
        fo.amp.GradScaler(enabled=1)  # type: ignore[arg-type]


GOOD = fo.amp.GradScaler(8.0).state_dict()


@pytest.mark.parametrize(
    "state",
    [
        {},
        None,
        {**GOOD, "more": 1},
        {key: GOOD[key] for key in NAMES[1:]},
        {**GOOD, "_growth_tracker": -1},
        {**GOOD, "_growth_tracker": 0.5},
        {**GOOD, "scale": None},
    ],
)
def test_a_state_of_something_else_changes_nothing(state: Any) -> None:
    scaler = fo.amp.GradScaler(4.0)
    before = scaler.state_dict()
    with pytest.raises(fo.CheckpointError, match=r"GradScaler|_growth_tracker"):
        scaler.load_state_dict(state)
    assert scaler.state_dict() == before


def test_sam_in_float16_follows_an_oracle_in_float64() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 6)), rng.standard_normal(64)
    w, model = np.zeros(6, "f4"), np.zeros(6)
    sam = fo.SAM(fo.SGD(w, lr=0.1, momentum=0.5), rho=0.05)
    scaler = fo.amp.GradScaler(2.0**12, growth_interval=5)
    momentum, skipped, scales = np.zeros(6), 0, []

    def gradient(w: Any) -> Any:
        return x.T @ (x @ w - y) / len(y)

    def scaled() -> Any:
        """Compute the gradient of the scaled loss in float16, which ends at 65504."""
        with np.errstate(over="ignore"):
            return (scaler.get_scale() * gradient(w.astype("f8"))).astype("f2")

    for t in range(60):
        scales.append(scaler.get_scale())
        if t % 2:
            sam.first_step(scaled(), loss_scale=scaler.get_scale())
        else:
            grads = scaled().astype("f4")
            scaler.unscale_(sam, grads)
            sam.first_step(grads)
        grads = scaled()
        if t % 3 == 0:
            scaler.unscale_(sam, grads)
        before = w.copy()
        info = scaler.step(sam, grads, max_norm=100.0)
        scaler.update()
        if not info.applied:
            skipped += 1
            assert scaler.get_scale() == scales[-1] / 2
            continue
        g = gradient(model)
        g = gradient(model + 0.05 * g / (np.linalg.norm(g) + 1e-12))
        momentum = g if not momentum.any() else 0.5 * momentum + g
        model -= 0.1 * momentum
        assert not np.array_equal(w, before)
    assert skipped > 2
    assert max(scales) > 2**14
    np.testing.assert_allclose(w, model, atol=2e-3)
    assert np.linalg.norm(gradient(model)) < 0.1


@pytest.mark.parametrize("when", ["first_step", "first unscale_", "second", "second unscale_"])
def test_a_skipped_step_of_sam_restores_the_parameters(when: str) -> None:
    w = np.array([1.0, -2.0])
    sam, scaler = fo.SAM(fo.SGD(w, lr=0.1)), fo.amp.GradScaler(1024.0)
    good, bad = scaler.scale(np.ones(2)), np.array([1.0, math.inf])
    first = (bad if when.startswith("first") else good).copy()
    if when == "first unscale_":
        scaler.unscale_(sam, first)
        first[:] = 1.0  # Replaced: not the gradient of the loss.
        sam.first_step(first)
    else:
        sam.first_step(first, loss_scale=scaler.get_scale())
    second = (bad if when.startswith("second") else good).copy()
    if when == "second unscale_":
        scaler.unscale_(sam, second)
    info = scaler.step(sam, second)
    assert not info.applied
    assert w.tolist() == [1.0, -2.0]
    scaler.update()
    assert scaler.get_scale() == 512.0
    sam.first_step(scaler.scale(np.ones(2)), loss_scale=scaler.get_scale())
    assert scaler.step(sam, scaler.scale(np.ones(2))).applied
    np.testing.assert_allclose(w, [0.9, -2.1])


def test_the_order_of_calls_with_sam() -> None:
    w = np.array([1.0, -2.0])
    sam, scaler = fo.SAM(fo.SGD(w, lr=0.1)), fo.amp.GradScaler(4.0)
    with pytest.raises(RuntimeError, match="second_step must be called after first_step"):
        scaler.step(sam, np.ones(2))
    grads = scaler.scale(np.ones(2))
    scaler.unscale_(sam, grads)
    with pytest.raises(RuntimeError, match="unscale_ was already called"):
        scaler.unscale_(sam, grads)
    assert grads.tolist() == [1.0, 1.0]
    sam.first_step(grads)
    # The gradients of the second step are different.
    grads = scaler.scale(np.ones(2))
    scaler.unscale_(sam, grads)
    with pytest.raises(RuntimeError, match="unscale_ was already called"):
        scaler.unscale_(sam, grads)
    assert scaler.step(sam, grads).applied
    np.testing.assert_allclose(w, [0.9, -2.1])
    with pytest.raises(RuntimeError, match="step was already called"):
        scaler.step(sam, grads)
    with pytest.raises(RuntimeError, match="unscale_ must be called before step"):
        scaler.unscale_(sam, grads)
    off = fo.amp.GradScaler(enabled=False)
    off.unscale_(sam, grads)
    sam.first_step(grads, loss_scale=off.get_scale())
    assert off.step(sam, grads).applied
    np.testing.assert_allclose(w, [0.8, -2.2])
