"""What schedulers are given: read once, checked, and for all groups or each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from fastoptim._checks import CheckedAttributes, shown

T = TypeVar("T")

# PyTorch's words, so that what filters its warning filters ours.
EPOCH_DEPRECATED = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being "
    "deprecated where possible. Please use `scheduler.step()` to step the "
    "scheduler. During the deprecation, if epoch is different from None, the "
    "closed form is used instead of the new chainable form, where available."
)


class CheckedArguments(CheckedAttributes):
    """A scheduler whose arguments, once it is constructed, are checked together when one is set."""

    # The constructor's own arguments, which are attributes: those that are part of the state, and
    # those that are not.
    _arguments: ClassVar[tuple[str, ...]] = ()
    _functions: ClassVar[tuple[str, ...]] = ()

    def _check(self) -> None:
        """Refuse arguments and positions that can never work."""
        raise NotImplementedError

    def _checked_attribute(self, name: str, value: Any) -> Any:
        value = super()._checked_attribute(name, value)
        if name in self._arguments + self._functions and "_last_lr" in vars(self):
            changed = copy.copy(self)
            vars(changed)[name] = value
            changed._check()
        return value


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
        raise TypeError(f"{name} must be a sequence, got {shown(values)}")
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
