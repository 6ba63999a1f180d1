"""Parameters, groups and state of every optimizer: forms, counts, copies, saves and loads."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import fastoptim as fo
from cases import OPTIMIZERS
from snapshot import snapshot


def variants(cls: Any) -> list[dict[str, Any]]:
    """The defaults, then each flag enabled, with momentum if the class has it."""
    arguments = inspect.signature(cls).parameters
    base = {"lr": 0.1, **({"momentum": 0.9} if "momentum" in arguments else {})}
    flags = [name for name, argument in arguments.items() if argument.default is False]
    return [{"lr": 0.1}, base, *({**base, flag: True} for flag in flags)]


VARIANTS = [
    pytest.param(cls, arguments, id=f"{cls.__name__}-{arguments}")
    for cls in OPTIMIZERS
    for arguments in variants(cls)
]


def made(cls: Any, arguments: dict[str, Any]) -> Any:
    """Return an optimizer with two groups, four parameters and both dtypes."""
    rng = np.random.default_rng(0)
    first = {"w": rng.standard_normal((3, 4)), "b": rng.standard_normal((1, 4)).astype("f4")}
    second = {"v": rng.standard_normal((2, 2)).astype("f4"), "idle": np.ones((2, 1))}
    return cls([{"params": first}, {"params": second, "lr": 0.01}], **arguments)


def arrays(opt: Any) -> list[Any]:
    return [array for group in opt.param_groups for array in group["params"]]


def train(opt: Any, steps: range) -> None:
    """Make steps that depend only on their number; the last parameter has no gradient."""
    for t in steps:
        rng = np.random.default_rng(t)
        grads = [rng.standard_normal(w.shape).astype(w.dtype) for w in arrays(opt)]
        opt.step([*grads[:-1], None], max_norm=1.0)


def loaded(opt: Any) -> Any:
    other = made(type(opt), {"lr": 0.5})
    for mine, theirs in zip(arrays(other), arrays(opt), strict=True):
        mine[...] = theirs
    other.load_state_dict(opt.state_dict())
    return other


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda opt: pickle.loads(pickle.dumps(opt)),
    "deepcopy": copy.deepcopy,
    "load": loaded,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize(("cls", "arguments"), VARIANTS)
def test_a_copy_continues_to_the_bit(cls: Any, arguments: dict[str, Any], how: str) -> None:
    for before in range(4):
        opt = made(cls, arguments)
        train(opt, range(before))
        other = COPIES[how](opt)
        assert snapshot(other) == snapshot(opt)
        picture = snapshot(opt)
        train(other, range(before, 6))
        assert snapshot(opt) == picture
        train(opt, range(before, 6))
        assert snapshot(other) == snapshot(opt)


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_a_copy_preserves_nan(optimizer: Any, how: str) -> None:
    opt = made(optimizer, {"lr": 0.1})
    opt.step([np.full_like(w, np.nan) for w in arrays(opt)])
    assert snapshot(COPIES[how](opt)) == snapshot(opt)


@pytest.mark.parametrize(("cls", "arguments"), VARIANTS)
def test_a_load_restores_the_saved_state(cls: Any, arguments: dict[str, Any]) -> None:
    opt = made(cls, arguments)
    train(opt, range(2))
    saved, weights = opt.state_dict(), copy.deepcopy(arrays(opt))
    picture = snapshot([opt, saved])
    train(opt, range(2, 5))
    # The saved state is a copy.
    assert snapshot(saved) == picture[1]
    for w, old in zip(arrays(opt), weights, strict=True):
        w[...] = old
    opt.load_state_dict(saved)
    assert snapshot([opt, saved]) == picture
    train(opt, range(2, 3))
    assert snapshot(saved) == picture[1]


@pytest.mark.parametrize(("cls", "arguments"), VARIANTS)
def test_views_of_the_state_stay_live_after_a_load(cls: Any, arguments: dict[str, Any]) -> None:
    opt = made(cls, arguments)
    train(opt, range(2))
    saved, views = opt.state_dict(), opt.state
    train(opt, range(2, 4))
    opt.load_state_dict(saved)
    for _ in range(2):
        for name, slots in opt.state.items():
            for slot, array in slots.items():
                if isinstance(array, np.ndarray):
                    assert np.array_equal(views[name][slot], array)
                    assert np.shares_memory(views[name][slot], array)
        train(opt, range(2, 3))


def test_layout_of_a_state_dict(optimizer: Any) -> None:
    opt = made(optimizer, {"lr": 0.1})
    assert opt.state_dict()["state"] == {}
    train(opt, range(3))
    saved = opt.state_dict()
    assert [group["params"] for group in saved["param_groups"]] == [[0, 1], [2, 3]]
    assert [group["param_names"] for group in saved["param_groups"]] == [["w", "b"], ["v", "idle"]]
    assert [group["lr"] for group in saved["param_groups"]] == [0.1, 0.01]
    steps = {index: entry["step"] for index, entry in saved["state"].items()}
    # All parameters have Prodigy's estimate.
    assert steps == {0: 3, 1: 3, 2: 3, **({3: 0} if optimizer is fo.Prodigy else {})}
    for index, name in enumerate("wbv"):
        live = opt.state[name]
        for slot, value in saved["state"][index].items():
            assert snapshot(live[slot]) == snapshot(value)
            assert value is not live[slot] or isinstance(value, int)
    assert all(type(slots["step"]) is int for slots in opt.state.values())


FORMS: dict[str, Callable[[fo.FlatBuffer], Any]] = {
    "buffer": lambda x: x,
    "mapping": lambda x: dict(x),
    "list": lambda x: list(x.values()),
    "tuple": lambda x: tuple(x.values()),
    "generator": lambda x: (array for array in x.values()),
    "group": lambda x: [{"params": x}],
    "groups": lambda x: [{"params": {name: array}, "lr": 0.1} for name, array in x.items()],
    "groups of arrays": lambda x: [{"params": array} for array in x.values()],
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_params_and_grads_give_the_same_bits(optimizer: Any, form: str) -> None:
    rng = np.random.default_rng(1)
    named = {"w": rng.standard_normal((3, 4)), "b": rng.standard_normal((2, 2))}
    grads = fo.FlatBuffer.from_arrays(
        {name: rng.standard_normal(w.shape) for name, w in named.items()}
    )
    expected = copy.deepcopy(list(named.values()))
    opt = optimizer(expected, lr=0.1)
    for _ in range(2):
        opt.step(list(grads.values()), max_norm=1.0)
    given: list[Any] = [list(grads.values()), tuple(grads.values())]
    if "list" not in form and form not in ("tuple", "generator", "groups of arrays"):
        given += [grads, dict(grads), dict(reversed(list(grads.items()))), copy.deepcopy(grads)]
    if form == "buffer":
        given.append(grads.flat)
    for form_of_grads in given:
        buffer = fo.FlatBuffer.from_arrays(named)
        opt = optimizer(FORMS[form](buffer), lr=0.1)
        for _ in range(2):
            opt.step(form_of_grads, max_norm=1.0)
        assert snapshot(list(buffer.values())) == snapshot(expected)


@pytest.mark.parametrize("shape", [(12,), (3, 4), ()])
def test_a_single_array(optimizer: Any, shape: tuple[int, ...]) -> None:
    if optimizer is fo.Muon and len(shape) != 2:
        pytest.skip("supports only matrices")
    results = []
    for wrap in (lambda x: x), (lambda x: [x]), (lambda x: {"0": x}):
        w, g = np.ones(shape), np.full(shape, 0.5)
        opt = optimizer(wrap(w), lr=0.1)
        opt.step(wrap(g))
        results.append(snapshot([w, opt.state]))
    assert results[0] == results[1] == results[2]


def test_names(optimizer: Any) -> None:
    def ones() -> Any:
        return np.ones((2, 2))

    opt = optimizer([{"params": [ones(), ones()]}, {"params": {"w": ones()}}, {"params": ones()}])
    assert list(opt.state) == ["0", "1", "w", "3"]
    assert [group["param_names"] for group in opt.param_groups] == [("0", "1"), ("w",), ("3",)]
    opt.step({"3": ones(), "w": None, "1": ones(), "0": None})
    assert [slots["step"] for slots in opt.state.values()] == [0, 1, 0, 1]


@pytest.mark.parametrize(("cls", "arguments"), VARIANTS)
def test_groups_are_optimizers_of_their_own(cls: Any, arguments: dict[str, Any]) -> None:
    if cls is fo.Prodigy:
        pytest.skip("one estimate over all groups")
    rates = [0.1, 0.01, 0.5]
    together, apart = ([np.full((2, 3), float(i)) for i in range(3)] for _ in range(2))
    rest = {name: value for name, value in arguments.items() if name != "lr"}
    opt = cls([{"params": w, "lr": lr} for w, lr in zip(together, rates, strict=True)], **rest)
    each = [cls(w, lr=lr, **rest) for w, lr in zip(apart, rates, strict=True)]
    for t in range(4):
        grads = list(np.random.default_rng(t).standard_normal((3, 2, 3)))
        opt.step(grads)
        for one, g in zip(each, grads, strict=True):
            one.step(g)
    assert snapshot(together) == snapshot(apart)
    assert [group["lr"] for group in opt.param_groups] == rates


def test_a_parameter_without_gradient_does_not_change(optimizer: Any) -> None:
    if optimizer is fo.Prodigy:
        pytest.skip("one estimate over all parameters")
    opt = made(optimizer, {"lr": 0.1})
    train(opt, range(2))
    grads = [np.ones_like(w) for w in arrays(opt)]
    opt.step(grads)
    for missing in range(len(grads)):
        w, name = arrays(opt)[missing], list(opt.state)[missing]
        before, count = snapshot([w, opt.state[name]]), opt.state["w"]["step"]
        given = [None if i == missing else g for i, g in enumerate(grads)]
        opt.step(given)
        opt.step(dict(zip(opt.state, given, strict=True)))
        assert snapshot([w, opt.state[name]]) == before
        assert opt.state["w"]["step"] == count + 2 * (name != "w")


def test_an_added_group_starts_at_step_zero(optimizer: Any) -> None:
    opt = made(optimizer, {"lr": 0.1})
    train(opt, range(3))
    before = snapshot(opt.state)
    w, alone = (np.full((2, 2), 0.5) for _ in range(2))
    opt.add_param_group({"params": {"new": w}, "lr": 0.3})
    assert snapshot({name: opt.state[name] for name in before}) == before
    assert opt.param_groups[-1].keys() == opt.param_groups[0].keys()
    other = optimizer(alone, lr=0.3)
    for _ in range(3):
        opt.step([None] * 4 + [np.ones((2, 2))])
        other.step(np.ones((2, 2)))
    assert snapshot([w, opt.state["new"]]) == snapshot([alone, other.state["0"]])
    assert snapshot(loaded_into(opt, optimizer)) == snapshot(opt)


def loaded_into(opt: Any, cls: Any) -> Any:
    groups = [
        {"params": dict(zip(group["param_names"], group["params"], strict=True))}
        for group in copy.deepcopy(opt.param_groups)
    ]
    other = cls(groups)
    other.load_state_dict(opt.state_dict())
    return other


def test_repr(optimizer: Any) -> None:
    text = repr(made(optimizer, {"lr": 0.125}))
    assert text.startswith(optimizer.__name__)
    assert "Parameter Group 1" in text
    assert "lr: 0.125" in text
    assert "lr: 0.01" in text


def test_zero_grad(optimizer: Any) -> None:
    params = fo.FlatBuffer({"w": (2, 2), "b": (1, 3)})
    opt = optimizer(params)
    for form in (lambda g: g), (lambda g: g.flat), dict, (lambda g: [g["w"], g["b"]]):
        grads = params.zeros_like()
        grads.flat[...] = np.nan
        opt.zero_grad(form(grads))
        assert not grads.flat.any()
    grads.flat[...] = 1
    opt.zero_grad([None, grads["b"]])
    assert grads.flat.tolist() == [1, 1, 1, 1, 0, 0, 0]


def falling(t: int) -> float:
    return 1.0 / (1 + t)


def test_a_hyperparameter_may_be_a_function_of_the_step() -> None:
    w = np.zeros(1)
    opt = fo.SGD(w, lr=falling)
    for expected in -1.0, -1.5, -1.5 - 1 / 3:
        opt.step(np.ones(1))
        assert w[0] == pytest.approx(expected)
    saved = opt.state_dict()
    assert saved["param_groups"][0]["lr"] == 0.25
    live, fixed = fo.SGD(np.zeros(1), lr=falling), fo.SGD(np.zeros(1))
    for other, rate in (live, falling), (fixed, 0.25), (pickle.loads(pickle.dumps(opt)), falling):
        other.load_state_dict(saved)
        assert other.param_groups[0]["lr"] == rate
        before = other.param_groups[0]["params"][0].copy()
        other.step(np.ones(1))
        assert before - other.param_groups[0]["params"][0] == pytest.approx(0.25)
    betas = fo.Adam(np.zeros(1), betas=lambda t: (0.5, 0.5 + t / 10))
    betas.step(np.ones(1))
    betas.step(np.ones(1))
    assert betas.state["0"]["exp_avg_sq"][0] == pytest.approx(0.5 * 0.6 + 0.4)


def test_momentum_switched_on_starts_as_on_a_first_step() -> None:
    w = np.zeros(1)
    opt = fo.SGD(w, lr=1.0, dampening=0.5)
    opt.step(np.ones(1))
    opt.param_groups[0]["momentum"] = 0.9
    opt.step(np.ones(1))
    assert w[0] == -2.0


def test_momentum_switched_off_can_be_saved() -> None:
    opt = fo.SGD(np.zeros(1), lr=1.0, momentum=0.9)
    opt.step(np.ones(1))
    opt.param_groups[0]["momentum"] = 0.0
    opt.step(np.ones(1))
    assert snapshot(pickle.loads(pickle.dumps(opt)).state_dict()) == snapshot(opt.state_dict())


def test_amsgrad_cannot_be_switched_on_later() -> None:
    opt = fo.Adam(np.zeros(1))
    opt.step(np.ones(1))
    before = snapshot(opt.state)
    opt.param_groups[0]["amsgrad"] = True
    with pytest.raises(ValueError, match="max_exp_avg_sq"):
        opt.step(np.ones(1))
    assert snapshot(opt.state) == before


ABSENT = object()

# The places at which a state dict is made invalid, and the values.
BAD_STATE: list[tuple[tuple[Any, ...], list[Any]]] = [
    ((), [None, 5, [], "text", {}]),
    (("state",), [ABSENT, None, 5, "text", [1]]),
    (("state", 0), [None, 5, "text", [1]]),
    (("state", 9), [{"step": 1}]),
    (("state", 0, "other"), [1, np.ones(3)]),
    (("state", 0, "step"), [-1, 1.5, math.nan, math.inf, "text", None, [1, 2], 2**64, 1j]),
    (("steps",), [-1, 1.5, math.nan, math.inf, "text", None, [1, 2], 2**64, 1j]),
    (("param_groups",), [ABSENT, None, 5, "text", [], [1, 2], [{}, {}], [{}] * 3]),
    (("param_groups", 0), [None, 5, "text", [1], {}]),
    (("param_groups", 0, "params"), [ABSENT, None, 5, "text", [], [0], [0, 1, 2]]),
    (("param_groups", 0, "param_names"), [5, "text", ["w"], ["b", "v"], [1, 2], [None]]),
    (("param_groups", 1, "lr"), [math.nan, -1.0, math.inf, "big", None, [1.0]]),
]


def bad_values(slot: str, good: Any) -> list[Any]:
    if isinstance(good, float):
        return [math.nan, math.inf, "text", None, [1.0, 2.0]]
    wrong = [
        *(good.astype(dtype) for dtype in ("f4", "i8", "O", "c16")),
        good[:1],
        good.ravel(),
        np.full_like(good, np.nan),
        [[1.0], [1.0, 2.0]],
        "text",
        5,
        *([ABSENT] if slot != "momentum_buffer" else []),
        *([-1 - abs(good)] if slot.endswith("_sq") else []),
    ]
    # A column may have the length of its first part.
    return [x for x in wrong if not (isinstance(x, np.ndarray) and np.array_equal(x, good))]


def edited(thing: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with the value at a place replaced."""
    if not place:
        return value
    thing = copy.copy(thing)
    if value is ABSENT and len(place) == 1:
        del thing[place[0]]
    elif place[0] in thing or isinstance(thing, list):
        thing[place[0]] = edited(thing[place[0]], place[1:], value)
    else:
        thing[place[0]] = value
    return thing


class TestBadStateDicts:
    @pytest.mark.parametrize(("cls", "arguments"), VARIANTS)
    def test_change_nothing(self, cls: Any, arguments: dict[str, Any]) -> None:
        opt = made(cls, arguments)
        train(opt, range(2))
        saved = opt.state_dict()
        train(opt, range(2, 3))
        slots = [
            (("state", 0, slot), bad_values(slot, value))
            for slot, value in saved["state"][0].items()
            if slot != "step"
        ]
        before = snapshot(opt)
        failures: list[Any] = []
        for place, values in BAD_STATE + slots:
            for value in values:
                try:
                    copy.deepcopy(opt).load_state_dict(edited(saved, place, value))
                    failures.append((place, value, "accepted"))
                except fo.CheckpointError:
                    with pytest.raises(fo.CheckpointError):
                        opt.load_state_dict(edited(saved, place, value))
                except Exception as error:
                    failures.append((place, value, error))
                assert snapshot(opt) == before
        assert not failures

    def test_other_classes(self) -> None:
        sgd, adam = made(fo.SGD, {"momentum": 0.9}), made(fo.Adam, {})
        for mine, theirs in (sgd, adam), (adam, sgd):
            train(mine, range(2))
            train(theirs, range(2))
            before = snapshot(mine)
            with pytest.raises(fo.CheckpointError):
                mine.load_state_dict(theirs.state_dict())
            assert snapshot(mine) == before


class SGDModel:
    """SGD with momentum in the variables of its docstring, in float64."""

    cls = fo.SGD
    start: ClassVar[dict[str, Any]] = {"momentum": 0.9}
    hypers: ClassVar[dict[str, list[Any]]] = {
        "lr": [0.1, 0.5, falling],
        "momentum": [0.0, 0.5, 0.9],
        "weight_decay": [0.0, 0.1],
    }

    def update(self, p: Any, g: Any, slots: dict[str, Any], h: dict[str, float]) -> None:
        g = g + h["weight_decay"] * p
        if h["momentum"]:
            v = slots.get("momentum_buffer")
            slots["momentum_buffer"] = g = g if v is None else h["momentum"] * v + g
        p -= h["lr"] * g


class AdamWModel:
    """AdamW in the variables of its paper, in float64."""

    cls = fo.AdamW
    start: ClassVar[dict[str, Any]] = {}
    hypers: ClassVar[dict[str, list[Any]]] = {
        "lr": [0.1, 0.01, falling],
        "betas": [(0.9, 0.99), (0.5, 0.8)],
        "weight_decay": [0.0, 0.1],
    }

    def update(self, p: Any, g: Any, slots: dict[str, Any], h: dict[str, Any]) -> None:
        (b1, b2), t = h["betas"], slots["step"]
        p *= 1 - h["lr"] * h["weight_decay"]
        m = slots["exp_avg"] = b1 * slots.get("exp_avg", 0) + (1 - b1) * g
        v = slots["exp_avg_sq"] = b2 * slots.get("exp_avg_sq", 0) + (1 - b2) * g**2
        p -= h["lr"] * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)


class CallSequence(RuleBasedStateMachine):
    """Any order of steps, changes, copies, saves and loads, compared with a model."""

    model: Any

    @initialize()
    def start(self) -> None:
        self.params: list[Any] = []
        self.state: list[dict[str, Any]] = []
        self.hypers: list[dict[str, Any]] = []
        self.steps = 0
        self.saved: tuple[Any, ...] | None = None
        self.opt = self.model.cls([np.ones((2, 3))], **self.model.start)
        self.note_group(np.ones((2, 3)))

    def note_group(self, w: Any) -> None:
        self.params.append(w)
        self.state.append({"step": 0})
        self.hypers.append({name: self.opt.param_groups[-1][name] for name in self.model.hypers})

    def values(self) -> list[dict[str, Any]]:
        """Return the hyperparameters, with the current values of functions."""
        return [
            {name: x(self.steps) if callable(x) else x for name, x in group.items()}
            for group in self.hypers
        ]

    @rule(seed=st.integers(0, 99), present=st.lists(st.booleans(), min_size=9, max_size=9))
    def step(self, seed: int, present: list[bool]) -> None:
        rng = np.random.default_rng(seed)
        # At least one gradient.
        grads = [rng.standard_normal((2, 3)) for _ in self.params]
        given = [g if i == 0 or present[i] else None for i, g in enumerate(grads)]
        for p, g, slots, h in zip(self.params, given, self.state, self.values(), strict=True):
            if g is not None:
                slots["step"] += 1
                self.model.update(p, g, slots, h)
        assert self.opt.step(given).applied
        self.steps += 1

    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        group = data.draw(st.integers(0, len(self.params) - 1))
        name = data.draw(st.sampled_from(sorted(self.model.hypers)))
        value = data.draw(st.sampled_from(self.model.hypers[name]))
        self.opt.param_groups[group][name] = self.hypers[group][name] = value

    @rule(rate=st.sampled_from([0.1, 0.2]))
    def add_group(self, rate: float) -> None:
        if len(self.params) < 4:
            self.opt.add_param_group({"params": np.zeros((2, 3)), "lr": rate})
            self.note_group(np.zeros((2, 3)))

    @rule()
    def save(self) -> None:
        self.saved = (
            self.opt.state_dict(),
            copy.deepcopy((self.params, self.state, self.values(), self.steps)),
        )

    @rule()
    def load(self) -> None:
        if self.saved is None:
            return
        saved, model = self.saved
        if len(model[0]) != len(self.params):
            before = snapshot(self.opt)
            with pytest.raises(fo.CheckpointError):
                self.opt.load_state_dict(saved)
            assert snapshot(self.opt) == before
            return
        self.opt.load_state_dict(saved)
        self.params, self.state, values, self.steps = copy.deepcopy(model)
        for w, old in zip(arrays(self.opt), self.params, strict=True):
            w[...] = old
        # Functions stay.
        for mine, theirs in zip(self.hypers, values, strict=True):
            mine.update({name: x for name, x in theirs.items() if not callable(mine[name])})

    @rule(how=st.sampled_from(["pickle", "deepcopy", "fresh"]))
    def copy(self, how: str) -> None:
        if how == "fresh":
            self.hypers = self.values()
            self.opt = loaded_into(self.opt, self.model.cls)
        else:
            self.opt = COPIES[how](self.opt)

    @invariant()
    def agrees(self) -> None:
        assert [slots["step"] for slots in self.opt.state.values()] == [
            slots["step"] for slots in self.state
        ]
        for w, p in zip(arrays(self.opt), self.params, strict=True):
            np.testing.assert_allclose(w, p, rtol=1e-9, atol=1e-12)
        for live, slots in zip(self.opt.state.values(), self.state, strict=True):
            for name, array in slots.items():
                np.testing.assert_allclose(live[name], array, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model", [SGDModel(), AdamWModel()], ids=["SGD", "AdamW"])
def test_any_sequence_of_calls_agrees_with_the_model(model: Any) -> None:
    machine = type("CallSequence", (CallSequence,), {"model": model})
    run_state_machine_as_test(machine, settings=settings(max_examples=200, stateful_step_count=20))
