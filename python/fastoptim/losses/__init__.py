"""Losses: the value and its gradient in one fused call."""

from fastoptim.losses._base import Loss, Reduction
from fastoptim.losses.classification import (
    CrossEntropyLoss,
    HingeLoss,
    KLDivLoss,
    SoftMarginLoss,
)
from fastoptim.losses.embedding import HingeEmbeddingLoss
from fastoptim.losses.regression import (
    HuberLoss,
    L1Loss,
    MSELoss,
    PoissonNLLLoss,
    SmoothL1Loss,
)

__all__ = [
    "CrossEntropyLoss",
    "HingeEmbeddingLoss",
    "HingeLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "Loss",
    "MSELoss",
    "PoissonNLLLoss",
    "Reduction",
    "SmoothL1Loss",
    "SoftMarginLoss",
]
