"""The losses of a learning rate range test."""

from __future__ import annotations

from typing import Any

from fastoptim.plot.axes import new_axes
from fastoptim.tools.lr_finder import LRFinderResult


def lr_finder(result: LRFinderResult, *, ax: Any = None) -> Any:
    """Draw the losses and smoothed losses of a sweep over the rates, with the suggestion.

    Parameters
    ----------
    result : LRFinderResult
        The result of ``fo.LRFinder(...).run()``.
    ax : matplotlib Axes, optional
        The axes to draw on; a new figure if None.

    Returns
    -------
    matplotlib.axes.Axes
        The rates are on a logarithmic axis. The divergence at the end is cut off.

    Raises
    ------
    TypeError
        ``result`` is not an LRFinderResult.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.ones(3)
    >>> found = fo.LRFinder(fo.SGD(w), lambda w: (float(w @ w), 2 * w)).run()
    >>> axes = fo.plot.lr_finder(found)
    >>> axes.get_xscale()
    'log'
    """
    if not isinstance(result, LRFinderResult):
        raise TypeError(f"result must be an LRFinderResult, got {type(result).__name__}")
    ax = new_axes(ax)
    ax.semilogx(result.lrs, result.losses, color="C0", alpha=0.35, label="loss")
    ax.semilogx(result.lrs, result.smoothed, color="C0", label="smoothed")
    if result.suggestion is not None:
        label = f"suggestion {result.suggestion:.2g}"
        ax.axvline(result.suggestion, color="C1", linestyle="--", label=label)
    low, first = float(result.smoothed.min()), float(result.losses[0])
    if float(result.losses.max()) > first + 2 * (first - low) > first:
        margin = 0.1 * (first - low)
        ax.set_ylim(low - margin, first + 2 * (first - low))
    ax.set(xlabel="rate", ylabel="loss")
    ax.legend()
    return ax
