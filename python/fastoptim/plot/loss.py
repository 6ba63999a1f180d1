"""Losses as functions of the prediction."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastoptim import losses as kinds
from fastoptim.plot.axes import new_axes, new_figure


def losses() -> Any:
    """Draw losses as functions of errors and margins, with their gradients.

    Three panels: MSE, MAE and the Huber loss with two deltas over the error x - y; their gradients;
    and the hinge loss and cross-entropy over the margin y f, the difference of the scores of two
    classes, with dashed gradients.

    Returns
    -------
    matplotlib.axes.Axes
        The first panel of a new figure; all three are its ``figure.axes``.

    Examples
    --------
    >>> import fastoptim as fo
    >>> axes = fo.plot.losses()
    >>> [line.get_label() for line in axes.lines]
    ['MSE', 'MAE', 'Huber, delta 0.5', 'Huber, delta 2']
    >>> len(axes.figure.axes)
    3
    """
    of_errors: dict[str, kinds.Loss] = {
        "MSE": kinds.MSELoss(reduction="none"),
        "MAE": kinds.L1Loss(reduction="none"),
        "Huber, delta 0.5": kinds.HuberLoss(0.5, reduction="none"),
        "Huber, delta 2": kinds.HuberLoss(2.0, reduction="none"),
    }
    of_margins: dict[str, kinds.Loss] = {
        "hinge": kinds.HingeLoss(reduction="none"),
        "cross-entropy": kinds.SoftMarginLoss(reduction="none"),
    }
    values, gradients, margins = new_figure(figsize=(12.0, 4.0)).subplots(1, 3)
    x = np.linspace(-3.0, 3.0, 601)
    for name, loss in of_errors.items():
        value, gradient = loss.value_and_grad(x, np.zeros_like(x))
        values.plot(x, value, label=name)
        gradients.plot(x, gradient, label=name)
    for name, loss in of_margins.items():
        value, gradient = loss.value_and_grad(x, np.ones_like(x))
        (line,) = margins.plot(x, value, label=name)
        margins.plot(x, gradient, "--", color=line.get_color(), label=f"gradient of {name}")
    values.set(title="errors", xlabel="x - y", ylabel="loss", ylim=(0.0, 5.0))
    gradients.set(title="their gradients", xlabel="x - y", ylabel="gradient", ylim=(-3.0, 3.0))
    margins.set(title="margins", xlabel="y f", ylabel="loss")
    for axes in (values, gradients, margins):
        axes.grid(alpha=0.3)
        axes.legend()
    return values


def focal(*, ax: Any = None) -> Any:
    """Draw the focal loss over the probability of the true class, for gamma 0, 1, 2 and 5.

    With gamma 0 it is cross-entropy. A larger gamma reduces the weight of well-classified examples.

    Parameters
    ----------
    ax : matplotlib Axes, optional
        The axes to draw on; a new figure if None.

    Returns
    -------
    matplotlib.axes.Axes
        With one line per gamma.

    References
    ----------
    Lin et al., "Focal Loss for Dense Object Detection", 2017.

    Examples
    --------
    >>> import fastoptim as fo
    >>> [line.get_label() for line in fo.plot.focal().lines]
    ['gamma 0', 'gamma 1', 'gamma 2', 'gamma 5']
    """
    ax = new_axes(ax)
    p = np.linspace(0.005, 1.0, 400)
    for gamma in (0, 1, 2, 5):
        ax.plot(p, -((1 - p) ** gamma) * np.log(p), label=f"gamma {gamma}")
    ax.set(xlabel="probability of the right class", ylabel="loss", xlim=(0.0, 1.0), ylim=(0.0, 5.0))
    ax.grid(alpha=0.3)
    ax.legend()
    return ax
