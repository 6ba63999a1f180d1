"""Progress bars where tqdm is installed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from fastoptim._checks import flag

Item = TypeVar("Item")

DELAY = 0.5
"""Seconds before a bar appears: what is done sooner needs none."""


def progress(items: Iterable[Item], total: int, what: str, *, quiet: bool) -> Iterable[Item]:
    """Pass the items on, with a bar for those who wait; without tqdm, or quiet, with none."""
    if flag("quiet", quiet):
        return items
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return items
    bar: Iterable[Item] = tqdm(items, total=total, desc=what, delay=DELAY, leave=False)
    return bar
