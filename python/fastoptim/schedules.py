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

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

__all__ = ["Schedule", "cosine", "step"]

Steps = TypeVar("Steps", float, npt.NDArray[np.float64])


class Schedule(ABC):
    """A function of the step: the base of every schedule."""

    @overload
    def __call__(self, step: float) -> float: ...
    @overload
    def __call__(self, step: npt.ArrayLike) -> npt.NDArray[np.float64]: ...
    def __call__(self, step: npt.ArrayLike) -> float | npt.NDArray[np.float64]:
        """Give the value at ``step``.

        Parameters
        ----------
        step : number or array_like of numbers
            How many steps have been done, finite and at least 0. Fractions are fine.

        Returns
        -------
        float or ndarray
            A float for a number; a float64 array of the same shape for an array.

        Raises
        ------
        TypeError
            If ``step`` is not made of real numbers.
        ValueError
            If a step is negative, infinite or NaN.
        """
        if isinstance(step, (int, float, np.integer, np.floating)):
            if not 0 <= step < math.inf:
                raise ValueError(f"step must be finite and >= 0, got {step}")
            return float(self._at(float(step)))
        given = np.asarray(step)
        if given.dtype.kind not in "iuf":
            raise TypeError(f"step must be a real number or an array of them, got {step!r}")
        steps = given.astype(np.float64, order="C")
        if not ((steps >= 0) & (steps < math.inf)).all():
            raise ValueError("every step must be finite and >= 0")
        return np.asarray(self._at(steps))

    @abstractmethod
    def _at(self, t: Steps) -> Steps:
        """Give the closed form at ``t >= 0``."""

    def _check(self, **checks: Callable[[str, object], float]) -> None:
        """Replace each named argument by what its check makes of it."""
        for name, check in checks.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))


@dataclass(frozen=True)
class step(Schedule):
    r"""Multiply by ``gamma`` every ``step_size`` steps.

    .. math:: f(t) = \text{base\_lr} \cdot \gamma^{\lfloor t / \text{step\_size} \rfloor}

    Parameters
    ----------
    base_lr : float
        The value at step 0, at least 0.
    step_size : int
        The number of steps between two changes, at least 1.
    gamma : float
        The factor of each change, at least 0.

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If an argument is out of range, infinite or NaN.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.step(1.0, step_size=30, gamma=0.5)([0, 29, 30, 60])
    array([1.  , 1.  , 0.5 , 0.25])
    """

    base_lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(base_lr=_non_negative, step_size=_count, gamma=_non_negative)

    def _at(self, t: Steps) -> Steps:
        factor: Steps = np.power(self.gamma, t // self.step_size)
        return self.base_lr * factor


@dataclass(frozen=True)
class cosine(Schedule):
    r"""Fall from ``base_lr`` to ``eta_min`` along half a cosine, then hold.

    .. math::
        f(t) = \eta_\min + \frac{\text{base\_lr} - \eta_\min}{2}
               \left(1 + \cos \frac{\pi \min(t, T_\max)}{T_\max}\right)

    It is evaluated as :math:`w \, \text{base\_lr} + (1 - w) \, \eta_\min` with
    :math:`w = \sin^2(\pi r / 2)` and :math:`r` the part of the way that is left. This is the same
    function, but it keeps its relative accuracy next to the end, where :math:`1 + \cos` cancels,
    and it meets both ends exactly.

    Parameters
    ----------
    base_lr : float
        The value at step 0, at least 0.
    T_max : float
        The number of steps of the fall, above 0.
    eta_min : float
        The value at ``T_max`` and after it, at least 0.

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If an argument is out of range, infinite or NaN.

    References
    ----------
    I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.cosine(1.0, T_max=3, eta_min=0.2)([0, 1, 2, 3, 4])
    array([1. , 0.8, 0.4, 0.2, 0.2])
    """

    base_lr: float
    T_max: float
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(base_lr=_non_negative, T_max=_positive, eta_min=_non_negative)

    def _at(self, t: Steps) -> Steps:
        left = (self.T_max - np.minimum(t, self.T_max)) / self.T_max
        root = np.sin(math.pi / 2 * left)
        w: Steps = root * root
        return w * self.base_lr + (1 - w) * self.eta_min


def _finite(name: str, value: object) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value}")
    return number


def _non_negative(name: str, value: object) -> float:
    number = _finite(name, value)
    if number < 0:
        raise ValueError(f"{name} must be >= 0, got {value}")
    return number


def _positive(name: str, value: object) -> float:
    number = _finite(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be > 0, got {value}")
    return number


def _count(name: str, value: object) -> int:
    number = _finite(name, value)
    if number < 1 or not number.is_integer():
        raise ValueError(f"{name} must be a whole number >= 1, got {value}")
    return int(number)
