"""The axes to draw on."""

from __future__ import annotations

from typing import Any

from fastoptim._extras import require


def new_axes(ax: Any) -> Any:
    """Return the Axes given, or those of a new figure."""
    if ax is not None:
        return ax
    return new_figure().add_subplot()


def new_figure(**options: Any) -> Any:
    """Return a new figure that pyplot does not manage, so figures of the user do not change."""
    return require("matplotlib.figure", "a picture").Figure(layout="constrained", **options)
