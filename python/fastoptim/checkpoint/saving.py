"""Save objects to a file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastoptim import _core
from fastoptim._commit import restored
from fastoptim.checkpoint import optimizers as _optimizers  # noqa: F401  it adds its adapters
from fastoptim.checkpoint.adapters import Adapter, adapter_of
from fastoptim.checkpoint.plan import Array
from fastoptim.checkpoint.writer import Tensor, write

PATIENCE = 0.5
"""The seconds to wait for a step of another thread to end."""


def save(path: str | os.PathLike[str], /, **named: Any) -> None:
    """Save objects to one file, which is replaced completely or not at all.

    The file is in the safetensors format, with descriptive names (``model.w``,
    ``optimizer.exp_avg.w``); see the guide on checkpoints. It replaces ``path`` when it is complete
    and synced to the disk.

    Parameters
    ----------
    path : str or path
        The file.
    **named
        The objects to save, with names without dots: buffers, arrays, optimizers, schedulers,
        scalers, averages, accumulators, histories, searches, and numbers, text, None, and lists,
        tuples and dicts of these and of arrays. An optimizer is saved without its parameters: save
        them separately.

    Raises
    ------
    TypeError
        The type of an object or the dtype of an array is not supported.
    ValueError
        A name has a dot or is empty, or text is not valid Unicode.
    CheckpointError
        ``path`` is a directory or a device.
    OSError
        The operating system raises an error, such as a missing directory or a full disk.
    RuntimeError
        An average is swapped in, `SAM` is between its two steps, or a scaler was not updated after
        a step.

    Notes
    -----
    All objects are saved in a consistent state. `save` waits for a step of another thread to end. A
    step that begins while the file is written raises RuntimeError, as for any two calls that use
    the same memory, because nothing is copied.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> model = fo.FlatBuffer.from_arrays({"w": np.ones(3)})
    >>> opt = fo.AdamW(model)
    >>> info = opt.step(np.ones(3))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     fo.save(f"{directory}/last.safetensors", model=model, optimizer=opt, epoch=1)
    ...     fresh = model.zeros_like()
    ...     values = fo.load(f"{directory}/last.safetensors", model=fresh)
    >>> values, bool((fresh["w"] == model["w"]).all())
    ({'epoch': 1}, True)
    """
    adapters, error = adapted(named)
    team = team_of(adapters)
    hold = _core.Hold()

    def action() -> None:
        with team.agreement() as agreement:
            if error is not None:
                raise error
            for adapter in adapters:
                adapter.memory()  # Raises an error for unsupported objects before waiting.
            texts, arrays = _moment(adapters, hold)
            agreement.meet({"names": list(named)})
            for adapter in adapters:
                adapter.collect(arrays)
        with team.agreement():
            if team.rank == 0:
                write(path, [Tensor(name, array) for name, array in arrays.items()], texts)

    restored(action, hold.close)


class _Alone:
    """The process itself, if no object is divided among several."""

    rank = 0

    def agreement(self) -> _Alone:
        return self

    def meet(self, subject: Mapping[str, Any]) -> None:
        pass

    def __enter__(self) -> _Alone:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def team_of(adapters: Sequence[Adapter[Any]]) -> Any:
    """Return the processes that the objects are divided among."""
    teams = {id(adapter.team): adapter.team for adapter in adapters if adapter.team is not None}
    if len(teams) > 1:
        raise ValueError("sharded optimizers of different communicators need different files")
    return next(iter(teams.values()), _Alone())


def adapted(named: dict[str, Any]) -> tuple[list[Adapter[Any]], Exception | None]:
    """Return the adapters of objects by name, and the first error.

    It is not raised here, since other processes may have none, and would wait for this one.
    """
    adapters, first = [], None
    for name, thing in named.items():
        try:
            adapters.append(adapter_of(name, thing))
        except (TypeError, ValueError) as error:
            first = first or error
    return adapters, first


def ranges_of(arrays: Sequence[Array]) -> list[tuple[int, int]]:
    """Return the address ranges of arrays."""
    return [_bounds(array) for array in arrays if array.size]


def _bounds(array: Array) -> tuple[int, int]:
    low = high = array.__array_interface__["data"][0]
    for size, stride in zip(array.shape, array.strides, strict=True):
        low, high = low + min((size - 1) * stride, 0), high + max((size - 1) * stride, 0)
    return low, high + array.itemsize


def _moment(
    adapters: Sequence[Adapter[Any]], hold: _core.Hold
) -> tuple[dict[str, str], dict[str, Array]]:
    """Lock the memory of all objects, and describe them in a consistent state."""
    optimizers = [a.optimizer for a in adapters if a.optimizer is not None]
    engines = [(opt._engine, opt.param_groups) for opt in optimizers]
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            for adapter in adapters:
                adapter.check_ready()
            memory = [array for adapter in adapters for array in adapter.memory()]
            moments = dict(
                zip(map(id, optimizers), hold.enter(engines, ranges_of(memory)), strict=True)
            )
            for adapter in adapters:
                adapter.check_ready()
            return _described(adapters, moments)
        except RuntimeError:
            hold.close()
            if time.monotonic() > deadline:
                raise
        time.sleep(0.001)


def _described(
    adapters: Sequence[Adapter[Any]], moments: dict[int, Any]
) -> tuple[dict[str, str], dict[str, Array]]:
    """Describe all objects; repeat if Python code changes them in the meantime."""
    before = None
    while True:
        texts: dict[str, str] = {}
        arrays: dict[str, Array] = {}
        for adapter in adapters:
            data, own = adapter.describe(moments.get(id(adapter.optimizer)))
            texts[adapter.name] = _text(adapter, data)
            arrays |= own
        if before is not None and before[0] == texts:
            return before
        before = texts, arrays


def _text(adapter: Adapter[Any], data: dict[str, Any]) -> str:
    try:
        whole = {"kind": adapter.kind, **data}
        return json.dumps(whole, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{adapter.name} cannot be written: {error}") from None
