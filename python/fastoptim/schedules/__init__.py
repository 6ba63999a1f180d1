"""Schedules: pure functions of the number of steps done.

A schedule is a small immutable object that is called with a step. It gives a float for a number and
a float64 array for an array of steps, with the same bits. It keeps nothing between calls, so any
step can be asked for in any order, and it can be compared, printed, hashed and pickled.

Each class below is one closed form, the method ``_at``. It is written once for numbers and arrays:
operators and NumPy functions only, no branches on the step.

Examples
--------
>>> import fastoptim as fo
>>> lr = fo.schedules.cosine(0.1, T_max=100)
>>> lr(0), lr(100)
(0.1, 0.0)
>>> lr([0, 100, 1000])
array([0.1, 0. , 0. ])
"""

from fastoptim.schedules._base import Schedule
from fastoptim.schedules.combinations import join, linear_scaling, warmup, wsd
from fastoptim.schedules.cycles import cosine, cosine_restarts, cyclic, one_cycle
from fastoptim.schedules.decays import (
    constant,
    exponential,
    inverse_sqrt,
    linear,
    multistep,
    polynomial,
    step,
)

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "cosine_restarts",
    "cyclic",
    "exponential",
    "inverse_sqrt",
    "join",
    "linear",
    "linear_scaling",
    "multistep",
    "one_cycle",
    "polynomial",
    "step",
    "warmup",
    "wsd",
]


def __dir__() -> list[str]:
    return __all__
