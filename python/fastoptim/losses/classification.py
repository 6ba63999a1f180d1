"""Losses of predicted classes and distributions."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastoptim import _core
from fastoptim.losses._base import (
    Array,
    Elementwise,
    Loss,
    Reduction,
    checked_flag,
    checked_number,
    checked_reduction,
    two_inputs,
)


class CrossEntropyLoss(Loss):
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

    def __init__(
        self,
        weight: Array | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        # Written so that NaN is refused.
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
        if weight is not None and not isinstance(weight, np.ndarray):
            raise TypeError(f"weight must be a numpy.ndarray, got {type(weight).__name__}")
        if weight is not None and weight.ndim != 1:
            raise ValueError(f"weight must have shape (C,), got {weight.shape}")
        self.weight = weight
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.reduction: Reduction = checked_reduction(reduction)

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss alone, of logits and target."""
        return self._compute(inputs, None, 1.0, False)[0]

    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and its gradient by the logits; see `Loss.value_and_grad`."""
        return self._compute(inputs, out, loss_scale, True)

    def _compute(self, inputs: tuple[Array, ...], out: Any, loss_scale: float, grad: bool) -> Any:
        logits, target = two_inputs(inputs)
        return _core.cross_entropy_loss(
            logits,
            target,
            self.weight,
            self.ignore_index,
            self.label_smoothing,
            self.reduction,
            out,
            loss_scale,
            grad,
        )


class KLDivLoss(Elementwise):
    r"""Kullback-Leibler divergence of a distribution from log-probabilities.

    .. math::
        l = y\, (\ln y - x) \quad \text{or, for log-targets,} \quad e^y (y - x)

    Input and target have the same shape and dtype, float32 or float64; nothing is broadcast.
    The input holds log-probabilities. A target of probability 0 adds 0, whatever the input is.

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

    def __init__(self, log_target: bool = False, *, reduction: str = "mean") -> None:
        self._by_rows = reduction == "batchmean"
        super().__init__(reduction="sum" if self._by_rows else reduction)  # type: ignore[arg-type]
        self.log_target = checked_flag("log_target", log_target)

    def _parameters(self) -> tuple[float, ...]:
        return (float(self.log_target),)

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss alone."""
        value = super().__call__(*inputs)
        return value / self._rows(inputs) if self._by_rows else value

    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and its gradient by the first input; see `Loss.value_and_grad`."""
        if not self._by_rows:
            return super().value_and_grad(*inputs, out=out, loss_scale=loss_scale)
        rows = self._rows(inputs)
        value, gradient = super().value_and_grad(*inputs, out=out, loss_scale=loss_scale / rows)
        return value / rows, gradient

    def _rows(self, inputs: tuple[Array, ...]) -> int:
        x, _ = two_inputs(inputs)
        if not isinstance(x, np.ndarray) or x.ndim == 0 or len(x) == 0:
            raise ValueError("batchmean needs an input with rows")
        return len(x)


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
        self.squared = checked_flag("squared", squared)

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
