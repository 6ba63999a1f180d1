"""Schedules over the steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastoptim.plot.axes import new_axes
from fastoptim.schedules import Schedule


def schedule(
    f: Any,
    steps: int | npt.ArrayLike,
    metrics: Sequence[float] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw one or more schedules over the steps.

    Parameters
    ----------
    f : Schedule, function, scheduler, or a mapping from names to them
        A scheduler is drawn from its current position, with a copy: it and its optimizer do not
        change.
    steps : int or array of int
        The number of steps, or the steps themselves; for a scheduler only a number.
    metrics : sequence of float, optional
        The metrics for a ``ReduceLROnPlateau``, one per step.
    ax : matplotlib Axes, optional
        The axes to draw on; a new figure if None.

    Returns
    -------
    matplotlib.axes.Axes
        With one line per schedule, or per group of a scheduler.

    Raises
    ------
    TypeError
        ``f`` is none of these.
    ValueError
        ``metrics`` are missing or too few, or ``steps`` is negative.

    Examples
    --------
    >>> import fastoptim as fo
    >>> curves = {"cosine": fo.schedules.cosine(0.1, 100), "step": fo.schedules.step(0.1, 30)}
    >>> axes = fo.plot.schedule(curves, steps=120)
    >>> len(axes.lines)
    2
    """
    named = dict(f) if isinstance(f, Mapping) else {"": f}
    lines = [
        (name, *line)
        for name, curve in named.items()
        for line in _lines(name or "f", curve, steps, metrics)
    ]
    ax = new_axes(ax)
    for name, x, y in lines:
        ax.plot(x, y, label=name)
    ax.set(xlabel="step", ylabel="rate")
    if isinstance(f, Mapping):
        ax.legend()
    return ax


def _lines(
    name: str, curve: Any, steps: int | npt.ArrayLike, metrics: Sequence[float] | None
) -> list[tuple[Any, Any]]:
    if isinstance(steps, (int, np.integer)):
        if steps < 0:
            raise ValueError(f"steps must be >= 0, got {steps}")
        x = np.arange(steps)
    else:
        x = np.asarray(steps)
    if isinstance(curve, Schedule):
        return [(x, curve(x))]
    if hasattr(curve, "param_groups") or not (hasattr(curve, "step") or callable(curve)):
        raise TypeError(f"{name} must be a schedule, a function or a scheduler, got {curve!r}")
    if not hasattr(curve, "step"):
        function: Callable[[Any], float] = curve
        return [(x, [float(function(t)) for t in x.tolist()])]
    if not isinstance(steps, (int, np.integer)):
        raise TypeError(f"steps must be a number for a scheduler, got {steps!r}")
    rates = np.array(_run(curve, int(steps), metrics))
    return [(x, rates[:, group]) for group in range(rates.shape[1])]


class _Groups:
    """The groups of an optimizer without its parameters."""

    def __init__(self, optimizer: Any) -> None:
        self.param_groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]


def _run(scheduler: Any, steps: int, metrics: Sequence[float] | None) -> list[list[float]]:
    watches = hasattr(scheduler, "is_better")
    if watches and (metrics is None or len(metrics) < steps):
        raise ValueError(f"metrics must have a value for each of {steps} steps")
    optimizer = scheduler.optimizer
    groups = _Groups(optimizer)
    moved = copy.deepcopy(scheduler, {id(optimizer): groups})
    rates = []
    for step in range(steps):
        rates.append([float(group["lr"]) for group in groups.param_groups])
        if watches and metrics is not None:
            moved.step(metrics[step])
        else:
            moved.step()
    return rates
