"""What schedulers put into their states and read from them, checked."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from fastoptim.errors import CheckpointError
from fastoptim.schedules._base import finite

# What PyTorch's state dicts hold besides ours; a load passes over it.
PYTORCH_ONLY = frozenset({"_get_lr_called_within_step", "_is_initial", "_step_count"})


def plain(value: Any) -> Any:
    """Give a number of any library as Python's, and a sequence as a new list of such."""
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def checked_state(scheduler: Any, state: Any, names: Iterable[str]) -> dict[str, Any]:
    """Give a copy of a state under our names, refused if it has not just these."""
    kind = type(scheduler).__name__
    if not isinstance(state, Mapping):
        raise CheckpointError(f"the state of a {kind} is a mapping, got {type(state).__name__}")
    given = scheduler._translated({k: v for k, v in state.items() if k not in PYTORCH_ONLY})
    expected = set(names)
    if set(given) != expected:
        found = sorted(map(str, given))
        raise CheckpointError(f"the state of a {kind} has {sorted(expected)}, got {found}")
    return {name: plain(value) for name, value in given.items()}


def integer(name: str, value: Any, *, low: int) -> int:
    """Check an integer >= ``low``."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < low:
        raise ValueError(f"{name} must be >= {low}, got {number}")
    return number


def not_nan(name: str, value: Any) -> float:
    """Check a number that may be infinite."""
    return value if isinstance(value, float) and math.isinf(value) else finite(name, value)
