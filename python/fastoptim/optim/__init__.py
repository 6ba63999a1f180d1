"""The optimizers."""

from fastoptim.optim._base import Optimizer, StepInfo
from fastoptim.optim.adam import Adam, AdamW
from fastoptim.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "StepInfo"]
