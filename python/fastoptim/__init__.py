"""Fused optimizers, losses, clipping and schedules for training on CPUs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastoptim._core import __version__

if TYPE_CHECKING:
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
    from fastoptim.checkpoint import load, save
    from fastoptim.errors import CheckpointError
    from fastoptim.grads.accumulation import GradAccumulator
    from fastoptim.grads.clip import (
        clip_grad_norm_,
        clip_grad_value_,
        clip_grads_with_norm_,
        get_total_norm,
    )
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
    from fastoptim.params.ema import EMA
    from fastoptim.params.flat_buffer import FlatBuffer
    from fastoptim.threads import get_num_threads, num_threads, set_num_threads
    from fastoptim.tools.gradcheck import GradCheck, check_grad, numerical_gradient
    from fastoptim.tools.history import History
    from fastoptim.tools.linear import linear_scores, linear_scores_grad
    from fastoptim.tools.lr_finder import LRFinder, LRFinderResult
    from fastoptim.tools.minibatches import minibatches

# Modules are imported when one of their names is first used, because most programs use few of them.
# Names in neither table are in `fastoptim.optim`. Type checkers see the imports above.
_SUBMODULES = frozenset(
    {
        "amp",
        "landscape",
        "losses",
        "lr_scheduler",
        "optim",
        "plot",
        "presets",
        "regularizers",
        "schedules",
    }
)
_MODULE_OF = {
    name: module
    for module, names in {
        "checkpoint": "load save",
        "errors": "CheckpointError",
        "grads.accumulation": "GradAccumulator",
        "grads.clip": "clip_grad_norm_ clip_grad_value_ clip_grads_with_norm_ get_total_norm",
        "params.ema": "EMA",
        "params.flat_buffer": "FlatBuffer",
        "threads": "get_num_threads num_threads set_num_threads",
        "tools.gradcheck": "GradCheck check_grad numerical_gradient",
        "tools.history": "History",
        "tools.linear": "linear_scores linear_scores_grad",
        "tools.lr_finder": "LRFinder LRFinderResult",
        "tools.minibatches": "minibatches",
    }.items()
    for name in names.split()
}

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
    "load",
    "losses",
    "lr_scheduler",
    "minibatches",
    "num_threads",
    "numerical_gradient",
    "optim",
    "plot",
    "presets",
    "regularizers",
    "save",
    "schedules",
    "set_num_threads",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULE_OF.get(name, "optim")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
