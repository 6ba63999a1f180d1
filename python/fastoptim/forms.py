"""Parameters in any form but groups: their arrays, copies of them, and what has their structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastoptim.buffer import FlatBuffer
from fastoptim.optim._base import Array, Arrays

_DTYPES = ("float32", "float64", "float16", "bfloat16")


def arrays_of(name: str, params: Arrays) -> dict[str, Array]:
    """Return the arrays under their names; arrays without names have ``"0"``, ``"1"``, ..."""
    arrays = _named(name, params)
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.name not in _DTYPES:
            what = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"{name}[{key!r}] must be an array of {', '.join(_DTYPES)}, got {what}")
    return arrays


def _named(name: str, params: Any) -> dict[str, Any]:
    if isinstance(params, Mapping):
        return dict(params)
    if isinstance(params, np.ndarray):
        return {"0": params}
    if isinstance(params, Sequence) and not isinstance(params, str):
        return {str(index): array for index, array in enumerate(params)}
    raise TypeError(
        f"{name} must be a FlatBuffer, an array, or a sequence or mapping of arrays, "
        f"got {type(params).__name__}"
    )


def in_form(params: Arrays, arrays: Sequence[Array]) -> Arrays:
    """Return arrays in the form of ``params``: of a FlatBuffer, a new one with copies."""
    if isinstance(params, FlatBuffer):
        return FlatBuffer.from_arrays(dict(zip(params, arrays, strict=True)))
    if isinstance(params, np.ndarray):
        return arrays[0]
    if isinstance(params, Mapping):
        return dict(zip(params, arrays, strict=True))
    return list(arrays)


def matched(name: str, given: Any, params: Arrays) -> list[Array]:
    """Return what has the structure of ``params`` as arrays in their order.

    Names are matched where both have them. None stands for zeros, and one 1-D array of its size for
    what has the layout of a FlatBuffer.

    Raises
    ------
    ValueError
        A name is missing or unexpected, or a shape is wrong.
    """
    arrays = arrays_of("params", params)
    if isinstance(params, FlatBuffer) and isinstance(given, np.ndarray):
        if given.shape != params.flat.shape:
            raise ValueError(f"{name} must have shape {params.flat.shape}, got {given.shape}")
        ends = np.cumsum([array.size for array in arrays.values()])[:-1]
        found = dict(zip(params, np.split(given, ends), strict=True)) if len(params) else {}
        given = {key: part.reshape(params.shapes[key]) for key, part in found.items()}
    found = _named(name, given)
    if isinstance(params, Mapping) and isinstance(given, Mapping) and found.keys() != arrays.keys():
        missing = [key for key in arrays if key not in found]
        extra = [key for key in found if key not in arrays]
        raise ValueError(f"{name}: missing names {missing}, unexpected names {extra}")
    if len(found) != len(arrays):
        raise ValueError(f"{name} has {len(found)} arrays for {len(arrays)} of the parameters")
    if found.keys() != arrays.keys():
        found = dict(zip(arrays, found.values(), strict=True))
    result = []
    for key, array in arrays.items():
        part = np.zeros(array.shape) if found[key] is None else np.asarray(found[key])
        if part.shape != array.shape:
            raise ValueError(f"{name}[{key!r}] must have shape {array.shape}, got {part.shape}")
        result.append(part)
    return result
