"""Losses of predicted signs and distributions."""

from __future__ import annotations

import torch

from fastoptim.torch.losses._base import Loss, Rule


class KLDivLoss(Loss, torch.nn.KLDivLoss):
    r"""Kullback-Leibler divergence of a distribution from log-probabilities.

    A `torch.nn.KLDivLoss`; the formula is with `fastoptim.losses.KLDivLoss`.

    Parameters
    ----------
    log_target
        Whether the targets are logarithms.
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"batchmean"`` (over the first axis), ``"mean"`` over all elements, ``"sum"``, or
        ``"none"``.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([[0.5, 0.5]]).log().requires_grad_()
    >>> loss_fn = fastoptim.torch.KLDivLoss(reduction="batchmean")
    >>> loss_fn(x, torch.tensor([[0.25, 0.75]])).backward()
    >>> x.grad
    tensor([[-0.2500, -0.7500]])
    """

    _rule = Rule("kl_div", ("reduction", "log_target"), torch.nn.functional.kl_div)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)


class HingeLoss(Loss):
    r"""The hinge of support vector machines: 0 beyond the margin.

    The formula is with `fastoptim.losses.HingeLoss`.

    Parameters
    ----------
    margin
        The y x from which on the loss is 0, >= 0. Labels y are -1 and 1.
    squared
        Whether the loss is squared.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: a tensor of the input's shape.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([0.25, 3.0], requires_grad=True)
    >>> loss = fastoptim.torch.HingeLoss()(x, torch.tensor([1.0, 1.0]))
    >>> loss.backward()
    >>> loss.item(), x.grad
    (0.375, tensor([-0.5000,  0.0000]))
    """

    _rule = Rule("hinge", ("margin", "squared", "reduction"), None)

    def __init__(
        self, margin: float = 1.0, squared: bool = False, *, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.margin = margin
        self.squared = squared
        self.reduction = reduction
        self._check()

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)


class SoftMarginLoss(Loss, torch.nn.SoftMarginLoss):
    r"""Logistic loss for labels -1 and 1.

    A `torch.nn.SoftMarginLoss`; the formula is with `fastoptim.losses.SoftMarginLoss`.

    Parameters
    ----------
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: a tensor of the input's shape.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([0.0], requires_grad=True)
    >>> loss = fastoptim.torch.SoftMarginLoss()(x, torch.tensor([1.0]))
    >>> loss.backward()
    >>> round(loss.item(), 6), x.grad
    (0.693147, tensor([-0.5000]))
    """

    _rule = Rule("soft_margin", ("reduction",), torch.nn.functional.soft_margin_loss)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)
