"""Losses of binary classifications, one per element."""

from __future__ import annotations

from fastoptim.losses._base import ElementLoss, Reduction, Weights


class BCELoss(ElementLoss):
    r"""Binary cross-entropy of probabilities.

    .. math::
        l = -w\, (y \ln x + (1 - y) \ln(1 - x)), \qquad
        \frac{\partial l}{\partial x} = w\, \frac{x - y}{x\, (1 - x)}

    Prefer `BCEWithLogitsLoss` where the probabilities come from a sigmoid: it is faster, and
    accurate where they round to 0 or 1. As in PyTorch each logarithm is at least -100, and the
    denominator of the derivative at least 1e-12.

    Input and target have the same shape and the same float type; nothing is broadcast. Both
    hold probabilities. An element outside [0, 1] raises a `ValueError` that names the first one,
    before anything is written. A NaN is accepted, and gives NaN.

    Parameters
    ----------
    weight
        A factor per element: an array of a shape that broadcasts to that of the input, and of its
        type, or a list of numbers. A weight of 0 removes the element, unless the element is NaN.
    reduction
        ``"mean"`` over all elements, independent of their weights, ``"sum"``, or ``"none"``: an
        array of the input's shape, with the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> x, y = np.array([0.25, 0.5]), np.array([0.0, 1.0])
    >>> value, gradient = fo.losses.BCELoss().value_and_grad(x, y)
    >>> round(value, 6), gradient.round(6)
    (0.490415, array([ 0.666667, -1.      ]))

    References
    ----------
    `torch.nn.BCELoss <https://docs.pytorch.org/docs/stable/generated/torch.nn.BCELoss.html>`_
    """

    _name = "bce"

    weight: Weights | None

    def __init__(self, weight: Weights | None = None, *, reduction: Reduction = "mean") -> None:
        self._set(reduction=reduction, weight=weight)


class BCEWithLogitsLoss(ElementLoss):
    r"""Binary cross-entropy of the sigmoid of logits, for labels that are not mutually exclusive.

    .. math::
        l = w\, \bigl(w_+\, y \ln(1 + e^{-x}) + (1 - y) \ln(1 + e^x)\bigr), \qquad
        \frac{\partial l}{\partial x} = w\, \bigl((1 - y)\, \sigma(x) - w_+\, y\, \sigma(-x)\bigr)

    where :math:`w` is `weight` and :math:`w_+` is `pos_weight`. No logit overflows, and
    for a confident right answer the value and the gradient have full relative accuracy. An infinite
    logit gives inf, or 0 if the label agrees with it.

    Input and target have the same shape and the same float type; nothing is broadcast.
    Targets are labels 0 and 1, or probabilities.

    Parameters
    ----------
    weight
        A factor per element: an array of a shape that broadcasts to that of the input, and of its
        type, or a list of numbers. A weight of 0 removes the element, unless the element is NaN.
    pos_weight
        A factor of the part of the positives, given as `weight` is: usually one per class, which is
        an index of the last axis, or one for all. A factor above 1 raises recall, one below 1
        precision; the ratio of negatives to positives balances them.
    reduction
        ``"mean"`` over all elements, independent of their weights, ``"sum"``, or ``"none"``: an
        array of the input's shape, with the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> x, y = np.zeros((2, 2)), np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> value, gradient = fo.losses.BCEWithLogitsLoss().value_and_grad(x, y)
    >>> round(value, 6)
    0.693147
    >>> fo.losses.BCEWithLogitsLoss(pos_weight=np.array([1.0, 3.0]), reduction="sum").grad(x, y)
    array([[-0.5,  0.5],
           [ 0.5, -1.5]])

    References
    ----------
    `torch.nn.BCEWithLogitsLoss
    <https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html>`_
    """

    _name = "bce_with_logits"

    weight: Weights | None
    pos_weight: Weights | None

    def __init__(
        self,
        weight: Weights | None = None,
        pos_weight: Weights | None = None,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        self._set(reduction=reduction, weight=weight, pos_weight=pos_weight)


class SigmoidFocalLoss(ElementLoss):
    r"""Binary cross-entropy of logits in which easy examples count less.

    .. math::
        l = a\, q^\gamma c, \qquad q = y\, \sigma(-x) + (1 - y)\, \sigma(x), \qquad
        a = \alpha\, y + (1 - \alpha)\, (1 - y)

    where :math:`c` is the loss of `BCEWithLogitsLoss` and :math:`q` the probability of error. It is
    made for detection, where nearly all examples are easy negatives. Values and gradients are
    finite for all finite logits, and have full relative accuracy for a confident right answer.

    Input and target have the same shape and the same float type; nothing is broadcast.
    Targets are labels 0 and 1, or probabilities. An infinite logit gives inf, or 0 if the label
    agrees with it.

    Parameters
    ----------
    gamma
        The exponent, >= 0: 0 is `BCEWithLogitsLoss`, and the larger, the less an easy example
        counts. 2 is several times faster than the others.
    alpha
        The weight of the positives, in [0, 1], where the negatives have 1 - alpha. None, which is
        torchvision's -1: both have 1.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradient of the sum. The paper sums, and divides by the number of positives.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> loss_fn = fo.losses.SigmoidFocalLoss()
    >>> value, gradient = loss_fn.value_and_grad(np.array([0.0, 4.0]), np.array([1.0, 1.0]))
    >>> round(value, 6), gradient.round(6)
    (0.021662, array([-3.7286e-02, -2.0000e-06]))

    References
    ----------
    Lin et al., "Focal Loss for Dense Object Detection", 2017; `torchvision.ops.sigmoid_focal_loss
    <https://docs.pytorch.org/vision/stable/generated/torchvision.ops.sigmoid_focal_loss.html>`_
    """

    _name = "sigmoid_focal"

    gamma: float
    alpha: float | None

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        self._set(reduction=reduction, gamma=gamma, alpha=alpha)
