"""State: copies that continue to the bit, and checkpoints that are refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastoptim as fo
from cases import OPTIMIZERS


def make(cls: Any, seed: int = 0, **arguments: Any) -> Any:
    rng = np.random.default_rng(seed)
    params = {"w": rng.standard_normal((3, 4)), "v": rng.standard_normal((2, 5))}
    return cls(params, **{"lr": 0.01, **arguments})


def gradients(step: int) -> dict[str, Any]:
    rng = np.random.default_rng(100 + step)
    return {"w": rng.standard_normal((3, 4)), "v": rng.standard_normal((2, 5))}


def params_of(opt: Any) -> list[Any]:
    return [array for group in opt.param_groups for array in group["params"]]


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(params_of(a), params_of(b), strict=True))


@pytest.mark.parametrize("cls", OPTIMIZERS)
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "state_dict"])
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_a_copy_continues_to_the_bit(cls: Any, how: str, steps: int) -> None:
    opt = make(cls)
    for step in range(steps):
        opt.step(gradients(step))
    if how == "pickle":
        other = pickle.loads(pickle.dumps(opt))
    elif how == "deepcopy":
        other = copy.deepcopy(opt)
    else:
        other = make(cls, seed=1, lr=0.5)
        other.step(gradients(50))
        for mine, theirs in zip(params_of(other), params_of(opt), strict=True):
            mine[...] = theirs
        other.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
    for step in range(steps, steps + 3):
        opt.step(gradients(step))
        other.step(gradients(step))
    assert same(opt, other)
    assert pickle.dumps(other.state_dict()) == pickle.dumps(opt.state_dict())
    assert repr(other) == repr(opt)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_state_is_seen_under_names_and_stays_live(cls: Any) -> None:
    opt = make(cls)
    held = opt.state["w"]
    opt.step(gradients(0))
    saved = opt.state_dict()
    opt.step(gradients(1))
    now = opt.state["w"]
    assert now["step"] == 2
    for name, array in held.items():
        if isinstance(array, np.ndarray):
            assert np.shares_memory(array, now[name])
    opt.load_state_dict(saved)
    for name, array in opt.state["w"].items():
        assert np.array_equal(array, saved["state"][0][name])
        if isinstance(array, np.ndarray):
            assert np.shares_memory(array, held[name])
            array.shape = (array.size,)
    opt.step(gradients(1))


def test_groups_have_hyperparameters_of_their_own() -> None:
    a, b = np.zeros(2), np.zeros(2)
    groups: list[dict[str, Any]] = [{"params": {"a": a}}, {"params": {"b": b}, "lr": 1.0}]
    opt = fo.SGD(groups, lr=0.5)
    c = np.zeros(2)
    opt.add_param_group({"params": {"c": c}, "lr": 2.0, "maximize": True})
    opt.step([np.ones(2)] * 3)
    assert (a[0], b[0], c[0]) == (-0.5, -1.0, 2.0)
    opt.param_groups[0]["lr"] = 0.25
    opt.step({"a": np.ones(2), "b": np.ones(2), "c": np.ones(2)})
    assert (a[0], b[0], c[0]) == (-0.75, -2.0, 4.0)
    assert [group["params"] for group in opt.state_dict()["param_groups"]] == [[0], [1], [2]]


def test_a_generator_of_arrays() -> None:
    arrays = [np.zeros(2), np.zeros(3)]
    opt = fo.SGD((array for array in arrays), lr=1.0)
    opt.step([np.ones(2), np.ones(3)])
    assert list(opt.state) == ["0", "1"]
    assert arrays[1].tolist() == [-1, -1, -1]


def test_zero_grad() -> None:
    params = fo.FlatBuffer({"w": (2,)})
    grads = params.zeros_like()
    grads.flat[:] = 1
    fo.SGD(params).zero_grad(grads)
    assert not grads.flat.any()
    g = [np.ones(2), None, np.ones(1)]
    fo.SGD([np.ones(2), np.ones(3), np.ones(1)]).zero_grad(g)
    assert not any(x.any() for x in g if x is not None)


BAD_STATES = {
    "not a dict": lambda _: "text",
    "no state": lambda d: d.pop("state"),
    "state a list": lambda d: d.update(state=[1]),
    "other size": lambda d: d["param_groups"][0].update(params=[0]),
    "other names": lambda d: d["param_groups"][0].update(param_names=["w", "x"]),
    "unknown parameter": lambda d: d["state"].update({9: {}}),
    "parameter no dict": lambda d: d["state"].update({0: 1}),
    "unknown array": lambda d: d["state"][0].update(memory=np.ones((3, 4))),
    "lacking array": lambda d: d["state"][0].pop("exp_avg"),
    "other shape": lambda d: d["state"][0].update(exp_avg=np.ones((4, 3))),
    "other dtype": lambda d: d["state"][0].update(exp_avg=np.ones((3, 4), "f4")),
    "NaN": lambda d: d["state"][1].update(exp_avg=np.full((2, 5), np.nan)),
    "negative": lambda d: d["state"][1].update(exp_avg_sq=np.full((2, 5), -1.0)),
    "negative step": lambda d: d["state"][1].update(step=-1),
    "half a step": lambda d: d["state"][1].update(step=1.5),
    "step a word": lambda d: d["state"][1].update(step="one"),
    "huge step": lambda d: d["state"][1].update(step=2**64),
    "steps NaN": lambda d: d.update(steps=float("nan")),
    "bad rate": lambda d: d["param_groups"][0].update(lr=-1.0),
    "bad betas": lambda d: d["param_groups"][0].update(betas=(2.0, 2.0)),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_a_bad_checkpoint_changes_nothing(case: str) -> None:
    opt = make(fo.AdamW)
    opt.step(gradients(0))
    state = opt.state_dict()
    changed = BAD_STATES[case](state)
    if isinstance(changed, str):
        state = changed
    opt.step(gradients(1))
    before, params = pickle.dumps(opt.state_dict()), copy.deepcopy(params_of(opt))
    with pytest.raises(fo.CheckpointError):
        opt.load_state_dict(state)
    assert issubclass(fo.CheckpointError, ValueError)
    assert pickle.dumps(opt.state_dict()) == before
    assert all(np.array_equal(x, y) for x, y in zip(params_of(opt), params, strict=True))


def test_the_state_of_another_class_is_refused() -> None:
    sgd, adam = make(fo.SGD, momentum=0.9), make(fo.Adam)
    sgd.step(gradients(0))
    adam.step(gradients(0))
    for opt, other in ((sgd, adam), (adam, sgd)):
        with pytest.raises(fo.CheckpointError):
            opt.load_state_dict(other.state_dict())


def test_functions_are_saved_as_values_and_kept_at_load() -> None:
    rate = fo.schedules.step(1.0, 2)
    opt = fo.SGD(np.zeros(1), lr=rate)
    for _ in range(3):
        opt.step(np.ones(1))
    saved = opt.state_dict()
    assert saved["param_groups"][0]["lr"] == rate(3)
    other = fo.SGD(np.zeros(1), lr=rate)
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] is rate
    other.step(np.ones(1))
    assert other.param_groups[0]["params"][0][0] == -rate(3)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.booleans(), st.booleans()),
        st.tuples(st.just("lr"), st.floats(0, 1)),
        st.tuples(st.just("save")),
        st.tuples(st.just("load")),
    ),
    max_size=12,
)


@given(actions=ACTIONS, momentum=st.sampled_from([0.0, 0.9]))
def test_any_sequence_follows_the_formula(actions: list[Any], momentum: float) -> None:
    arrays = [np.array([1.0, -2.0]), np.array([[3.0]])]
    opt = fo.SGD(arrays, lr=0.1, momentum=momentum)
    p = [a.copy() for a in arrays]
    v: list[Any] = [None, None]
    lr, saved, seed = 0.1, None, 0
    for action in actions:
        if action[0] == "step":
            seed += 1
            rng = np.random.default_rng(seed)
            grads = [
                rng.standard_normal(a.shape) if wanted else None
                for a, wanted in zip(arrays, action[1:], strict=True)
            ]
            opt.step(grads)
            for i, g in enumerate(grads):
                if g is not None:
                    v[i] = g if v[i] is None or not momentum else momentum * v[i] + g
                    p[i] = p[i] - lr * v[i]
        elif action[0] == "lr":
            lr = opt.param_groups[0]["lr"] = action[1]
        elif action[0] == "save":
            saved = (opt.state_dict(), list(v), lr)
        elif saved is not None:
            opt.load_state_dict(saved[0])
            v, lr = list(saved[1]), saved[2]
    for mine, model in zip(arrays, p, strict=True):
        np.testing.assert_allclose(mine, model, rtol=1e-13, atol=1e-13)
