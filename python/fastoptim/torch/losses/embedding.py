"""Losses of distances."""

from __future__ import annotations

from dataclasses import replace

import torch

from fastoptim.torch.losses._base import Loss, Rule


class HingeEmbeddingLoss(Loss, torch.nn.HingeEmbeddingLoss):
    r"""Distances: small for pairs that belong together, beyond a margin for others.

    A `torch.nn.HingeEmbeddingLoss`; the formula is with `fastoptim.losses.HingeEmbeddingLoss`.

    Parameters
    ----------
    margin
        The distance from which on a pair with target -1 adds nothing, >= 0.
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: a tensor of the input's shape.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x = torch.tensor([0.5, 0.75], requires_grad=True)
    >>> loss = fastoptim.torch.HingeEmbeddingLoss()(x, torch.tensor([1.0, -1.0]))
    >>> loss.backward()
    >>> loss.item(), x.grad
    (0.375, tensor([ 0.5000, -0.5000]))
    """

    _rule = Rule(
        "hinge_embedding", ("margin", "reduction"), torch.nn.functional.hinge_embedding_loss
    )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input, target)


class ContrastiveLoss(Loss):
    r"""Distances of pairs: small where they belong together, beyond a margin where they do not.

    Vectors are (N, D), (D,) or (N, d1, ..., D), and `same` has 1 for pairs that belong together and
    0 for others.

    The formula is with `fastoptim.losses.ContrastiveLoss`.

    Parameters
    ----------
    margin
        The distance from which on a pair that does not belong together adds nothing, >= 0.
    reduction
        ``"mean"`` over rows, ``"sum"``, or ``"none"``: one value per row.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x1, x2 = torch.tensor([[0.0, 0.5]], requires_grad=True), torch.zeros(1, 2)
    >>> loss = fastoptim.torch.ContrastiveLoss()(x1, x2, torch.tensor([1]))
    >>> loss.backward()
    >>> loss.item(), x1.grad
    (0.125, tensor([[0.0000, 0.5000]]))
    """

    _rule = Rule(
        "contrastive",
        ("margin", "reduction"),
        None,
        "vectors",
        ("x1", "x2", "same"),
        ((0, 1), (1, 1), None),
    )

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__()
        self.margin = margin
        self.reduction = reduction
        self._check()

    def forward(self, x1: torch.Tensor, x2: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(x1, x2, same)


class CosineEmbeddingLoss(Loss, torch.nn.CosineEmbeddingLoss):
    r"""Angles of pairs: small for the target 1, beyond a margin for -1.

    A `torch.nn.CosineEmbeddingLoss`; the formula is with `fastoptim.losses.CosineEmbeddingLoss`.

    Parameters
    ----------
    margin
        The cosine up to which a pair with target -1 adds nothing, in [-1, 1].
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"mean"`` over rows, ``"sum"``, or ``"none"``: one value per row.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> x1 = torch.tensor([[1.0, 0.0]], requires_grad=True)
    >>> loss = fastoptim.torch.CosineEmbeddingLoss()(x1, torch.tensor([[0.0, 1.0]]), torch.ones(1))
    >>> loss.backward()
    >>> loss.item(), x1.grad
    (1.0, tensor([[ 0., -1.]]))
    """

    _rule = Rule(
        "cosine_embedding",
        ("margin", "reduction"),
        torch.nn.functional.cosine_embedding_loss,
        "vectors",
        ("input1", "input2", "target"),
        ((0, 1), (1, 1), None),
    )

    def forward(
        self, input1: torch.Tensor, input2: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(input1, input2, target)


class TripletMarginLoss(Loss, torch.nn.TripletMarginLoss):
    r"""An anchor nearer to its positive than to its negative, by a margin.

    A `torch.nn.TripletMarginLoss`; the formula is with `fastoptim.losses.TripletMarginLoss`.

    Parameters
    ----------
    margin
        The difference of the distances from which on the loss is 0, > 0.
    p
        The exponent of the norm, > 0.
    eps
        Added to every difference, >= 0.
    swap
        Whether the distance of the negative is the smaller of those from the anchor and from the
        positive.
    size_average, reduce
        PyTorch's older forms of `reduction`.
    reduction
        ``"mean"`` over rows, ``"sum"``, or ``"none"``: one value per row.
    squared
        Whether distances are squared, and without `eps`, as in FaceNet.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> a = torch.tensor([[0.0, 0.0]], requires_grad=True)
    >>> p, n = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    >>> loss = fastoptim.torch.TripletMarginLoss(squared=True)(a, p, n)
    >>> loss.backward()
    >>> loss.item(), a.grad
    (4.0, tensor([[ 2., -4.]]))
    """

    _rule = Rule(
        "triplet_margin",
        ("margin", "p", "eps", "swap", "reduction"),
        torch.nn.functional.triplet_margin_loss,
        "vectors",
        ("anchor", "positive", "negative"),
        ((0, 1), (1, 1), (2, 1)),
        {"squared": False},
    )
    _squares = replace(_rule, torch=None, others={"squared": True})

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        *,
        squared: bool = False,
    ) -> None:
        super().__init__(margin, p, eps, swap, size_average, reduce, reduction)
        self.squared = squared

    def forward(
        self, anchor: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss."""
        return self._evaluate(
            anchor, positive, negative, rule=self._squares if self.squared else self._rule
        )
