"""The losses as modules."""

from fastoptim.torch.losses.binary import BCELoss, BCEWithLogitsLoss, SigmoidFocalLoss
from fastoptim.torch.losses.classification import HingeLoss, KLDivLoss, SoftMarginLoss
from fastoptim.torch.losses.embedding import (
    ContrastiveLoss,
    CosineEmbeddingLoss,
    HingeEmbeddingLoss,
    TripletMarginLoss,
)
from fastoptim.torch.losses.likelihood import GaussianNLLLoss, PoissonNLLLoss
from fastoptim.torch.losses.multiclass import CrossEntropyLoss, FocalLoss, MultiMarginLoss, NLLLoss
from fastoptim.torch.losses.regression import HuberLoss, L1Loss, LogCoshLoss, MSELoss, SmoothL1Loss

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
    "MSELoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
]


def __dir__() -> list[str]:
    return __all__
