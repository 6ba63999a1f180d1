"""The loss along a line or over a plane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastoptim._extras import require
from fastoptim.landscape import Line, Plane
from fastoptim.plot.axes import new_axes

# Losses with a larger ratio than this are drawn on a logarithmic scale.
_WIDE = 30.0
_LEVELS = 24


def landscape(result: Line | Plane, paths: Any = None, *, ax: Any = None) -> Any:
    """Draw the loss along a line, or its contours over a plane with trajectories.

    Parameters
    ----------
    result : Line or Plane
        The result of ``fo.landscape.line`` or ``fo.landscape.plane``. Values that are not finite
        are omitted.
    paths : array of shape (n, 2), or mapping from names to such arrays, optional
        The alphas and betas of the points of a trajectory, as ``fo.landscape.coordinates`` returns
        them. A circle marks the start, and a star the end. Only for a plane.
    ax : matplotlib Axes, optional
        The axes to draw on; a new figure if None.

    Returns
    -------
    matplotlib.axes.Axes
        With a color bar of the losses for a plane, logarithmic if their range is large.

    Raises
    ------
    TypeError
        ``result`` is neither.
    ValueError
        A path has another shape, ``result`` is a line and there are paths, or no value is finite.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> steps = np.linspace(-1, 1, 11)
    >>> x, y = np.eye(2)
    >>> found = fo.landscape.plane(lambda w: w[0] ** 2 + w[1], np.zeros(2), x, y, steps, steps)
    >>> axes = fo.plot.landscape(found, {"down": [[1, 1], [0.5, 0], [0, -1]]})
    >>> axes.get_xlabel(), axes.get_ylabel()
    ('alpha', 'beta')
    """
    if not isinstance(result, (Line, Plane)):
        raise TypeError(f"result must be a Line or a Plane, got {type(result).__name__}")
    if not np.isfinite(result.values).any():
        raise ValueError("result has no finite value")
    if isinstance(result, Line):
        if paths is not None:
            raise ValueError("paths must be None for a line")
        ax = new_axes(ax)
        ax.plot(result.alphas, np.where(np.isfinite(result.values), result.values, np.nan))
        ax.set(xlabel="alpha", ylabel="loss")
        return ax
    drawn = {name: _checked(name or "paths", path) for name, path in _named(paths).items()}
    ax = new_axes(ax)
    _contours(ax, result)
    for index, (name, path) in enumerate(drawn.items()):
        colour = f"C{index + 1}"
        ax.plot(*path.T, color=colour, marker=".", markersize=3, label=name)
        ax.plot(*path[:1].T, color=colour, marker="o", markerfacecolor="none")
        ax.plot(*path[-1:].T, color=colour, marker="*", markersize=10)
    ax.set(xlabel="alpha", ylabel="beta")
    if isinstance(paths, Mapping):
        ax.legend()
    return ax


def _named(paths: Any) -> dict[str, Any]:
    if paths is None:
        return {}
    return dict(paths) if isinstance(paths, Mapping) else {"": paths}


def _checked(name: str, path: Any) -> Any:
    points = np.asarray(path, np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"{name} must have shape (n, 2), got {points.shape}")
    return points


def _contours(ax: Any, plane: Plane) -> None:
    if min(plane.values.shape) < 2:
        raise ValueError(f"result must be at least 2 by 2 points, got {plane.values.shape}")
    values = np.ma.masked_invalid(plane.values.T)
    low, high = float(values.min()), float(values.max())
    if low == high:  # Contours require two levels.
        low, high = low - 0.5, high + 0.5
    wide = low > 0 and high / low > _WIDE
    levels = np.geomspace(low, high, _LEVELS) if wide else np.linspace(low, high, _LEVELS)
    grid = (plane.alphas, plane.betas, values)
    norm = require("matplotlib.colors", "a picture").LogNorm(low, high) if wide else None
    filled = ax.contourf(*grid, levels=levels, norm=norm, cmap="Blues_r")
    ax.contour(*grid, levels=levels[::2], colors="white", linewidths=0.5)
    ax.figure.colorbar(filled, ax=ax, label="loss", format="%.2g")
