"""Losses: the value and its gradient in one fused call."""

from fastoptim.losses._base import Loss, Reduction
from fastoptim.losses.binary import BCELoss, BCEWithLogitsLoss, SigmoidFocalLoss
from fastoptim.losses.classification import (
    HingeLoss,
    KLDivLoss,
    SoftMarginLoss,
)
from fastoptim.losses.embedding import (
    ContrastiveLoss,
    CosineEmbeddingLoss,
    HingeEmbeddingLoss,
    TripletMarginLoss,
)
from fastoptim.losses.likelihood import GaussianNLLLoss, PoissonNLLLoss
from fastoptim.losses.mining import mine_triplets
from fastoptim.losses.multiclass import (
    CrossEntropyLoss,
    FocalLoss,
    MultiMarginLoss,
    NLLLoss,
)
from fastoptim.losses.regression import (
    HuberLoss,
    L1Loss,
    LogCoshLoss,
    MSELoss,
    SmoothL1Loss,
)

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "ContrastiveLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HingeLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "LogCoshLoss",
    "Loss",
    "MSELoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "Reduction",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "mine_triplets",
]


def __dir__() -> list[str]:
    return __all__
