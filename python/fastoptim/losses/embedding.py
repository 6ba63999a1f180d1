"""Losses of distances."""

from __future__ import annotations

import math

from fastoptim._checks import flag
from fastoptim.losses._base import (
    Elementwise,
    Reduction,
    Vectors,
    checked_number,
    checked_reduction,
)


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


class ContrastiveLoss(Vectors):
    r"""Distances of pairs: small where they belong together, beyond a margin where they do not.

    The simplest loss of embeddings. It asks for one absolute scale of distance; `TripletMarginLoss`
    asks for the order alone. It takes ``(x1, x2, same)`` and has two gradients.

    .. math::
        l = \frac{s}{2} D^2 + \frac{1 - s}{2} \max(0, m - D)^2, \qquad
        \frac{\partial l}{\partial x_1} = \Bigl(s - (1 - s) \frac{\max(0, m - D)}{D}\Bigr)
            (x_1 - x_2), \qquad D = \lVert x_1 - x_2 \rVert

    and the gradient by :math:`x_2` is its negative; at distance 0 both are 0. The vectors are rows
    of arrays of shape (N, D), float32 or float64. `same` has shape (N,), in their dtype, int32 or
    int64: 1 for pairs that belong together, 0 for others.

    Parameters
    ----------
    margin
        The distance m that is enough for others, >= 0.
    reduction
        ``"mean"`` over rows, ``"sum"``, or ``"none"``: an array of shape (N,), with the gradients
        of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> x1, x2 = np.array([[0.0, 0.5]]), np.array([[0.0, 0.0]])
    >>> fo.losses.ContrastiveLoss(margin=1.0).value_and_grad(x1, x2, np.array([1]))
    (0.125, (array([[0. , 0.5]]), array([[-0. , -0.5]])))

    References
    ----------
    Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", 2006.
    """

    _name = "contrastive"
    _inputs = ("x1", "x2")
    _target = "same"

    def __init__(self, margin: float = 1.0, *, reduction: Reduction = "mean") -> None:
        self.margin = checked_number("margin", margin, least=0.0)
        self.reduction = checked_reduction(reduction)

    def _parameters(self) -> tuple[float, ...]:
        return (self.margin,)


class CosineEmbeddingLoss(Vectors):
    r"""Angles of pairs: small for the target 1, beyond a margin for -1.

    For embeddings whose length means nothing. It takes ``(x1, x2, target)`` and has two gradients.

    .. math::
        l = \begin{cases}
            1 - \cos(x_1, x_2) & y = 1 \\ \max(0, \cos(x_1, x_2) - m) & y = -1
        \end{cases}, \qquad
        \frac{\partial \cos}{\partial x_1} =
            \frac{x_2}{l_1 l_2} - \cos(x_1, x_2) \frac{x_1}{l_1^2}

    with :math:`l_i^2 = \lVert x_i \rVert^2 + 10^{-12}`, as in PyTorch. At the kink the gradient is
    0. The vectors are rows of arrays of shape (N, D), float32 or float64. `target` has shape (N,),
    in their dtype, int32 or int64; a pair with neither target adds nothing.

    Parameters
    ----------
    margin
        The cosine m that is small enough for the target -1, in [-1, 1]; 0 to 0.5 is usual.
    reduction
        ``"mean"`` over rows, ``"sum"``, or ``"none"``: an array of shape (N,), with the gradients
        of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> x1, x2 = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> value, (by_x1, by_x2) = fo.losses.CosineEmbeddingLoss().value_and_grad(x1, x2, np.ones(1))
    >>> value, by_x1.round(6), by_x2.round(6)
    (1.0, array([[ 0., -1.]]), array([[-1.,  0.]]))

    References
    ----------
    `torch.nn.CosineEmbeddingLoss
    <https://docs.pytorch.org/docs/stable/generated/torch.nn.CosineEmbeddingLoss.html>`_
    """

    _name = "cosine_embedding"
    _inputs = ("x1", "x2")
    _target = "target"

    def __init__(self, margin: float = 0.0, *, reduction: Reduction = "mean") -> None:
        self.margin = checked_number("margin", margin, least=-1.0, most=1.0)
        self.reduction = checked_reduction(reduction)

    def _parameters(self) -> tuple[float, ...]:
        return (self.margin,)


class TripletMarginLoss(Vectors):
    r"""An anchor nearer to its positive than to its negative, by a margin.

    For embeddings of which only the order of distances matters. Most random triplets are soon easy
    and add nothing: choose them with `mine_triplets`. It takes ``(anchor, positive, negative)`` and
    has three gradients.

    .. math::
        l = \max(0, m + d(a, p) - d(a, n)), \qquad
        d(u, v) = \lVert u - v + \epsilon \rVert_p

    and the gradients follow from that of the norm; for p = 2 it is
    :math:`(u - v + \epsilon) / d(u, v)`. At distance 0 and at the kink it is 0, and elements that
    are equally large share that of p = inf. All three are arrays of shape (N, D), float32 or
    float64.

    Parameters
    ----------
    margin
        How much nearer, m > 0.
    p
        Of the norm, > 0; ``math.inf`` is the largest difference.
    eps
        Added to every difference, >= 0, as in PyTorch.
    swap
        Whether the negative's distance is the lesser of those from the anchor and from the positive
        (half of the gradient each, where they are equal).
    squared
        Whether distances are those of p = 2 squared, and without `eps`: FaceNet's form. It is
        smooth at distance 0, and distances far apart pull harder.
    reduction
        ``"mean"`` over rows, ``"sum"``, or ``"none"``: an array of shape (N,), with the gradients
        of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> a, p, n = np.array([[0.0, 0.0]]), np.array([[0.0, 2.0]]), np.array([[1.0, 0.0]])
    >>> loss_fn = fo.losses.TripletMarginLoss(margin=1.0, squared=True)
    >>> value, (by_a, by_p, by_n) = loss_fn.value_and_grad(a, p, n)
    >>> value, by_a, by_n
    (4.0, array([[ 2., -4.]]), array([[-2.,  0.]]))

    References
    ----------
    Schroff, Kalenichenko and Philbin, "FaceNet", 2015; swap: Balntas et al., "Learning shallow
    convolutional feature descriptors with triplet losses", 2016.
    """

    _name = "triplet_margin"
    _inputs = ("anchor", "positive", "negative")

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        squared: bool = False,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        self.margin = checked_number("margin", margin, least=0.0, open_end=True)
        if p != math.inf:
            checked_number("p", p, least=0.0, open_end=True)
        self.p = float(p)
        self.eps = checked_number("eps", eps, least=0.0)
        self.swap = flag("swap", swap)
        self.squared = flag("squared", squared)
        if self.squared and self.p != 2.0:
            raise ValueError(f"squared distances are those of p = 2, got p = {p}")
        self.reduction = checked_reduction(reduction)

    def _parameters(self) -> tuple[float, ...]:
        return (self.margin, self.p, self.eps, float(self.swap), float(self.squared))
