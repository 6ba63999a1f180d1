"""Every number, string and flag of a public function: invalid values are refused by name."""

from __future__ import annotations

import collections.abc
import inspect
import math
import re
from collections.abc import Iterator
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, NamedTuple, SupportsIndex, Union, get_args, get_origin

import numpy as np
import pytest

import fastoptim as fo
from calls import GOOD, Call

# Strings that may be functions of the step.
HYPERPARAMETERS = {"momentum_form", "adjust_lr_fn"}

# Classes that only hold results, base classes, and functions with their own tests.
LEFT_OUT = (
    r"GradCheck|LRFinderResult|StepInfo|Preset|Storage|FlatBuffer|optim\.Optimizer|LRScheduler\b"
    r"|^fastoptim\.(losses|plot)\."
)
# Measured values, which may be NaN or a bool.
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
    """An argument of a public function, and its types other than functions."""

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
# The `ArrayLike` of NumPy 1 has numbers of every type as parts, and bools.
FLAGS = [x for x in ARGUMENTS if x.is_of(bool) and not x.is_of(complex)]
WORDS = [x for x in ARGUMENTS if x.is_of(Literal)]


def name_of(argument: Argument) -> str:
    return f"{argument.function}-{argument.name}"


@pytest.mark.parametrize("name", GOOD)
def test_the_call_in_the_table_succeeds(name: str) -> None:
    threads = fo.get_num_threads()
    call, given = GOOD[name]
    call(**given)
    fo.set_num_threads(threads)


def test_every_function_with_such_an_argument_is_in_the_table() -> None:
    assert min(len(NUMBERS) - 200, len(FLAGS) - 50, len(WORDS) - 50) > 0
    assert {x.function for x in NUMBERS + FLAGS + WORDS} <= set(GOOD)


@pytest.mark.parametrize("argument", NUMBERS, ids=name_of)
def test_other_values_than_numbers_are_refused_by_name(argument: Argument) -> None:
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
    if name in MEASURED:
        bad.append(np.float64)  # The class.
    named = rf"\b\w*{name.removeprefix('new_')}\b"
    for value in bad:
        with pytest.raises(TypeError, match=named):
            call(**{**given, name: value})
    out_of_range = 10**400 if name in MEASURED else math.nan
    with pytest.raises((TypeError, ValueError), match=named):
        call(**{**given, name: out_of_range})


@pytest.mark.parametrize("argument", FLAGS, ids=name_of)
def test_other_values_than_bools_are_refused_by_name(argument: Argument) -> None:
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
