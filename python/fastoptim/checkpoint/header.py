"""The header of a file: an entry for each tensor, and the checksums.

A safetensors file is the length of its header (8 bytes, little-endian), the header (JSON), and
the bytes of the tensors without gaps. In the header ``__metadata__`` maps strings to strings. This
package adds:

``fastoptim.header``
    The CRC-32 of everything before the data, computed with zeros in place of these eight digits. It
    is at a fixed position at the start of the file in every version of the format.
``fastoptim.format``
    The version of the following entries.
``fastoptim.crc32``
    The CRC-32 of each tensor's bytes, in the order of the tensors in the header.

CRC-32 detects every flipped bit and every damaged run of up to 32 bits, and misses one in 2^32 of
all other errors. It does not protect against intentional changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastoptim.checkpoint.pieces import crc32

VERSION = 1
LIMIT = 100_000_000
"""The largest size of a header in bytes, as in the reference implementation of the format."""
ALIGNMENT = 64
"""The data is aligned to a cache line, so that a mapped file can be used in place."""
OURS = "fastoptim."
"""The prefix of the names of this package's metadata."""

START = b'{"__metadata__":{"fastoptim.header":"'
"""The text after the length; the digits of the checksum of the header follow."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The entry of one tensor in the header.

    ``start`` and ``stop`` are relative to the first tensor; files of other programs have no
    checksum.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    checksum: int | None = None

    @property
    def nbytes(self) -> int:
        """The size of the tensor in bytes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Header:
    """A valid header; files of other programs have no version."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, str]
    version: int | None


def encode(entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    """Return all bytes before the data; the size does not depend on the checksums.

    Raises
    ------
    ValueError
        The names cannot be written as UTF-8, or the header is too long.
    """
    metadata = {
        "fastoptim.header": "0" * 8,
        "fastoptim.format": str(VERSION),
        "fastoptim.crc32": " ".join(f"{entry.checksum or 0:08x}" for entry in entries),
        **metadata,
    }
    tensors = {
        entry.name: {
            "dtype": entry.dtype,
            "shape": entry.shape,
            "data_offsets": (entry.start, entry.stop),
        }
        for entry in entries
    }
    header = {"__metadata__": metadata, **tensors}
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"names and text must be valid Unicode: {error}") from None
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > LIMIT:
        raise ValueError(f"names and text take {len(text)} bytes, more than {LIMIT}")
    return signed(len(text).to_bytes(8, "little") + text)


def signed(whole: bytes) -> bytes:
    """Return all bytes before the data, with the checksum of the header inserted."""
    before, after = whole[: 8 + len(START)], whole[8 + len(START) + 8 :]
    checksum = crc32(before + b"0" * 8 + after)
    return before + f"{checksum:08x}".encode() + after
