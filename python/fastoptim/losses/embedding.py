"""Losses of distances."""

from __future__ import annotations

from fastoptim import _core
from fastoptim.losses._base import Array, BuiltinLoss, Class, ElementLoss, Reduction, Value


class HingeEmbeddingLoss(ElementLoss):
    r"""Distances: small for pairs that belong together, beyond a margin for others.

    .. math::
        l = \begin{cases} x & y = 1 \\ \max(0, \text{margin} - x) & y = -1 \end{cases}

    Input and target have the same shape and the same float type; nothing is broadcast.
    The input holds distances, the target -1 and 1. The gradient at the kink is 0.

    Parameters
    ----------
    margin
        The distance from which on a pair with target -1 adds nothing, >= 0.
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

    margin: float

    def __init__(self, margin: float = 1.0, *, reduction: Reduction = "mean") -> None:
        self._set(reduction=reduction, margin=margin)


class ContrastiveLoss(BuiltinLoss):
    r"""Distances of pairs: small where they belong together, beyond a margin where they do not.

    The simplest loss of embeddings. It depends on the scale of distances; `TripletMarginLoss`
    depends on their differences only. It takes ``(x1, x2, same)`` and has two gradients.

    .. math::
        l = \frac{s}{2} D^2 + \frac{1 - s}{2} \max(0, m - D)^2, \qquad
        \frac{\partial l}{\partial x_1} = \Bigl(s - (1 - s) \frac{\max(0, m - D)}{D}\Bigr)
            (x_1 - x_2), \qquad D = \lVert x_1 - x_2 \rVert

    and the gradient by :math:`x_2` is its negative; at distance 0 both are 0. The vectors are rows
    of arrays of shape (N, D), or a single pair of shape (D,). `same` has shape (N,), in their type
    or any integer type: 1 for pairs that belong together, 0 for others.

    Parameters
    ----------
    margin
        The distance m from which on a pair that does not belong together adds nothing, >= 0.
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

    margin: float

    def __init__(self, margin: float = 1.0, *, reduction: Reduction = "mean") -> None:
        self._set(margin=margin, reduction=reduction)

    def __call__(self, x1: Array, x2: Array, same: Array | Class) -> Value:
        """Compute the loss without its gradients."""
        arrays = x1, x2, same
        return _core.compute_loss(self._name, self.__dict__, arrays, None, 1.0, False)[0]

    def value_and_grad(
        self,
        x1: Array,
        x2: Array,
        same: Array | Class,
        *,
        out: tuple[Array, Array] | None = None,
        loss_scale: float = 1.0,
    ) -> tuple[Value, tuple[Array, Array]]:
        """Compute the loss and its gradients by `x1` and `x2`: see `Loss.value_and_grad`."""
        arrays = x1, x2, same
        return _core.compute_loss(self._name, self.__dict__, arrays, out, loss_scale, True)

    def grad(
        self,
        x1: Array,
        x2: Array,
        same: Array | Class,
        *,
        out: tuple[Array, Array] | None = None,
        loss_scale: float = 1.0,
    ) -> tuple[Array, Array]:
        """Compute the gradients without the loss: see `Loss.value_and_grad`."""
        return self.value_and_grad(x1, x2, same, out=out, loss_scale=loss_scale)[1]


class CosineEmbeddingLoss(BuiltinLoss):
    r"""Angles of pairs: small for the target 1, beyond a margin for -1.

    For embeddings whose length has no meaning. It takes ``(x1, x2, target)`` and has two gradients.

    .. math::
        l = \begin{cases}
            1 - \cos(x_1, x_2) & y = 1 \\ \max(0, \cos(x_1, x_2) - m) & y = -1
        \end{cases}, \qquad
        \frac{\partial \cos}{\partial x_1} =
            \frac{x_2}{l_1 l_2} - \cos(x_1, x_2) \frac{x_1}{l_1^2}

    with :math:`l_i^2 = \lVert x_i \rVert^2 + 10^{-12}`, as in PyTorch. At the kink the gradient is
    0. The vectors are rows of arrays of shape (N, D), or a single pair of shape (D,). `target` has
    shape (N,), in their type or any integer type; a pair with another target than 1 or -1 adds
    nothing.

    Parameters
    ----------
    margin
        The cosine m up to which a pair with target -1 adds nothing, in [-1, 1]; 0 to 0.5 is usual.
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

    margin: float

    def __init__(self, margin: float = 0.0, *, reduction: Reduction = "mean") -> None:
        self._set(margin=margin, reduction=reduction)

    def __call__(self, x1: Array, x2: Array, target: Array | Class) -> Value:
        """Compute the loss without its gradients."""
        arrays = x1, x2, target
        return _core.compute_loss(self._name, self.__dict__, arrays, None, 1.0, False)[0]

    def value_and_grad(
        self,
        x1: Array,
        x2: Array,
        target: Array | Class,
        *,
        out: tuple[Array, Array] | None = None,
        loss_scale: float = 1.0,
    ) -> tuple[Value, tuple[Array, Array]]:
        """Compute the loss and its gradients by `x1` and `x2`: see `Loss.value_and_grad`."""
        arrays = x1, x2, target
        return _core.compute_loss(self._name, self.__dict__, arrays, out, loss_scale, True)

    def grad(
        self,
        x1: Array,
        x2: Array,
        target: Array | Class,
        *,
        out: tuple[Array, Array] | None = None,
        loss_scale: float = 1.0,
    ) -> tuple[Array, Array]:
        """Compute the gradients without the loss: see `Loss.value_and_grad`."""
        return self.value_and_grad(x1, x2, target, out=out, loss_scale=loss_scale)[1]


class TripletMarginLoss(BuiltinLoss):
    r"""An anchor nearer to its positive than to its negative, by a margin.

    For embeddings of which only the order of distances matters. Most random triplets soon satisfy
    the margin and add nothing: choose triplets with `mine_triplets`. It takes
    ``(anchor, positive, negative)`` and has three gradients.

    .. math::
        l = \max(0, m + d(a, p) - d(a, n)), \qquad
        d(u, v) = \lVert u - v + \epsilon \rVert_p

    and the gradients follow from that of the norm; for p = 2 it is
    :math:`(u - v + \epsilon) / d(u, v)`. At distance 0 and at the kink the gradient is 0, and for p
    = inf the largest elements share it if they are equal. All three are arrays of shape (N, D), or
    of shape (D,) for a single triplet.

    Parameters
    ----------
    margin
        The difference m of the distances from which on the loss is 0, > 0.
    p
        The exponent of the norm, > 0; ``math.inf`` gives the largest difference.
    eps
        Added to every difference, >= 0, as in PyTorch.
    swap
        Whether the distance of the negative is the smaller of those from the anchor and from the
        positive. If they are equal, each gets half of the gradient.
    squared
        Whether distances are those of p = 2, squared, and without `eps`, as in FaceNet. The loss is
        then smooth at distance 0, and large distances have larger gradients.
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

    margin: float
    p: float
    eps: float
    swap: bool
    squared: bool

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
        self._set(margin=margin, p=p, eps=eps, swap=swap, squared=squared, reduction=reduction)

    def __call__(self, anchor: Array, positive: Array, negative: Array) -> Value:
        """Compute the loss without its gradients."""
        arrays = anchor, positive, negative
        return _core.compute_loss(self._name, self.__dict__, arrays, None, 1.0, False)[0]

    def value_and_grad(
        self,
        anchor: Array,
        positive: Array,
        negative: Array,
        *,
        out: tuple[Array, Array, Array] | None = None,
        loss_scale: float = 1.0,
    ) -> tuple[Value, tuple[Array, Array, Array]]:
        """Compute the loss and its gradients by all three: see `Loss.value_and_grad`."""
        arrays = anchor, positive, negative
        return _core.compute_loss(self._name, self.__dict__, arrays, out, loss_scale, True)

    def grad(
        self,
        anchor: Array,
        positive: Array,
        negative: Array,
        *,
        out: tuple[Array, Array, Array] | None = None,
        loss_scale: float = 1.0,
    ) -> tuple[Array, Array, Array]:
        """Compute the gradients without the loss: see `Loss.value_and_grad`."""
        return self.value_and_grad(anchor, positive, negative, out=out, loss_scale=loss_scale)[1]
