"""Schedulers with PyTorch's names, arguments and values, for any object with ``param_groups``.

A scheduler writes the rate ``"lr"`` of each parameter group of an optimizer, one of fastoptim or of
PyTorch. The value is the closed form of the step, taken from `fastoptim.schedules`, so nothing
drifts over long runs.

A scheduler also shares its group politely. Where something else has changed a rate since (a second
scheduler chained by hand, the user), the rate is no longer on the scheduler's curve, and the
scheduler acts on the rate that it finds, as PyTorch's recursion of that class does. It keeps no
record for this: being on the curve is a comparison with the closed form of the step before. So the
number of steps and the arguments are the whole state. `LambdaLR`, `CyclicLR`, `OneCycleLR` and
`CosineAnnealingWarmRestarts` set the rate whatever it is.

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
