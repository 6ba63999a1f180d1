"""Checks of arguments that are plain numbers or flags."""

from __future__ import annotations

import math
import operator
from typing import Any


def number(name: str, x: Any) -> float:
    """Return ``x`` as a float: a number of any type, but no text."""
    try:
        if not isinstance(x, str | bytes):
            return float(x)
    except TypeError:
        pass
    except OverflowError:
        raise ValueError(f"{name} is too large") from None
    raise TypeError(f"{name} must be a number, got {x!r}")


def integer(name: str, x: Any, *, least: int | None = None, unsigned: bool = False) -> int:
    """Return ``x`` as an int that fits 64 bits and is at least ``least``."""
    try:
        n = operator.index(x)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {x!r}") from None
    low, high = (0, 2**64) if unsigned else (-(2**63), 2**63)
    if not low <= n < high:
        raise ValueError(f"{name} must fit 64 bits{' without a sign' * unsigned}, got {n}")
    if least is not None and n < least:
        raise ValueError(f"{name} must be >= {least}, got {n}")
    return n


def flag(name: str, x: Any) -> bool:
    """Return ``x``, a bool."""
    if not isinstance(x, bool):
        raise TypeError(f"{name} must be a bool, got {x!r}")
    return x


def non_negative(name: str, x: Any) -> float:
    """Return ``x`` as a float, finite and at least 0."""
    value = number(name, x)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be finite and >= 0, got {value}")
    return value
