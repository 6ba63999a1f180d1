"""Load objects from a file."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

from fastoptim import _core
from fastoptim._commit import Call
from fastoptim.checkpoint.adapters import Adapter
from fastoptim.checkpoint.plan import Plan, Saved
from fastoptim.checkpoint.reader import Reader
from fastoptim.checkpoint.saving import adapted, ranges_of, team_of
from fastoptim.checkpoint.values import decode
from fastoptim.errors import CheckpointError


def load(path: str | os.PathLike[str], /, **named: Any) -> dict[str, Any]:
    """Load objects from a file written by `save`: all given objects, or none.

    Parameters
    ----------
    path : str or path
        The file. Arrays and buffers can also be loaded from safetensors files of other programs, by
        their names there; only `save` writes checksums.
    **named
        The objects to load into, under the names that were given to `save`. They have the same
        class, and parameters with the same names, shapes and dtypes. A dict or a list is updated;
        arrays in it are written in place.

    Returns
    -------
    dict
        If objects are given, the other plain values without arrays, by name. Otherwise all plain
        values and arrays of the file, with a dict of arrays for a buffer. These arrays are
        read-only.

    Raises
    ------
    TypeError
        The type of an object is not supported, or it cannot be loaded in place, such as a number.
    ValueError
        An array is read-only or not contiguous, or two objects share memory.
    CheckpointError
        The file is damaged, a name is missing, or the saved object does not match the given one.
    OSError
        The operating system raises an error.
    RuntimeError
        Another thread is in a step of an object, an average is swapped in, or `SAM` is between its
        two steps.

    After an error nothing has changed.

    Notes
    -----
    The file is read twice: first to detect damage, without storing the data, and then directly into
    the objects, with another comparison of the checksums. This needs no memory for a second copy.
    The second reading can fail only if the disk fails between the two, or if another program writes
    to the file, which `save` never does, since it replaces files. The error then says that objects
    are damaged.
    """
    adapters, error = adapted(named)
    with team_of(adapters).agreement() as agreement:
        if error is not None:
            raise error
        return _loaded(path, adapters, agreement.meet)


def _loaded(
    path: str | os.PathLike[str],
    adapters: Sequence[Adapter[Any]],
    meet: Callable[[Mapping[str, Any]], None],
) -> dict[str, Any]:
    """Load objects from a file, and return the other values in it."""
    named = {adapter.name for adapter in adapters}
    with Reader(path) as reader:
        for adapter in adapters:
            adapter.check_target()
        records = _records(reader, os.fspath(path))
        if not adapters:
            return _everything(reader, records)
        missing = [adapter.name for adapter in adapters if adapter.name not in records]
        if missing:
            raise CheckpointError(f"{os.fspath(path)} has no {missing}, but {sorted(records)}")
        plans = []
        for adapter in adapters:
            adapter.check_ready()
            with _faults_of(os.fspath(path), adapter.name):
                plans.append(adapter.plan(records[adapter.name]))
        _check_memory(adapters, plans)
        contents = zlib.crc32(repr(sorted(reader.metadata.items())).encode())
        subject = {"names": sorted(named), "contents of the file": contents}
        _carry_out(reader, plans, partial(meet, subject))
    return {
        name: decode(saved.data["value"], str)
        for name, saved in records.items()
        if saved.kind == "value" and not saved.entries and name not in named
    }


def _records(reader: Reader, path: str) -> dict[str, Saved]:
    """Return the contents of the file, by the names given to `save`."""
    entries: dict[str, dict[str, Any]] = {}
    for name, entry in reader.entries.items():
        entries.setdefault(name.partition(".")[0], {})[name] = entry
    if reader.version is None:
        return {name: Saved(name, None, {}, found) for name, found in entries.items()}
    records = {}
    for name, text in reader.metadata.items():
        with _faults_of(path, name):
            data = json.loads(text)
            records[name] = Saved(name, str(data["kind"]), data, entries.get(name, {}))
    return records


@contextmanager
def _faults_of(path: str, name: str) -> Iterator[None]:
    """Add the names of the file and the object to any error in the contents of the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {name}: {error}") from error
    except (LookupError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {name}: {type(error).__name__}: {error}") from error


def _everything(reader: Reader, records: Mapping[str, Saved]) -> dict[str, Any]:
    """Return all values, arrays and buffers of a file."""
    known = {n: s for n, s in records.items() if s.kind in (None, "value", "array", "FlatBuffer")}
    arrays = reader.read([name for saved in known.values() for name in saved.entries])
    for array in arrays.values():
        array.flags.writeable = False
    found: dict[str, Any] = {}
    for name, saved in known.items():
        if saved.kind is None:
            found |= {tensor: arrays[tensor] for tensor in saved.entries}
        elif saved.kind == "value":
            found[name] = decode(saved.data["value"], arrays.__getitem__)
        elif saved.kind == "array":
            found[name] = arrays[name]
        else:
            start = len(name) + 1
            found[name] = {tensor[start:]: arrays[tensor] for tensor in saved.entries}
    return found


def _check_memory(adapters: Sequence[Adapter[Any]], plans: Sequence[Plan]) -> None:
    """Refuse memory that is read-only, or would be written twice."""
    optimizers: dict[int, str] = {}
    places = []
    for adapter, plan in zip(adapters, plans, strict=True):
        for name, array in plan.fills.items():
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise ValueError(f"{name} must be C-contiguous and writeable")
            places += [(*bounds, name) for bounds in ranges_of([array])]
        if plan.engine is not None:
            other = optimizers.setdefault(id(adapter.optimizer), adapter.name)
            if other != adapter.name:
                raise ValueError(f"{other} and {adapter.name} are the same optimizer")
    places.sort()
    for (_, end, first), (start, _, second) in pairwise(places):
        if start < end:
            raise ValueError(f"{first} and {second} share memory")


def _carry_out(reader: Reader, plans: Sequence[Plan], meet: Callable[[], None]) -> None:
    """Verify all data, then load all objects in one call into the core."""
    engines = [plan.engine for plan in plans if plan.engine is not None]
    reads = [name for plan in plans for name in plan.reads]
    tensors = [name for engine in engines for names in engine.tensors for name in names.values()]
    fills = {name: array for plan in plans for name, array in plan.fills.items()}
    reader.verify([*tensors, *fills])
    read = reader.read(reads)
    calls: list[Call] = [call for plan in plans for call in plan.calls(read)]
    ranges = ranges_of(list(fills.values()))
    before: list[list[int]] = [[] for _ in engines]
    undo: list[Call] = [
        (_core.release, plan.engine, sizes) for plan, sizes in zip(engines, before, strict=True)
    ]

    started: list[bool] = []

    def action() -> None:
        for engine, sizes in zip(engines, before, strict=True):
            engine.reserve(sizes)
        states = [call for engine in engines for call in engine.filling(reader)]
        # No process writes before all have come so far.
        filling: list[Call] = [(meet,), (started.append, True), *states, *reader.filling(fills)]
        _core.load([engine.part() for engine in engines], ranges, filling, calls)

    try:
        _core.attempt(action, partial(_core.call_all, undo))
    except OSError as error:
        if not started:
            raise
        raise CheckpointError(
            f"{reader.path}: the second reading failed and has damaged some of the objects: {error}"
        ) from error
