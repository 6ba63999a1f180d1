"""Large arrays in pieces that a cache holds from their checksum to their copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim import _core
from fastoptim.tools.progress import progress

PIECE = 2**20
"""Bytes: from 256 KiB to 4 MiB the time is the same."""
_BAR_FROM = 64
"""Pieces: fewer take no time in which a bar could be read."""


def crc32(data: bytes | memoryview | NDArray[np.uint8], value: int = 0) -> int:
    """Return what ``zlib.crc32`` returns, which takes most of the time of a save."""
    return _core.crc32(np.frombuffer(data, np.uint8), value)


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the memory of a contiguous array, of any dtype and shape."""
    return array.reshape(-1).view(np.uint8)


def pieces(array: NDArray[Any]) -> Iterator[memoryview]:
    """Cut the elements of an array, in C order; only what is not contiguous is copied, by piece."""
    if array.flags.c_contiguous:
        raw = as_bytes(array).data
        for start in range(0, raw.nbytes, PIECE):
            yield raw[start : start + PIECE]
    else:
        step = PIECE // array.itemsize
        for start in range(0, array.size, step):
            yield as_bytes(array.flat[start : start + step]).data


def watched(work: Iterable[None], sizes: Iterable[int], what: str, *, quiet: bool) -> None:
    """Do the work, which goes on by a piece at a time, with a bar where there is much of it."""
    count = sum(-(-size // PIECE) for size in sizes)
    for _ in progress(work, count, what, quiet=quiet or count < _BAR_FROM):
        pass
