"""Fused optimizers, losses, clipping and schedules for training on CPUs."""

from fastoptim import (
    amp,
    landscape,
    losses,
    lr_scheduler,
    optim,
    plot,
    presets,
    regularizers,
    schedules,
)
from fastoptim._core import __version__
from fastoptim.accumulation import GradAccumulator
from fastoptim.batches import minibatches
from fastoptim.buffer import FlatBuffer
from fastoptim.clip import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from fastoptim.ema import EMA
from fastoptim.errors import CheckpointError
from fastoptim.gradcheck import GradCheck, check_grad, numerical_gradient
from fastoptim.history import History
from fastoptim.linear import linear_scores, linear_scores_grad
from fastoptim.lr_finder import LRFinder, LRFinderResult
from fastoptim.optim import (
    ASGD,
    LAMB,
    LARS,
    SAM,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AdEMAMix,
    Lion,
    Muon,
    NAdam,
    Prodigy,
    RAdam,
    RandomLocalSearch,
    RandomSearch,
    RMSprop,
    Rprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    StepInfo,
)
from fastoptim.threads import get_num_threads, num_threads, set_num_threads

__all__ = [
    "ASGD",
    "EMA",
    "LAMB",
    "LARS",
    "SAM",
    "SGD",
    "AdEMAMix",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "CheckpointError",
    "FlatBuffer",
    "GradAccumulator",
    "GradCheck",
    "History",
    "LRFinder",
    "LRFinderResult",
    "Lion",
    "Muon",
    "NAdam",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "RandomLocalSearch",
    "RandomSearch",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "StepInfo",
    "__version__",
    "amp",
    "check_grad",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_num_threads",
    "get_total_norm",
    "landscape",
    "linear_scores",
    "linear_scores_grad",
    "losses",
    "lr_scheduler",
    "minibatches",
    "num_threads",
    "numerical_gradient",
    "optim",
    "plot",
    "presets",
    "regularizers",
    "schedules",
    "set_num_threads",
]
