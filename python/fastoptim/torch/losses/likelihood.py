"""Negative log-likelihoods of observed numbers."""

from __future__ import annotations

import torch

from fastoptim.torch.losses._base import Loss, Rule


class PoissonNLLLoss(Loss, torch.nn.PoissonNLLLoss):
    r"""Counts under a Poisson distribution of the predicted rate.

    A `torch.nn.PoissonNLLLoss`; the formula is with `fastoptim.losses.PoissonNLLLoss`.

    Parameters
    ----------
    log_input
        Whether the input is the logarithm of the rate.
    full
        Whether to add Stirling's approximation of :math:`\ln y!` for :math:`y > 1`.
    eps
        Added to the rate before its logarithm is taken, > 0.
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: a tensor of the input's shape.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([0.0], requires_grad=True)
    >>> loss = fastoptim.torch.PoissonNLLLoss()(x, torch.tensor([3.0]))
    >>> loss.backward()
    >>> loss.item(), x.grad
    (1.0, tensor([-2.]))
    """

    _rule = Rule(
        "poisson_nll",
        ("log_input", "full", "eps", "reduction"),
        torch.nn.functional.poisson_nll_loss,
        names=("log_input", "target"),
    )

    def forward(self, log_input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(log_input, target)


class GaussianNLLLoss(Loss, torch.nn.GaussianNLLLoss):
    r"""Numbers under a normal distribution of predicted mean and variance.

    The variance has the shape of the input, that with a last axis of 1 or without it, or is one
    number.

    A `torch.nn.GaussianNLLLoss`; the formula is with `fastoptim.losses.GaussianNLLLoss`.

    Parameters
    ----------
    full
        Whether to add the constant :math:`\ln(2 \pi) / 2`.
    eps
        The smallest variance, > 0; smaller ones are replaced by it.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: a tensor of the input's shape.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x, var = torch.tensor([3.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)
    >>> loss = fastoptim.torch.GaussianNLLLoss()(x, torch.tensor([1.0]), var)
    >>> loss.backward()
    >>> round(loss.item(), 6), x.grad, var.grad
    (1.346574, tensor([1.]), tensor([-0.2500]))
    """

    _rule = Rule(
        "gaussian_nll",
        ("full", "eps", "reduction"),
        torch.nn.functional.gaussian_nll_loss,
        names=("input", "target", "var"),
        gradients=((0, 1), (0, -1), (1, 1)),
    )

    def forward(
        self, input: torch.Tensor, target: torch.Tensor, var: torch.Tensor | float
    ) -> torch.Tensor:
        """Return the loss."""
        if isinstance(var, (int, float)):
            var = torch.full((), var, dtype=input.dtype, device=input.device)
        return self._evaluate(input, target, var)
