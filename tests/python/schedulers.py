"""A scheduler of each class."""

from __future__ import annotations

from typing import Any

from fastoptim import lr_scheduler


def halving(t: float) -> float:
    return float(0.5 ** (t // 3))


def made(opt: Any, name: str) -> Any:
    """Construct a scheduler of a class."""
    return getattr(lr_scheduler, name)(opt, **ARGUMENTS[name])


ARGUMENTS: dict[str, dict[str, Any]] = {
    "ConstantLR": {},
    "CosineAnnealingLR": {"T_max": 9, "eta_min": 0.01},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": [0.1, 0.2], "scale_fn": halving},
    "ExponentialLR": {"gamma": 0.9},
    "LambdaLR": {"lr_lambda": halving},
    "LinearLR": {},
    "MultiStepLR": {"milestones": [3, 6]},
    "MultiplicativeLR": {"lr_lambda": halving},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 9},
    "PolynomialLR": {"total_iters": 9},
    "ReduceLROnPlateau": {"min_lr": [0.1, 0.2]},
    "StepLR": {"step_size": 2},
    "WarmupStableDecayLR": {"warmup_steps": 2, "stable_steps": 3, "decay_steps": 4},
}


COMPOSITIONS = {"ChainedScheduler", "SequentialLR"}
