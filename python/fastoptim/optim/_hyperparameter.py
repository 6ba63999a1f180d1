"""The type of a hyperparameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

T = TypeVar("T")

# A value, or a function of the number of steps applied so far, as those of `fastoptim.schedules`.
Hyperparameter: TypeAlias = T | Callable[[int], T]
