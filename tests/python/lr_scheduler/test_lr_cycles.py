"""The schedulers that also control the momentum, compared with PyTorch's."""

from __future__ import annotations

import copy
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import lr_scheduler, schedules
from rates import in_tensors, mine, pytorch, same, written

# PyTorch's schedulers warn if their optimizer does not step, which these tests do not need.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step:UserWarning")


def rising(cycle: float) -> float:
    return 1 / (1 + cycle)


CYCLIC: list[dict[str, Any]] = [
    {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4},
    {"base_lr": [0.01, 0.02], "max_lr": [0.1, 0.3], "step_size_up": 3, "step_size_down": 7},
    {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4, "mode": "triangular2"},
    {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4, "mode": "exp_range", "gamma": 0.95},
    {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4, "scale_fn": rising},
    {
        "base_lr": 0.01,
        "max_lr": 0.1,
        "step_size_up": 4,
        "scale_fn": rising,
        "scale_mode": "iterations",
        "base_momentum": [0.5, 0.6],
        "max_momentum": 0.7,
    },
    {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4, "cycle_momentum": False},
]
ONE_CYCLE: list[dict[str, Any]] = [
    {"max_lr": 0.1, "total_steps": 40},
    {"max_lr": [0.1, 0.3], "epochs": 5, "steps_per_epoch": 8, "anneal_strategy": "linear"},
    {"max_lr": 0.1, "total_steps": 40, "three_phase": True, "pct_start": 0.4},
    {"max_lr": 0.1, "total_steps": 39, "three_phase": True, "anneal_strategy": "linear"},
    {"max_lr": 0.1, "total_steps": 40, "base_momentum": [0.5, 0.6], "max_momentum": 0.7},
    {"max_lr": 0.1, "total_steps": 40, "cycle_momentum": False, "div_factor": 10.0},
]
CYCLES = [("CyclicLR", arguments) for arguments in CYCLIC]
CYCLES += [("OneCycleLR", arguments) for arguments in ONE_CYCLE]


@pytest.mark.parametrize(("name", "arguments"), CYCLES)
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_cycles_against_pytorch(name: str, arguments: dict[str, Any], optimizer: str) -> None:
    reference, theirs, ours = pytorch(optimizer)
    their_scheduler = getattr(reference, name)(theirs, **arguments)
    our_scheduler = getattr(lr_scheduler, name)(ours, **arguments)
    for _ in range(38):
        same(theirs, ours)
        their_scheduler.step()
        our_scheduler.step()
    assert our_scheduler.get_last_lr() == [group["lr"] for group in ours.param_groups]


@pytest.mark.parametrize(("name", "arguments"), CYCLES)
@pytest.mark.parametrize("done", [0, 1, 11])
@pytest.mark.parametrize("optimizer_first", [False, True])
def test_cycles_continue_to_the_bit(
    name: str, arguments: dict[str, Any], done: int, optimizer_first: bool
) -> None:
    first, second = mine(), mine()
    scheduler = getattr(lr_scheduler, name)(first, **arguments)
    other = {**{"CyclicLR": CYCLIC[0], "OneCycleLR": ONE_CYCLE[2]}[name]}
    kept = {key: value for key, value in arguments.items() if key == "scale_fn"}
    resumed = getattr(lr_scheduler, name)(second, **{**other, **kept})
    for _ in range(done):
        scheduler.step()
    for restore_optimizer in (optimizer_first, not optimizer_first):
        if restore_optimizer:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        else:
            before = written(second)
            resumed.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
            assert written(second) == before
    for _ in range(20):
        scheduler.step()
        resumed.step()
        for a, b in zip(first.param_groups, second.param_groups, strict=True):
            assert (a["lr"], a["momentum"]) == (b["lr"], b["momentum"])


def test_one_cycle_ends() -> None:
    opt = mine()
    scheduler = lr_scheduler.OneCycleLR(opt, max_lr=1.0, total_steps=4, anneal_strategy="linear")
    for _ in range(4):
        scheduler.step()
    last = 1.0 / 25 / 1e4
    assert opt.param_groups[0]["lr"] == pytest.approx(last)
    state = copy.deepcopy(opt.param_groups), scheduler.state_dict()
    with pytest.raises(ValueError, match="total_steps"):
        scheduler.step()
    assert state[1] == scheduler.state_dict()
    assert [g["lr"] for g in state[0]] == [g["lr"] for g in opt.param_groups]
    for total in (1, 2, 3):
        assert lr_scheduler.OneCycleLR(mine(), max_lr=1.0, total_steps=total).get_last_lr()


SHAPES = list(
    itertools.product((2, 3, 10, 39), (0.0, 0.1, 0.5, 1.0), ("cos", "linear"), (False, True))
)


@pytest.mark.parametrize(("total", "pct_start", "anneal", "three_phase"), SHAPES)
def test_one_cycle_of_any_shape_against_pytorch(
    total: int, pct_start: float, anneal: str, three_phase: bool
) -> None:
    reference, theirs, ours = pytorch()
    arguments: dict[str, Any] = {
        "max_lr": [0.1, 0.4],
        "total_steps": total,
        "pct_start": pct_start,
        "anneal_strategy": anneal,
        "three_phase": three_phase,
    }
    our = lr_scheduler.OneCycleLR(ours, **arguments)
    try:
        their = reference.OneCycleLR(theirs, **arguments)
        for _ in range(total - 1):
            same(theirs, ours)
            their.step()
            our.step()
        same(theirs, ours)
    except ZeroDivisionError:  # PyTorch's error for a phase of length 0.
        for _ in range(total - our.last_epoch):
            our.step()
            assert all(math.isfinite(rate) and rate >= 0 for rate in our.get_last_lr())


@pytest.mark.parametrize(("name", "arguments"), [CYCLES[0], CYCLES[2], *CYCLES[-6:-3]])
def test_rates_in_tensors_stay_there(name: str, arguments: dict[str, Any]) -> None:
    reference, theirs, ours = pytorch(lrs=in_tensors())
    tensors = [group["lr"] for group in ours.param_groups]
    their = getattr(reference, name)(theirs, **arguments)
    our = getattr(lr_scheduler, name)(ours, **arguments)
    for _ in range(20):
        same(theirs, ours)
        their.step()
        our.step()
    for group, tensor in zip(ours.param_groups, tensors, strict=True):
        assert group["lr"] is tensor


def test_a_cycle_after_another_scheduler_against_pytorch() -> None:
    # The first rate is the "initial_lr" of the other scheduler, in PyTorch too.
    reference, theirs, ours = pytorch()
    made = []
    for library, optimizer in ((reference, theirs), (lr_scheduler, ours)):
        cosine = library.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.01)
        cyclic = library.CyclicLR(optimizer, 0.1, 0.3, step_size_up=1, step_size_down=3)
        made.append((cosine, cyclic))
    for t in range(40):
        same(theirs, ours)
        for cosine, cyclic in made:
            (cosine if t <= 20 else cyclic).step()


@pytest.mark.parametrize("name", ["CyclicLR", "OneCycleLR"])
def test_resuming_by_last_epoch_against_pytorch(name: str) -> None:
    reference, theirs, ours = pytorch()
    arguments: dict[str, Any] = {"max_lr": 1.0, "last_epoch": 4}
    more = {"base_lr": 0.1, "step_size_up": 3} if name == "CyclicLR" else {"total_steps": 40}
    for group in theirs.param_groups + ours.param_groups:
        group.update(initial_lr=0.04, max_lr=1.0, min_lr=0.04 / 1e4)
        group.update(max_momentum=0.95, base_momentum=0.85)
    their = getattr(reference, name)(theirs, **arguments, **more)
    our = getattr(lr_scheduler, name)(ours, **arguments, **more)
    for _ in range(20):
        same(theirs, ours)
        their.step()
        our.step()


def test_a_momentum_may_exceed_one_but_not_a_beta() -> None:
    large: dict[str, Any] = {"base_momentum": 1, "max_momentum": 5, "step_size_up": 4}
    reference, theirs, ours = pytorch()
    their = reference.CyclicLR(theirs, 1, 5, **large)
    our = lr_scheduler.CyclicLR(ours, 1, 5, **large)
    for _ in range(12):
        same(theirs, ours)
        their.step()
        our.step()
    opt = fo.Adam(np.zeros(2))
    with pytest.raises(ValueError, match="base_momentum"):
        lr_scheduler.CyclicLR(opt, 1, 5, **large)
    assert opt.param_groups[0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("read", [tuple, list, iter, np.array])
def test_arguments_for_each_group_may_be_any_sequence(read: Any) -> None:
    for scheduler in (
        lr_scheduler.CyclicLR(
            mine(), read([0.1, 0.2]), read([0.5, 0.6]), base_momentum=read([0.7, 0.8])
        ),
        lr_scheduler.OneCycleLR(
            mine(), read([0.5, 0.6]), total_steps=9, base_momentum=read([0.7, 0.8])
        ),
    ):
        for _ in range(2):
            scheduler.step()
        state = json.loads(json.dumps(scheduler.state_dict()))
        assert state["max_lr"] == scheduler.max_lr == [0.5, 0.6]
        assert state["base_momentum"] == scheduler.base_momentum == [0.7, 0.8]


def test_a_change_inside_an_argument_takes_effect() -> None:
    opt = mine()
    scheduler = lr_scheduler.CyclicLR(opt, 0.1, [0.5, 0.6], step_size_up=1)
    scheduler.max_lr[1] = 0.9
    scheduler.step()
    assert scheduler.get_last_lr() == [0.5, 0.9]


def test_a_refused_change_leaves_nothing_behind() -> None:
    opt = mine()
    scheduler = lr_scheduler.CyclicLR(opt, 0.1, 0.5, step_size_up=2)
    scheduler.step()
    before = written(opt), scheduler.state_dict()
    with pytest.raises(ValueError, match="max_lr"):
        scheduler.max_lr = math.nan
    assert (written(opt), scheduler.state_dict()) == before
    scheduler.step()
    assert opt.param_groups[0]["momentum"] == 0.8


def failing(cycle: float) -> float:
    raise ZeroDivisionError


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("CyclicLR", {"base_lr": -1.0, "max_lr": 1.0}, "base_lr"),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": math.nan}, "max_lr"),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 0}, "step_size_up"),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "mode": "round"}, "mode"),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "scale_mode": "round"}, "scale_mode"),
    ("CyclicLR", {"base_lr": [0.1], "max_lr": 1.0}, "base_lr"),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "max_momentum": -0.1}, "max_momentum"),
    ("OneCycleLR", {"max_lr": 1.0}, "total_steps"),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 0}, "total_steps"),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 9, "pct_start": 1.5}, "pct_start"),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 9, "anneal_strategy": "x"}, "anneal_strategy"),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 9, "div_factor": 0.0}, "div_factor"),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": [1.0, 1.0, 1.0]}, "max_lr"),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "last_epoch": -2}, "last_epoch"),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 9, "base_momentum": math.nan}, "base_momentum"),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 9, "last_epoch": 10}, "total_steps"),
]


@pytest.mark.parametrize(("name", "arguments", "named"), REFUSED)
def test_invalid_arguments_are_refused(name: str, arguments: dict[str, Any], named: str) -> None:
    opt = mine()
    before = copy.deepcopy(written(opt))
    with pytest.raises(ValueError, match=named):
        getattr(lr_scheduler, name)(opt, **arguments)
    assert written(opt) == before


@pytest.mark.parametrize(("scale_fn", "error"), [(0.5, TypeError), (failing, ZeroDivisionError)])
def test_a_scale_that_fails_leaves_the_groups_alone(scale_fn: Any, error: Any) -> None:
    opt = mine()
    before = written(opt)
    with pytest.raises(error):
        lr_scheduler.CyclicLR(opt, 0.01, 0.1, scale_fn=scale_fn)
    assert written(opt) == before


@pytest.mark.parametrize("name", ["CyclicLR", "OneCycleLR"])
def test_a_hyperparameter_that_is_a_function_is_refused(name: str) -> None:
    arguments: dict[str, Any] = {"base_lr": 0.1} if name == "CyclicLR" else {"total_steps": 9}
    for key in ("lr", "momentum"):
        hyper: dict[str, Any] = {key: schedules.cosine(0.1, 10)}
        opt = fo.SGD(np.zeros(2), **hyper)
        before = written(opt)
        with pytest.raises(TypeError, match=rf"{key} of param_groups\[0\]"):
            getattr(lr_scheduler, name)(opt, max_lr=1.0, **arguments)
        assert written(opt) == before
    with pytest.raises(ValueError, match="cycle_momentum"):
        getattr(lr_scheduler, name)(fo.Adagrad(np.zeros(2)), max_lr=1.0, **arguments)
