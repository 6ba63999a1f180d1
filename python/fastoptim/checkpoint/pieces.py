"""Division of large arrays into pieces that fit in a cache for checksum and copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim import _core
from fastoptim.tools.progress import progress

PIECE = 2**20
"""The size in bytes; the time is the same from 256 KiB to 4 MiB."""
_BAR_FROM = 64
"""The number of pieces from which a progress bar is shown; fewer are fast."""


def crc32(data: bytes | memoryview | NDArray[np.uint8], value: int = 0) -> int:
    """Return the CRC-32, like ``zlib.crc32``, which would take most of the time of a save."""
    return _core.crc32(np.frombuffer(data, np.uint8), value)


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the memory of a contiguous array, of any dtype and shape."""
    return array.reshape(-1).view(np.uint8)


def pieces(array: NDArray[Any]) -> Iterator[memoryview]:
    """Divide an array, in C order; pieces are copied only if it is not contiguous."""
    if array.flags.c_contiguous:
        raw = as_bytes(array).data
        for start in range(0, raw.nbytes, PIECE):
            yield raw[start : start + PIECE]
    else:
        step = PIECE // array.itemsize
        for start in range(0, array.size, step):
            yield as_bytes(array.flat[start : start + step]).data


def watched(work: Iterable[None], sizes: Iterable[int], what: str, *, quiet: bool) -> None:
    """Do the work piece by piece, with a progress bar if there are many pieces."""
    count = sum(-(-size // PIECE) for size in sizes)
    for _ in progress(work, count, what, quiet=quiet or count < _BAR_FROM):
        pass
