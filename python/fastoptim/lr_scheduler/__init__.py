"""Schedulers with PyTorch's names, arguments and values, for objects with ``param_groups``.

A scheduler writes the rate ``"lr"`` of each parameter group of an optimizer, one of fastoptim or of
PyTorch. The value is the closed form of the step, taken from `fastoptim.schedules`, so rounding
errors do not accumulate over long runs.

Several schedulers may change the rate of one group. If a rate was changed by something else (a
second scheduler chained by hand, the user), the rate is not on the scheduler's curve, and the
scheduler changes the rate it finds by the recursion of PyTorch's class. It detects this by
comparing the rate with the closed form of the previous step, so its state consists of the step
count and the arguments. `LambdaLR`, `CyclicLR`, `OneCycleLR` and `CosineAnnealingWarmRestarts` set
the rate regardless of its value.

Examples
--------
>>> import numpy as np
>>> import fastoptim as fo
>>> opt = fo.SGD(np.zeros(3), lr=1.0)
>>> scheduler = fo.lr_scheduler.StepLR(opt, step_size=2, gamma=0.5)
>>> for _ in range(4):
...     _ = opt.step(np.ones(3))
...     scheduler.step()
>>> opt.param_groups[0]["lr"]
0.25
"""

from fastoptim.lr_scheduler._base import LRScheduler
from fastoptim.lr_scheduler.compositions import ChainedScheduler, SequentialLR
from fastoptim.lr_scheduler.cosines import CosineAnnealingLR, CosineAnnealingWarmRestarts
from fastoptim.lr_scheduler.cyclic import CyclicLR
from fastoptim.lr_scheduler.decays import ConstantLR, ExponentialLR, MultiStepLR, StepLR
from fastoptim.lr_scheduler.functions import LambdaLR, MultiplicativeLR
from fastoptim.lr_scheduler.one_cycle import OneCycleLR
from fastoptim.lr_scheduler.plateau import ReduceLROnPlateau
from fastoptim.lr_scheduler.ramps import LinearLR, PolynomialLR, WarmupStableDecayLR

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "WarmupStableDecayLR",
]


def __dir__() -> list[str]:
    return __all__
