"""Progress bars, if standard error is interactive and tqdm is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from fastoptim._checks import flag
from fastoptim._extras import find

Item = TypeVar("Item")

DELAY = 0.5
"""The seconds before a bar appears; shorter work shows none."""


def watched() -> bool:
    """Return whether standard error is a terminal or the output of a notebook."""
    stream: Any = sys.stderr
    if stream is None or stream.closed:
        return False
    return bool(stream.isatty()) or type(stream).__module__.startswith("ipykernel.")


def bar(items: Iterable[Item], what: str, **options: Any) -> Any:
    """Return the items in a bar of tqdm, or None without tqdm or an interactive standard error."""
    tqdm = find("tqdm.auto") if watched() else None
    return None if tqdm is None else tqdm.tqdm(items, desc=what, **options)


def progress(items: Iterable[Item], total: int, what: str, *, quiet: bool) -> Iterable[Item]:
    """Return the items, with a progress bar unless quiet or not interactive."""
    shown = (
        None if flag("quiet", quiet) else bar(items, what, total=total, delay=DELAY, leave=False)
    )
    return items if shown is None else shown
