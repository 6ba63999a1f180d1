"""Losses: the value and its gradient in one fused call."""

from fastoptim.losses._base import Loss, Reduction
from fastoptim.losses.binary import BCELoss, BCEWithLogitsLoss, SigmoidFocalLoss
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
    LogCoshLoss,
    MSELoss,
    PoissonNLLLoss,
    SmoothL1Loss,
)

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "HingeEmbeddingLoss",
    "HingeLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "LogCoshLoss",
    "Loss",
    "MSELoss",
    "PoissonNLLLoss",
    "Reduction",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
]
