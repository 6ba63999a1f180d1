"""One contiguous allocation with named, shaped views."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastoptim import _core, _extras
from fastoptim._checks import shown
from fastoptim._core import aligned_zeros

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    if dtype == "bfloat16":
        dtype = _extras.bfloat16()
    try:
        found = None if dtype is None else np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in DTYPES or not found.isnative:
        raise TypeError(
            "dtype must be float32, float64, float16 or bfloat16 of native byte order, got "
            f"{shown(dtype) if found is None else found}"
        )
    return found


def _dims(name: str, shape: Any) -> tuple[int, ...]:
    try:
        dims = tuple(map(operator.index, shape if np.iterable(shape) else (shape,)))
    except TypeError:
        raise TypeError(
            f"shape of {name!r} must be integers, got {shown(shape)}; FlatBuffer.from_arrays "
            "makes a buffer of arrays"
        ) from None
    if any(n < 0 for n in dims):
        raise ValueError(f"shape of {name!r} must not be negative, got {dims}")
    return dims


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping by name, got {type(value).__name__}")
    return value


def _real(name: str, value: ArrayLike) -> NDArray[Any]:
    if isinstance(value, np.ndarray) and type(value) not in (np.ndarray, np.memmap):
        raise TypeError(f"{name!r} must be a plain array, got {type(value).__name__}")
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name!r} must be an array, got {shown(value)}") from None
    if not np.can_cast(array.dtype, np.float64, "same_kind"):
        raise TypeError(f"{name!r} must have real numbers, got {array.dtype}")
    return array


class FlatBuffer(Mapping[str, NDArray[Any]]):
    """One 64-byte-aligned allocation with named, shaped views and no padding.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        The shape of each array, in order.
    dtype : str or dtype, default "float32"
        float32, float64, float16, or bfloat16 (of ml_dtypes).

    Raises
    ------
    TypeError
        ``shapes`` is not a mapping of strings to integers, or the dtype is not one of these.
    ValueError
        A negative dimension.

    Examples
    --------
    >>> import fastoptim as fo
    >>> params = fo.FlatBuffer({"w": (2, 3), "b": (3,)})
    >>> params["b"] = [1, 2, 3]
    >>> params.flat
    array([0., 0., 0., 0., 0., 0., 1., 2., 3.], dtype=float32)
    """

    __slots__ = ("_flat", "_named", "_offsets", "_shapes", "_views")

    def __init__(
        self,
        shapes: Mapping[str, SupportsIndex | Sequence[SupportsIndex]],
        dtype: DTypeLike = "float32",
    ) -> None:
        known: dict[str, tuple[int, ...]] = {}
        offsets: dict[str, int] = {}
        size = 0
        for name, shape in _mapping("shapes", shapes).items():
            if not isinstance(name, str):
                raise TypeError(f"names must be strings, got {name!r}")
            known[name] = _dims(name, shape)
            offsets[name] = size
            size += math.prod(known[name])
        # Read-only, and shared by all buffers with the same layout.
        self._shapes: Mapping[str, tuple[int, ...]] = MappingProxyType(known)
        self._offsets: Mapping[str, int] = MappingProxyType(offsets)
        self._allocate(aligned_zeros(size, _dtype(dtype)))

    def _allocate(self, flat: NDArray[Any]) -> None:
        self._flat = flat
        self._named = {
            name: flat[self._offsets[name] : self._offsets[name] + math.prod(shape)].reshape(shape)
            for name, shape in self._shapes.items()
        }
        self._views = tuple(self._named.values())

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> FlatBuffer:
        """Copy named arrays of one dtype into a new buffer.

        Raises
        ------
        TypeError
            The dtypes differ, or a buffer does not support them.
        """
        given = _mapping("arrays", arrays)
        copies = {name: _real(name, array) for name, array in given.items()}
        dtypes = {array.dtype for array in copies.values()}
        if len(dtypes) > 1:
            raise TypeError(f"arrays must have one dtype, got {sorted(map(str, dtypes))}")
        dtype = dtypes.pop() if dtypes else "float32"
        buffer = cls({name: array.shape for name, array in copies.items()}, dtype)
        buffer.assign(copies)
        return buffer

    def _has_layout_of(self, other: FlatBuffer) -> bool:
        """Return whether both have the same names and shapes in the same order."""
        mine, theirs = self._shapes, other._shapes
        return mine is theirs or (mine == theirs and list(mine) == list(theirs))

    def zeros_like(self) -> FlatBuffer:
        """Return a buffer of the same layout and dtype, filled with zeros."""
        other = object.__new__(FlatBuffer)
        other._shapes, other._offsets = self._shapes, self._offsets
        other._allocate(aligned_zeros(self.size, self.dtype))
        return other

    def assign(self, arrays: Sequence[ArrayLike] | Mapping[str, ArrayLike]) -> None:
        """Copy arrays of any layout and real dtype into the buffer, all or none.

        They may overlap this buffer. Values that are too large for its dtype become infinite.

        Raises
        ------
        TypeError
            An array does not have real numbers, or is not a plain array.
        ValueError
            A name is missing or unexpected, a shape is wrong, or the buffer is read-only.
        """
        if isinstance(arrays, Mapping):
            if arrays.keys() != self._shapes.keys():
                missing = [name for name in self if name not in arrays]
                extra = [name for name in arrays if name not in self._shapes]
                raise ValueError(f"arrays: missing names {missing}, unexpected names {extra}")
            given = [arrays[name] for name in self]
        else:
            if isinstance(arrays, str) or not np.iterable(arrays):
                raise TypeError(f"arrays must be arrays, got {type(arrays).__name__}")
            given = list(arrays)
            if len(given) != len(self):
                raise ValueError(f"arrays must have {len(self)} items, got {len(given)}")
        checked = [self._checked(name, array) for name, array in zip(self, given, strict=True)]
        # Arrays that overlap this buffer are copied before the first write.
        checked = [a.copy() if np.may_share_memory(a, self._flat) else a for a in checked]
        if not all(view.flags.writeable for view in self._views):
            raise ValueError("the buffer is read-only")
        pairs = zip(self._views, checked, strict=True)
        writes = [(view.__setitem__, ..., array) for view, array in pairs]
        # Neither an interrupt nor a warning turned into an error may separate the writes.
        with np.errstate(all="ignore"):
            _core.call_all(writes)

    def _checked(self, name: str, value: ArrayLike) -> NDArray[Any]:
        array = _real(name, value)
        if array.shape != self._shapes[name]:
            raise ValueError(f"{name!r} has shape {array.shape}, expected {self._shapes[name]}")
        return array

    @property
    def flat(self) -> NDArray[Any]:
        """All elements as one 1-D array."""
        return self._flat

    @property
    def views(self) -> tuple[NDArray[Any], ...]:
        """The named arrays, in order."""
        return self._views

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(self._shapes)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each array."""
        return self._shapes

    @property
    def offsets(self) -> Mapping[str, int]:
        """The start of each array in ``flat``."""
        return self._offsets

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._flat.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of all arrays."""
        return self._flat.dtype

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._named[name]

    def __setitem__(self, name: str, value: ArrayLike) -> None:
        self[name][...] = _real(name, value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuilt, (dict(self._shapes), self.dtype, np.array(self._flat)))

    def __repr__(self) -> str:
        return f"FlatBuffer({dict(self._shapes)}, dtype={self.dtype.name!r})"


def _rebuilt(
    shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any], flat: NDArray[Any]
) -> FlatBuffer:
    buffer = FlatBuffer(shapes, dtype)
    buffer.flat[...] = flat
    return buffer
