"""Losses, rates and norms of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastoptim.plot.axes import new_axes
from fastoptim.tools.history import History


def history(values: History | Mapping[str, npt.ArrayLike], *names: str, ax: Any = None) -> Any:
    """Draw losses, rates and norms over the steps.

    Parameters
    ----------
    values : History, or mapping from names to sequences of numbers
        One value per step from 0 on; a History knows its steps.
    *names : str
        The names to draw; all if there are none.
    ax : matplotlib Axes, optional
        The axes to draw on; a new figure if None.

    Returns
    -------
    matplotlib.axes.Axes
        With one line per name. The scale is logarithmic if all values are positive, so that losses,
        rates and norms fit in one plot.

    Raises
    ------
    KeyError
        A name has no values.
    TypeError
        ``values`` is not a mapping.
    ValueError
        A sequence is not 1-D.

    Examples
    --------
    >>> import fastoptim as fo
    >>> axes = fo.plot.history({"SGD": [1.0, 0.5, 0.4], "AdamW": [1.0, 0.3, 0.2]})
    >>> [line.get_label() for line in axes.lines], axes.get_yscale()
    (['SGD', 'AdamW'], 'log')
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"values must be a History or a mapping, got {type(values).__name__}")
    curves = {}
    for name in names or tuple(values):
        y = np.asarray(values[name], np.float64)
        if y.ndim != 1:
            raise ValueError(f"{name} must be 1-D, got shape {y.shape}")
        curves[name] = (values.steps(name) if isinstance(values, History) else range(len(y)), y)
    ax = new_axes(ax)
    for name, (x, y) in curves.items():
        # Draw a single value as a point.
        ax.plot(x, y, label=name, marker="o" if len(y) == 1 else None)
    everything = np.concatenate([np.empty(0), *(y for _, y in curves.values())])
    if (everything > 0).any() and not (everything <= 0).any():
        ax.set_yscale("log")
    ax.set(xlabel="step")
    if curves:
        ax.legend()
    return ax
