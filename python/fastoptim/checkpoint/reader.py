"""The reader of checkpoint files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim import _core
from fastoptim._commit import Call
from fastoptim.checkpoint.dtypes import numpy_dtype
from fastoptim.checkpoint.files import opened
from fastoptim.checkpoint.header import LIMIT, Entry
from fastoptim.checkpoint.pieces import PIECE, as_bytes, crc32, pieces, watched
from fastoptim.checkpoint.validation import decode
from fastoptim.errors import CheckpointError

_PICKLE = "a pickle, which is never unpickled"
_OTHERS = {
    **{bytes([0x80, protocol]): _PICKLE for protocol in range(2, 6)},
    b"PK\x03\x04": f"a zip archive of numpy.savez, or of torch.save with {_PICKLE}",
    b"\x93NUMPY": "an array of numpy.save",
}
"""The first bytes of other file formats."""


class Reader:
    """An open checkpoint file with a valid header.

    Tensors are read on demand, each byte once, and their checksums are verified.

    Parameters
    ----------
    path : str or path
        A regular file in the safetensors format.

    Attributes
    ----------
    path : str
        The file.
    entries : mapping of str to Entry
        The entry of each tensor, by name.
    metadata : mapping of str to str
        The metadata given to `write`.
    version : int or None
        The version of the format; None for a file of another program, which has no checksums.

    Raises
    ------
    CheckpointError
        The file is damaged, of another format, of a newer version, or a directory.
    OSError
        The operating system raises an error.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file = opened(path)
        self._opened = self._stamp()
        self._found: dict[str, int] = {}
        try:
            with _faults_of(self.path):
                header = decode(*self._head())
        except BaseException:
            self.close()
            raise
        self.entries: Mapping[str, Entry] = MappingProxyType({e.name: e for e in header.entries})
        self.metadata = MappingProxyType(header.metadata)
        self.version = header.version

    def read(self, names: Iterable[str], *, quiet: bool = False) -> dict[str, NDArray[Any]]:
        """Read tensors by name into new arrays; BF16 requires ml_dtypes.

        Raises
        ------
        CheckpointError
            A name is missing, or the data are damaged.
        """
        arrays = {}
        for name in names:
            entry = self._entry(name)
            arrays[name] = np.empty(entry.shape, numpy_dtype(entry.dtype))
        self.fill(arrays, quiet=quiet)
        return arrays

    def fill(self, arrays: Mapping[str, NDArray[Any]], *, quiet: bool = False) -> None:
        """Read tensors into existing arrays.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            Writeable contiguous arrays with the same number of bytes as the tensors; dtypes and
            shapes are not checked. After an error their contents are invalid.
        quiet : bool, default False
            Do not show a progress bar for large files.

        Raises
        ------
        ValueError
            An array is of another size, not contiguous or read-only.
        CheckpointError
            A name is missing, or the data are damaged.
        """
        plan = []
        for name, array in arrays.items():
            entry = self._entry(name)
            if array.nbytes != entry.nbytes:
                raise ValueError(f"{name!r} has {entry.nbytes} bytes, got {array.nbytes}")
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise ValueError(f"the array for {name!r} must be contiguous and writeable")
            plan.append((entry, array))
        plan.sort(key=lambda pair: pair[0].start)
        sizes = (entry.nbytes for entry, _ in plan)
        with _faults_of(self.path):
            watched(self._filled(plan), sizes, f"load {self.path}", quiet=quiet)

    def verify(self, names: Iterable[str], *, quiet: bool = False) -> None:
        """Read tensors to detect damage, without storing the data.

        Raises
        ------
        CheckpointError
            A name is missing, or the data are damaged.
        """
        entries = sorted(map(self._entry, names), key=lambda entry: entry.start)
        with _faults_of(self.path):
            sizes = (entry.nbytes for entry in entries)
            watched(self._verified(entries), sizes, f"check {self.path}", quiet=quiet)

    def filling(self, arrays: Mapping[str, NDArray[Any]]) -> list[Call]:
        """Return calls that read verified tensors into memory, as `fill` does.

        They compare the checksums that `verify` has computed, and must be made in one call into the
        core. They raise OSError.

        Raises
        ------
        CheckpointError
            The file was changed after it was opened.
        """
        if self._stamp() != self._opened:
            raise CheckpointError(f"{self.path}: it was changed while it was read")
        return [
            (
                _core.read_into,
                self._file,
                self._data + self._entry(name).start,
                as_bytes(array),
                self._found[name],
            )
            for name, array in sorted(arrays.items(), key=lambda item: self._entry(item[0]).start)
        ]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _entry(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError:
            raise CheckpointError(f"{self.path} has no {name!r}") from None

    def _head(self) -> tuple[bytes, int]:
        size = os.fstat(self._file.fileno()).st_size
        if size == 0:
            raise ValueError("it is empty")
        start = self._bytes(min(size, 9))
        if start[8:] != b"{":
            looks = next((what for magic, what in _OTHERS.items() if start.startswith(magic)), None)
            raise ValueError(
                "it is not a safetensors file" + (f": it looks like {looks}" if looks else "")
            )
        length = int.from_bytes(start[:8], "little")
        if not 2 <= length <= min(size - 8, LIMIT):
            raise ValueError(f"its header should have {length} bytes, but the file has {size}")
        self._data = 8 + length
        return start + self._bytes(length - 1), size - self._data

    def _filled(self, plan: Iterable[tuple[Entry, NDArray[Any]]]) -> Iterator[None]:
        for entry, array in plan:
            self._file.seek(self._data + entry.start)
            checksum = 0
            for piece in pieces(array):
                self._fill(piece)
                checksum = crc32(piece, checksum)
                yield
            _check(entry, checksum, as_bytes(array))

    def _verified(self, entries: Iterable[Entry]) -> Iterator[None]:
        memory = np.empty(PIECE, np.uint8)
        for entry in entries:
            self._file.seek(self._data + entry.start)
            checksum = 0
            for start in range(0, entry.nbytes, PIECE):
                piece = memory[: min(PIECE, entry.nbytes - start)]
                self._fill(piece.data)
                checksum = crc32(piece, checksum)
                _check(entry, None, piece)
                yield
            _check(entry, checksum, memory[:0])
            self._found[entry.name] = checksum

    def _stamp(self) -> tuple[int, int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def _bytes(self, count: int) -> bytes:
        read = bytearray(count)
        self._fill(memoryview(read))
        return bytes(read)

    def _fill(self, memory: memoryview) -> None:
        while memory:
            count = self._file.readinto(memory)
            if not count:
                raise ValueError("it was cut off while it was read")
            memory = memory[count:]


def _check(entry: Entry, checksum: int | None, read: NDArray[np.uint8]) -> None:
    if entry.checksum is not None and checksum not in (None, entry.checksum):
        raise ValueError(f"{entry.name!r} is damaged: the checksum does not fit")
    if entry.dtype == "BOOL" and read.max(initial=0) > 1:
        raise ValueError(f"{entry.name!r} is damaged: a BOOL is 0 or 1")


@contextmanager
def _faults_of(path: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
