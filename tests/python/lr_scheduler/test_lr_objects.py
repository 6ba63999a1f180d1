"""Schedulers as objects: copies, invalid states, and memory, for each class."""

from __future__ import annotations

import copy
import gc
import json
import math
import pickle
import weakref
from typing import Any

import pytest

import fastoptim as fo
from fastoptim import lr_scheduler
from rates import mine
from schedulers import ARGUMENTS, COMPOSITIONS, made

each = pytest.mark.parametrize("name", ARGUMENTS)


def test_every_scheduler_is_tested() -> None:
    assert ARGUMENTS.keys() | COMPOSITIONS | {"LRScheduler"} == set(lr_scheduler.__all__)


def metric_of(scheduler: Any) -> tuple[float, ...]:
    return (1.0,) if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else ()


def composed(opt: Any, name: str) -> Any:
    """Return a sequence of a scheduler of a class and a chain."""
    chain = lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(opt)])
    return lr_scheduler.SequentialLR(opt, [made(opt, name), chain], [4])


@each
@pytest.mark.parametrize("make", [made, composed])
def test_copies_go_on_with_their_own_optimizer(make: Any, name: str) -> None:
    if (make, name) == (composed, "ReduceLROnPlateau"):
        return
    opt = mine()
    scheduler = make(opt, name)
    metric = metric_of(scheduler)
    scheduler.step(*metric)
    before = copy.deepcopy((opt.state_dict(), scheduler.state_dict()))
    twins = copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))
    for twin in twins:
        for part in (twin, *getattr(twin, "_schedulers", ())):
            assert part.optimizer is twin.optimizer is not opt
        assert repr(twin).split(" at 0x")[0] == repr(scheduler).split(" at 0x")[0]
        for _ in range(6):
            twin.step(*metric)
        assert (opt.state_dict(), scheduler.state_dict()) == before
    for _ in range(6):
        scheduler.step(*metric)
    for twin in twins:
        assert twin.state_dict() == scheduler.state_dict()
        assert twin.optimizer.state_dict() == opt.state_dict()


@each
def test_a_scheduler_is_freed_with_its_last_reference(name: str) -> None:
    opt = mine()
    gc.disable()
    try:
        scheduler = made(opt, name)
        scheduler.step(*metric_of(scheduler))
        seen = weakref.ref(scheduler)
        del scheduler
        assert seen() is None
    finally:
        gc.enable()


# Values that replace each entry of each state. None may be loaded and fail later.
NONSENSE: tuple[Any, ...] = ("x", math.nan, -1.5, None, [0.1], [math.nan] * 2, 1j, math.inf, {})


@each
def test_an_invalid_state_changes_nothing(name: str) -> None:
    before = made(mine(), name).state_dict()
    states: list[Any] = [{**before, key: value} for key in before for value in NONSENSE]
    for state in [None, 3, [], {}, *states]:
        tried = made(mine(), name)
        try:
            tried.load_state_dict(state)
        except fo.CheckpointError:
            assert tried.state_dict() == before
        else:
            # A state that was loaded works.
            tried.step(*metric_of(tried))
            assert all(0 <= rate < math.inf for rate in tried.get_last_lr())
            assert tried.state_dict() == json.loads(json.dumps(tried.state_dict()))


@each
def test_a_state_shares_no_lists_with_the_scheduler(name: str) -> None:
    scheduler = made(mine(), name)
    before = copy.deepcopy(scheduler.state_dict())
    for _ in range(2):
        state = scheduler.state_dict()
        for value in state.values():
            if isinstance(value, list):
                value.clear()
        assert scheduler.state_dict() == before
        loaded = copy.deepcopy(before)
        scheduler.load_state_dict(loaded)
        for value in loaded.values():
            if isinstance(value, list):
                value.clear()
        assert scheduler.state_dict() == before
