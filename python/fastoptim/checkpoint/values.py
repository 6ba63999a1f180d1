"""Plain values in a checkpoint: as JSON, with their arrays as tensors of the file.

JSON represents null, booleans, integers of any size, finite numbers, text, lists, and dicts with
text keys. Other values are objects with one key that starts with a dollar sign::

    {"$float": "nan"}             infinite or NaN
    {"$tuple": [1, 2]}
    {"$dict": [[0, "a"]]}         keys that are not text, or start with a dollar sign
    {"$array": "rng.state.key"}   the tensor of this name
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def encode(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    """Encode a value as JSON, and add its arrays with names that start with ``name``.

    NumPy scalars are converted to Python numbers, and subclasses to their base types.

    Raises
    ------
    TypeError
        The type of the value, or of one inside it, is not supported.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.ndarray):
        arrays[name] = plain_array(name, value)
        return {"$array": name}
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
        if isinstance(value, bool):
            return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        number = float(value)
        return number if math.isfinite(number) else {"$float": repr(number)}
    if isinstance(value, list | tuple):
        items = [encode(item, f"{name}.{index}", arrays) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict):
        pairs = [(key, encode(item, f"{name}.{key}", arrays)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        return {"$dict": [[encode(key, name, arrays), item] for key, item in pairs]}
    raise TypeError(
        f"{name} is of type {type(value).__name__}, which a checkpoint does not support: save "
        "numbers, text, lists, dicts and arrays, and the objects of fastoptim"
    )


def decode(data: Any, array: Callable[[str], Any]) -> Any:
    """Decode a value from JSON, with ``array(name)`` for each of its arrays."""
    if isinstance(data, list):
        return [decode(item, array) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) == 1:
        ((key, item),) = data.items()
        if key == "$array":
            return array(item)
        if key == "$float":
            return float(item)
        if key == "$tuple":
            return tuple(decode(part, array) for part in item)
        if key == "$dict":
            return {decode(name, array): decode(part, array) for name, part in item}
    return {key: decode(item, array) for key, item in data.items()}


def plain_array(name: str, array: Array) -> Array:
    """Return the array; refuse subclasses with more than elements, such as masked arrays."""
    if type(array) not in (np.ndarray, np.memmap):
        raise TypeError(f"{name} must be a plain array, got {type(array).__name__}")
    return array
