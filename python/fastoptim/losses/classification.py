"""Losses of predicted signs and distributions."""

from __future__ import annotations

import math
from typing import Any, Literal

from fastoptim._checks import flag, number
from fastoptim.losses._base import (
    Array,
    Elementwise,
    Reduction,
    checked_number,
)


class KLDivLoss(Elementwise):
    r"""Kullback-Leibler divergence of a distribution from log-probabilities.

    .. math::
        l = y\, (\ln y - x) \quad \text{or, for log-targets,} \quad e^y (y - x)

    Input and target have the same shape and dtype, float32 or float64; nothing is broadcast.
    The input holds log-probabilities. A target of probability 0 adds 0, whatever the input is,
    unless it is NaN.

    Parameters
    ----------
    log_target
        Whether the targets are logarithms.
    reduction
        ``"batchmean"`` (the divergence itself: over the first axis), ``"mean"`` over all elements,
        ``"sum"``, or ``"none"``.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> x, y = np.log([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    >>> loss_fn = fo.losses.KLDivLoss(reduction="batchmean")
    >>> value, gradient = loss_fn.value_and_grad(x, y)
    >>> round(value, 6), gradient
    (0.130812, array([[-0.25, -0.75]]))

    References
    ----------
    Kullback and Leibler, "On Information and Sufficiency", 1951.
    """

    _name = "kl_div"

    def __init__(
        self,
        log_target: bool = False,
        *,
        reduction: Reduction | Literal["batchmean"] = "mean",
    ) -> None:
        if reduction == "batchmean":
            self.reduction = reduction
        else:
            super().__init__(reduction=reduction)
        self.log_target = flag("log_target", log_target)

    def _parameters(self) -> tuple[float, ...]:
        return (float(self.log_target),)

    def _compute(
        self, reduction: str, x: Array, target: Array, out: Any, loss_scale: float, grad: bool
    ) -> Any:
        if reduction != "batchmean":
            return super()._compute(reduction, x, target, out, loss_scale, grad)
        # What is no array is for the core to refuse.
        shape = getattr(x, "shape", (1,))
        if not shape:
            raise ValueError("batchmean needs an input with rows")
        # An empty batch has the mean 0 / 0, and no gradient to be scaled.
        rows = shape[0] or math.nan
        scale = number("loss_scale", loss_scale) / (shape[0] or 1)
        value, gradient = super()._compute("sum", x, target, out, scale, grad)
        return value / rows, gradient


class HingeLoss(Elementwise):
    r"""The hinge of support vector machines: nothing to gain beyond the margin.

    .. math::
        l = \max(0, \text{margin} - y x) \quad \text{or its square}

    Input and target have the same shape and dtype, float32 or float64; nothing is broadcast.
    Targets are -1 and 1. The gradient at the kink is 0.

    Parameters
    ----------
    margin
        How far a score must be on the right side, >= 0.
    squared
        Squares it: smooth, and worse mistakes weigh more.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> fo.losses.HingeLoss().value_and_grad(np.array([0.25, 3.0]), np.array([1.0, 1.0]))
    (0.375, array([-0.5,  0. ]))

    References
    ----------
    Cortes and Vapnik, "Support-Vector Networks", 1995.
    """

    _name = "hinge"

    def __init__(
        self, margin: float = 1.0, squared: bool = False, *, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.margin = checked_number("margin", margin, least=0.0)
        self.squared = flag("squared", squared)

    def _parameters(self) -> tuple[float, ...]:
        return (
            self.margin,
            float(self.squared),
        )


class SoftMarginLoss(Elementwise):
    r"""Logistic loss for labels -1 and 1: a hinge without a kink.

    .. math::
        l = \ln(1 + e^{-y x}), \qquad \frac{\partial l}{\partial x} = -y\, \sigma(-y x)

    Input and target have the same shape and dtype, float32 or float64; nothing is broadcast.
    Targets are -1 and 1. A confident right answer keeps a gradient of full relative accuracy.

    Parameters
    ----------
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> value, gradient = fo.losses.SoftMarginLoss().value_and_grad(np.zeros(1), np.ones(1))
    >>> round(value, 6), gradient
    (0.693147, array([-0.5]))

    References
    ----------
    `torch.nn.SoftMarginLoss
    <https://docs.pytorch.org/docs/stable/generated/torch.nn.SoftMarginLoss.html>`_
    """

    _name = "soft_margin"
