"""Parameters and gradients in every form in which they may be given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from fastoptim.buffer import FlatBuffer

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = FlatBuffer | Array | Sequence[Array] | Mapping[str, Array]
Params: TypeAlias = Arrays | Iterable[Array] | Sequence[dict[str, Any]]
Grads: TypeAlias = FlatBuffer | Array | Sequence[Array | None] | Mapping[str, Array | None]


def is_groups(params: Any) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    """Tell whether parameters are a list of group dicts."""
    return (
        isinstance(params, Sequence)
        and len(params) > 0
        and all(isinstance(group, Mapping) and "params" in group for group in params)
    )


def named_arrays(params: Any, start: int = 0) -> tuple[list[str], list[Array]]:
    """Return the names and the arrays of parameters in any form but groups."""
    if isinstance(params, Mapping):
        if not all(isinstance(name, str) for name in params):
            raise TypeError("params must have names that are strings")
        return list(params), list(params.values())
    if isinstance(params, np.ndarray):
        params = [params]
    elif not isinstance(params, Iterator | Sequence) or isinstance(params, str):
        raise TypeError(
            "params must be a FlatBuffer, an array, a sequence or mapping of arrays, or a list of "
            f"group dicts, got {type(params).__name__}"
        )
    arrays = list(params)
    return [str(start + index) for index in range(len(arrays))], arrays


def chosen_names(chosen: Any, names: list[str]) -> tuple[str, ...]:
    """Return the names that a group chose for its arrays, in place of their own."""
    if not isinstance(chosen, Sequence) or not all(isinstance(name, str) for name in chosen):
        raise TypeError(f"param_names must be strings, got {chosen!r}")
    if len(chosen) != len(names):
        raise ValueError(f"param_names has {len(chosen)} names for {len(names)} parameters")
    return tuple(chosen)


def by_name(names: Sequence[str], grads: Mapping[str, Array | None]) -> list[Array | None]:
    """Return the gradients in the order of the parameters' names, which must be theirs."""
    if len(grads) != len(names) or any(name not in grads for name in names):
        missing = [name for name in names if name not in grads]
        extra = [name for name in grads if name not in set(names)]
        raise ValueError(f"grads: missing names {missing}, unexpected names {extra}")
    return [grads[name] for name in names]


def pieces(buffer: FlatBuffer, flat: Array) -> list[Array | None]:
    """Return the gradients of a buffer's arrays as views of one array of its size."""
    if flat.shape != buffer.flat.shape:
        raise ValueError(f"grads must have shape {buffer.flat.shape}, got {flat.shape}")
    bounds = [*buffer.offsets.values(), buffer.size]
    shapes = buffer.shapes.values()
    parts = zip(bounds, bounds[1:], shapes, strict=False)
    return [flat[start:end].reshape(shape) for start, end, shape in parts]
