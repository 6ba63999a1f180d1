"""Losses of the scores of mutually exclusive classes."""

from __future__ import annotations

from dataclasses import replace

import torch

from fastoptim.torch.losses._base import Loss, Rule


class CrossEntropyLoss(Loss, torch.nn.CrossEntropyLoss):
    r"""Cross-entropy of the softmax of logits, over classes.

    Scores are (N, C), (C,) or (N, C, d1, ...), and classes (N,), () or (N, d1, ...) of any integer
    type. Targets may also be probabilities of the shape of the logits. The forward pass keeps one
    array of the size of the logits, the gradient; PyTorch's needs three by the end of the backward
    pass.

    A `torch.nn.CrossEntropyLoss`; the formula is with `fastoptim.losses.CrossEntropyLoss`.

    Parameters
    ----------
    weight
        A factor per class.
    ignore_index
        A row with this target class adds nothing.
    label_smoothing
        The part of the target, in [0, 1], that is spread over all classes.
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"mean"`` by the weights of the targets, ``"sum"``, or ``"none"``: one value per row.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([[1.0, 1.0, 2.0], [1.0, 2.0, 1.0]]).log().requires_grad_()
    >>> loss = fastoptim.torch.CrossEntropyLoss()(x, torch.tensor([2, 1]))
    >>> loss.backward()
    >>> round(loss.item(), 6), x.grad
    (0.693147, tensor([[ 0.1250,  0.1250, -0.2500],
            [ 0.1250, -0.2500,  0.1250]]))
    """

    _rule = Rule(
        "cross_entropy",
        ("weight", "ignore_index", "label_smoothing", "reduction"),
        torch.nn.functional.cross_entropy,
        "scores",
        probabilities=True,
    )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)


class NLLLoss(Loss, torch.nn.NLLLoss):
    r"""Negative log-likelihood of classes, given log-probabilities.

    Scores are (N, C), (C,) or (N, C, d1, ...), and classes (N,), () or (N, d1, ...) of any integer
    type.

    A `torch.nn.NLLLoss`; the formula is with `fastoptim.losses.NLLLoss`.

    Parameters
    ----------
    weight
        A factor per class.
    ignore_index
        A row with this target class adds nothing.
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"mean"`` by the weights of the targets, ``"sum"``, or ``"none"``: one value per row.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log().requires_grad_()
    >>> loss = fastoptim.torch.NLLLoss()(x, torch.tensor([0, 0]))
    >>> loss.backward()
    >>> round(loss.item(), 6), x.grad
    (1.039721, tensor([[-0.5000,  0.0000],
            [-0.5000,  0.0000]]))
    """

    _rule = Rule(
        "nll",
        ("weight", "ignore_index", "reduction"),
        torch.nn.functional.nll_loss,
        "scores",
    )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)


class MultiMarginLoss(Loss, torch.nn.MultiMarginLoss):
    r"""Hinge of every class's score against that of the right class.

    Scores are (N, C), (C,) or (N, C, d1, ...), and classes (N,), () or (N, d1, ...) of any integer
    type.

    A `torch.nn.MultiMarginLoss`; the formula is with `fastoptim.losses.MultiMarginLoss`.

    Parameters
    ----------
    p
        The exponent of the hinges, 1 or 2.
    margin
        The lead of the right class from which on another class adds nothing, >= 0.
    weight
        A factor per class.
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"mean"`` over rows, ``"sum"``, or ``"none"``: one value per row.
    average_classes
        Whether the sum is divided by the number of classes, as in PyTorch.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([[3.2, 5.1, -1.7]], requires_grad=True)
    >>> loss_fn = fastoptim.torch.MultiMarginLoss(average_classes=False)
    >>> loss_fn(x, torch.tensor([0])).backward()
    >>> x.grad
    tensor([[-1.,  1.,  0.]])
    """

    _rule = Rule(
        "multi_margin",
        ("p", "margin", "weight", "reduction"),
        torch.nn.functional.multi_margin_loss,
        "scores",
        others={"average_classes": True},
    )
    _summed = replace(_rule, torch=None, others={"average_classes": False})

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: torch.Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        *,
        average_classes: bool = True,
    ) -> None:
        super().__init__(p, margin, weight, size_average, reduce, reduction)
        self.average_classes = average_classes

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(
            input, target, rule=self._rule if self.average_classes else self._summed
        )


class FocalLoss(Loss):
    r"""Cross-entropy of softmax in which easy rows count less.

    Scores are (N, C), (C,) or (N, C, d1, ...), and classes (N,), () or (N, d1, ...) of any integer
    type.

    The formula is with `fastoptim.losses.FocalLoss`.

    Parameters
    ----------
    gamma
        The exponent, >= 0.
    alpha
        A factor >= 0 of all classes, or a tensor of one factor per class. None is 1.
    ignore_index
        A row with this target class adds nothing.
    reduction
        ``"mean"`` over the rows that are not ignored, ``"sum"``, or ``"none"``.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([[1.0, 3.0]]).log().requires_grad_()
    >>> loss = fastoptim.torch.FocalLoss(gamma=2.0)(x, torch.tensor([1]))
    >>> loss.backward()
    >>> round(loss.item(), 6), x.grad
    (0.01798, tensor([[ 0.0426, -0.0426]]))
    """

    _rule = Rule("focal", ("gamma", "alpha", "ignore_index", "reduction"), None, "scores")

    alpha: float | torch.Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | torch.Tensor | None = None,
        ignore_index: int = -100,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.gamma = gamma
        if isinstance(alpha, torch.Tensor):
            self.register_buffer("alpha", alpha)
        else:
            self.alpha = alpha
        self.ignore_index = ignore_index
        self.reduction = reduction
        self._check()

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)
