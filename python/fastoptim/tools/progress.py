"""Progress bars where a person looks and tqdm is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from fastoptim._checks import flag
from fastoptim._extras import find

Item = TypeVar("Item")

DELAY = 0.5
"""Seconds before a bar appears: what is done sooner needs none."""


def watched() -> bool:
    """Whether a person looks at standard error: it is a terminal, or the output of a notebook."""
    stream: Any = sys.stderr
    if stream is None or stream.closed:
        return False
    return bool(stream.isatty()) or type(stream).__module__.startswith("ipykernel.")


def bar(items: Iterable[Item], what: str, **options: Any) -> Any:
    """Return the items with tqdm's bar around them, or None where nobody looks or tqdm lacks."""
    tqdm = find("tqdm.auto") if watched() else None
    return None if tqdm is None else tqdm.tqdm(items, desc=what, **options)


def progress(items: Iterable[Item], total: int, what: str, *, quiet: bool) -> Iterable[Item]:
    """Pass the items on, with a bar for a person who waits, or with none."""
    shown = (
        None if flag("quiet", quiet) else bar(items, what, total=total, delay=DELAY, leave=False)
    )
    return items if shown is None else shown
