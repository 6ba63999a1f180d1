"""Adapters that define the representation of objects in a file, except optimizers.

An adapter returns the memory that is read, describes the object as JSON and named arrays, and plans
how to load such a description. A plan checks everything and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import numpy as np

from fastoptim._commit import Call, setting
from fastoptim.checkpoint.dtypes import code_of
from fastoptim.checkpoint.plan import Array, Plan, Saved
from fastoptim.checkpoint.values import decode, encode, plain_array
from fastoptim.errors import CheckpointError
from fastoptim.grads.accumulation import GradAccumulator
from fastoptim.grads.scaler import GradScaler
from fastoptim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from fastoptim.lr_scheduler.compositions import Composition
from fastoptim.optim.search import _Search
from fastoptim.params.ema import EMA
from fastoptim.params.flat_buffer import FlatBuffer
from fastoptim.tools.history import History

Moment: TypeAlias = tuple[
    int, bool, list[tuple[int, list[tuple[str, float]], list[tuple[str, Array]]] | None]
]
T = TypeVar("T")


class Adapter(Generic[T]):
    """The base class of the adapters: an object and its name."""

    optimizer: Any = None
    """The `Optimizer` that the object is or wraps, if `describe` needs its state in the core."""

    team: Any = None
    """The processes that the object is divided among, if it is."""

    def __init__(self, name: str, thing: T) -> None:
        self.name = name
        self.thing = thing

    @property
    def kind(self) -> str:
        """The kind of the object, as stored in files."""
        return type(self.thing).__name__

    def check_ready(self) -> None:
        """Raise a RuntimeError if the object cannot be saved or loaded at present."""

    def check_target(self) -> None:
        """Raise a TypeError if the object cannot be loaded into."""

    def memory(self) -> list[Array]:
        """Return the arrays that must not change during a save."""
        return list(self.describe(None)[1].values())

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return the part that is stored as JSON, and the arrays by the names of their tensors."""
        raise NotImplementedError

    def collect(self, arrays: dict[str, Array]) -> None:
        """Replace parts of arrays by whole arrays in the process that writes the file."""

    def plan(self, saved: Saved) -> Plan:
        """Check the saved data against the object, and return the plan of the load."""
        raise NotImplementedError


class ArrayAdapter(Adapter[Array]):
    """An array, stored as a tensor with its name."""

    kind = "array"

    def __init__(self, name: str, thing: Array) -> None:
        super().__init__(name, plain_array(name, thing))

    def check_target(self) -> None:
        try:
            code_of(self.thing.dtype)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        return {}, {self.name: self.thing}

    def plan(self, saved: Saved) -> Plan:
        saved.check_kind(self.kind)
        return Plan({self.name: saved.fitting(self.name, self.thing)})


class BufferAdapter(Adapter[FlatBuffer]):
    """A buffer, stored as its named arrays; their order does not matter."""

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        return {"names": list(self.thing)}, {f"{self.name}.{k}": v for k, v in self.thing.items()}

    def plan(self, saved: Saved) -> Plan:
        saved.check_kind(self.kind)
        start = len(self.name) + 1
        check_names(self.thing, [name[start:] for name in saved.entries])
        arrays = self.describe(None)[1]
        return Plan({name: saved.fitting(name, array) for name, array in arrays.items()})


class ValueAdapter(Adapter[Any]):
    """Plain values; loading updates a dict or a list, and writes to its arrays in place."""

    kind = "value"

    def check_target(self) -> None:
        if not isinstance(self.thing, dict | list):
            encode(self.thing, self.name, {})
            raise TypeError(
                f"{self.name} is of type {type(self.thing).__name__}, which cannot be loaded "
                "in place: use the value that fastoptim.load returns"
            )

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        arrays: dict[str, Array] = {}
        return {"value": encode(self.thing, self.name, arrays)}, arrays

    def plan(self, saved: Saved) -> Plan:
        thing = self.thing
        saved.check_kind(self.kind)
        names: list[str] = []
        decode(saved.data["value"], names.append)
        mine = self.describe(None)[1]
        check_names(mine, [name for name in names if name in mine])
        fills = {name: saved.fitting(name, array) for name, array in mine.items()}

        def calls(read: Mapping[str, Array]) -> list[Call]:
            value = decode(saved.data["value"], (fills | dict(read)).__getitem__)
            if isinstance(thing, dict):
                return [(thing.clear,), (thing.update, value)]
            return [(thing.__setitem__, slice(None), value)]

        if type(decode(saved.data["value"], str)) is not type(thing):
            raise CheckpointError(f"it is not a {type(thing).__name__}")
        return Plan(fills, [name for name in names if name not in fills], calls)


class StateAdapter(Adapter[Any]):
    """Objects with a ``state_dict`` of plain values: schedulers and scalers."""

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        return {"state": encode(self.thing.state_dict(), self.name, {})}, {}

    def plan(self, saved: Saved) -> Plan:
        saved.check_kind(self.kind)
        calls = self.thing._loading(decode(saved.data["state"], str))
        return Plan(calls=lambda _: calls)


class ScalerAdapter(StateAdapter):
    """A scaler, which can be saved only after an update, as it can be pickled."""

    def check_ready(self) -> None:
        if self.thing._progress:
            raise RuntimeError(f"{self.name} can be saved and loaded only after update")


class EMAAdapter(Adapter[EMA]):
    """An average and its count."""

    def check_ready(self) -> None:
        self.thing._refuse_swapped("save or load")

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        ema = self.thing
        numbers = {"decay": ema.decay, "warmup": ema.warmup, "updates": ema.updates}
        return encode(numbers, self.name, {}), {
            f"{self.name}.shadow.{k}": v for k, v in ema.shadow.items()
        }

    def plan(self, saved: Saved) -> Plan:
        saved.check_kind(self.kind)
        arrays = self.describe(None)[1]
        check_names(arrays, saved.entries)
        calls = self.thing._loading(saved.data)
        fills = {name: saved.fitting(name, array) for name, array in arrays.items()}
        return Plan(fills, calls=lambda _: calls)


class AccumulatorAdapter(Adapter[GradAccumulator]):
    """The mean so far, its weight, and whether each parameter had a gradient."""

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        thing = self.thing
        numbers = {"weight": thing.weight, "present": dict(thing._present)}
        return numbers, {f"{self.name}.mean.{k}": v for k, v in thing._mean.items()}

    def plan(self, saved: Saved) -> Plan:
        saved.check_kind(self.kind)
        arrays = self.describe(None)[1]
        check_names(arrays, saved.entries)
        present = {name: bool(saved.data["present"][name]) for name in self.thing._mean}
        calls = [setting(self.thing, weight=float(saved.data["weight"]), _present=present)]
        fills = {name: saved.fitting(name, array) for name, array in arrays.items()}
        return Plan(fills, calls=lambda _: calls)


class HistoryAdapter(Adapter[History]):
    """Values and steps by name."""

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        thing = self.thing
        arrays: dict[str, Array] = {}
        for name in thing:
            arrays[f"{self.name}.values.{name}"] = thing[name]
            arrays[f"{self.name}.steps.{name}"] = thing.steps(name)
        lengths = {name: len(values) for name, values in thing._values.items()}
        return {"count": thing._count, "lengths": lengths}, arrays

    def plan(self, saved: Saved) -> Plan:
        saved.check_kind(self.kind)
        count, names = int(saved.data["count"]), list(saved.data["lengths"])
        for name in names:
            shape = (int(saved.data["lengths"][name]),)
            saved.fitting(f"{self.name}.values.{name}", np.broadcast_to(np.float64(0), shape))
            saved.fitting(f"{self.name}.steps.{name}", np.broadcast_to(np.int64(0), shape))

        def calls(read: Mapping[str, Array]) -> list[Call]:
            values = {name: read[f"{self.name}.values.{name}"].tolist() for name in names}
            steps = {name: read[f"{self.name}.steps.{name}"].tolist() for name in names}
            return [setting(self.thing, _values=values, _steps=steps, _count=count)]

        reads = [f"{self.name}.{kind}.{name}" for name in names for kind in ("values", "steps")]
        return Plan(reads=reads, calls=calls)


class SearchAdapter(Adapter[_Search]):
    """The state of a search; its parameters are saved separately."""

    _numbers: ClassVar[tuple[str, ...]] = ("scale", "seed", "steps", "best")

    def check_ready(self) -> None:
        if self.thing._trying:
            raise RuntimeError(f"{self.name} is in a step, with a draw that may be rejected")

    def memory(self) -> list[Array]:
        return self.thing._arrays

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        numbers = {name: getattr(self.thing, name) for name in self._numbers}
        layout = [[array.dtype.name, list(array.shape)] for array in self.thing._arrays]
        return {**encode(numbers, self.name, {}), "params": layout}, {}

    def plan(self, saved: Saved) -> Plan:
        saved.check_kind(self.kind)
        mine = self.describe(None)[0]["params"]
        if saved.data["params"] != mine:
            raise CheckpointError(f"its params are {saved.data['params']}, expected {mine}")
        numbers = decode({name: saved.data[name] for name in self._numbers}, str)
        return Plan(calls=lambda _: [setting(self.thing, **numbers)])


def check_names(mine: Any, theirs: Any) -> None:
    """Raise an error if the names differ."""
    if set(mine) != set(theirs):
        missing = [name for name in mine if name not in set(theirs)]
        extra = [name for name in theirs if name not in set(mine)]
        raise CheckpointError(f"missing names {missing}, unexpected names {extra}")


@singledispatch
def _adapter_class(thing: Any) -> type[Adapter[Any]]:
    # Plain values, and unsupported objects, which `describe` refuses.
    return ValueAdapter


def register(adapter: type[Adapter[Any]], *kinds: type) -> None:
    """Register an adapter for objects of these classes and their subclasses."""
    for kind in kinds:
        _adapter_class.register(kind, lambda _: adapter)


def adapter_of(name: str, thing: Any) -> Adapter[Any]:
    """Return the adapter of an object with this name."""
    if not name or "." in name or name == "__metadata__":
        raise ValueError(f"names must not be empty and have no dot, got {name!r}")
    return _adapter_class(thing)(name, thing)


register(ArrayAdapter, np.ndarray)
register(BufferAdapter, FlatBuffer)
register(StateAdapter, LRScheduler, Composition, ReduceLROnPlateau)
register(ScalerAdapter, GradScaler)
register(EMAAdapter, EMA)
register(AccumulatorAdapter, GradAccumulator)
register(HistoryAdapter, History)
register(SearchAdapter, _Search)
