"""Losses of answers of yes or no, one per element."""

from __future__ import annotations

from fastoptim.losses._base import (
    Array,
    Elementwise,
    Reduction,
    checked_number,
    checked_weight,
)


class BCELoss(Elementwise):
    r"""Binary cross-entropy of probabilities.

    .. math::
        l = -w\, (y \ln x + (1 - y) \ln(1 - x)), \qquad
        \frac{\partial l}{\partial x} = w\, \frac{x - y}{x\, (1 - x)}

    Prefer `BCEWithLogitsLoss` wherever a sigmoid made the probabilities: it is faster, and right
    where they round to 0 or 1. As in PyTorch each logarithm is at least -100, and the denominator
    of the derivative at least 1e-12.

    Input and target have the same shape and dtype, float32 or float64; nothing is broadcast. Both
    hold probabilities: one outside [0, 1] is a `ValueError` that names the first, before anything
    is written. A NaN passes, and gives NaN.

    Parameters
    ----------
    weight
        A factor per element, of the shape and dtype of the input. A weight of 0 removes the
        element, unless it is NaN.
    reduction
        ``"mean"`` over all elements, whatever they weigh, ``"sum"``, or ``"none"``: an array of the
        input's shape, with the gradient of the sum.

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

    def __init__(self, weight: Array | None = None, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self.weight = checked_weight("weight", weight)

    def _weights(self) -> tuple[Array | None, ...]:
        return (self.weight,)


class BCEWithLogitsLoss(Elementwise):
    r"""Binary cross-entropy of the sigmoid of logits, for labels that do not exclude each other.

    .. math::
        l = w\, \bigl(w_+\, y \ln(1 + e^{-x}) + (1 - y) \ln(1 + e^x)\bigr), \qquad
        \frac{\partial l}{\partial x} = w\, \bigl((1 - y)\, \sigma(x) - w_+\, y\, \sigma(-x)\bigr)

    where :math:`w` is `weight` and :math:`w_+` is `pos_weight`. No logit overflows, and a confident
    right answer keeps a value and a gradient of full relative accuracy. An infinite logit gives
    inf, or 0 where the label agrees with it.

    Input and target have the same shape and dtype, float32 or float64; nothing is broadcast.
    Targets are labels 0 and 1, or probabilities.

    Parameters
    ----------
    weight
        A factor per element, of the shape and dtype of the input. A weight of 0 removes the
        element, unless it is NaN.
    pos_weight
        A factor of the positives' part, of the input's dtype: one per class, the shape of the
        input's last axis, or one per element. Above 1 it raises recall, below 1 precision; the
        number of negatives over that of positives balances them.
    reduction
        ``"mean"`` over all elements, whatever they weigh, ``"sum"``, or ``"none"``: an array of the
        input's shape, with the gradient of the sum.

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

    def __init__(
        self,
        weight: Array | None = None,
        pos_weight: Array | None = None,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.weight = checked_weight("weight", weight)
        self.pos_weight = checked_weight("pos_weight", pos_weight)

    def _weights(self) -> tuple[Array | None, ...]:
        return self.weight, self.pos_weight


class SigmoidFocalLoss(Elementwise):
    r"""Binary cross-entropy of logits that counts the easy examples less.

    .. math::
        l = a\, q^\gamma c, \qquad q = y\, \sigma(-x) + (1 - y)\, \sigma(x), \qquad
        a = \alpha\, y + (1 - \alpha)\, (1 - y)

    where :math:`c` is the loss of `BCEWithLogitsLoss` and :math:`q` the probability of error. It is
    made for detection, where nearly everything is an easy negative. Values and gradients are finite
    for all finite logits, and keep their relative accuracy for a confident right answer.

    Input and target have the same shape and dtype, float32 or float64; nothing is broadcast.
    Targets are labels 0 and 1, or probabilities. An infinite logit gives inf, or 0 where the label
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

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = 0.25,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.gamma = checked_number("gamma", gamma, least=0.0)
        self.alpha = alpha if alpha is None else checked_number("alpha", alpha, least=0.0, most=1.0)

    def _parameters(self) -> tuple[float, ...]:
        if self.alpha is None:
            return self.gamma, 1.0, 1.0
        return self.gamma, self.alpha, 1.0 - self.alpha
