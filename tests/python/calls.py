"""A valid call of each public function that takes numbers, strings or flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastoptim as fo
from cases import OPTIMIZERS

Call = Callable[..., Any]


def w() -> Any:
    return np.ones((2, 2))


def sgd() -> fo.SGD:
    return fo.SGD(w(), momentum=0.9)


def zero(_: Any) -> float:
    return 0.0


def loss_and_grad(x: Any) -> tuple[float, Any]:
    return 0.0, x


def loss_and_copy(x: Any) -> tuple[float, Any]:
    return 0.0, x.copy()


def scaler() -> fo.amp.GradScaler:
    return fo.amp.GradScaler()


def plateau() -> fo.lr_scheduler.ReduceLROnPlateau:
    return fo.lr_scheduler.ReduceLROnPlateau(sgd())


def sequence(**options: Any) -> Any:
    parts = [fo.lr_scheduler.StepLR(opt := sgd(), 2), fo.lr_scheduler.StepLR(opt, 2)]
    return fo.lr_scheduler.SequentialLR(opt, parts, **options)


def chain() -> Any:
    return fo.lr_scheduler.ChainedScheduler([fo.lr_scheduler.StepLR(sgd(), 2)])


def reload(scheduler: Any, **options: Any) -> None:
    scheduler.load_state_dict(scheduler.state_dict(), **options)


# A valid call of each function that takes numbers: the call, and its required numbers.
GOOD: dict[str, tuple[Call, dict[str, Any]]] = {
    "fastoptim.EMA": (lambda **k: fo.EMA(w(), **k), {}),
    "fastoptim.GradAccumulator.add": (
        lambda **k: fo.GradAccumulator(w()).add(w(), **k),
        {"weight": 1},
    ),
    "fastoptim.History.record": (lambda **k: fo.History().record(**k), {}),
    "fastoptim.LRFinder.run": (lambda **k: fo.LRFinder(sgd(), loss_and_copy).run(**k), {}),
    "fastoptim.SAM": (lambda **k: fo.SAM(sgd(), **k), {}),
    "fastoptim.SAM.current": (lambda **k: fo.SAM(sgd()).current("lr", **k), {}),
    "fastoptim.SAM.first_step": (lambda **k: fo.SAM(sgd()).first_step(w(), **k), {}),
    "fastoptim.amp.GradScaler.set_backoff_factor": (
        lambda **k: scaler().set_backoff_factor(**k),
        {"new_factor": 0.5},
    ),
    "fastoptim.amp.GradScaler.set_growth_factor": (
        lambda **k: scaler().set_growth_factor(**k),
        {"new_factor": 2},
    ),
    "fastoptim.amp.GradScaler.set_growth_interval": (
        lambda **k: scaler().set_growth_interval(**k),
        {"new_interval": 2},
    ),
    "fastoptim.amp.GradScaler.update": (lambda **k: scaler().update(**k), {"new_scale": 2.0}),
    "fastoptim.amp.GradScaler": (lambda **k: fo.amp.GradScaler(**k), {}),
    "fastoptim.check_grad": (lambda **k: fo.check_grad(zero, np.zeros(2), np.ones(2), **k), {}),
    "fastoptim.clip_grad_norm_": (lambda **k: fo.clip_grad_norm_(w(), **k), {"max_norm": 1.0}),
    "fastoptim.clip_grad_value_": (lambda **k: fo.clip_grad_value_(w(), **k), {"clip_value": 1.0}),
    "fastoptim.clip_grads_with_norm_": (
        lambda **k: fo.clip_grads_with_norm_(w(), **k),
        {"max_norm": 1.0, "total_norm": 1.0},
    ),
    "fastoptim.get_total_norm": (lambda **k: fo.get_total_norm(w(), **k), {}),
    "fastoptim.landscape.line": (lambda **k: fo.landscape.line(zero, w(), w(), [0.0], **k), {}),
    "fastoptim.landscape.plane": (
        lambda **k: fo.landscape.plane(zero, w(), w(), w(), [0.0], [0.0], **k),
        {},
    ),
    "fastoptim.landscape.random_direction": (
        lambda **k: fo.landscape.random_direction(w(), **k),
        {},
    ),
    "fastoptim.landscape.sharpness": (
        lambda **k: fo.landscape.sharpness(loss_and_grad, w(), **k),
        {},
    ),
    "fastoptim.lr_scheduler.ChainedScheduler.load_state_dict": (
        lambda **k: reload(chain(), **k),
        {},
    ),
    "fastoptim.lr_scheduler.ReduceLROnPlateau.is_better": (
        lambda **k: plateau().is_better(**k),
        {"value": 1.0},
    ),
    "fastoptim.lr_scheduler.ReduceLROnPlateau.step": (lambda **k: plateau().step(1.0, **k), {}),
    "fastoptim.lr_scheduler.SequentialLR": (sequence, {"milestones": [1]}),
    "fastoptim.minibatches": (lambda **k: list(fo.minibatches(**k)), {"n": 2, "batch_size": 1}),
    "fastoptim.num_threads": (lambda **k: fo.num_threads(**k).__enter__(), {"n": 1}),
    "fastoptim.numerical_gradient": (
        lambda **k: fo.numerical_gradient(zero, np.ones(2), **k),
        {},
    ),
    "fastoptim.presets.for_batch_size": (
        lambda **k: fo.presets.for_batch_size(**k),
        {"n": 8, "total_steps": 40},
    ),
    "fastoptim.presets.image_classification": (
        lambda **k: fo.presets.image_classification(**k),
        {"total_steps": 40},
    ),
    "fastoptim.presets.nlp": (lambda **k: fo.presets.nlp(**k), {"total_steps": 40}),
    "fastoptim.presets.recurrent": (lambda **k: fo.presets.recurrent(**k), {"total_steps": 40}),
    "fastoptim.regularizers.ElasticNet": (
        lambda **k: fo.regularizers.ElasticNet(**k),
        {"l1": 1, "l2": 1},
    ),
    "fastoptim.regularizers.L1": (lambda **k: fo.regularizers.L1(**k), {"lam": 1}),
    "fastoptim.regularizers.L2": (lambda **k: fo.regularizers.L2(**k), {"lam": 1}),
    "fastoptim.set_num_threads": (lambda **k: fo.set_num_threads(**k), {"n": 2}),
}

SCHEDULERS: dict[str, dict[str, Any]] = {
    "ConstantLR": {},
    "CosineAnnealingLR": {"T_max": 9},
    "CosineAnnealingWarmRestarts": {"T_0": 9},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.5},
    "ExponentialLR": {"gamma": 0.5},
    "LambdaLR": {"lr_lambda": float},
    "LinearLR": {},
    "MultiStepLR": {"milestones": [3]},
    "MultiplicativeLR": {"lr_lambda": float},
    "OneCycleLR": {"max_lr": 0.5, "total_steps": 9},
    "PolynomialLR": {},
    "ReduceLROnPlateau": {},
    "StepLR": {"step_size": 3},
    "WarmupStableDecayLR": {"warmup_steps": 1, "stable_steps": 1, "decay_steps": 1},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"base_lr": 1},
    "cosine": {"base_lr": 1, "T_max": 9},
    "cosine_restarts": {"base_lr": 1, "T_0": 9},
    "cyclic": {"base_lr": 0.1, "max_lr": 0.5},
    "exponential": {"base_lr": 1, "gamma": 0.5},
    "inverse_sqrt": {"base_lr": 1, "timescale": 3},
    "join": {"schedules": [float, float], "boundaries": [3]},
    "linear": {"base_lr": 1},
    "linear_scaling": {"base_lr": 1, "batch_size": 8},
    "multistep": {"base_lr": 1, "milestones": [3]},
    "one_cycle": {"max_lr": 0.5, "total_steps": 9},
    "polynomial": {"base_lr": 1, "total_iters": 9},
    "step": {"base_lr": 1, "step_size": 3},
    "warmup": {"schedule": float, "steps": 3},
    "wsd": {"base_lr": 1, "warmup_steps": 1, "stable_steps": 1, "decay_steps": 1},
}


def add_families() -> None:
    """Add the classes whose calls have the same form."""
    for cls in [*OPTIMIZERS, fo.RandomSearch, fo.RandomLocalSearch]:
        GOOD[f"fastoptim.{cls.__name__}"] = lambda cls=cls, **k: cls(w(), **k), {}
    for cls in OPTIMIZERS:
        name = f"fastoptim.{cls.__name__}"
        GOOD[f"{name}.state_dict"] = lambda cls=cls, **k: cls(w()).state_dict(**k), {}
        GOOD[f"{name}.step"] = lambda cls=cls, **k: cls(w()).step(w(), **k), {}
        GOOD[f"{name}.current"] = lambda cls=cls, **k: cls(w()).current("lr", **k), {}
    for name, arguments in SCHEDULES.items():
        GOOD[f"fastoptim.schedules.{name}"] = getattr(fo.schedules, name), arguments
    for name, arguments in SCHEDULERS.items():
        made = getattr(fo.lr_scheduler, name)
        GOOD[f"fastoptim.lr_scheduler.{name}"] = lambda made=made, **k: made(sgd(), **k), arguments
        GOOD[f"fastoptim.lr_scheduler.{name}.load_state_dict"] = (
            lambda made=made, arguments=arguments, **k: reload(made(sgd(), **arguments), **k),
            {},
        )
        if name != "ReduceLROnPlateau":
            GOOD[f"fastoptim.lr_scheduler.{name}.step"] = (
                lambda made=made, arguments=arguments, **k: made(sgd(), **arguments).step(**k),
                {},
            )


add_families()
