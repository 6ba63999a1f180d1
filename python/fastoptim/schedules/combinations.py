"""Schedules composed of other schedules or of stages."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from fastoptim._checks import (
    ascending,
    non_negative,
    positive_whole_number,
    scalar,
    unit,
    word,
)
from fastoptim.schedules._base import (
    Schedule,
    Steps,
    maximum,
    minimum,
    where,
)
from fastoptim.schedules.cycles import fall

Decay: TypeAlias = Literal["linear", "cosine", "sqrt"]
# A schedule of this package, or a user's function that returns a number for a step.
Part: TypeAlias = Schedule | Callable[[int], float]


@dataclass(frozen=True)
class wsd(Schedule):
    r"""Warm up, stay constant, and decay; the total length need not be known at the start.

    .. math::
        \text{base\_lr} \cdot \begin{cases}
            t / \text{warmup\_steps} & \text{first} \\
            1 & \text{then} \\
            e + (1 - e)\, d(x) & \text{at the fraction } x \text{ of the decay, then } e
        \end{cases}

    Parameters
    ----------
    base_lr : float
        The value between warm-up and decay, at least 0.
    warmup_steps : float
        The number of warm-up steps, at least 0.
    stable_steps : float
        The number of steps between warm-up and decay, at least 0.
    decay_steps : float
        The number of decay steps, at least 0.
    end_factor : float
        :math:`e`, in [0, 1].
    decay : {"linear", "cosine", "sqrt"}
        :math:`d(x)` is :math:`1 - x`, half a cosine, or :math:`1 - \sqrt x`.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    References
    ----------
    Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models", 2024.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.wsd(1.0, 2, 4, 4)([0, 1, 2, 6, 8, 10])
    array([0. , 0.5, 1. , 1. , 0.5, 0. ])
    """

    base_lr: float
    warmup_steps: float
    stable_steps: float
    decay_steps: float
    end_factor: float = 0.0
    decay: Decay = "linear"

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(
            base_lr=non_negative,
            warmup_steps=non_negative,
            stable_steps=non_negative,
            decay_steps=non_negative,
            end_factor=unit,
        )
        word("decay", self.decay, get_args(Decay))

    def _at(self, t: Steps) -> Steps:
        begin = self.warmup_steps + self.stable_steps
        if self.decay_steps > 0:
            done = minimum(maximum(t - begin, 0.0), self.decay_steps)
            left = (self.decay_steps - done) / self.decay_steps
        else:
            left = where(t < begin, 1.0, 0.0)
        if self.decay == "cosine":
            left = fall(left)
        elif self.decay == "sqrt":
            # This is 1 - sqrt(x), but has full relative accuracy near the end.
            left = left / (1 + np.sqrt(1 - left))
        factor = left + self.end_factor * (1 - left)
        if self.warmup_steps > 0:
            factor = factor * minimum(t / self.warmup_steps, 1)
        return self.base_lr * factor


@dataclass(frozen=True)
class warmup(Schedule):
    r"""Increase linearly to the start of another schedule, then follow it.

    .. math::
        f(t) = \begin{cases} g(0)\, t / n & t < n \\ g(t - n) & \text{after} \end{cases}

    The schedule begins at its own step 0 after the warm-up: with a warm-up of ``n`` steps in a
    training of ``total`` steps, its length is ``total - n``.

    Parameters
    ----------
    schedule : Schedule or function
        :math:`g`; a user's function takes one step, an int if it is integral, and returns a number.
    steps : float
        :math:`n`, the number of warm-up steps, at least 0.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    References
    ----------
    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.warmup(fo.schedules.constant(1.0), 4)([0, 1, 4, 9])
    array([0.  , 0.25, 1.  , 1.  ])
    """

    schedule: Part
    steps: float

    def __post_init__(self) -> None:
        """Check the arguments."""
        _require("schedule", self.schedule)
        self._check(steps=non_negative)

    def _at(self, t: Steps) -> Steps:
        after = _value(self.schedule, maximum(t - self.steps, 0))
        if self.steps == 0:
            return after
        rise = _value(self.schedule, 0.0) * (t / self.steps)
        return where(t < self.steps, rise, after)


@dataclass(frozen=True)
class join(Schedule):
    r"""Follow one schedule after another, each from its own step 0.

    .. math::
        f(t) = g_i(t - b_i), \qquad b_i \le t < b_{i+1}, \quad b_0 = 0

    Parameters
    ----------
    schedules : sequence of Schedule or function
        :math:`g`, at least one; a user's function takes one step, an int if it is integral, and
        returns a number. Each is called only for the steps at which it is followed.
    boundaries : sequence of numbers
        The step at which each schedule but the first begins, in strictly ascending order.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    Examples
    --------
    >>> import fastoptim as fo
    >>> parts = [fo.schedules.constant(1.0), fo.schedules.exponential(0.5, 0.5)]
    >>> fo.schedules.join(parts, [10])([9, 10, 11])
    array([1.  , 0.5 , 0.25])
    """

    schedules: Sequence[Part]
    boundaries: Sequence[float]

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not isinstance(self.schedules, Iterable):
            raise TypeError(f"schedules must be a sequence of schedules, got {self.schedules!r}")
        object.__setattr__(self, "schedules", tuple(self.schedules))
        for schedule in self.schedules:
            _require("schedules", schedule)
        boundaries = ascending("boundaries", self.boundaries, strictly=True)
        object.__setattr__(self, "boundaries", boundaries)
        if not self.schedules:
            raise ValueError("schedules must not be empty")
        if len(boundaries) != len(self.schedules) - 1:
            raise ValueError(
                f"boundaries must have {len(self.schedules) - 1} values, one between two "
                f"schedules, got {len(boundaries)}"
            )

    def _at(self, t: Steps) -> Steps:
        begins = (0.0, *self.boundaries)
        if not isinstance(t, np.ndarray):
            turn = bisect_right(self.boundaries, t)
            return _value(self.schedules[turn], t - begins[turn])
        turns = np.searchsorted(self.boundaries, t, side="right")
        values = np.empty_like(t)
        for turn, schedule in enumerate(self.schedules):
            mine = turns == turn
            values[mine] = _value(schedule, t[mine] - begins[turn])
        return values


def linear_scaling(base_lr: float, batch_size: int, base_batch: int = 256) -> float:
    r"""Scale a rate with the batch size.

    .. math:: \text{base\_lr} \cdot \frac{\text{batch\_size}}{\text{base\_batch}}

    Parameters
    ----------
    base_lr : float
        A good rate for ``base_batch``, at least 0.
    batch_size : int
        The batch size, at least 1.
    base_batch : int
        The batch size for which ``base_lr`` was chosen, at least 1.

    Returns
    -------
    float
        The rate for ``batch_size``, to be used with warm-up.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an argument is out of range, infinite or NaN.

    References
    ----------
    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017.

    Examples
    --------
    >>> import fastoptim as fo
    >>> fo.schedules.linear_scaling(0.1, 1024)
    0.4
    """
    rate = non_negative("base_lr", base_lr)
    batch = positive_whole_number("batch_size", batch_size)
    return rate * batch / positive_whole_number("base_batch", base_batch)


def _require(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(
            f"{name} must be a schedule or a function of the step, got {value!r}; "
            "for a fixed value, use fastoptim.schedules.constant"
        )


def _value(schedule: Part, t: Steps) -> Steps:
    """Return the value of a schedule at ``t >= 0``; a user's function takes one step at a time."""
    if isinstance(schedule, Schedule):
        return schedule._at(t)
    if isinstance(t, np.ndarray):
        values = [_value(schedule, one) for one in t.ravel().tolist()]
        return np.array(values, np.float64).reshape(t.shape)
    # As the optimizer calls it, with an int, which the function may use as an index.
    return scalar("the value of a schedule", schedule(int(t) if t == int(t) else t))
