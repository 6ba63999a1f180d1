"""Losses: the value and its gradient in one fused call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fastoptim import _core

__all__ = ["CrossEntropyLoss", "Loss", "MSELoss", "Reduction"]

Array = npt.NDArray[Any]
Reduction = Literal["mean", "sum", "none"]


class Loss(ABC):
    """The abstract base of all losses.

    A loss of one's own needs one method, `value_and_grad`; the call and `grad` come with the base.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> class Sum(fo.losses.Loss):
    ...     def value_and_grad(self, *inputs, out=None, loss_scale=1.0):
    ...         (x,) = inputs
    ...         gradient = np.empty_like(x) if out is None else out
    ...         gradient[...] = loss_scale
    ...         return float(x.sum()), gradient
    >>> Sum()(np.ones(3)), Sum().grad(np.ones(3))
    (3.0, array([1., 1., 1.]))
    """

    @abstractmethod
    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and its gradient.

        Parameters
        ----------
        *inputs
            The predictions, then the targets.
        out
            Where the gradient goes; it may be the predictions themselves. Default: a new array.
        loss_scale
            A factor on the gradient, finite and > 0, which ``step(loss_scale=)`` divides out again.

        Returns
        -------
        value
            A float, or an array with ``reduction="none"``. It is not scaled.
        gradient
            `out`, where it is given. With ``reduction="none"`` it is the gradient of the sum.
        """

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss alone."""
        return self.value_and_grad(*inputs)[0]

    def grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the gradient alone; the arguments are those of `value_and_grad`."""
        return self.value_and_grad(*inputs, out=out, loss_scale=loss_scale)[1]

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


class _Elementwise(Loss):
    """A loss of one prediction and one target at a time, which the core knows by name."""

    _name: ClassVar[str]

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        self.reduction: Reduction = _checked(reduction)

    def _parameters(self) -> tuple[float, ...]:
        return ()

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss alone."""
        x, target = _two(inputs)
        return _core.elementwise_loss(
            self._name, self._parameters(), self.reduction, x, target, None, 1.0, False
        )[0]

    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and its gradient by the first input; see `Loss.value_and_grad`."""
        x, target = _two(inputs)
        return _core.elementwise_loss(
            self._name, self._parameters(), self.reduction, x, target, out, loss_scale, True
        )


class MSELoss(_Elementwise):
    r"""Squared error, without a factor one half.

    .. math::
        L = \frac{1}{n} \sum_i (x_i - y_i)^2, \qquad
        \frac{\partial L}{\partial x_i} = \frac{2 (x_i - y_i)}{n}

    Input and target have the same shape and dtype, float32 or float64; nothing is broadcast.

    Parameters
    ----------
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> fo.losses.MSELoss().value_and_grad(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    (2.0, array([0., 2.]))

    References
    ----------
    `torch.nn.MSELoss <https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html>`_
    """

    _name = "mse"


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
        self.reduction: Reduction = _checked(reduction)

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss alone, of logits and target."""
        return self._compute(inputs, None, 1.0, False)[0]

    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and its gradient by the logits; see `Loss.value_and_grad`."""
        return self._compute(inputs, out, loss_scale, True)

    def _compute(self, inputs: tuple[Array, ...], out: Any, loss_scale: float, grad: bool) -> Any:
        logits, target = _two(inputs)
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


def _two(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    if len(inputs) != 2:
        raise TypeError(f"expected the input and the target, got {len(inputs)} arguments")
    return inputs


def _checked(reduction: Reduction) -> Reduction:
    if not isinstance(reduction, str):
        raise TypeError(f"reduction must be a string, got {type(reduction).__name__}")
    if reduction not in {"mean", "sum", "none"}:
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    return reduction
