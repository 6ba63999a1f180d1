"""Schedules: pure functions of the number of completed steps.

A schedule is a small immutable callable. It returns a float for a number, and a float64 array with
the same bits for an array of steps. It has no state, so steps may be evaluated in any order, and it
can be compared, printed, hashed and pickled.

Each class implements one closed form, in the method ``_at``. It works for numbers and arrays, since
it uses only operators and NumPy functions, and does not branch on the step.

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
