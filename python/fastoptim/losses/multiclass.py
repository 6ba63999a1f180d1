"""Losses of the scores of classes that exclude each other."""

from __future__ import annotations

import numpy as np

from fastoptim._checks import flag, integer
from fastoptim.losses._base import (
    Array,
    Reduction,
    Rows,
    checked_class_weight,
    checked_number,
    checked_reduction,
)


class CrossEntropyLoss(Rows):
    r"""Cross-entropy of the softmax of logits, over classes.

    For logits :math:`x` of shape (N, C) and target distributions :math:`q`, per row

    .. math::
        L = \sum_j q_j \Bigl(\ln \sum_k e^{x_k} - x_j\Bigr), \qquad
        \frac{\partial L}{\partial x_j} = \Bigl(\sum_k q_k\Bigr) p_j - q_j, \qquad
        p = \operatorname{softmax}(x)

    with :math:`q_j = w_j ((1 - e) y_j + e / C)`, where :math:`w` is `weight`, :math:`e` is
    `label_smoothing`, and :math:`y` is the one-hot target class or the target probabilities.

    Logits may be -inf, for probability 0: a target there gives inf, unless its own probability is
    0 and it adds nothing. A row with inf or NaN, or of nothing but -inf, gives NaN.

    Parameters
    ----------
    weight
        A factor per class: an array of shape (C,) and the dtype of the logits.
    ignore_index
        A row with this target class adds nothing, whatever it holds, and its gradient is 0.
    label_smoothing
        The part e of the target, in [0, 1], that is spread over all C classes: with e = 0.1 and
        C = 5 they are 0.92 and 0.02. The other convention, e / (C - 1) off the target, is
        e' = e C / (C - 1) here.
    reduction
        ``"mean"``: with target classes over the sum of the weights of the targets that are not
        ignored, with probabilities over N. When nothing counts, the mean is NaN and the gradient 0.
        ``"sum"``, or ``"none"``: an array of shape (N,), with the gradient of the sum.

    Notes
    -----
    Targets are classes, of shape (N,) and int32 or int64, or probabilities, of the shape and dtype
    of the logits. A class out of range is an `IndexError` that names the first such row, before
    anything is written. ``out=logits`` is allowed, and saves a third of the memory traffic.

    Where the softmax is close to the target, value and gradient keep their relative accuracy: the
    target's gradient is minus the sum of the others.

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

    def __init__(
        self,
        weight: Array | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        self.weight = checked_class_weight("weight", weight)
        self.ignore_index = integer("ignore_index", ignore_index)
        self.label_smoothing = checked_number(
            "label_smoothing", label_smoothing, least=0.0, most=1.0
        )
        self.reduction: Reduction = checked_reduction(reduction)

    def _parameters(self) -> tuple[float, ...]:
        return (self.label_smoothing,)


class NLLLoss(Rows):
    r"""Negative log-likelihood of classes, given log-probabilities.

    For a model that ends in a log-softmax of its own. With logits prefer `CrossEntropyLoss`: it is
    one pass over them, and accurate in the tails.

    .. math::
        l = -w_t x_t, \qquad \frac{\partial l}{\partial x_j} = -w_t\, [j = t]

    Input of shape (N, C), float32 or float64; targets t of shape (N,), int32 or int64.

    Parameters
    ----------
    weight
        A factor per class: an array of shape (C,) and the dtype of the input. A class of weight 0
        adds nothing, whatever its log-probability, unless that is NaN.
    ignore_index
        A row with this target adds nothing, whatever it holds, and its gradient is 0.
    reduction
        ``"mean"`` over the sum of the weights of the targets that are not ignored (when nothing
        counts, NaN, with gradient 0), ``"sum"``, or ``"none"``: an array of shape (N,), with the
        gradient of the sum.

    Raises
    ------
    IndexError
        From the calls: a target is no class. The first such row is named, and nothing was written.

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

    def __init__(
        self,
        weight: Array | None = None,
        ignore_index: int = -100,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        self.weight = checked_class_weight("weight", weight)
        self.ignore_index = integer("ignore_index", ignore_index)
        self.reduction = checked_reduction(reduction)

    def _parameters(self) -> tuple[float, ...]:
        return ()


class MultiMarginLoss(Rows):
    r"""Hinge of every class's score against that of the right class.

    The multi-class support vector machine. It is content once the right class leads by the margin,
    where `CrossEntropyLoss` always asks for more.

    .. math::
        l = \frac{w_t}{C} \sum_{j \ne t} z_j^p, \qquad z_j = \max(0, m - s_t + s_j), \qquad
        \frac{\partial l}{\partial s_j} = \frac{w_t}{C}\, p\, z_j^{p - 1}\, [z_j > 0]
        \text{ for } j \ne t

    and for the right class minus the sum of the others; at the kink it is 0. Scores s have shape
    (N, C), float32 or float64; targets t shape (N,), int32 or int64.

    Parameters
    ----------
    p
        1, or 2 for squares: smooth, and worse mistakes weigh more.
    margin
        How far the right class must lead, m >= 0.
    weight
        A factor per class: an array of shape (C,) and the dtype of the scores.
    average_classes
        Whether the sum is divided by the number of classes C, as in PyTorch. Without, it is the
        plain sum of textbooks.
    reduction
        ``"mean"`` over rows, whatever their weights, ``"sum"``, or ``"none"``: an array of shape
        (N,), with the gradient of the sum.

    Raises
    ------
    IndexError
        From the calls: a target is no class. The first such row is named, and nothing was written.

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

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Array | None = None,
        average_classes: bool = True,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        if checked_number("p", p, least=1.0) not in {1.0, 2.0}:
            raise ValueError(f"p must be 1 or 2, got {p}")
        self.p = p
        self.margin = checked_number("margin", margin, least=0.0)
        self.weight = checked_class_weight("weight", weight)
        self.average_classes = flag("average_classes", average_classes)
        self.reduction = checked_reduction(reduction)

    def _parameters(self) -> tuple[float, ...]:
        return (self.p, self.margin, float(self.average_classes))


class FocalLoss(Rows):
    r"""Cross-entropy of softmax that looks at what is still wrong.

    For classes of very different frequency, where many easy examples would drown the few hard ones.
    With `gamma` 0 it is `CrossEntropyLoss`. What it learns is less confident than the data warrant:
    calibrate before its probabilities are used as such.

    .. math::
        l = -\alpha_t (1 - p_t)^\gamma \ln p_t, \qquad
        \frac{\partial l}{\partial x_j} = \alpha_t (1 - p_t)^\gamma
            \Bigl(1 - \gamma \frac{p_t \ln p_t}{1 - p_t}\Bigr) (p_j - [j = t]), \qquad
        p = \operatorname{softmax}(x)

    Value and gradient are finite for all finite logits and any `gamma`, and keep their relative
    accuracy however confident a row is. Logits x have shape (N, C), float32 or float64; targets t
    shape (N,), int32 or int64. For questions with two answers each there is `SigmoidFocalLoss`.

    Parameters
    ----------
    gamma
        How much easy examples are passed over, >= 0; 2 is usual.
    alpha
        A factor >= 0 of all classes, or one per class: an array of shape (C,) and the dtype of the
        logits. None is 1.
    ignore_index
        A row with this target adds nothing, whatever it holds, and its gradient is 0.
    reduction
        ``"mean"`` over the rows that are not ignored, whatever their `alpha` (when there is none,
        NaN, with gradient 0), ``"sum"``, or ``"none"``: an array of shape (N,), with the gradient
        of the sum.

    Raises
    ------
    IndexError
        From the calls: a target is no class. The first such row is named, and nothing was written.

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

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | Array | None = None,
        ignore_index: int = -100,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        self.gamma = checked_number("gamma", gamma, least=0.0)
        if isinstance(alpha, np.ndarray):
            self.alpha: float | Array | None = checked_class_weight("alpha", alpha)
        else:
            self.alpha = None if alpha is None else checked_number("alpha", alpha, least=0.0)
        self.ignore_index = integer("ignore_index", ignore_index)
        self.reduction = checked_reduction(reduction)

    @property
    def weight(self) -> Array | None:  # type: ignore[override]
        """The factors per class, if there are any."""
        return self.alpha if isinstance(self.alpha, np.ndarray) else None

    def _parameters(self) -> tuple[float, ...]:
        if self.alpha is None or isinstance(self.alpha, np.ndarray):
            return (self.gamma, 1.0)
        return (self.gamma, self.alpha)
