"""Negative log-likelihoods of observed numbers."""

from __future__ import annotations

from typing import Any

from fastoptim import _core
from fastoptim._checks import flag
from fastoptim.losses._base import (
    Array,
    Elementwise,
    Known,
    Reduction,
    checked_inputs,
    checked_number,
    checked_reduction,
)


class PoissonNLLLoss(Elementwise):
    r"""Counts under a Poisson distribution of the predicted rate.

    .. math::
        l = e^x - y x \quad \text{for a log-rate, or} \quad x - y \ln(x + \epsilon) \quad
        \text{for a rate}

    Input and target have the same shape and dtype, float32 or float64; nothing is broadcast.

    Parameters
    ----------
    log_input
        Whether the input is the logarithm of the rate.
    full
        Adds Stirling's approximation of :math:`\ln y!` for y > 1; it has no gradient.
    eps
        Keeps the logarithm from 0, > 0.
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

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        eps: float = 1e-8,
        *,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.log_input = flag("log_input", log_input)
        self.full = flag("full", full)
        self.eps = checked_number("eps", eps, least=0.0, open_end=True)

    def _parameters(self) -> tuple[float, ...]:
        return (
            float(self.log_input),
            float(self.full),
            self.eps,
        )


class GaussianNLLLoss(Known):
    r"""Numbers under a normal distribution of predicted mean and variance.

    For models that say how sure they are: `MSELoss` is this with one variance for all. It takes
    ``(input, target, var)`` and has two gradients, by the mean and by the variance.

    .. math::
        l = \frac{1}{2} \Bigl(\ln v + \frac{(x - y)^2}{v}\Bigr), \qquad
        \frac{\partial l}{\partial x} = \frac{x - y}{v}, \qquad
        \frac{\partial l}{\partial v} = \frac{1}{2 v} \Bigl(1 - \frac{(x - y)^2}{v}\Bigr), \qquad
        v = \max(\text{var}, \epsilon)

    As in PyTorch the gradients do not see that a variance was raised to :math:`\epsilon`. Input,
    target and variance have the same shape and dtype, float32 or float64; nothing is broadcast.

    Parameters
    ----------
    full
        Adds the constant :math:`\ln(2 \pi) / 2`; it has no gradient.
    eps
        The least variance, > 0.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradients of the sum.

    Raises
    ------
    ValueError
        From the calls: a variance is negative. The first one is named, and nothing was written.

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

    def __init__(
        self, full: bool = False, eps: float = 1e-6, *, reduction: Reduction = "mean"
    ) -> None:
        self.full = flag("full", full)
        self.eps = checked_number("eps", eps, least=0.0, open_end=True)
        self.reduction: Reduction = checked_reduction(reduction)

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss alone."""
        return self._compute(inputs, None, 1.0, False)[0]

    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and its gradients by mean and variance; see `Loss.value_and_grad`."""
        return self._compute(inputs, out, loss_scale, True)

    def _compute(self, inputs: tuple[Array, ...], out: Any, loss_scale: float, grad: bool) -> Any:
        x, target, var = checked_inputs(inputs, "input", "target", "var")
        return _core.gaussian_loss(
            self.full, self.eps, self.reduction, x, target, var, out, loss_scale, grad
        )
