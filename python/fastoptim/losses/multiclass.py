"""Losses of the scores of mutually exclusive classes."""

from __future__ import annotations

from fastoptim.losses._base import ClassLoss, Reduction, Weights


class CrossEntropyLoss(ClassLoss):
    r"""Cross-entropy of the softmax of logits, over classes.

    For logits :math:`x` of shape (N, C) and target distributions :math:`q`, per row

    .. math::
        L = \sum_j q_j \Bigl(\ln \sum_k e^{x_k} - x_j\Bigr), \qquad
        \frac{\partial L}{\partial x_j} = \Bigl(\sum_k q_k\Bigr) p_j - q_j, \qquad
        p = \operatorname{softmax}(x)

    with :math:`q_j = w_j ((1 - e) y_j + e / C)`, where :math:`w` is `weight`, :math:`e` is
    `label_smoothing`, and :math:`y` is the one-hot target class or the target probabilities.

    A logit of -inf is a probability of 0: as the target it gives inf, and as a class of target
    probability 0 it adds nothing. A row with inf or NaN, or with -inf only, gives NaN.

    Parameters
    ----------
    weight
        A factor per class: an array of shape (C,) and the type of the logits, or a list.
    ignore_index
        A row with this target class adds nothing, and its gradient is 0, even if it has NaN.
    label_smoothing
        The part :math:`e` of the target, in [0, 1], that is spread over all C classes: with
        :math:`e = 0.1` and :math:`C = 5` the probabilities are 0.92 and 0.02. The other convention,
        :math:`e / (C - 1)` for each other class, corresponds to :math:`e C / (C - 1)` here.
    reduction
        ``"mean"``: with target classes the sum is divided by the weights of the targets that are
        not ignored, with probabilities by N. If the divisor is 0, the mean is NaN and the gradient
        0. ``"sum"``, or ``"none"``: an array of the shape of the targets, with the gradient of the
        sum.

    Notes
    -----
    Targets are classes, of shape (N,) and any integer type, or probabilities, of the shape and type
    of the logits. Logits may also be a single row (C,), with an integer as its class, or have the
    classes on the second of several axes, (N, C, d1, ...), with targets (N, d1, ...); the gradient
    is in the layout of the logits. A class out of range raises an `IndexError` that names the first
    such row, before anything is written. ``out=logits`` is allowed, and saves a third of the memory
    traffic.

    Where the softmax is close to the target, value and gradient have full relative accuracy: the
    gradient of the target is computed as minus the sum of the others.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> loss_fn = fo.losses.CrossEntropyLoss()
    >>> logits = np.log(np.array([[1.0, 1.0, 2.0], [1.0, 2.0, 1.0]]))
    >>> value, gradient = loss_fn.value_and_grad(logits, np.array([2, 1]))
    >>> round(value, 6)
    0.693147
    >>> gradient
    array([[ 0.125,  0.125, -0.25 ],
           [ 0.125, -0.25 ,  0.125]])

    References
    ----------
    `torch.nn.CrossEntropyLoss
    <https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html>`_; label
    smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016.
    """

    _name = "cross_entropy"

    weight: Weights | None
    ignore_index: int
    label_smoothing: float

    def __init__(
        self,
        weight: Weights | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        self._set(
            weight=weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )


class NLLLoss(ClassLoss):
    r"""Negative log-likelihood of classes, given log-probabilities.

    For a model that ends in a log-softmax. With logits prefer `CrossEntropyLoss`, which is one pass
    over them and accurate in the tails.

    .. math::
        l = -w_t x_t, \qquad \frac{\partial l}{\partial x_j} = -w_t\, [j = t]

    Input of shape (N, C), targets t of shape (N,) and any integer type; or the other shapes of
    `CrossEntropyLoss`.

    Parameters
    ----------
    weight
        A factor per class: an array of shape (C,) and the type of the input, or a list. A class of
        weight 0 adds nothing unless its log-probability is NaN.
    ignore_index
        A row with this target adds nothing, and its gradient is 0, even if it has NaN.
    reduction
        ``"mean"``: the sum is divided by the weights of the targets that are not ignored (if those
        are 0, the mean is NaN and the gradient 0), ``"sum"``, or ``"none"``: an array of the
        shape of the targets, with the gradient of the sum.

    Raises
    ------
    IndexError
        A target of a call is not a class. The message names the first such row, and nothing is
        written.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> log_p = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))
    >>> value, gradient = fo.losses.NLLLoss().value_and_grad(log_p, np.array([0, 0]))
    >>> round(value, 6)
    1.039721
    >>> gradient
    array([[-0.5,  0. ],
           [-0.5,  0. ]])

    References
    ----------
    `torch.nn.NLLLoss <https://docs.pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html>`_
    """

    _name = "nll"

    weight: Weights | None
    ignore_index: int

    def __init__(
        self,
        weight: Weights | None = None,
        ignore_index: int = -100,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        self._set(weight=weight, ignore_index=ignore_index, reduction=reduction)


class MultiMarginLoss(ClassLoss):
    r"""Hinge of every class's score against that of the right class.

    The multi-class support vector machine. It is 0 once the right class leads by the margin, where
    `CrossEntropyLoss` is never 0.

    .. math::
        l = \frac{w_t}{C} \sum_{j \ne t} z_j^p, \qquad z_j = \max(0, m - s_t + s_j), \qquad
        \frac{\partial l}{\partial s_j} = \frac{w_t}{C}\, p\, z_j^{p - 1}\, [z_j > 0]
        \text{ for } j \ne t

    The derivative by the score of the right class is minus the sum of the others; at the kink it is
    0. Scores s have shape (N, C), targets t have shape (N,) and any integer type; or the other
    shapes of `CrossEntropyLoss`.

    Parameters
    ----------
    p
        The exponent of the hinges, 1 or 2. With 2 the loss is smooth, and large errors count more.
    margin
        The lead m of the right class from which on another class adds nothing, >= 0.
    weight
        A factor per class: an array of shape (C,) and the type of the scores, or a list.
    average_classes
        Whether the sum is divided by the number of classes C, as in PyTorch. Textbooks have the
        plain sum.
    reduction
        ``"mean"`` over rows, independent of their weights, ``"sum"``, or ``"none"``: an array of
        shape (N,), with the gradient of the sum.

    Raises
    ------
    IndexError
        A target of a call is not a class. The message names the first such row, and nothing is
        written.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> loss_fn = fo.losses.MultiMarginLoss(average_classes=False)
    >>> value, gradient = loss_fn.value_and_grad(np.array([[3.2, 5.1, -1.7]]), np.array([0]))
    >>> round(value, 6), gradient
    (2.9, array([[-1.,  1.,  0.]]))

    References
    ----------
    Weston and Watkins, "Support Vector Machines for Multi-Class Pattern Recognition", 1999.
    """

    _name = "multi_margin"

    p: int
    margin: float
    weight: Weights | None
    average_classes: bool

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Weights | None = None,
        average_classes: bool = True,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        self._set(
            p=p,
            margin=margin,
            weight=weight,
            average_classes=average_classes,
            reduction=reduction,
        )


class FocalLoss(ClassLoss):
    r"""Cross-entropy of softmax in which easy rows count less.

    For classes of very different frequency, where many easy examples dominate the few hard ones.
    With `gamma` 0 it is `CrossEntropyLoss`. Its predictions are underconfident: calibrate them
    before they are used as probabilities.

    .. math::
        l = -\alpha_t (1 - p_t)^\gamma \ln p_t, \qquad
        \frac{\partial l}{\partial x_j} = \alpha_t (1 - p_t)^\gamma
            \Bigl(1 - \gamma \frac{p_t \ln p_t}{1 - p_t}\Bigr) (p_j - [j = t]), \qquad
        p = \operatorname{softmax}(x)

    Value and gradient are finite for all finite logits and any `gamma`, and have full relative
    accuracy for confident rows too. Logits x have shape (N, C), targets t have shape (N,) and any
    integer type; or the other shapes of `CrossEntropyLoss`. For binary labels there is
    `SigmoidFocalLoss`.

    Parameters
    ----------
    gamma
        The exponent, >= 0: the larger, the less easy examples count; 2 is usual.
    alpha
        A factor >= 0 of all classes, or one factor per class: an array of shape (C,) and the type
        of the logits, or a list. None is 1.
    ignore_index
        A row with this target adds nothing, and its gradient is 0, even if it has NaN.
    reduction
        ``"mean"`` over the rows that are not ignored, independent of their `alpha` (if all rows are
        ignored, the mean is NaN and the gradient 0), ``"sum"``, or ``"none"``: an array of the
        shape of the targets, with the gradient of the sum.

    Raises
    ------
    IndexError
        A target of a call is not a class. The message names the first such row, and nothing is
        written.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> logits = np.log(np.array([[1.0, 3.0]]))
    >>> value, gradient = fo.losses.FocalLoss(gamma=2.0).value_and_grad(logits, np.array([1]))
    >>> round(value, 6), gradient.round(6)
    (0.01798, array([[ 0.042595, -0.042595]]))

    References
    ----------
    Lin et al., "Focal Loss for Dense Object Detection", 2017.
    """

    _name = "focal"

    gamma: float
    alpha: float | Weights | None
    ignore_index: int

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Weights | None = None,
        ignore_index: int = -100,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        self._set(gamma=gamma, alpha=alpha, ignore_index=ignore_index, reduction=reduction)

    @property
    def weight(self) -> Weights | None:
        """The factors per class, if `alpha` has them."""
        return None if isinstance(self.alpha, float) else self.alpha
