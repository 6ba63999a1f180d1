"""Negative log-likelihoods of observed numbers."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from fastoptim import _core
from fastoptim.losses._base import Array, BuiltinLoss, ElementLoss, Reduction, Value

Number: TypeAlias = float | np.floating[Any] | np.integer[Any]


class PoissonNLLLoss(ElementLoss):
    r"""Counts under a Poisson distribution of the predicted rate.

    .. math::
        l = e^x - y x \quad \text{for a log-rate, or} \quad x - y \ln(x + \epsilon) \quad
        \text{for a rate}

    Input and target have the same shape and the same float type; nothing is broadcast.

    Parameters
    ----------
    log_input
        Whether the input is the logarithm of the rate.
    full
        Whether to add Stirling's approximation of :math:`\ln y!` for :math:`y > 1`, which has no
        gradient.
    eps
        Added to the rate before its logarithm is taken, > 0.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> fo.losses.PoissonNLLLoss().value_and_grad(np.array([0.0]), np.array([3.0]))
    (1.0, array([-2.]))

    References
    ----------
    `torch.nn.PoissonNLLLoss
    <https://docs.pytorch.org/docs/stable/generated/torch.nn.PoissonNLLLoss.html>`_
    """

    _name = "poisson_nll"

    log_input: bool
    full: bool
    eps: float

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        eps: float = 1e-8,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        self._set(reduction=reduction, log_input=log_input, full=full, eps=eps)


class GaussianNLLLoss(BuiltinLoss):
    r"""Numbers under a normal distribution of predicted mean and variance.

    For models that predict their uncertainty; `MSELoss` assumes one variance for all. It takes
    ``(input, target, var)`` and has two gradients, by the mean and by the variance.

    .. math::
        l = \frac{1}{2} \Bigl(\ln v + \frac{(x - y)^2}{v}\Bigr), \qquad
        \frac{\partial l}{\partial x} = \frac{x - y}{v}, \qquad
        \frac{\partial l}{\partial v} = \frac{1}{2 v} \Bigl(1 - \frac{(x - y)^2}{v}\Bigr), \qquad
        v = \max(\text{var}, \epsilon)

    As in PyTorch the gradients ignore that a variance was raised to :math:`\epsilon`. Input,
    target and variance have the same shape and the same float type. The variance may also be one
    for the last axis, of the shape of the input with a last axis of 1 or without it, or a single
    number: its gradient has its shape, and is the sum over the elements that share it.

    Parameters
    ----------
    full
        Whether to add the constant :math:`\ln(2 \pi) / 2`; it has no gradient.
    eps
        The smallest variance, > 0; smaller ones are replaced by it.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradients of the sum.

    Raises
    ------
    ValueError
        A call has a negative variance. The message names the first one, and nothing is written.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> x, y, var = np.array([3.0]), np.array([1.0]), np.array([2.0])
    >>> value, (by_mean, by_var) = fo.losses.GaussianNLLLoss().value_and_grad(x, y, var)
    >>> round(value, 6), by_mean, by_var
    (1.346574, array([1.]), array([-0.25]))

    References
    ----------
    Nix and Weigend, "Estimating the Mean and Variance of the Target Probability Distribution",
    1994.
    """

    _name = "gaussian_nll"

    full: bool
    eps: float

    def __init__(
        self, full: bool = False, eps: float = 1e-6, *, reduction: Reduction = "mean"
    ) -> None:
        self._set(full=full, eps=eps, reduction=reduction)

    def __call__(self, input: Array, target: Array, var: Array | Number) -> Value:
        """Compute the loss without its gradients."""
        arrays = input, target, var
        return _core.compute_loss(self._name, self.__dict__, arrays, None, 1.0, False)[0]

    def value_and_grad(
        self,
        input: Array,
        target: Array,
        var: Array | Number,
        *,
        out: tuple[Array, Array] | None = None,
        loss_scale: float = 1.0,
    ) -> tuple[Value, tuple[Array, Array]]:
        """Compute the loss and its gradients by `input` and `var`: see `Loss.value_and_grad`."""
        arrays = input, target, var
        return _core.compute_loss(self._name, self.__dict__, arrays, out, loss_scale, True)

    def grad(
        self,
        input: Array,
        target: Array,
        var: Array | Number,
        *,
        out: tuple[Array, Array] | None = None,
        loss_scale: float = 1.0,
    ) -> tuple[Array, Array]:
        """Compute the gradients without the loss: see `Loss.value_and_grad`."""
        return self.value_and_grad(input, target, var, out=out, loss_scale=loss_scale)[1]
