"""Checks of saved state; all are made before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastoptim._checks import finite, integer, number, whole_number
from fastoptim.errors import CheckpointError
from fastoptim.optim._torch import as_array
from fastoptim.params.structure import Array


def count(name: str, value: Any) -> int:
    """Return a step count, which PyTorch may store in a float tensor."""
    try:
        return integer(name, whole_number(name, value, least=0), unsigned=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(str(error)) from None


def entry_of(name: str, entry: Any, group: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the state of a parameter; schedulefree stores the step count in the group."""
    if not isinstance(entry, Mapping):
        raise CheckpointError(f"state of {name!r} must be a mapping")
    if entry and "step" not in entry and "k" in group:
        return name, {"step": group["k"], **entry}
    return name, entry


def steps_of(name: str, entry: Mapping[str, Any], counted: bool) -> int:
    """Return the step count of a state, which is required if the state is not empty."""
    if counted and any(value is not None for value in entry.values()) and "step" not in entry:
        raise CheckpointError(f"state of {name!r} is missing ['step']")
    return count(f"step of {name!r}", entry.get("step", 0))


def is_averaged(pair: tuple[Any, Mapping[str, Any]]) -> bool:
    """Return whether the group of a parameter is in schedulefree's eval mode."""
    return pair[1].get("train_mode") is False


def keys_by_name(
    names: Sequence[str], saved: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], list[Any]]:
    """Return the saved group with these names, in any order, and the keys of its parameters."""
    for group in saved:
        theirs = group["param_names"]
        if not isinstance(theirs, Sequence) or len(theirs) != len(group["params"]):
            raise CheckpointError(f"param_names are {theirs!r} for {len(group['params'])} params")
        if sorted(map(str, theirs)) == sorted(names):
            keys = dict(zip(theirs, group["params"], strict=True))
            return group, [keys[name] for name in names]
    found = [group["param_names"] for group in saved]
    raise CheckpointError(f"param_names are {found!r}, expected {names}")


# The version of the 8-bit codes of moments. States with version 1, linear codes, do not have it.
INT8_CODES = 2


def check_codes(saved: Any, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse 8-bit moments with another version of the codes."""
    if not any(str(slot).endswith("_scale") for _, entry in entries for slot in entry):
        return
    if saved is None or count("int8_codes", saved) != INT8_CODES:
        given = "missing" if saved is None else saved
        raise CheckpointError(
            f"int8_codes is {given}, expected {INT8_CODES}: the state has int8 moments of another "
            "version of fastoptim, whose codes have other values"
        )


def checked_state(
    name: str,
    entry: Mapping[str, Any],
    stepped: bool,
    numbers: Sequence[tuple[str, float]],
    slots: Sequence[tuple[str, str, list[int], bool, bool]],
    group: Mapping[str, Any],
    any_values: bool,
) -> tuple[list[float], dict[str, Array]]:
    """Check the saved scalars and arrays of one parameter.

    Each of ``slots`` is the name, dtype and shape of an array, whether it is required after a step,
    and whether it is non-negative. Scalars shared by all parameters may be in the group, where the
    packages prodigyopt and schedulefree store them. ``any_values`` allows NaN, which copies of an
    optimizer may have.
    """
    found = {key: entry.get(key, group.get(key)) for key, _ in numbers}
    missing = [key for key, value in found.items() if value is None and (stepped or entry)]
    scalars = [
        _number(f"{key} of {name!r}", value if found[key] is None else found[key], any_values)
        for key, value in numbers
    ]
    expected = {slot: (dtype, tuple(shape)) for slot, dtype, shape, *_ in slots}
    non_negative = {slot for slot, *_, sign in slots if sign}
    arrays = {}
    for slot, value in entry.items():
        if slot == "step" or slot in found or value is None:
            continue
        if slot not in expected:
            raise CheckpointError(f"state of {name!r} has an unexpected {slot!r}")
        try:
            array = np.asarray(as_array(value))
        except ValueError as error:
            raise CheckpointError(f"{slot} of {name!r} is not an array: {error}") from None
        if "slice_p" in group:
            array = _unsliced(array, expected[slot][1])
        if (str(array.dtype), array.shape) != expected[slot]:
            dtype, shape = expected[slot]
            raise CheckpointError(
                f"{slot} of {name!r} is {array.dtype} of shape {array.shape}, "
                f"expected {dtype} of shape {shape}"
            )
        wrong = np.isnan(array).any() or (slot in non_negative and (array < 0).any())
        if wrong and not any_values:
            raise CheckpointError(f"{slot} of {name!r} has NaN or negative values")
        arrays[slot] = array
    missing += [slot for slot, *_, needed, _ in slots if stepped and needed and slot not in arrays]
    missing += [f"{slot}_scale" for slot in arrays if f"{slot}_scale" in expected.keys() - arrays]
    if missing:
        raise CheckpointError(f"state of {name!r} is missing {missing}")
    return scalars, arrays


def _unsliced(array: Array, shape: tuple[int, ...]) -> Array:
    """Return an array of prodigyopt in this shape; it saves flat arrays, and zeros as a scalar."""
    if array.ndim == 0:
        return np.full(shape, array)
    return array.reshape(shape) if array.shape == (math.prod(shape),) else array


def _number(name: str, value: Any, any_values: bool) -> float:
    try:
        return number(name, value) if any_values else finite(name, value)
    except (TypeError, ValueError) as error:
        raise CheckpointError(str(error)) from None
