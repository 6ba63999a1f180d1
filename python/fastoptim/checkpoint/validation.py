"""Validation of a header against the file, before any of it is used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastoptim.checkpoint.dtypes import ITEMSIZE
from fastoptim.checkpoint.header import OURS, START, VERSION, Entry, Header, signed


def decode(whole: bytes, data_size: int) -> Header:
    """Validate all bytes before the data, for a file with ``data_size`` bytes of data.

    Raises
    ------
    ValueError
        They are invalid.
    """
    # This package's entries have three names, so a flipped bit cannot hide all of them and make the
    # file look like one without checksums.
    ours = f'"{OURS}'.encode() in whole
    if ours:
        _check_sum(whole)
    header = _parsed(whole[8:])
    metadata = header.pop("__metadata__", {})
    if not _is_text(metadata):
        raise ValueError("its metadata are not strings by name")
    version = _version(metadata) if ours else None
    entries = tuple(_entry(name, value) for name, value in header.items())
    _check_layout(entries, data_size)
    if ours:
        entries = _with_checksums(entries, metadata)
    users = {key: text for key, text in metadata.items() if not (ours and key.startswith(OURS))}
    return Header(entries, users, version)


def _check_sum(whole: bytes) -> None:
    if not whole.startswith(START, 8) or signed(whole) != whole:
        raise ValueError("its header is damaged: the checksum does not fit")


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
        # A lone surrogate is valid JSON, but not valid text.
        json.dumps(header, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"its header is not valid JSON: {error}") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")  # noqa: TRY004
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for name, value in pairs:
        if name in unique:
            raise ValueError(f"the name {name!r:.200} appears twice")
        unique[name] = value
    return unique


def _is_text(metadata: Any) -> bool:
    return isinstance(metadata, dict) and all(type(text) is str for text in metadata.values())


def _version(metadata: Mapping[str, str]) -> int:
    version = metadata.get("fastoptim.format", "")
    if re.fullmatch("[1-9][0-9]{,8}", version) is None:
        raise ValueError(f"its format version is {version!r:.200}")
    if int(version) > VERSION:
        raise ValueError(
            f"it has format version {version}, and this fastoptim reads up to {VERSION}: update it"
        )
    return int(version)


def _entry(name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r:.200} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if type(dtype) is not str or dtype not in ITEMSIZE:
        raise ValueError(
            f"{name!r:.200} has dtype {dtype!r:.200}, expected one of {sorted(ITEMSIZE)}"
        )
    if not _are_sizes(shape) or not _fits(shape, dtype):
        raise ValueError(f"{name!r:.200} has shape {shape!r:.200}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name!r:.200} has data_offsets {offsets!r:.200}")
    entry = Entry(name, dtype, tuple(shape), *offsets)
    expected = math.prod(shape) * ITEMSIZE[dtype]
    if entry.nbytes != expected:
        raise ValueError(f"{name!r:.200} has {entry.nbytes} bytes, its shape and dtype {expected}")
    return entry


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(n) is int and n >= 0 for n in values)


def _fits(shape: list[int], dtype: str) -> bool:
    try:
        # Checks NumPy's limits of dimensions and sizes without allocating memory.
        np.ndarray(shape, f"V{ITEMSIZE[dtype]}", buffer=bytes(8), strides=[0] * len(shape))
    except (ValueError, OverflowError):
        return False
    return True


def _check_layout(entries: Sequence[Entry], data_size: int) -> None:
    end = 0
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.stop)):
        if entry.start != end:
            fault = "overlaps another tensor" if entry.start < end else "follows a hole"
            raise ValueError(f"{entry.name!r:.200} {fault}")
        end = entry.stop
    if end > data_size:
        raise ValueError(f"it is cut off: {data_size} of {end} bytes of data are there")
    if end < data_size:
        raise ValueError(f"{data_size - end} bytes follow the last tensor")


def _with_checksums(entries: Sequence[Entry], metadata: Mapping[str, str]) -> tuple[Entry, ...]:
    try:
        checksums = [int(digits, 16) for digits in metadata["fastoptim.crc32"].split()]
    except (KeyError, ValueError):
        raise ValueError("its checksums are not numbers") from None
    if len(checksums) != len(entries):
        raise ValueError(f"it has {len(checksums)} checksums for {len(entries)} tensors")
    return tuple(
        replace(entry, checksum=checksum)
        for entry, checksum in zip(entries, checksums, strict=True)
    )
