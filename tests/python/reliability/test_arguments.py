"""Every number, word and flag that a public function takes: others are refused by name."""

from __future__ import annotations

import collections.abc
import inspect
import math
import re
from collections.abc import Callable, Iterator
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, NamedTuple, SupportsIndex, Union, get_args, get_origin

import numpy as np
import pytest

import fastoptim as fo
from cases import OPTIMIZERS

Call = Callable[..., Any]


def w() -> Any:
    return np.ones((2, 2))


def sgd() -> fo.SGD:
    return fo.SGD(w(), momentum=0.9)


def zero(_: Any) -> float:
    return 0.0


def loss_and_grad(x: Any) -> tuple[float, Any]:
    return 0.0, x


def loss_and_copy(x: Any) -> tuple[float, Any]:
    return 0.0, x.copy()


def scaler() -> fo.amp.GradScaler:
    return fo.amp.GradScaler()


def plateau() -> fo.lr_scheduler.ReduceLROnPlateau:
    return fo.lr_scheduler.ReduceLROnPlateau(sgd())


def sequence(**options: Any) -> Any:
    parts = [fo.lr_scheduler.StepLR(opt := sgd(), 2), fo.lr_scheduler.StepLR(opt, 2)]
    return fo.lr_scheduler.SequentialLR(opt, parts, **options)


def chain() -> Any:
    return fo.lr_scheduler.ChainedScheduler([fo.lr_scheduler.StepLR(sgd(), 2)])


def reload(scheduler: Any, **options: Any) -> None:
    scheduler.load_state_dict(scheduler.state_dict(), **options)


# A good call of each function that takes numbers: the call, and the numbers that it must be given.
GOOD: dict[str, tuple[Call, dict[str, Any]]] = {
    "fastoptim.EMA": (lambda **k: fo.EMA(w(), **k), {}),
    "fastoptim.GradAccumulator.add": (
        lambda **k: fo.GradAccumulator(w()).add(w(), **k),
        {"weight": 1},
    ),
    "fastoptim.History.record": (lambda **k: fo.History().record(**k), {}),
    "fastoptim.LRFinder.run": (lambda **k: fo.LRFinder(sgd(), loss_and_copy).run(**k), {}),
    "fastoptim.SAM": (lambda **k: fo.SAM(sgd(), **k), {}),
    "fastoptim.amp.GradScaler.set_backoff_factor": (
        lambda **k: scaler().set_backoff_factor(**k),
        {"new_factor": 0.5},
    ),
    "fastoptim.amp.GradScaler.set_growth_factor": (
        lambda **k: scaler().set_growth_factor(**k),
        {"new_factor": 2},
    ),
    "fastoptim.amp.GradScaler.set_growth_interval": (
        lambda **k: scaler().set_growth_interval(**k),
        {"new_interval": 2},
    ),
    "fastoptim.amp.GradScaler.update": (lambda **k: scaler().update(**k), {"new_scale": 2.0}),
    "fastoptim.amp.GradScaler": (lambda **k: fo.amp.GradScaler(**k), {}),
    "fastoptim.check_grad": (lambda **k: fo.check_grad(zero, np.zeros(2), np.ones(2), **k), {}),
    "fastoptim.clip_grad_norm_": (lambda **k: fo.clip_grad_norm_(w(), **k), {"max_norm": 1.0}),
    "fastoptim.clip_grad_value_": (lambda **k: fo.clip_grad_value_(w(), **k), {"clip_value": 1.0}),
    "fastoptim.clip_grads_with_norm_": (
        lambda **k: fo.clip_grads_with_norm_(w(), **k),
        {"max_norm": 1.0, "total_norm": 1.0},
    ),
    "fastoptim.get_total_norm": (lambda **k: fo.get_total_norm(w(), **k), {}),
    "fastoptim.landscape.line": (lambda **k: fo.landscape.line(zero, w(), w(), [0.0], **k), {}),
    "fastoptim.landscape.plane": (
        lambda **k: fo.landscape.plane(zero, w(), w(), w(), [0.0], [0.0], **k),
        {},
    ),
    "fastoptim.landscape.random_direction": (
        lambda **k: fo.landscape.random_direction(w(), **k),
        {},
    ),
    "fastoptim.landscape.sharpness": (
        lambda **k: fo.landscape.sharpness(loss_and_grad, w(), **k),
        {},
    ),
    "fastoptim.lr_scheduler.ChainedScheduler.load_state_dict": (
        lambda **k: reload(chain(), **k),
        {},
    ),
    "fastoptim.lr_scheduler.ReduceLROnPlateau.is_better": (
        lambda **k: plateau().is_better(**k),
        {"value": 1.0},
    ),
    "fastoptim.lr_scheduler.ReduceLROnPlateau.step": (lambda **k: plateau().step(1.0, **k), {}),
    "fastoptim.lr_scheduler.SequentialLR": (sequence, {"milestones": [1]}),
    "fastoptim.minibatches": (lambda **k: list(fo.minibatches(**k)), {"n": 2, "batch_size": 1}),
    "fastoptim.num_threads": (lambda **k: fo.num_threads(**k).__enter__(), {"n": 1}),
    "fastoptim.numerical_gradient": (
        lambda **k: fo.numerical_gradient(zero, np.ones(2), **k),
        {},
    ),
    "fastoptim.presets.for_batch_size": (
        lambda **k: fo.presets.for_batch_size(**k),
        {"n": 8, "total_steps": 40},
    ),
    "fastoptim.presets.image_classification": (
        lambda **k: fo.presets.image_classification(**k),
        {"total_steps": 40},
    ),
    "fastoptim.presets.nlp": (lambda **k: fo.presets.nlp(**k), {"total_steps": 40}),
    "fastoptim.presets.recurrent": (lambda **k: fo.presets.recurrent(**k), {"total_steps": 40}),
    "fastoptim.regularizers.ElasticNet": (
        lambda **k: fo.regularizers.ElasticNet(**k),
        {"l1": 1, "l2": 1},
    ),
    "fastoptim.regularizers.L1": (lambda **k: fo.regularizers.L1(**k), {"lam": 1}),
    "fastoptim.regularizers.L2": (lambda **k: fo.regularizers.L2(**k), {"lam": 1}),
    "fastoptim.set_num_threads": (lambda **k: fo.set_num_threads(**k), {"n": 2}),
}

SCHEDULERS: dict[str, dict[str, Any]] = {
    "ConstantLR": {},
    "CosineAnnealingLR": {"T_max": 9},
    "CosineAnnealingWarmRestarts": {"T_0": 9},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.5},
    "ExponentialLR": {"gamma": 0.5},
    "LambdaLR": {"lr_lambda": float},
    "LinearLR": {},
    "MultiStepLR": {"milestones": [3]},
    "MultiplicativeLR": {"lr_lambda": float},
    "OneCycleLR": {"max_lr": 0.5, "total_steps": 9},
    "PolynomialLR": {},
    "ReduceLROnPlateau": {},
    "StepLR": {"step_size": 3},
    "WarmupStableDecayLR": {"warmup_steps": 1, "stable_steps": 1, "decay_steps": 1},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"base_lr": 1},
    "cosine": {"base_lr": 1, "T_max": 9},
    "cosine_restarts": {"base_lr": 1, "T_0": 9},
    "cyclic": {"base_lr": 0.1, "max_lr": 0.5},
    "exponential": {"base_lr": 1, "gamma": 0.5},
    "inverse_sqrt": {"base_lr": 1, "timescale": 3},
    "join": {"schedules": [float, float], "boundaries": [3]},
    "linear": {"base_lr": 1},
    "linear_scaling": {"base_lr": 1, "batch_size": 8},
    "multistep": {"base_lr": 1, "milestones": [3]},
    "one_cycle": {"max_lr": 0.5, "total_steps": 9},
    "polynomial": {"base_lr": 1, "total_iters": 9},
    "step": {"base_lr": 1, "step_size": 3},
    "warmup": {"schedule": float, "steps": 3},
    "wsd": {"base_lr": 1, "warmup_steps": 1, "stable_steps": 1, "decay_steps": 1},
}


def add_families() -> None:
    """Fill in the classes that are all called in one way."""
    for cls in [*OPTIMIZERS, fo.RandomSearch, fo.RandomLocalSearch]:
        GOOD[f"fastoptim.{cls.__name__}"] = lambda cls=cls, **k: cls(w(), **k), {}
    for cls in OPTIMIZERS:
        name = f"fastoptim.{cls.__name__}"
        GOOD[f"{name}.state_dict"] = lambda cls=cls, **k: cls(w()).state_dict(**k), {}
        GOOD[f"{name}.step"] = lambda cls=cls, **k: cls(w()).step(w(), **k), {}
    for name, arguments in SCHEDULES.items():
        GOOD[f"fastoptim.schedules.{name}"] = getattr(fo.schedules, name), arguments
    for name, arguments in SCHEDULERS.items():
        made = getattr(fo.lr_scheduler, name)
        GOOD[f"fastoptim.lr_scheduler.{name}"] = lambda made=made, **k: made(sgd(), **k), arguments
        GOOD[f"fastoptim.lr_scheduler.{name}.load_state_dict"] = (
            lambda made=made, arguments=arguments, **k: reload(made(sgd(), **arguments), **k),
            {},
        )
        if name != "ReduceLROnPlateau":
            GOOD[f"fastoptim.lr_scheduler.{name}.step"] = (
                lambda made=made, arguments=arguments, **k: made(sgd(), **arguments).step(**k),
                {},
            )


add_families()
# Words that may be functions of the step.
HYPERPARAMETERS = {"momentum_form", "adjust_lr_fn"}

# What only holds results, what cannot be called by itself, and what has tests of its own.
LEFT_OUT = (
    r"GradCheck|LRFinderResult|StepInfo|Preset|Storage|FlatBuffer|optim\.Optimizer|LRScheduler\b"
    r"|one_cycle\.points|^fastoptim\.(losses|plot)\."
)
# What was measured: it may be NaN, and a bool.
MEASURED = {"loss", "value", "total_norm"}


def public(module: ModuleType) -> Iterator[tuple[str, Call]]:
    """The functions and classes of a module and of those in it, and the methods of classes."""
    for name in module.__all__:
        thing = getattr(module, name)
        if isinstance(thing, ModuleType):
            yield from public(thing)
        elif callable(thing):
            yield f"{module.__name__}.{name}", thing
            for method, function in inspect.getmembers(thing, inspect.isfunction):
                if inspect.isclass(thing) and not method.startswith("_"):
                    yield f"{module.__name__}.{name}.{method}", function


class Argument(NamedTuple):
    """An argument of a public function, and the types that it may have beside a function."""

    function: str
    name: str
    types: list[Any]

    def is_of(self, *types: Any) -> bool:
        return any(one in types or get_origin(one) in types for one in self.types)


def types_in(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType):
        return [one for part in get_args(annotation) for one in types_in(part)]
    return [] if get_origin(annotation) is collections.abc.Callable else [annotation]


def arguments() -> Iterator[Argument]:
    """Every argument of every public function."""
    found: dict[str, Call] = {}
    for name, thing in public(fo):
        if not re.search(LEFT_OUT, name) and thing not in found.values():
            found[name] = thing
    for name, thing in found.items():
        try:
            parameters = inspect.signature(thing, eval_str=True).parameters.values()
        except ValueError:  # A function of the core, such as `set_num_threads`.
            continue
        for parameter in parameters:
            if parameter.kind is not parameter.VAR_KEYWORD:
                yield Argument(name, parameter.name, types_in(parameter.annotation))


ARGUMENTS = list(arguments())
SEQUENCES = collections.abc.Iterable, collections.abc.Sequence
NUMBERS = [
    x
    for x in ARGUMENTS
    if x.is_of(float, int, SupportsIndex)
    or any(get_origin(one) in SEQUENCES and {*get_args(one)} <= {float, int} for one in x.types)
]
FLAGS = [x for x in ARGUMENTS if x.is_of(bool)]
WORDS = [x for x in ARGUMENTS if x.is_of(Literal)]


def name_of(argument: Argument) -> str:
    return f"{argument.function}-{argument.name}"


@pytest.mark.parametrize("name", GOOD)
def test_the_call_of_the_table_is_a_good_one(name: str) -> None:
    threads = fo.get_num_threads()
    call, given = GOOD[name]
    call(**given)
    fo.set_num_threads(threads)


def test_every_function_with_such_an_argument_is_in_the_table() -> None:
    assert min(len(NUMBERS) - 200, len(FLAGS) - 50, len(WORDS) - 50) > 0
    assert {x.function for x in NUMBERS + FLAGS + WORDS} <= set(GOOD)


@pytest.mark.parametrize("argument", NUMBERS, ids=name_of)
def test_what_is_no_number_is_refused_by_name(argument: Argument) -> None:
    call, given = GOOD[argument.function]
    name = argument.name
    if name in ("epochs", "steps_per_epoch"):  # In place of the number of steps.
        given = {"max_lr": 0.5, "epochs": 3, "steps_per_epoch": 3}
    bad: list[Any] = ["1", b"1", 1j, object(), ["1"], {}]
    if not argument.is_of(NoneType):
        bad.append(None)
    if not argument.is_of(*SEQUENCES):
        bad += [[1.0], np.ones(2)]
        bad += [True] if name not in MEASURED else []
    named = rf"\b\w*{name.removeprefix('new_')}\b"
    for value in bad:
        with pytest.raises(TypeError, match=named):
            call(**{**given, name: value})
    out_of_range = 10**400 if name in MEASURED else math.nan
    with pytest.raises((TypeError, ValueError), match=named):
        call(**{**given, name: out_of_range})


@pytest.mark.parametrize("argument", FLAGS, ids=name_of)
def test_what_is_no_bool_is_refused_by_name(argument: Argument) -> None:
    call, given = GOOD[argument.function]
    bad: list[Any] = ["yes", None, 1, 0.0, [], np.True_]
    for value in bad:
        with pytest.raises(TypeError, match=rf"\b{argument.name} must be a bool"):
            call(**{**given, argument.name: value})


@pytest.mark.parametrize("argument", WORDS, ids=name_of)
def test_another_word_is_refused_by_name(argument: Argument) -> None:
    call, given = GOOD[argument.function]
    with pytest.raises(ValueError, match=rf"\b{argument.name} must be .*got .sideways"):
        call(**{**given, argument.name: "sideways"})
    bad = [3, 0.5, np.int8, ["x"], b"x", *([] if argument.is_of(NoneType) else [None])]
    for value in bad:
        if argument.name not in HYPERPARAMETERS or not callable(value):
            with pytest.raises(TypeError, match=rf"\b{argument.name} must be "):
                call(**{**given, argument.name: value})
