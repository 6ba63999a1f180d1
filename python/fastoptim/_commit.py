"""Changes of several objects that an interrupt must not separate, made in one call into the core.

CPython runs signal handlers between bytecode instructions, so Ctrl-C may raise KeyboardInterrupt
between any two statements. An interrupt does not divide a call into the core: its functions take
Python calls to make at their end, ``_core.call_all`` only makes such calls, and ``_core.attempt``
restores a consistent state after an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from fastoptim import _core

T = TypeVar("T")

Call: TypeAlias = tuple[Callable[..., object], *tuple[Any, ...]]


def setting(target: object, **attributes: Any) -> Call:
    """Return a call that sets all these attributes of an object at once."""
    return vars(target).update, attributes


def restored(action: Callable[[], T], restore: Callable[[], None]) -> T:
    """Return the result of ``action``, and always call ``restore``, perhaps more than once."""

    def both() -> T:
        found = action()
        restore()
        return found

    return _core.attempt(both, restore)
