"""Checks of arguments: each error names the argument, the valid values and the value given."""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, TypeAlias

import numpy as np

# The check of each attribute, by name.
Checks: TypeAlias = Mapping[str, Callable[[str, Any], Any]]

_NOT_NUMBERS = (bool, np.bool_, str, bytes, bytearray)
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def shown(value: Any) -> str:
    """Return a short representation of any value, for error messages."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of shape {shape}"
    try:
        return _REPR.repr(value)
    except Exception:  # The repr of a user's class may raise anything.
        return f"an object of type {type(value).__name__}"


def number(name: str, value: Any) -> float:
    """Convert a real number of any type to float; infinities and NaN are allowed."""
    if type(value) is float:
        return value
    found = value
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        found = value.item()
    if not isinstance(found, _NOT_NUMBERS) and not getattr(found, "shape", ()):
        try:
            return float(found)
        except TypeError:
            pass
        except OverflowError:
            raise ValueError(f"{name} must be below 1.8e308, got {shown(value)}") from None
    raise TypeError(f"{name} must be a number, got {shown(value)}")


def scalar(name: str, value: Any) -> float:
    """Convert the result of a function to float: a number, a bool, or an array of one element."""
    if isinstance(getattr(value, "shape", None), tuple):
        if math.prod(value.shape) != 1:
            raise TypeError(f"{name} must be a number, got {shown(value)}")
        value = value.item()
    return float(value) if isinstance(value, bool) else number(name, value)


def finite(name: str, value: Any) -> float:
    """Return a finite number as a float."""
    return _ranged(name, value, lambda x: True, "finite")


def non_negative(name: str, value: Any) -> float:
    """Return a finite number >= 0 as a float."""
    return _ranged(name, value, lambda x: x >= 0, "finite and >= 0")


def positive(name: str, value: Any) -> float:
    """Return a finite number > 0 as a float."""
    return _ranged(name, value, lambda x: x > 0, "finite and > 0")


def between(name: str, value: Any, low: float, high: float, ends: str = "[]") -> float:
    """Return a finite number in an interval as a float; parentheses in ``ends`` exclude a bound."""
    above, below = (operator.gt if end in "()" else operator.ge for end in ends)
    interval = f"{ends[0]}{low:g}, {high:g}{ends[1]}"
    return _ranged(name, value, lambda x: above(x, low) and below(high, x), f"in {interval}")


def unit(name: str, value: Any) -> float:
    """Return a number in [0, 1] as a float."""
    return between(name, value, 0, 1)


def _ranged(name: str, value: Any, good: Callable[[float], bool], wanted: str) -> float:
    x = number(name, value)
    if not (math.isfinite(x) and good(x)):
        raise ValueError(f"{name} must be {wanted}, got {shown(value)}")
    return x


def integer(name: str, value: Any, *, least: int | None = None, unsigned: bool = False) -> int:
    """Return an integer that fits 64 bits and is at least ``least``."""
    n = _index(value)
    if n is None:
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    low, high = (0, 2**64) if unsigned else (-(2**63), 2**63)
    if not low <= n < high:
        raise ValueError(f"{name} must fit in {'un' * unsigned}signed 64 bits, got {shown(value)}")
    if least is not None and n < least:
        raise ValueError(f"{name} must be >= {least}, got {n}")
    return n


def whole_number(name: str, value: Any, *, least: int) -> int:
    """Convert an integral number of any type that is at least ``least`` to int."""
    found = number(name, value)
    if not (found >= least and found.is_integer()):
        raise ValueError(f"{name} must be a whole number >= {least}, got {shown(value)}")
    n = _index(value)
    return int(found) if n is None else n  # Beyond 2**53 the float may be rounded.


def _index(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def positive_whole_number(name: str, value: Any) -> int:
    """Convert an integral number of any type that is at least 1 to int."""
    return whole_number(name, value, least=1)


def ascending(name: str, values: Any, *, strictly: bool) -> tuple[float, ...]:
    """Return numbers >= 0 in ascending order as a tuple."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of numbers, got {shown(values)}")
    numbers = tuple(non_negative(name, value) for value in values)
    for low, high in pairwise(numbers):
        if low > high or (strictly and low == high):
            raise ValueError(f"{name} must be in ascending order, got {shown(list(numbers))}")
    return numbers


def flag(name: str, value: Any) -> bool:
    """Return a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {shown(value)}")
    return value


def word(name: str, value: Any, words: Sequence[str | None]) -> Any:
    """Return a string that is one of ``words``, or None if that is one of them."""
    known = isinstance(value, str) or (value is None and None in words)
    if known and value in words:
        return value
    *others, last = (repr(one) for one in words)
    wanted = f"{', '.join(others)} or {last}" if others else last
    raise (ValueError if known else TypeError)(f"{name} must be {wanted}, got {shown(value)}")


def function(name: str, value: Any) -> Callable[..., Any]:
    """Return a callable."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {shown(value)}")
    found: Callable[..., Any] = value
    return found


class CheckedAttributes:
    """Base of classes that check their attributes whenever they are set.

    The package itself writes to the dictionary of the object (see `fastoptim._commit.setting`),
    which bypasses the checks.
    """

    _checks: ClassVar[Checks] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self._checked_attribute(name, value))

    def _checked_attribute(self, name: str, value: Any) -> Any:
        check = self._checks.get(name)
        return value if check is None else check(name, value)
