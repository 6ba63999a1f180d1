"""Steps to a given epoch, compared with PyTorch's, and states that set the rates."""

from __future__ import annotations

import copy
import json
import warnings
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import lr_scheduler
from rates import in_tensors, mine, pytorch, same, written


def harmonic(t: float) -> float:
    return 1 / (1 + t)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "ConstantLR": {"factor": 0.5, "total_iters": 4},
    "CosineAnnealingLR": {"T_max": 9, "eta_min": 0.01},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": [0.1, 0.2], "step_size_up": 4, "mode": "triangular2"},
    "ExponentialLR": {"gamma": 0.9},
    "LambdaLR": {"lr_lambda": harmonic},
    "LinearLR": {"total_iters": 7},
    "MultiStepLR": {"milestones": [3, 6, 6, 11]},
    "MultiplicativeLR": {"lr_lambda": harmonic},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 50},
    "PolynomialLR": {"total_iters": 19, "power": 2.0},
    "StepLR": {"step_size": 2, "gamma": 0.5},
    "WarmupStableDecayLR": {"warmup_steps": 2, "stable_steps": 3, "decay_steps": 9},
}
WITHOUT_EPOCHS = {"ChainedScheduler", "SequentialLR"}
OURS_ALONE = {"WarmupStableDecayLR"}
# Schedulers whose closed form gives their values at any step.
CLOSED = ARGUMENTS.keys() - {"MultiplicativeLR"}
each = pytest.mark.parametrize("name", ARGUMENTS)


def test_every_scheduler_is_tested() -> None:
    known = ARGUMENTS.keys() | WITHOUT_EPOCHS | {"LRScheduler", "ReduceLROnPlateau"}
    assert known == set(lr_scheduler.__all__)


def called(scheduler: Any, *arguments: Any) -> list[warnings.WarningMessage]:
    """Make a step, and return the warnings about its arguments."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scheduler.step(*arguments)
    return [one for one in caught if "lr_scheduler.step()" not in str(one.message)]


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("name", sorted(ARGUMENTS.keys() - OURS_ALONE))
def test_a_step_to_an_epoch_against_pytorch(name: str, tensors: bool) -> None:
    reference, theirs, ours = pytorch(lrs=in_tensors()) if tensors else pytorch()
    made = [
        getattr(library, name)(optimizer, **copy.deepcopy(ARGUMENTS[name]))
        for library, optimizer in ((reference, theirs), (lr_scheduler, ours))
    ]
    for t, epoch in enumerate([3, None, 4, 12, None, 0, None, None, 6, 30, None, 19, 2, None]):
        if t in (4, 9):
            for optimizer in (theirs, ours):
                group = optimizer.param_groups[1]
                group["lr"] = group["lr"] * 0.25
        for scheduler in made:
            warned = called(scheduler, *([] if epoch is None else [epoch]))
            wanted = epoch is not None and name != "CosineAnnealingWarmRestarts"
            assert [one.category for one in warned] == [UserWarning] * wanted
            assert [one.filename for one in warned] == [__file__] * wanted
        same(theirs, ours)
        assert made[0].last_epoch == made[1].last_epoch


def test_the_warning_is_pytorchs_own() -> None:
    torch = pytest.importorskip("torch")
    from fastoptim.lr_scheduler._arguments import EPOCH_DEPRECATED

    theirs = torch.optim.lr_scheduler.EPOCH_DEPRECATION_WARNING
    # Without the URL of PyTorch's issues.
    assert theirs.startswith(EPOCH_DEPRECATED)
    three: Any = np.int64(3)
    with pytest.warns(UserWarning, match="epoch parameter") as warned:
        lr_scheduler.StepLR(mine(), 2).step(three)
    assert [str(one.message) for one in warned] == [EPOCH_DEPRECATED]


@pytest.mark.parametrize("name", sorted(CLOSED))
def test_a_step_to_an_epoch_gives_the_rate_of_as_many_steps_to_the_bit(name: str) -> None:
    stepped, jumped = mine(), mine()
    one, other = (
        getattr(lr_scheduler, name)(opt, **copy.deepcopy(ARGUMENTS[name]))
        for opt in (stepped, jumped)
    )
    for t in range(1, 30):
        one.step()
        jumped.param_groups[0]["lr"] = 7.0
        called(other, t)
        assert written(stepped) == written(jumped)
        assert one.state_dict() == other.state_dict()


@each
@pytest.mark.parametrize(
    ("epoch", "error"), [(-1, ValueError), ("3", TypeError), (np.nan, (TypeError, ValueError))]
)
def test_an_invalid_epoch_changes_nothing(name: str, epoch: Any, error: Any) -> None:
    opt = mine()
    scheduler = getattr(lr_scheduler, name)(opt, **copy.deepcopy(ARGUMENTS[name]))
    before = copy.deepcopy((written(opt), scheduler.state_dict()))
    with pytest.raises(error, match="epoch"):
        scheduler.step(epoch)
    assert before == (written(opt), scheduler.state_dict())


def test_a_plateau_takes_an_epoch_too() -> None:
    reference, theirs, ours = pytorch()
    made = [
        library.ReduceLROnPlateau(optimizer, patience=1)
        for library, optimizer in ((reference, theirs), (lr_scheduler, ours))
    ]
    for epoch in (5, None, 0, 9, None):
        for scheduler in made:
            assert len(called(scheduler, 1.0, epoch)) == (epoch is not None)
        assert made[0].last_epoch == made[1].last_epoch
        same(theirs, ours)
    bad: list[tuple[Any, type[Exception]]] = [(-1, ValueError), (1.5, TypeError)]
    for wrong, error in bad:
        with pytest.raises(error, match="epoch"):
            made[1].step(1.0, wrong)
    assert made[1].last_epoch == 10


def moved(opt: Any, name: str, steps: int) -> Any:
    """Construct a scheduler, and make some steps."""
    if name == "ReduceLROnPlateau":
        scheduler: Any = lr_scheduler.ReduceLROnPlateau(opt, patience=1)
    elif name == "SequentialLR":
        parts = [lr_scheduler.LinearLR(opt), lr_scheduler.CyclicLR(opt, 0.01, 0.1, 3)]
        scheduler = lr_scheduler.SequentialLR(opt, parts, [4])
    elif name == "ChainedScheduler":
        cosine = lr_scheduler.CosineAnnealingLR(opt, 7, 0.01)
        chained = [lr_scheduler.LinearLR(opt), cosine, lr_scheduler.ExponentialLR(opt, 0.9)]
        scheduler = lr_scheduler.ChainedScheduler(chained)
    else:
        scheduler = getattr(lr_scheduler, name)(opt, **copy.deepcopy(ARGUMENTS[name]))
    for _ in range(steps):
        scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
    return scheduler


ALL = sorted(ARGUMENTS.keys() | WITHOUT_EPOCHS | {"ReduceLROnPlateau"})


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steps", [0, 3, 8])
@pytest.mark.parametrize("fresh", [fo.SGD, fo.AdamW])
def test_a_state_sets_the_rates_of_a_fresh_optimizer(name: str, steps: int, fresh: Any) -> None:
    def made() -> Any:
        groups = [{"params": [np.zeros(2)], "lr": lr} for lr in (0.1, 0.03)]
        return fresh(groups, **({"momentum": 0.9} if fresh is fo.SGD else {}))

    trained = made()
    scheduler = moved(trained, name, steps)
    state = json.loads(json.dumps(scheduler.state_dict()))
    opt = made()
    for group in opt.param_groups:
        group["lr"] *= 3
    restored = moved(opt, name, 0)
    rates = [group["lr"] for group in opt.param_groups]
    restored.load_state_dict(state)
    assert rates == [group["lr"] for group in opt.param_groups]
    restored.load_state_dict(state, set_lr=True)
    assert restored.state_dict() == state
    for _ in range(6):
        for before, after in zip(trained.param_groups, opt.param_groups, strict=True):
            for key in ("lr", "momentum", "betas"):
                assert before.get(key) == after.get(key)
        for one in (scheduler, restored):
            one.step(*([1.0] if name == "ReduceLROnPlateau" else []))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "made after a load"])
def test_the_orders_of_a_restore(name: str, order: str) -> None:
    trained = mine()
    scheduler = moved(trained, name, 6)
    states = json.loads(json.dumps([trained.state_dict(), scheduler.state_dict()]))
    opt = mine()
    if order == "made after a load":
        # The constructor changes the current rate; only `set_lr` restores it.
        opt.load_state_dict(states[0])
        restored = moved(opt, name, 0)
        restored.load_state_dict(states[1], set_lr=True)
    else:
        restored = moved(opt, name, 0)
        loads = [(opt, states[0]), (restored, states[1])]
        for one, state in loads if order == "optimizer first" else loads[::-1]:
            one.load_state_dict(state)
    for _ in range(6):
        assert written(trained) == written(opt)
        for one in (scheduler, restored):
            one.step(*([1.0] if name == "ReduceLROnPlateau" else []))


def test_a_wrong_rate_is_set_to_the_closed_form_and_a_chain_to_its_last() -> None:
    opt = mine()
    scheduler = moved(opt, "LinearLR", 3)
    right = [group["lr"] for group in opt.param_groups]
    opt.param_groups[0]["lr"] = 0.7
    scheduler.step()
    scheduler.step()
    state = scheduler.state_dict()
    scheduler.load_state_dict({**state, "last_epoch": 3}, set_lr=True)
    assert [group["lr"] for group in opt.param_groups] == scheduler.get_last_lr() == right
    chain = moved(opt, "ChainedScheduler", 0)
    state = {**chain.state_dict()}
    for part in state["_schedulers"]:
        part["_last_lr"] = [0.5, 0.25]
    chain.load_state_dict({**state, "_last_lr": [0.5, 0.25]}, set_lr=True)
    assert [group["lr"] for group in opt.param_groups] == chain.get_last_lr() == [0.5, 0.25]


def test_rates_in_tensors_are_set_there() -> None:
    _, opt, other = pytorch(lrs=in_tensors("float32"))
    scheduler = moved(opt, "ExponentialLR", 5)
    restored = moved(other, "ExponentialLR", 0)
    held = [group["lr"] for group in other.param_groups]
    restored.load_state_dict(scheduler.state_dict(), set_lr=True)
    assert all(a is b["lr"] for a, b in zip(held, other.param_groups, strict=True))
    same(opt, other, rtol=0)
    assert restored.state_dict() == scheduler.state_dict()


@pytest.mark.parametrize("name", ALL)
def test_a_load_that_cannot_set_the_rates_changes_nothing(name: str) -> None:
    state = moved(mine(), name, 3).state_dict()
    opt = mine()
    scheduler = moved(opt, name, 0)
    before = copy.deepcopy((written(opt), scheduler.state_dict()))
    for bad in (1, None, "yes"):
        with pytest.raises(TypeError, match="set_lr"):
            scheduler.load_state_dict(state, set_lr=bad)
    with pytest.raises(fo.CheckpointError):
        scheduler.load_state_dict({**state, "_last_lr": "x"}, set_lr=True)
    assert before == (written(opt), scheduler.state_dict())
    opt.param_groups[1]["lr"] = fo.schedules.constant(0.1)
    groups = written(opt)
    with pytest.raises(TypeError, match=r"lr of param_groups\[1\] is a function"):
        scheduler.load_state_dict(state, set_lr=True)
    assert (groups, before[1]) == (written(opt), scheduler.state_dict())


@pytest.mark.parametrize("name", ALL)
def test_a_rate_that_is_a_function_is_refused_with_the_remedy(name: str) -> None:
    opt = mine()
    scheduler = moved(opt, name, 1)
    before = copy.deepcopy(scheduler.state_dict())
    opt.param_groups[1]["lr"] = fo.schedules.cosine(0.1, 10)
    groups = written(opt)
    remedy = r"lr of param_groups\[1\] is a function of the step.* lr to a number"
    with pytest.raises(TypeError, match=remedy):
        moved(opt, name, 0)
    with pytest.raises(TypeError, match=remedy):
        scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
    assert before == scheduler.state_dict()
    assert [group["lr"] for group in groups] == [group["lr"] for group in opt.param_groups]


@pytest.mark.parametrize("name", ["CyclicLR", "OneCycleLR"])
def test_a_momentum_that_is_a_function_is_refused_with_the_remedy(name: str) -> None:
    opt = mine()
    opt.param_groups[1]["momentum"] = fo.schedules.constant(0.9)
    with pytest.raises(TypeError, match=r"momentum of .* is a function of .* momentum to a number"):
        moved(opt, name, 0)
