"""The plan of a load, complete before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from fastoptim import _core
from fastoptim._commit import Call
from fastoptim.checkpoint.dtypes import code_of
from fastoptim.checkpoint.header import Entry
from fastoptim.checkpoint.reader import Reader
from fastoptim.errors import CheckpointError

Array: TypeAlias = NDArray[Any]
State: TypeAlias = list[tuple[int, list[float], dict[str, Array]]]


def no_calls(_: Mapping[str, Array]) -> list[Call]:
    """Return no calls."""
    return []


@dataclass
class EnginePlan:
    """The state to load into an optimizer, with arrays that have only a dtype and shape.

    ``tensors`` has the name of each array in the file, by parameter and name.
    """

    engine: _core.Engine
    groups: list[dict[str, Any]]
    state: State
    steps: int
    averaged: bool
    tensors: list[dict[str, str]]

    def reserve(self, before: list[int]) -> None:
        """Allocate the arrays; ``before`` is filled with the argument of `_core.release`."""
        _core.reserve(self.engine, self.groups, self.state, self.steps, before)

    def filling(self, reader: Reader) -> list[Call]:
        """Return the calls that read verified tensors into the reserved arrays."""
        return reader.filling(
            {
                tensors[slot]: view
                for index, tensors in enumerate(self.tensors)
                for slot, view, _ in self.engine.state(index)
                if slot in tensors
            }
        )

    def part(self) -> tuple[_core.Engine, list[tuple[int, list[float], list[str]]], int, bool]:
        """Return the plan as an argument of `_core.load`."""
        state = [(step, numbers, list(arrays)) for step, numbers, arrays in self.state]
        return self.engine, state, self.steps, self.averaged


@dataclass
class Plan:
    """The writes of loading one object.

    Attributes
    ----------
    fills : dict of str to ndarray
        The arrays of the object to write in place, by the names of their tensors.
    reads : list of str
        The tensors to read into new arrays.
    calls : function
        Takes the new arrays, and returns the calls to make at the end.
    engine : EnginePlan, optional
        The state to load into an optimizer.
    """

    fills: dict[str, Array] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)
    calls: Callable[[Mapping[str, Array]], list[Call]] = no_calls
    engine: EnginePlan | None = None


@dataclass(frozen=True)
class Saved:
    """The contents of the file under one name."""

    name: str
    kind: str | None
    """None in a file of another program."""
    data: Mapping[str, Any]
    entries: Mapping[str, Entry]

    def check_kind(self, *kinds: str) -> None:
        """Raise an error if another kind of object was saved."""
        if self.kind not in (None, *kinds):
            raise CheckpointError(f"it is of kind {self.kind}, expected {kinds[0]}")

    def tensor(self, name: str) -> Entry:
        """Return the header entry of a tensor."""
        try:
            return self.entries[name]
        except KeyError:
            raise CheckpointError(f"there is no tensor {name!r}") from None

    def fitting(self, name: str, array: Array) -> Array:
        """Return the array if the tensor has the same dtype and shape."""
        entry = self.tensor(name)
        if (entry.dtype, entry.shape) != (code_of(array.dtype), array.shape):
            raise CheckpointError(
                f"{name!r} is {entry.dtype} of shape {entry.shape}, "
                f"expected {code_of(array.dtype)} of shape {array.shape}"
            )
        return array
