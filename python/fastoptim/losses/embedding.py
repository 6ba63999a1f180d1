"""Losses of distances."""

from __future__ import annotations

from fastoptim.losses._base import Elementwise, Reduction, checked_number


class HingeEmbeddingLoss(Elementwise):
    r"""Pulls what belongs together close, and pushes the rest beyond a margin.

    .. math::
        l = \begin{cases} x & y = 1 \\ \max(0, \text{margin} - x) & y = -1 \end{cases}

    Input and target have the same shape and dtype, float32 or float64; nothing is broadcast.
    The input holds distances, the target -1 and 1. The gradient at the kink is 0.

    Parameters
    ----------
    margin
        How far apart what differs must be, >= 0.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> loss_fn = fo.losses.HingeEmbeddingLoss()
    >>> loss_fn.value_and_grad(np.array([0.5, 0.75]), np.array([1.0, -1.0]))
    (0.375, array([ 0.5, -0.5]))

    References
    ----------
    `torch.nn.HingeEmbeddingLoss
    <https://docs.pytorch.org/docs/stable/generated/torch.nn.HingeEmbeddingLoss.html>`_
    """

    _name = "hinge_embedding"

    def __init__(self, margin: float = 1.0, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        self.margin = checked_number("margin", margin, least=0.0)

    def _parameters(self) -> tuple[float, ...]:
        return (self.margin,)
