"""The dtypes of the format: their codes and NumPy dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastoptim import _extras

_NUMPY = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
}
_CODES = {dtype: code for code, dtype in _NUMPY.items()}

ITEMSIZE = {"BF16": 2, **{code: dtype.itemsize for code, dtype in _NUMPY.items()}}
"""Bytes per element, for every supported code."""


def numpy_dtype(code: str) -> np.dtype[Any]:
    """Return NumPy's dtype for a code of the format; for BF16 that of ml_dtypes."""
    if code == "BF16":
        bfloat16: np.dtype[Any] = np.dtype(_extras.bfloat16())
        return bfloat16
    return _NUMPY[code]


def code_of(dtype: np.dtype[Any]) -> str:
    """Return the code of a dtype.

    Raises
    ------
    TypeError
        The format does not support it: objects, strings, dates, structures, big-endian numbers.
    """
    code = "BF16" if dtype.name == "bfloat16" else _CODES.get(dtype)
    if code is None:
        raise TypeError(
            f"dtype {dtype.str} is not supported in a checkpoint, use one of {_names()}"
        )
    return code


def _names() -> str:
    return ", ".join(sorted([*map(str, _CODES), "bfloat16"]))
