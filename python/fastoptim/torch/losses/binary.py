"""Losses of binary classifications, one per element."""

from __future__ import annotations

import torch

from fastoptim.torch.losses._base import Loss, Rule


class BCELoss(Loss, torch.nn.BCELoss):
    r"""Binary cross-entropy of probabilities.

    A `torch.nn.BCELoss`; the formula is with `fastoptim.losses.BCELoss`.

    Parameters
    ----------
    weight
        A factor per element, which is broadcast.
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: a tensor of the input's shape.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([0.25, 0.5], requires_grad=True)
    >>> loss = fastoptim.torch.BCELoss()(x, torch.tensor([0.0, 1.0]))
    >>> loss.backward()
    >>> round(loss.item(), 6), x.grad
    (0.490415, tensor([ 0.6667, -1.0000]))
    """

    _rule = Rule("bce", ("weight", "reduction"), torch.nn.functional.binary_cross_entropy)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)


class BCEWithLogitsLoss(Loss, torch.nn.BCEWithLogitsLoss):
    r"""Binary cross-entropy of the sigmoid of logits, for labels that are not mutually exclusive.

    A `torch.nn.BCEWithLogitsLoss`; the formula is with `fastoptim.losses.BCEWithLogitsLoss`.

    Parameters
    ----------
    weight
        A factor per element, which is broadcast.
    pos_weight
        A factor of the part of the positives, which is broadcast: one per class, usually.
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: a tensor of the input's shape.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([0.0, 0.0], requires_grad=True)
    >>> loss = fastoptim.torch.BCEWithLogitsLoss()(x, torch.tensor([1.0, 0.0]))
    >>> loss.backward()
    >>> round(loss.item(), 6), x.grad
    (0.693147, tensor([-0.2500,  0.2500]))
    """

    _rule = Rule(
        "bce_with_logits",
        ("weight", "pos_weight", "reduction"),
        torch.nn.functional.binary_cross_entropy_with_logits,
    )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)


class SigmoidFocalLoss(Loss):
    r"""Binary cross-entropy of logits in which easy examples count less.

    The formula is with `fastoptim.losses.SigmoidFocalLoss`.

    Parameters
    ----------
    gamma
        The exponent, >= 0.
    alpha
        The weight of the positives, in [0, 1], where the negatives have 1 - alpha. None: both have
        1.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: a tensor of the input's shape.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
    >>> loss = fastoptim.torch.SigmoidFocalLoss()(x, torch.ones(2))
    >>> loss.backward()
    >>> round(loss.item(), 6), x.grad[0]
    (0.021662, tensor(-0.0373))
    """

    _rule = Rule("sigmoid_focal", ("gamma", "alpha", "reduction"), None)

    def __init__(
        self, gamma: float = 2.0, alpha: float | None = 0.25, *, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha
        self.reduction = reduction
        self._check()

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)
