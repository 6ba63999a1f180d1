"""Losses of predicted signs and distributions."""

from __future__ import annotations

from typing import Literal

from fastoptim.losses._base import ElementLoss, Reduction


class KLDivLoss(ElementLoss):
    r"""Kullback-Leibler divergence of a distribution from log-probabilities.

    .. math::
        l = y\, (\ln y - x) \quad \text{or, for log-targets,} \quad e^y (y - x)

    Input and target have the same shape and the same float type; nothing is broadcast.
    The input holds log-probabilities. A target of probability 0 adds 0 unless the input is
    NaN.

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

    log_target: bool

    def __init__(
        self,
        log_target: bool = False,
        *,
        reduction: Reduction | Literal["batchmean"] = "mean",
    ) -> None:
        self._set(reduction=reduction, log_target=log_target)


class HingeLoss(ElementLoss):
    r"""The hinge of support vector machines: 0 beyond the margin.

    .. math::
        l = \max(0, \text{margin} - y x) \quad \text{or its square}

    Input and target have the same shape and the same float type; nothing is broadcast.
    Targets are -1 and 1. The gradient at the kink is 0.

    Parameters
    ----------
    margin
        The y x from which on the loss is 0, >= 0.
    squared
        Whether the loss is squared: it is then smooth, and large errors count more.
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

    margin: float
    squared: bool

    def __init__(
        self, margin: float = 1.0, squared: bool = False, *, reduction: Reduction = "mean"
    ) -> None:
        self._set(reduction=reduction, margin=margin, squared=squared)


class SoftMarginLoss(ElementLoss):
    r"""Logistic loss for labels -1 and 1: a hinge without a kink.

    .. math::
        l = \ln(1 + e^{-y x}), \qquad \frac{\partial l}{\partial x} = -y\, \sigma(-y x)

    Input and target have the same shape and the same float type; nothing is broadcast.
    Targets are -1 and 1. The gradient of a confident right answer has full relative accuracy.

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
