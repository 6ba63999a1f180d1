"""Constant and decaying schedules, and a linear ramp."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastoptim._checks import ascending, non_negative, positive, positive_whole_number, unit
from fastoptim.schedules._base import (
    Schedule,
    Steps,
    maximum,
    minimum,
    power,
)


@dataclass(frozen=True)
class constant(Schedule):
    r"""Keep a constant value.

    .. math::
        f(t) = \text{base\_lr}

    Parameters
    ----------
    base_lr : float
        The value, at least 0.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.constant(0.1)([0, 1000])
    array([0.1, 0.1])
    """

    base_lr: float

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(base_lr=non_negative)

    def _at(self, t: Steps) -> Steps:
        return self.base_lr + 0 * t


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
        self._check(base_lr=non_negative, step_size=positive_whole_number, gamma=non_negative)

    def _at(self, t: Steps) -> Steps:
        factor = power(self.gamma, t // self.step_size)
        return self.base_lr * factor


@dataclass(frozen=True)
class multistep(Schedule):
    r"""Multiply by ``gamma`` at each milestone.

    .. math::
        f(t) = \text{base\_lr} \cdot \gamma^n, \qquad n \text{ milestones are} \le t

    Parameters
    ----------
    base_lr : float
        The value at step 0, at least 0.
    milestones : sequence of numbers
        The steps of the changes, in ascending order; a repeated milestone counts twice.
    gamma : float
        The factor of each change, at least 0.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.multistep(1.0, [30, 80], gamma=0.5)([29, 30, 80])
    array([1.  , 0.5 , 0.25])
    """

    base_lr: float
    milestones: Sequence[float]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Check the arguments."""
        object.__setattr__(
            self, "milestones", ascending("milestones", self.milestones, strictly=False)
        )
        self._check(base_lr=non_negative, gamma=non_negative)

    def _at(self, t: Steps) -> Steps:
        passed: Steps
        if isinstance(t, np.ndarray):
            passed = np.searchsorted(np.asarray(self.milestones), t, side="right")
        else:
            passed = bisect_right(self.milestones, t)
        factor = power(self.gamma, passed)
        return self.base_lr * factor


@dataclass(frozen=True)
class exponential(Schedule):
    r"""Multiply by ``gamma`` at every step.

    .. math::
        f(t) = \text{base\_lr} \cdot \gamma^t

    Parameters
    ----------
    base_lr : float
        The value at step 0, at least 0.
    gamma : float
        The factor, at least 0.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.exponential(1.0, gamma=0.5)([0, 1, 2])
    array([1.  , 0.5 , 0.25])
    """

    base_lr: float
    gamma: float

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(base_lr=non_negative, gamma=non_negative)

    def _at(self, t: Steps) -> Steps:
        factor = power(self.gamma, t)
        return self.base_lr * factor


@dataclass(frozen=True)
class linear(Schedule):
    r"""Change linearly from one factor to another, then stay constant.

    .. math::
        f(t) = \text{base\_lr} \left(a + (b - a) \frac{\min(t, T)}{T}\right)

    Parameters
    ----------
    base_lr : float
        The value that the factors multiply, at least 0.
    start_factor : float
        :math:`a`, the factor at step 0, in [0, 1].
    end_factor : float
        :math:`b`, the factor at the end and after it, in [0, 1].
    total_iters : float
        :math:`T`, the number of steps, above 0.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.linear(1.0, start_factor=0.5, total_iters=4)([0, 2, 4, 9])
    array([0.5 , 0.75, 1.  , 1.  ])
    """

    base_lr: float
    start_factor: float = 1 / 3
    end_factor: float = 1.0
    total_iters: float = 5

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(base_lr=non_negative, start_factor=unit, end_factor=unit, total_iters=positive)

    def _at(self, t: Steps) -> Steps:
        done = minimum(t, self.total_iters)
        # Not 1 - done / total_iters, which suffers from cancellation near the end.
        left = (self.total_iters - done) / self.total_iters
        factor = self.start_factor * left + self.end_factor * (done / self.total_iters)
        return self.base_lr * factor


@dataclass(frozen=True)
class polynomial(Schedule):
    r"""Decay to 0 as a power of the remaining fraction, then stay constant.

    .. math::
        f(t) = \text{base\_lr} \left(1 - \frac{\min(t, T)}{T}\right)^\text{power}

    Parameters
    ----------
    base_lr : float
        The value at step 0, at least 0.
    total_iters : float
        :math:`T`, the number of steps, above 0.
    power : float
        The exponent, at least 0; 1 is linear.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.polynomial(1.0, total_iters=4, power=2.0)([0, 2, 4, 9])
    array([1.  , 0.25, 0.  , 0.  ])
    """

    base_lr: float
    total_iters: float
    power: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(base_lr=non_negative, total_iters=positive, power=non_negative)

    def _at(self, t: Steps) -> Steps:
        left = (self.total_iters - minimum(t, self.total_iters)) / self.total_iters
        factor = power(left, self.power)
        return self.base_lr * factor


@dataclass(frozen=True)
class inverse_sqrt(Schedule):
    r"""Stay constant, then decay with the inverse square root of the step.

    .. math::
        f(t) = \text{base\_lr} \sqrt{\frac{\text{timescale}}{\max(t, \text{timescale})}}

    Parameters
    ----------
    base_lr : float
        The value at step 0, at least 0.
    timescale : float
        The step at which the decay begins, above 0.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", 2017.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.inverse_sqrt(1.0, timescale=100)([0, 100, 400])
    array([1. , 1. , 0.5])
    """

    base_lr: float
    timescale: float

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(base_lr=non_negative, timescale=positive)

    def _at(self, t: Steps) -> Steps:
        factor = np.sqrt(self.timescale / maximum(t, self.timescale))
        return self.base_lr * factor
