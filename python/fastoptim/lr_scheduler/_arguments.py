"""The arguments of schedulers: read once, checked, and for all groups or each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from fastoptim._checks import CheckedAttributes, shown

T = TypeVar("T")

# PyTorch's message, so that filters for its warning apply to this one.
EPOCH_DEPRECATED = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being "
    "deprecated where possible. Please use `scheduler.step()` to step the "
    "scheduler. During the deprecation, if epoch is different from None, the "
    "closed form is used instead of the new chainable form, where available."
)


class CheckedArguments(CheckedAttributes):
    """A scheduler that, once constructed, checks all arguments when one is set."""

    # The names of the constructor arguments, which are attributes: those in the state, and those
    # that are not in it.
    _arguments: ClassVar[tuple[str, ...]] = ()
    _functions: ClassVar[tuple[str, ...]] = ()

    def _check(self) -> None:
        """Refuse invalid arguments and positions."""
        raise NotImplementedError

    def _checked_attribute(self, name: str, value: Any) -> Any:
        value = super()._checked_attribute(name, value)
        if name in self._arguments + self._functions and "_last_lr" in vars(self):
            changed = copy.copy(self)
            vars(changed)[name] = value
            changed._check()
        return value


def plain(value: Any) -> Any:
    """Convert a number of any library to Python's type, and a sequence to a new list."""
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def is_sequence(value: Any) -> bool:
    """Return whether a value is a sequence, an iterator or an array, not a single value."""
    if isinstance(value, (str, bytes, Mapping)):
        return False
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0


def listed(name: str, values: Any) -> list[Any]:
    """Read a sequence once, into a list, since an iterator can be read only once."""
    if not is_sequence(values):
        raise TypeError(f"{name} must be a sequence, got {shown(values)}")
    return [plain(value) for value in values]


def one_or_listed(name: str, value: Any) -> Any:
    """Read an argument: a value for all groups, or a sequence with a value for each."""
    return listed(name, value) if is_sequence(value) else plain(value)


def for_groups(name: str, value: Any, groups: list[Any], check: Callable[[str, Any], T]) -> list[T]:
    """Return the checked value for each group: the same for all unless it is a list."""
    values = value if isinstance(value, (list, tuple)) else [value] * len(groups)
    if len(values) != len(groups):
        raise ValueError(f"{name} has {len(values)} values for {len(groups)} parameter groups")
    return [check(name, value) for value in values]
