"""Fused optimizers, losses, clipping and schedules for training on CPUs."""

from fastoptim import losses, lr_scheduler, optim, schedules
from fastoptim._core import __version__
from fastoptim.buffer import FlatBuffer
from fastoptim.clip import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from fastoptim.errors import CheckpointError
from fastoptim.optim import SGD, Adam, AdamW, StepInfo
from fastoptim.threads import get_num_threads, num_threads, set_num_threads

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CheckpointError",
    "FlatBuffer",
    "StepInfo",
    "__version__",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_num_threads",
    "get_total_norm",
    "losses",
    "lr_scheduler",
    "num_threads",
    "optim",
    "schedules",
    "set_num_threads",
]
