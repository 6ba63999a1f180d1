"""Where to draw."""

from __future__ import annotations

from typing import Any


def new_axes(ax: Any) -> Any:
    """Return the Axes given, or those of a new figure."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure  # Not pyplot: the user's own figures are left alone.

    return Figure(layout="constrained").add_subplot()
