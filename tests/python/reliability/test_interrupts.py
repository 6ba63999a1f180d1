"""Ctrl-C at any time: every method that changes something is complete or has no effect.

CPython raises KeyboardInterrupt between two instructions. The first test raises it at every
instruction; in the second one a signal of the operating system does.
"""

from __future__ import annotations

import contextlib
import dis
import gc
import inspect
import itertools
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import lr_scheduler
from rates import mine
from schedulers import ARGUMENTS, COMPOSITIONS, made


class World(NamedTuple):
    """A call, and the objects that it may change."""

    call: Callable[[], Any]
    things: list[Any]


def buffer(*values: float) -> fo.FlatBuffer:
    return fo.FlatBuffer.from_arrays({"w": np.array(values), "b": np.array(values[:2])})


def adam(**arguments: Any) -> fo.AdamW:
    """Return an optimizer with two groups that has made a step."""
    groups: list[dict[str, Any]] = [
        {"params": [np.array([1.0, -2.0])]},
        {"params": [np.array([3.0])], "lr": 0.5},
    ]
    opt = fo.AdamW(groups, **arguments)
    opt.step([np.ones(2), np.ones(1)])
    return opt


GRADS = [np.array([0.5, 0.25]), np.array([-1.0])]


def step(**options: Any) -> World:
    opt = adam()
    ema = fo.EMA(opt.params)
    if "copy_to" in options:
        options["copy_to"] = [np.zeros(2, "f2"), np.zeros(1, "f2")]
    grads = [g.copy() for g in GRADS]
    return World(lambda: opt.step(grads, ema=ema, **options), [opt, ema, grads, options])


def zero_grad() -> World:
    opt, grads = adam(), [g.copy() for g in GRADS]
    return World(lambda: opt.zero_grad(grads), [opt, grads])


def add_param_group() -> World:
    opt, w = adam(), np.array([9.0])
    return World(lambda: opt.add_param_group({"params": [w], "lr": 0.25}), [opt])


def load_optimizer() -> World:
    state, opt = adam(lr=0.125).state_dict(), adam()
    for entry in state["state"].values():
        entry["exp_avg"] += 1
    state["steps"] = 7
    return World(lambda: opt.load_state_dict(state), [opt])


def schedule_free(call: str) -> World:
    w = np.array([1.0, -2.0])
    opt = fo.ScheduleFreeSGD(w)
    for _ in range(2):
        opt.step(np.ones(2))
    if call == "train":
        opt.eval()
    return World(getattr(opt, call), [opt])


def ema(call: str, swapped: bool = False) -> World:
    params = buffer(1.0, 2.0, 3.0)
    average = fo.EMA(params)
    state = {**average.state_dict(), "decay": 0.5, "updates": 3}
    params.flat[...] += 1
    if swapped:
        average.swap(params)
    argument = state if call == "load_state_dict" else params
    return World(lambda: getattr(average, call)(argument), [average, params])


def accumulator(call: str, *arguments: Any) -> World:
    accumulated = fo.GradAccumulator([np.zeros(2), np.zeros(1)])
    accumulated.add([np.array([1.0, 2.0]), None], 2)
    return World(lambda: getattr(accumulated, call)(*arguments), [accumulated])


def scaler(call: str, *, infinite: bool = False, begun: bool = False) -> World:
    opt = adam()
    scaling = fo.amp.GradScaler(growth_interval=1)
    grads = [65536.0 * g for g in GRADS]
    if infinite:
        grads[0][0] = np.inf
    if begun:
        scaling.step(opt, grads)
    state = fo.amp.GradScaler(8.0).state_dict()
    arguments: dict[str, tuple[Any, ...]] = {
        "load_state_dict": (state,),
        "step": (opt, grads),
        "unscale_": (opt, grads),
        "set_growth_factor": (3.0,),
        "set_backoff_factor": (0.25,),
        "set_growth_interval": (3,),
    }
    return World(lambda: getattr(scaling, call)(*arguments.get(call, ())), [scaling, opt, grads])


def scaled_sam(*, infinite: bool, unscaled: bool = False) -> World:
    opt, scaling = fo.SAM(adam()), fo.amp.GradScaler(2.0)
    grads = [g.copy() for g in GRADS]
    opt.first_step(GRADS, loss_scale=2.0)
    if infinite:
        grads[0][0] = np.inf
    if unscaled:
        scaling.unscale_(opt, grads)
        grads[0][0] = 1.0
    return World(lambda: scaling.step(opt, grads), [scaling, opt, opt.base, grads])


def squares(opt: Any, fail_at: int = 0) -> Callable[[], tuple[float, Any]]:
    """Return a loss that raises an error at one of its calls, counted from 1."""
    calls = [0]

    def closure() -> tuple[float, Any]:
        calls[0] += 1
        if calls[0] == fail_at:
            raise ValueError("closure")
        return 1.0, [2 * w for group in opt.param_groups for w in group["params"]]

    return closure


def sam(call: str, *, fail_at: int = 0) -> World:
    opt = fo.SAM(adam(), rho=0.5)
    if call == "second_step":
        opt.first_step(GRADS)
    arguments: dict[str, Any] = {
        "load_state_dict": adam(lr=0.125).state_dict(),
        "step": squares(opt, fail_at),
    }
    return World(lambda: getattr(opt, call)(arguments.get(call, GRADS)), [opt])


def sam_skips() -> World:
    opt, bad = fo.SAM(adam()), [np.array([np.nan, 1.0]), np.ones(1)]
    opt.first_step(GRADS)
    return World(lambda: opt.second_step(bad, nonfinite="skip"), [opt])


def search(cls: Any, *, better: bool, fail_at: int = 0) -> World:
    params = [np.array([1.0, 2.0]), np.array([3.0])]
    searching = cls(params, scale=0.5, seed=1)
    values = iter([1.0, 0.5 if better else 2.0])

    def objective(params: Any) -> float:
        value = next(values)
        if value == (1.0, 0.5)[fail_at - 1] and fail_at:
            raise ValueError("objective")
        return value

    return World(lambda: searching.step(objective), [searching, params])


def rate_test(*, fail_at: int = 0, inside: Callable[[Any], Any] = lambda opt: opt) -> World:
    opt = inside(adam())
    closure = squares(opt, fail_at)
    finder = fo.LRFinder(opt, lambda params: closure())
    return World(lambda: finder.run(num_iter=2, quiet=True), [opt])


def differences(*, fails: bool = False) -> World:
    x = np.array([1.0, 2.0], "f4")

    def fn(x: Any) -> float:
        if fails:
            raise ValueError("fn")
        return float(x @ x)

    return World(lambda: fo.numerical_gradient(fn, x, quiet=True), [x])


def history() -> World:
    opt, recorded = adam(), fo.History()
    recorded.record(loss=1.0)
    return World(
        lambda: recorded.record(loss=0.5, optimizer=opt, grads=GRADS, test=0.25), [recorded]
    )


def assign() -> World:
    params = buffer(1.0, 2.0, 3.0)
    return World(lambda: params.assign([np.arange(3), np.arange(2)]), [params])


def set_item() -> World:
    params = buffer(1.0, 2.0, 3.0)
    return World(lambda: params.__setitem__("w", np.arange(3)), [params])


def next_batch() -> World:
    batches = fo.minibatches(5, 2)
    return World(lambda: next(batches), [batches])


def composed(opt: Any, name: str, nested: bool = False) -> Any:
    """Return a composition, optionally with a nested composition."""
    parts = [made(opt, "ConstantLR"), made(opt, "StepLR")]
    if nested:
        parts[1] = lr_scheduler.ChainedScheduler(parts[1:])
    if name == "ChainedScheduler":
        return lr_scheduler.ChainedScheduler(parts)
    return lr_scheduler.SequentialLR(opt, parts, [2])


def scheduler(
    name: str, call: str, *options: bool, first: int = 1, new_group: bool = False
) -> World:
    opt = mine()
    nested = call == "step"
    scheduling = made(opt, name) if name in ARGUMENTS else composed(opt, name, nested)
    metric = (1.0,) if name == "ReduceLROnPlateau" else ()
    state = scheduling.state_dict()
    for _ in range(first):
        scheduling.step(*metric)
    if name == "ReduceLROnPlateau":
        scheduling.patience, scheduling.min_lr = 0, 0.0
    if new_group:
        opt.add_param_group({"params": [np.zeros(1)], "lr": 0.5})
    arguments = (state, *options) if call == "load_state_dict" else metric
    return World(lambda: getattr(scheduling, call)(*arguments), [scheduling])


WORLDS: dict[str, Callable[[], World]] = {
    "Optimizer.step": step,
    "Optimizer.step all": lambda: step(
        max_norm=1.0, zero_grad=True, copy_to=(), regularizer=fo.regularizers.L2(0.5)
    ),
    "Optimizer.zero_grad": zero_grad,
    "Optimizer.add_param_group": add_param_group,
    "Optimizer.load_state_dict": load_optimizer,
    "ScheduleFreeSGD.train": lambda: schedule_free("train"),
    "ScheduleFreeSGD.eval": lambda: schedule_free("eval"),
    "EMA.update": lambda: ema("update"),
    "EMA.swap": lambda: ema("swap"),
    "EMA.swap back": lambda: ema("swap", swapped=True),
    "EMA.load_state_dict": lambda: ema("load_state_dict"),
    "GradAccumulator.add": lambda: accumulator("add", [np.ones(2), np.ones(1)], 3),
    "GradAccumulator.reset": lambda: accumulator("reset"),
    "GradScaler.step": lambda: scaler("step"),
    "GradScaler.step skips": lambda: scaler("step", infinite=True),
    "GradScaler.step with SAM": lambda: scaled_sam(infinite=False),
    "GradScaler.step with SAM skips": lambda: scaled_sam(infinite=True),
    "GradScaler.step with SAM mended": lambda: scaled_sam(infinite=True, unscaled=True),
    "GradScaler.unscale_": lambda: scaler("unscale_"),
    "GradScaler.unscale_ infinite": lambda: scaler("unscale_", infinite=True),
    "GradScaler.update": lambda: scaler("update", begun=True),
    "GradScaler.update skipped": lambda: scaler("update", begun=True, infinite=True),
    "GradScaler.load_state_dict": lambda: scaler("load_state_dict"),
    "GradScaler.set_growth_factor": lambda: scaler("set_growth_factor"),
    "GradScaler.set_backoff_factor": lambda: scaler("set_backoff_factor"),
    "GradScaler.set_growth_interval": lambda: scaler("set_growth_interval"),
    "SAM.first_step": lambda: sam("first_step"),
    "SAM.second_step": lambda: sam("second_step"),
    "SAM.second_step skips": sam_skips,
    "SAM.step": lambda: sam("step"),
    "SAM.step fails": lambda: sam("step", fail_at=2),
    "SAM.zero_grad": lambda: sam("zero_grad"),
    "SAM.load_state_dict": lambda: sam("load_state_dict"),
    "RandomSearch.step": lambda: search(fo.RandomSearch, better=True),
    "RandomSearch.step worse": lambda: search(fo.RandomSearch, better=False),
    "RandomSearch.step fails": lambda: search(fo.RandomSearch, better=True, fail_at=2),
    "RandomLocalSearch.step": lambda: search(fo.RandomLocalSearch, better=False),
    "LRFinder.run": rate_test,
    "LRFinder.run fails": lambda: rate_test(fail_at=2),
    "LRFinder.run with SAM": lambda: rate_test(inside=fo.SAM),
    "numerical_gradient": differences,
    "numerical_gradient fails": lambda: differences(fails=True),
    "History.record": history,
    "FlatBuffer.assign": assign,
    "FlatBuffer.__setitem__": set_item,
    "Minibatches.__next__": next_batch,
    **{
        f"{name}.{call}": partial(scheduler, name, call)
        for name in sorted([*ARGUMENTS, *COMPOSITIONS])
        for call in ("step", "load_state_dict")
    },
    **{
        f"{name}.load_state_dict set_lr": partial(scheduler, name, "load_state_dict", True)
        for name in sorted([*ARGUMENTS, *COMPOSITIONS])
    },
    "SequentialLR.step next": lambda: scheduler("SequentialLR", "step", first=2),
    "StepLR.step new group": lambda: scheduler("StepLR", "step", new_group=True),
}
each = pytest.mark.parametrize("name", WORLDS)

# Methods that change nothing.
READS = {
    "current",
    "get_backoff_factor",
    "get_growth_factor",
    "get_growth_interval",
    "get_last_lr",
    "get_scale",
    "is_better",
    "is_enabled",
    "begin",
    "from_arrays",
    "plot",
    "scale",
    "state_dict",
    "steps",
    "zeros_like",
}
# Methods of mappings.
READS |= {name for name, _ in inspect.getmembers(Mapping, inspect.isfunction)}


@pytest.mark.parametrize(
    "cls",
    [
        fo.optim.Optimizer,
        fo.ScheduleFreeSGD,
        fo.EMA,
        fo.GradAccumulator,
        fo.amp.GradScaler,
        fo.SAM,
        fo.RandomSearch,
        fo.RandomLocalSearch,
        fo.LRFinder,
        fo.History,
        fo.FlatBuffer,
        *(getattr(lr_scheduler, name) for name in sorted([*ARGUMENTS, *COMPOSITIONS])),
    ],
)
def test_every_method_that_changes_something_is_interrupted(cls: Any) -> None:
    known = {name.split(" ")[0] for name in WORLDS}
    bases = [base.__name__ for base in cls.__mro__]
    for name, _ in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_") and name not in READS:
            assert any(f"{base}.{name}" in known for base in bases), name


# Attributes that are not part of the state: memory for copies, and caches.
SCRATCH = {"_engine", "_place", "_saved", "optimizer"}


def picture(thing: Any) -> Any:
    """Return all data of an object, including private attributes."""
    if isinstance(thing, np.ndarray):
        return thing.dtype.str, thing.shape, thing.tobytes()
    if isinstance(thing, fo.FlatBuffer):
        return picture(thing.flat)
    if isinstance(thing, dict):
        return [(key, picture(value)) for key, value in thing.items()]
    if isinstance(thing, (list, tuple)):
        return [picture(item) for item in thing]
    if not type(thing).__module__.startswith("fastoptim"):
        return thing.__qualname__ if inspect.isroutine(thing) else repr(thing)
    held = {k: picture(v) for k, v in vars(thing).items() if k not in SCRATCH | {"_progress"}}
    if isinstance(thing, fo.optim.Optimizer):
        held["state"] = picture([thing.state, thing.state_dict()])
    if isinstance(thing, fo.SAM) and thing._perturbed:
        held["saved"] = picture(thing._saved)
    if hasattr(thing, "optimizer"):
        held["groups"] = picture(thing.optimizer.param_groups)
    if hasattr(thing, "_progress"):
        held["progress"] = picture(list(thing._progress.values()))
    return type(thing).__name__, held


PLACES = str(Path(fo.__file__).parent), str(Path(__file__).parents[1])


@contextlib.contextmanager
def at_each_instruction(see: Callable[[FrameType], None]) -> Iterator[None]:
    """Call a function before each instruction of this package and of the tests."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PLACES):
            return None
        # From Python 3.13 on, the opcodes of a frame without a trace function are not traced.
        frame.f_trace = trace
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            see(frame)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


# Instructions that change nothing: the state before and after is the same.
LOADS: tuple[str, ...] = (
    "LOAD_CONST",
    "LOAD_FAST",
    "LOAD_DEREF",
    "LOAD_GLOBAL",
    "LOAD_METHOD",
    "LOAD_CLOSURE",
)
LOADS += ("BUILD_", "COMPARE_", "COPY", "IS_OP", "KW_NAMES", "PRECALL", "PUSH_NULL", "SWAP")


def done(make: Callable[[], World]) -> tuple[Any, list[int]]:
    """Return a snapshot after a call, and the numbers of the instructions to interrupt.

    Instructions after loads are omitted, and those of a loop from its third iteration on.
    """
    # The first call may import a module.
    with contextlib.suppress(ValueError):
        make().call()
    world, rounds, numbers = make(), Counter[Any](), list[int]()
    last: dict[FrameType, str] = {}
    seen = itertools.count(1)

    def see(frame: FrameType | None) -> None:
        assert frame is not None
        number, before = next(seen), last.get(frame, "")
        last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        place = []
        while frame is not None and frame.f_code.co_filename.startswith(PLACES):
            place.append((frame.f_code, frame.f_lasti))
            frame = frame.f_back
        rounds[tuple(place)] += 1
        if rounds[tuple(place)] <= 2 and not before.startswith(LOADS):
            numbers.append(number)

    with at_each_instruction(see), contextlib.suppress(ValueError):
        world.call()
    return picture(world.things), numbers


def interrupt(number: int) -> Callable[[FrameType], None]:
    """Raise KeyboardInterrupt before the instruction of this number."""
    seen = itertools.count(1)

    def see(frame: FrameType) -> None:
        if next(seen) == number:
            raise KeyboardInterrupt

    return see


@each
def test_an_interrupt_at_any_instruction(name: str) -> None:
    make = WORLDS[name]
    after, numbers = done(make)
    found = set()
    for number in numbers:
        world = make()
        before = picture(world.things)
        with pytest.raises(KeyboardInterrupt), at_each_instruction(interrupt(number)):
            world.call()
        now = picture(world.things)
        assert now in (before, after), f"instruction {number}"
        found.add(now == before)
    # If everything is restored at the end, the states before and after are the same.
    assert found == {True} or before != after


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(),
    reason="signals are handled in the main thread",
)
@each
def test_a_signal_at_any_time(name: str) -> None:
    make, rng = WORLDS[name], random.Random(name)
    after, _ = done(make)
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    # An interrupt of a finalizer is lost.
    gc.disable()
    try:
        for _ in range(40):
            world = make()
            before = picture(world.things)
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 150e-6))
                with contextlib.suppress(ValueError):
                    world.call()
                signal.setitimer(signal.ITIMER_REAL, 0)
                # Another thread may have cleared the flag that a signal waits: taking the GIL sets
                # it again.
                time.sleep(0)
            assert picture(world.things) in (before, after)
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, handler)
