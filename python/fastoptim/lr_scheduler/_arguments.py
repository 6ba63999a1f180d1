"""What schedulers are given: read once, checked, and for all groups or each."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from fastoptim.schedules._base import finite

T = TypeVar("T")

# PyTorch's words, so that what filters its warning filters ours.
EPOCH_DEPRECATED = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being "
    "deprecated where possible. Please use `scheduler.step()` to step the "
    "scheduler. During the deprecation, if epoch is different from None, the "
    "closed form is used instead of the new chainable form, where available."
)


def plain(value: Any) -> Any:
    """Give a number of any library as Python's, and a sequence as a new list of such."""
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def is_sequence(value: Any) -> bool:
    """Tell what has parts, an iterator or an array too, from what is one value."""
    if isinstance(value, (str, bytes, Mapping)):
        return False
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0


def listed(name: str, values: Any) -> list[Any]:
    """Read a sequence once, into a list: an iterator has nothing the second time."""
    if not is_sequence(values):
        raise TypeError(f"{name} must be a sequence, got {values!r}")
    return [plain(value) for value in values]


def one_or_listed(name: str, value: Any) -> Any:
    """Read an argument of one value for all groups, or of a sequence with one for each."""
    return listed(name, value) if is_sequence(value) else plain(value)


def for_groups(name: str, value: Any, groups: list[Any], check: Callable[[str, Any], T]) -> list[T]:
    """Give the checked value of each group: the same for all unless it is a list."""
    values = value if isinstance(value, (list, tuple)) else [value] * len(groups)
    if len(values) != len(groups):
        raise ValueError(f"{name} has {len(values)} values, the optimizer {len(groups)} groups")
    return [check(name, value) for value in values]


def integer(name: str, value: Any, *, low: int) -> int:
    """Check an integer of 64 bits >= ``low``."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if not low <= number < 2**63:
        raise ValueError(f"{name} must be >= {low} and below 2**63, got {number}")
    return number


def not_nan(name: str, value: Any) -> float:
    """Check a number that may be infinite."""
    return value if isinstance(value, float) and math.isinf(value) else finite(name, value)


def function(name: str, value: Any) -> Callable[[Any], float]:
    """Check a function."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {value!r}")
    found: Callable[[Any], float] = value
    return found
