"""Schedulers that multiply the rates by a factor, at every step or at some."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable
from typing import Any

from fastoptim import schedules
from fastoptim._checks import between, non_negative
from fastoptim.lr_scheduler._arguments import listed
from fastoptim.lr_scheduler._base import Curve, LRScheduler, Place
from fastoptim.lr_scheduler._groups import HasGroups


class Decay(LRScheduler):
    """A scheduler that multiplies by ``gamma`` a number of times at each epoch."""

    gamma: float

    @abstractmethod
    def _changes(self, epoch: int) -> int:
        """Return the number of multiplications at ``epoch``."""

    def _off_curve(self, held: Any, change: float, old: Place, new: Place) -> float:
        # Not by a ratio of the curve, which may be 0 already.
        return float(held) * self.gamma ** self._changes(new.epoch)


class StepLR(Decay):
    r"""Multiply the rates by ``gamma`` every ``step_size`` steps.

    .. math:: \eta_t = \eta_0 \cdot \gamma^{\lfloor t / \text{step\_size} \rfloor}

    A rate that was changed by something else is multiplied by ``gamma`` at the same steps.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    step_size : int
        The number of steps between two changes, at least 1.
    gamma : float
        The factor of each change, at least 0.
    last_epoch : int
        -1 to start, otherwise the number of the last completed step.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a rate is a function of the step.
    ValueError
        If an argument is out of range.

    See Also
    --------
    fastoptim.schedules.step : The closed form.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> scheduler = fo.lr_scheduler.StepLR(opt, step_size=1, gamma=0.5)
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    _arguments = ("step_size", "gamma")
    _acts_on_resume = True

    def __init__(
        self, optimizer: HasGroups, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _curve(self) -> Curve:
        return schedules.step(1.0, self.step_size, self.gamma)

    def _changes(self, epoch: int) -> int:
        return int(epoch > 0 and epoch % self.step_size == 0)


class MultiStepLR(Decay):
    r"""Multiply the rates by ``gamma`` at each milestone.

    .. math:: \eta_t = \eta_0 \cdot \gamma^n, \qquad n \text{ milestones are} \le t

    A rate that was changed by something else keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    milestones : iterable of int
        The steps of the changes, in ascending order; a repeated milestone counts twice.
    gamma : float
        The factor of each change, at least 0.
    last_epoch : int
        -1 to start, otherwise the number of the last completed step.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a rate is a function of the step.
    ValueError
        If an argument is out of range.

    See Also
    --------
    fastoptim.schedules.multistep : The closed form.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> scheduler = fo.lr_scheduler.MultiStepLR(opt, [1, 3], gamma=0.5)
    >>> for _ in range(3):
    ...     scheduler.step()
    >>> [round(rate, 6) for rate in scheduler.get_last_lr()]
    [0.25]
    """

    _arguments = ("milestones", "gamma")
    _acts_on_resume = True

    def __init__(
        self,
        optimizer: HasGroups,
        milestones: Iterable[float],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = listed("milestones", milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _curve(self) -> Curve:
        return schedules.multistep(1.0, self.milestones, self.gamma)

    def _changes(self, epoch: int) -> int:
        # Milestones between two steps count at the second.
        return sum(epoch - 1 < milestone <= epoch for milestone in self.milestones)

    def _translated(self, state: dict[str, Any]) -> dict[str, Any]:
        # PyTorch stores the milestones as a Counter.
        milestones = state.get("milestones")
        if isinstance(milestones, Counter):
            return {**state, "milestones": sorted(milestones.elements())}
        return state


class ExponentialLR(Decay):
    r"""Multiply the rates by ``gamma`` at every step.

    .. math:: \eta_t = \eta_0 \cdot \gamma^t

    A rate that was changed by something else keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    gamma : float
        The factor, at least 0.
    last_epoch : int
        -1 to start, otherwise the number of the last completed step.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a rate is a function of the step.
    ValueError
        If an argument is out of range.

    See Also
    --------
    fastoptim.schedules.exponential : The closed form.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> scheduler = fo.lr_scheduler.ExponentialLR(opt, gamma=0.5)
    >>> for _ in range(3):
    ...     scheduler.step()
    >>> [round(rate, 6) for rate in scheduler.get_last_lr()]
    [0.125]
    """

    _arguments = ("gamma",)

    def __init__(self, optimizer: HasGroups, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _curve(self) -> Curve:
        return schedules.exponential(1.0, self.gamma)

    def _changes(self, epoch: int) -> int:
        return int(epoch > 0)


class ConstantLR(LRScheduler):
    r"""Multiply the rates by ``factor`` for the first ``total_iters`` steps.

    .. math::
        \eta_t = \eta_0 \cdot \text{factor} \quad \text{for } t < \text{total\_iters}, \qquad
        \eta_t = \eta_0 \quad \text{after}

    A rate that was changed by something else keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    factor : float
        The factor of the first steps, in (0, 1].
    total_iters : int
        The number of steps with the factor, at least 0.
    last_epoch : int
        -1 to start, otherwise the number of the last completed step.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a rate is a function of the step.
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> scheduler = fo.lr_scheduler.ConstantLR(opt, factor=0.5, total_iters=3)
    >>> for _ in range(2):
    ...     scheduler.step()
    >>> [round(rate, 6) for rate in scheduler.get_last_lr()]
    [0.5]
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [1.0]
    """

    _arguments = ("factor", "total_iters")
    _acts_on_resume = True

    def __init__(
        self,
        optimizer: HasGroups,
        factor: float = 1 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _curve(self) -> Curve:
        return Held(self.factor, self.total_iters)


class Held:
    """A factor for a number of steps."""

    def __init__(self, factor: float, total_iters: int) -> None:
        self.factors = between("factor", factor, 0, 1, "(]"), 1.0
        self.end = non_negative("total_iters", total_iters)

    def __call__(self, t: float) -> float:
        """Return the factor at ``t``."""
        return self.factors[t >= self.end]
