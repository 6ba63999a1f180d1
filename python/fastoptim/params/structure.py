"""The forms in which parameters and gradients may be given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, Sized
from itertools import islice
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from fastoptim import _core
from fastoptim.params.flat_buffer import DTYPES, FlatBuffer

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = FlatBuffer | Array | Sequence[Array] | Mapping[str, Array]
# One iterable of a union, not a union of iterables: type checkers then infer lists of groups.
Params: TypeAlias = FlatBuffer | Array | Mapping[str, Array] | Iterable[Array | Mapping[str, Any]]
Grads: TypeAlias = FlatBuffer | Array | Iterable[Array | None] | Mapping[str, Array | None]


def is_ordered(given: Any) -> TypeGuard[Iterable[Any]]:
    """Return whether this is an ordered iterable: not a string, mapping, set or array."""
    if type(given) is list:  # Tests by abstract classes take longer than a small call.
        return True
    return (
        isinstance(given, Iterable)
        and not isinstance(given, str | bytes | Mapping | Set)
        and not hasattr(given, "__array__")
    )


def listed(called: str, given: Any, expected: int) -> list[Any]:
    """Return the items of an ordered iterable, at most one too many: it may be infinite."""
    if not is_ordered(given):
        raise TypeError(
            f"{called} must be arrays in the structure of params, got {type(given).__name__}"
        )
    return list(given) if isinstance(given, Sized) else list(islice(given, expected + 1))


def reiterable(params: Any) -> Any:
    """Return an iterator, such as a generator, as a list, and other parameters unchanged."""
    return list(params) if is_ordered(params) and not isinstance(params, Sequence) else params


def is_groups(params: Any) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    """Return whether parameters are a list of group dicts."""
    return (
        isinstance(params, Sequence)
        and len(params) > 0
        and all(isinstance(group, Mapping) and "params" in group for group in params)
    )


def named_arrays(
    params: Any, start: int = 0, called: str = "params"
) -> tuple[list[str], list[Array]]:
    """Return the names and the arrays of parameters in any form except groups."""
    if isinstance(params, Mapping):
        if not all(isinstance(name, str) for name in params):
            raise TypeError(f"{called} must have names that are strings")
        return list(params), list(params.values())
    if isinstance(params, np.ndarray):
        params = [params]
    elif not is_ordered(params):
        raise TypeError(
            f"{called} must be a FlatBuffer, an array, a sequence or mapping of arrays, or a list "
            f"of group dicts, got {type(params).__name__}"
        )
    arrays = list(params)
    return [str(start + index) for index in range(len(arrays))], arrays


def all_arrays(params: Params) -> tuple[list[str], list[Array]]:
    """Return the names and the arrays of parameters in any form."""
    params = reiterable(params)
    if not is_groups(params):
        return named_arrays(params)
    names: list[str] = []
    arrays: list[Array] = []
    for group in params:
        more, found = named_arrays(group["params"], start=len(names))
        names += chosen_names(group.get("param_names", more), more)
        arrays += found
    return names, arrays


def averaged(names: Sequence[str], arrays: Sequence[Array]) -> FlatBuffer:
    """Return a copy of the parameters in the dtype of their averages."""
    if not names or len(set(names)) < len(names):
        raise ValueError(f"params must have different names, got {list(names)}")
    for name, array in zip(names, arrays, strict=True):
        _check_real("params", name, array)
    double = {array.dtype == np.float64 for array in arrays}
    if len(double) > 1:
        raise TypeError("params must be all float64, or none, to be averaged in one buffer")
    shapes = {name: array.shape for name, array in zip(names, arrays, strict=True)}
    buffer = FlatBuffer(shapes, np.float64 if double == {True} else np.float32)
    _core.lerp(buffer.views, arrays, 1.0, "params", names)
    return buffer


def chosen_names(chosen: Any, names: list[str]) -> tuple[str, ...]:
    """Return the names that a group specifies for its arrays."""
    if not isinstance(chosen, Sequence) or not all(isinstance(name, str) for name in chosen):
        raise TypeError(f"param_names must be strings, got {chosen!r}")
    if len(chosen) != len(names):
        raise ValueError(f"param_names has {len(chosen)} names for {len(names)} parameters")
    if len(set(chosen)) < len(chosen):
        twice = sorted({name for name in chosen if list(chosen).count(name) > 1})
        raise ValueError(f"param_names must be different names, got {twice} more than once")
    return tuple(chosen)


def in_order(
    names: Sequence[str],
    grads: Grads,
    buffer: FlatBuffer | None,
    called: str = "grads",
) -> list[Array | None]:
    """Return the gradients in the order of the named parameters, which may be those of a buffer."""
    if isinstance(grads, Mapping):
        return by_name(names, grads, called)
    ordered: list[Array | None]
    if isinstance(grads, np.ndarray):
        ordered = [grads] if buffer is None else pieces(buffer, grads, called)
    else:
        ordered = listed(called, grads, len(names))
    if len(ordered) != len(names):
        raise ValueError(f"{called} has {len(ordered)} arrays for {len(names)} parameters")
    return ordered


def by_name(
    names: Sequence[str], grads: Mapping[str, Array | None], called: str = "grads"
) -> list[Array | None]:
    """Return the gradients in the order of the parameters, which must have the same names."""
    if len(grads) != len(names) or any(name not in grads for name in names):
        known = set(names)
        missing = [name for name in names if name not in grads]
        extra = [name for name in grads if name not in known]
        raise ValueError(f"{called}: missing names {missing}, unexpected names {extra}")
    return [grads[name] for name in names]


def pieces(buffer: FlatBuffer, flat: Array, called: str = "grads") -> list[Array | None]:
    """Return the gradients of the arrays of a buffer as views of one flat array."""
    if flat.shape != buffer.flat.shape:
        raise ValueError(f"{called} must have shape {buffer.flat.shape}, got {flat.shape}")
    bounds = [*buffer.offsets.values(), buffer.size]
    shapes = buffer.shapes.values()
    parts = zip(bounds, bounds[1:], shapes, strict=False)
    return [flat[start:end].reshape(shape) for start, end, shape in parts]


def real_arrays(called: str, params: Arrays) -> dict[str, Array]:
    """Return the arrays by name, and check that parameters support their dtypes."""
    if isinstance(params, Iterator):
        raise TypeError(f"{called} must be a sequence, not an iterator: it is read twice")
    names, arrays = named_arrays(params, called=called)
    for name, array in zip(names, arrays, strict=True):
        _check_real(called, name, array)
    return dict(zip(names, arrays, strict=True))


def _check_real(called: str, name: str, array: Any) -> None:
    if not isinstance(array, np.ndarray) or array.dtype.name not in DTYPES:
        what = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{called}[{name!r}] must be an array of {', '.join(DTYPES)}, got {what}")


def in_form(params: Arrays, arrays: Sequence[Array]) -> Arrays:
    """Return arrays in the form of ``params``; for a FlatBuffer, a new buffer with copies."""
    if isinstance(params, FlatBuffer):
        return FlatBuffer.from_arrays(dict(zip(params, arrays, strict=True)))
    if isinstance(params, np.ndarray):
        return arrays[0]
    if isinstance(params, Mapping):
        return dict(zip(params, arrays, strict=True))
    return list(arrays)


def matched(called: str, given: Any, params: Arrays) -> list[Array]:
    """Return arrays with the structure of ``params`` in its order; None becomes zeros."""
    arrays = real_arrays("params", params)
    found: Sequence[Any]
    if isinstance(params, FlatBuffer) and isinstance(given, np.ndarray):
        found = pieces(params, given, called)
    elif isinstance(given, Mapping):
        found = by_name(list(arrays), given, called)
    else:
        _, found = named_arrays(given, called=called)
    if len(found) != len(arrays):
        raise ValueError(f"{called} must have {len(arrays)} arrays, got {len(found)}")
    result = []
    for (name, array), part in zip(arrays.items(), found, strict=True):
        part = np.zeros(array.shape) if part is None else np.asarray(part)
        if part.shape != array.shape:
            raise ValueError(f"{called}[{name!r}] must have shape {array.shape}, got {part.shape}")
        result.append(part)
    return result
