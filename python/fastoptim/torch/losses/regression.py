"""Losses of predicted numbers."""

from __future__ import annotations

import torch

from fastoptim.torch.losses._base import Loss, Rule


class MSELoss(Loss, torch.nn.MSELoss):
    r"""Squared error, without a factor of one half.

    The target may have a gradient, too. Nothing is broadcast.

    A `torch.nn.MSELoss`; the formula is with `fastoptim.losses.MSELoss`.

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
    >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
    >>> loss = fastoptim.torch.MSELoss()(x, torch.tensor([1.0, 1.0]))
    >>> loss.backward()
    >>> loss.item(), x.grad
    (2.0, tensor([0., 2.]))
    """

    _rule = Rule("mse", ("reduction",), torch.nn.functional.mse_loss, gradients=((0, 1), (0, -1)))

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)


class L1Loss(Loss, torch.nn.L1Loss):
    r"""Absolute error.

    The target may have a gradient, too. Nothing is broadcast.

    A `torch.nn.L1Loss`; the formula is with `fastoptim.losses.L1Loss`.

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
    >>> x = torch.tensor([1.0, 3.0], requires_grad=True)
    >>> loss = fastoptim.torch.L1Loss()(x, torch.tensor([1.0, 1.0]))
    >>> loss.backward()
    >>> loss.item(), x.grad
    (1.0, tensor([0.0000, 0.5000]))
    """

    _rule = Rule("l1", ("reduction",), torch.nn.functional.l1_loss, gradients=((0, 1), (0, -1)))

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)


class HuberLoss(Loss, torch.nn.HuberLoss):
    r"""Squared near the target, absolute far from it.

    The target may have a gradient, too. Nothing is broadcast.

    A `torch.nn.HuberLoss`; the formula is with `fastoptim.losses.HuberLoss`.

    Parameters
    ----------
    delta
        The ``|d|`` where the linear part begins, > 0.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: a tensor of the input's shape.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([1.5, 4.0], requires_grad=True)
    >>> loss = fastoptim.torch.HuberLoss()(x, torch.tensor([1.0, 1.0]))
    >>> loss.backward()
    >>> loss.item(), x.grad
    (1.3125, tensor([0.2500, 0.5000]))
    """

    _rule = Rule(
        "huber", ("reduction", "delta"), torch.nn.functional.huber_loss, gradients=((0, 1), (0, -1))
    )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)


class SmoothL1Loss(Loss, torch.nn.SmoothL1Loss):
    r"""Huber's loss divided by its delta.

    The target may have a gradient, too. Nothing is broadcast.

    A `torch.nn.SmoothL1Loss`; the formula is with `fastoptim.losses.SmoothL1Loss`.

    Parameters
    ----------
    beta
        The ``|d|`` where the linear part begins, >= 0.
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: a tensor of the input's shape.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([2.0, 4.0], requires_grad=True)
    >>> loss = fastoptim.torch.SmoothL1Loss(beta=2.0)(x, torch.tensor([1.0, 1.0]))
    >>> loss.backward()
    >>> loss.item(), x.grad
    (1.125, tensor([0.2500, 0.5000]))
    """

    _rule = Rule(
        "smooth_l1",
        ("reduction", "beta"),
        torch.nn.functional.smooth_l1_loss,
        gradients=((0, 1), (0, -1)),
    )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)


class LogCoshLoss(Loss):
    r"""Squared near the target, absolute far from it, with every derivative continuous.

    The formula is with `fastoptim.losses.LogCoshLoss`.

    Parameters
    ----------
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: a tensor of the input's shape.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([1.5, 0.75], requires_grad=True)
    >>> loss = fastoptim.torch.LogCoshLoss(reduction="sum")(x, torch.tensor([0.5, 1.0]))
    >>> loss.backward()
    >>> loss, x.grad
    (tensor(0.4647, grad_fn=<DifferentiableBackward>), tensor([ 0.7616, -0.2449]))
    """

    _rule = Rule("log_cosh", ("reduction",), None, gradients=((0, 1), (0, -1)))

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction
        self._check()

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)
