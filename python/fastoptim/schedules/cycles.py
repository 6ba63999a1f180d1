"""Cosine and cyclic schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from fastoptim._checks import flag, non_negative, positive, positive_whole_number, unit, word
from fastoptim.schedules._base import (
    Schedule,
    Steps,
    maximum,
    minimum,
    power,
    where,
)


def fall(left: Steps) -> Steps:
    """Return half a cosine, from 1 at ``left`` 1 to 0 at ``left`` 0, as the square of a sine."""
    root = np.sin(math.pi / 2 * left)
    if not isinstance(root, np.ndarray):
        root = float(root)  # Three times as fast in further arithmetic.
    return root * root


Mode: TypeAlias = Literal["triangular", "triangular2", "exp_range"]
Strategy: TypeAlias = Literal["cos", "linear"]
# The steps at which the phases of an annealing begin and end, with the values there.
Points: TypeAlias = Sequence[tuple[float, float]]


def anneal(points: Points, t: Steps, strategy: Strategy) -> Steps:
    """Interpolate the points, by half a cosine or linearly, and stay constant after the last."""
    if not isinstance(t, np.ndarray):
        return reached(points, *phase_at([step for step, _ in points], t, strategy))
    t = np.minimum(t, points[-1][0])
    value: Steps = None
    # From the last phase to the first, as each phase includes its end.
    for phase in reversed(range(len(points) - 1)):
        start, stop = points[phase][0], points[phase + 1][0]
        here = reached(points, phase, _weight(start, stop, t, strategy))
        value = here if value is None else np.where(t <= stop, here, value)
    return value


def phase_at(steps: Sequence[float], t: float, strategy: Strategy) -> tuple[int, float]:
    """Return the phase of a step, and the weight of the value at the start of the phase."""
    t = min(t, steps[-1])
    phase = 0
    while t > steps[phase + 1]:
        phase += 1
    return phase, _weight(steps[phase], steps[phase + 1], t, strategy)


def reached(points: Points, phase: int, w: Steps) -> Steps:
    """Return the value in a phase for a weight of the value at its start."""
    return w * points[phase][1] + (1 - w) * points[phase + 1][1]


def _weight(start: float, stop: float, t: Steps, strategy: Strategy) -> Steps:
    # A phase of length 0 is at its end.
    left = (stop - t) / (stop - start) if stop > start else 0 * t
    return fall(left) if strategy == "cos" else left


@dataclass(frozen=True)
class cosine(Schedule):
    r"""Decay from ``base_lr`` to ``eta_min`` along half a cosine, then stay constant.

    .. math::
        f(t) = \eta_\min + \frac{\text{base\_lr} - \eta_\min}{2}
               \left(1 + \cos \frac{\pi \min(t, T_\max)}{T_\max}\right)

    It is evaluated as :math:`w \, \text{base\_lr} + (1 - w) \, \eta_\min` with
    :math:`w = \sin^2(\pi r / 2)` and :math:`r` the remaining fraction. This is the same function,
    but it is accurate near the end, where :math:`1 + \cos` suffers from cancellation, and exact at
    both ends.

    Parameters
    ----------
    base_lr : float
        The value at step 0, at least 0.
    T_max : float
        The number of steps of the decay, above 0.
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
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.

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
        self._check(base_lr=non_negative, T_max=positive, eta_min=non_negative)

    def _at(self, t: Steps) -> Steps:
        left = (self.T_max - minimum(t, self.T_max)) / self.T_max
        w = fall(left)
        return w * self.base_lr + (1 - w) * self.eta_min


@dataclass(frozen=True)
class cosine_restarts(Schedule):
    r"""Decay along half a cosine repeatedly, with each period ``T_mult`` times as long as the last.

    .. math::
        f(t) = \eta_\min + \frac{\text{base\_lr} - \eta_\min}{2}
               \left(1 + \cos \frac{\pi (t - s_i)}{T_i}\right), \qquad
        T_i = T_0 T_\text{mult}^i, \qquad s_i = T_0 + \cdots + T_{i - 1} \le t

    Parameters
    ----------
    base_lr : float
        The value at each restart, at least 0.
    T_0 : float
        The length of the first period, above 0.
    T_mult : int
        The factor from the length of one period to the next, at least 1.
    eta_min : float
        The value at the end of each period, at least 0.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.cosine_restarts(1.0, T_0=2, T_mult=2)([0, 1, 2, 4, 6]).round(6)
    array([1. , 0.5, 1. , 0.5, 1. ])
    """

    base_lr: float
    T_0: float
    T_mult: int = 1
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(
            base_lr=non_negative, T_0=positive, T_mult=positive_whole_number, eta_min=non_negative
        )

    def _at(self, t: Steps) -> Steps:
        done, length = self._turn(t)
        w = fall((length - done) / length)
        return w * self.base_lr + (1 - w) * self.eta_min

    def _turn(self, t: Steps) -> tuple[Steps, Steps]:
        """Return the position in the period at ``t``, and the length of the period."""
        if self.T_mult == 1:
            return t % self.T_0, self.T_0 + 0 * t
        grown = self.T_mult - 1
        turn = np.floor(np.log(t / self.T_0 * grown + 1) / math.log(self.T_mult))
        # The logarithm may be off by one at the start of a period.
        for shift in (1, 0, -1):
            candidate = maximum(turn + shift, 0)
            start = self.T_0 * (power(float(self.T_mult), candidate) - 1) / grown
            turn = where((shift > 0) & (start <= t), candidate, turn)
            turn = where((shift <= 0) & (start > t), candidate - 1, turn)
        turn = maximum(turn, 0)
        start = self.T_0 * (power(float(self.T_mult), turn) - 1) / grown
        return t - start, self.T_0 * power(float(self.T_mult), turn)


@dataclass(frozen=True)
class one_cycle(Schedule):
    r"""Increase to ``max_lr``, decay far below the first value, then stay constant.

    .. math::
        \frac{\text{max\_lr}}{\text{div\_factor}} \to \text{max\_lr}
        \to \frac{\text{max\_lr}}{\text{div\_factor} \cdot \text{final\_div\_factor}}

    Parameters
    ----------
    max_lr : float
        The highest value, at least 0.
    total_steps : int
        The number of values: the last is at ``total_steps - 1``. At least 1.
    pct_start : float
        The fraction of the steps in which the value increases, in [0, 1].
    anneal_strategy : {"cos", "linear"}
        The interpolation between the values.
    div_factor : float
        The first value is ``max_lr / div_factor``; above 0.
    final_div_factor : float
        The last value is the first over this; above 0.
    three_phase : bool
        Decay to the first value in as many steps as the increase, then to the last.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    References
    ----------
    Smith and Topin, "Super-Convergence", 2018.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.one_cycle(1.0, total_steps=11, pct_start=4 / 11)([0, 3, 10, 99])
    array([4.e-02, 1.e+00, 4.e-06, 4.e-06])
    """

    max_lr: float
    total_steps: int
    pct_start: float = 0.3
    anneal_strategy: Strategy = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(
            max_lr=non_negative,
            total_steps=positive_whole_number,
            pct_start=unit,
            div_factor=positive,
            final_div_factor=positive,
        )
        word("anneal_strategy", self.anneal_strategy, get_args(Strategy))
        flag("three_phase", self.three_phase)

    def _at(self, t: Steps) -> Steps:
        return anneal(self._points(self._first, self.max_lr, self._last), t, self.anneal_strategy)

    @property
    def _first(self) -> float:
        """The value at step 0."""
        return self.max_lr / self.div_factor

    @property
    def _last(self) -> float:
        """The value at the end."""
        return self._first / self.final_div_factor

    def _points(self, first: float, top: float, last: float) -> Points:
        """Return the steps at which the phases begin and end, with the values there."""
        end, peak = self.total_steps - 1.0, self.pct_start * self.total_steps - 1
        down = [(2 * peak, first)] if self.three_phase else []
        return [(0.0, first), (peak, top), *down, (end, last)]


@dataclass(frozen=True)
class cyclic(Schedule):
    r"""Alternate between two values in a triangular cycle.

    .. math::
        f(t) = \text{base\_lr} + (\text{max\_lr} - \text{base\_lr})\, h(t)\, s(t)

    Parameters
    ----------
    base_lr : float
        The lower value, at least 0.
    max_lr : float
        The upper value, at least 0.
    step_size_up : float
        The number of increasing steps, above 0.
    step_size_down : float, optional
        The number of decreasing steps, above 0; ``step_size_up`` if None.
    mode : {"triangular", "triangular2", "exp_range"}
        :math:`s` is 1, or halves with each cycle, or is :math:`\gamma^t`.
    gamma : float
        The base for ``exp_range``, at least 0.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.cyclic(0.0, 1.0, step_size_up=2, mode="triangular2")([0, 2, 4, 6])
    array([0. , 1. , 0. , 0.5])
    """

    base_lr: float
    max_lr: float
    step_size_up: float = 2000
    step_size_down: float | None = None
    mode: Mode = "triangular"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(
            base_lr=non_negative, max_lr=non_negative, step_size_up=positive, gamma=non_negative
        )
        if self.step_size_down is not None:
            self._check(step_size_down=positive)
        word("mode", self.mode, get_args(Mode))

    def _at(self, t: Steps) -> Steps:
        up = self.step_size_up
        down = up if self.step_size_down is None else self.step_size_down
        done = t % (up + down)
        height = where(done <= up, done / up, (up + down - done) / down)
        if self.mode == "triangular2":
            height = height * power(0.5, t // (up + down))
        elif self.mode == "exp_range":
            height = height * power(self.gamma, t)
        return self.base_lr + (self.max_lr - self.base_lr) * height
