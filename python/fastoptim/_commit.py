"""Changes that belong together, made in one call into the core.

CPython runs signal handlers between two instructions of Python code, so that Ctrl-C may raise
KeyboardInterrupt between any two statements. What the core does in one call is done or not: its
functions take calls to make at the end of theirs, ``_core.call_all`` makes nothing but such calls,
and ``_core.attempt`` settles what an exception has left half-done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from fastoptim import _core

T = TypeVar("T")

Call: TypeAlias = tuple[Callable[..., object], *tuple[Any, ...]]


def setting(target: object, **attributes: Any) -> Call:
    """Return the call that sets attributes of an object, all at once."""
    return vars(target).update, attributes


def restored(action: Callable[[], T], restore: Callable[[], None]) -> T:
    """Return what ``action`` does, and call ``restore`` in any case; it may be called again."""

    def both() -> T:
        found = action()
        restore()
        return found

    return _core.attempt(both, restore)
