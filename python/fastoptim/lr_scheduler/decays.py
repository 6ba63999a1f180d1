"""Schedulers whose rates change by a factor and stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastoptim import schedules
from fastoptim.lr_scheduler._base import Curve, LRScheduler


class StepLR(LRScheduler):
    r"""Multiply the rates by ``gamma`` every ``step_size`` steps.

    .. math:: \eta_t = \eta_0 \cdot \gamma^{\lfloor t / \text{step\_size} \rfloor}

    A rate that something else has changed is multiplied by ``gamma`` at the same steps.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    step_size : int
        The number of steps between two changes, at least 1.
    gamma : float
        The factor of each change, at least 0.
    last_epoch : int
        -1 to start, else the number of the last step done.

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
        self, optimizer: Any, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return schedules.step(base_lr, self.step_size, self.gamma)


class MultiStepLR(LRScheduler):
    r"""Multiply the rates by ``gamma`` at each milestone.

    A rate that something else has changed keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    milestones : sequence of int
        The steps of the changes, in ascending order; one that comes twice counts twice.
    gamma : float
        The factor of each change, at least 0.
    last_epoch : int
        -1 to start, else the number of the last step done.

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

    _arguments = (
        "milestones",
        "gamma",
    )
    _acts_on_resume = True

    def __init__(
        self, optimizer: Any, milestones: Sequence[float], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = milestones
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return schedules.multistep(base_lr, self.milestones, self.gamma)

    @staticmethod
    def _from_state(name: str, value: Any) -> Any:
        # PyTorch keeps the milestones as a Counter.
        return sorted(value.elements()) if isinstance(value, Counter) else value


class ExponentialLR(LRScheduler):
    r"""Multiply the rates by ``gamma`` at every step.

    A rate that something else has changed keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    gamma : float
        The factor, at least 0.
    last_epoch : int
        -1 to start, else the number of the last step done.

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

    def __init__(self, optimizer: Any, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return schedules.exponential(base_lr, self.gamma)


class ConstantLR(LRScheduler):
    r"""Multiply the rates by ``factor`` until ``total_iters`` steps are done.

    A rate that something else has changed keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    factor : float
        The factor of the first steps, in (0, 1].
    total_iters : int
        The number of steps with it, at least 0.
    last_epoch : int
        -1 to start, else the number of the last step done.

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

    _arguments = (
        "factor",
        "total_iters",
    )
    _acts_on_resume = True

    def __init__(
        self, optimizer: Any, factor: float = 1 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return Held(base_lr, self.factor, self.total_iters)


class Held:
    """A factor until a number of steps is done."""

    def __init__(self, base_lr: float, factor: float, total_iters: int) -> None:
        if not isinstance(factor, (int, float)) or not isinstance(total_iters, (int, float)):
            raise TypeError(f"factor and total_iters must be numbers, got {factor}, {total_iters}")
        if not 0 < factor <= 1:
            raise ValueError(f"factor must be in (0, 1], got {factor}")
        if not 0 <= total_iters < float("inf"):
            raise ValueError(f"total_iters must be finite and >= 0, got {total_iters}")
        self.rates = schedules.constant(base_lr * factor).base_lr, float(base_lr)
        self.end = total_iters

    def __call__(self, t: float) -> float:
        """Give the rate at ``t``."""
        return self.rates[t >= self.end]


class LinearLR(LRScheduler):
    r"""Take the rates in a line from one factor to another.

    A rate that something else has changed keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    start_factor : float
        The factor at step 0, in (0, 1].
    end_factor : float
        The factor at the end and after it, in [0, 1].
    total_iters : int
        The number of steps, at least 1.
    last_epoch : int
        -1 to start, else the number of the last step done.

    See Also
    --------
    fastoptim.schedules.linear : The closed form.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> scheduler = fo.lr_scheduler.LinearLR(opt, start_factor=0.5, total_iters=4)
    >>> for _ in range(2):
    ...     scheduler.step()
    >>> [round(rate, 6) for rate in scheduler.get_last_lr()]
    [0.75]
    """

    _arguments = (
        "start_factor",
        "end_factor",
        "total_iters",
    )

    def __init__(
        self,
        optimizer: Any,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return schedules.linear(base_lr, self.start_factor, self.end_factor, self.total_iters)


class PolynomialLR(LRScheduler):
    r"""Take the rates to 0 as a power of what is left.

    A rate that something else has changed keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    total_iters : int
        The number of steps, at least 1.
    power : float
        1 is a line; at least 0.
    last_epoch : int
        -1 to start, else the number of the last step done.

    See Also
    --------
    fastoptim.schedules.polynomial : The closed form.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> scheduler = fo.lr_scheduler.PolynomialLR(opt, total_iters=4, power=2.0)
    >>> for _ in range(2):
    ...     scheduler.step()
    >>> [round(rate, 6) for rate in scheduler.get_last_lr()]
    [0.25]
    """

    _arguments = (
        "total_iters",
        "power",
    )

    def __init__(
        self, optimizer: Any, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return schedules.polynomial(base_lr, self.total_iters, self.power)


class WarmupStableDecayLR(LRScheduler):
    r"""Warm up, stay, and decay.

    A rate that something else has changed keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    warmup_steps : int
        The steps of the rise from 0, at least 0.
    stable_steps : int
        The steps between, at least 0.
    decay_steps : int
        The steps of the decay, at least 0.
    end_factor : float
        The factor after it, in [0, 1].
    decay : {"linear", "cosine", "sqrt"}
        The form of the decay.
    last_epoch : int
        -1 to start, else the number of the last step done.

    See Also
    --------
    fastoptim.schedules.wsd : The closed form.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> scheduler = fo.lr_scheduler.WarmupStableDecayLR(opt, 2, 4, 4)
    >>> for _ in range(8):
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    _arguments = ("warmup_steps", "stable_steps", "decay_steps", "end_factor", "decay")

    def __init__(
        self,
        optimizer: Any,
        warmup_steps: int,
        stable_steps: int,
        decay_steps: int,
        end_factor: float = 0.0,
        decay: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        self.warmup_steps = warmup_steps
        self.stable_steps = stable_steps
        self.decay_steps = decay_steps
        self.end_factor = end_factor
        self.decay = decay
        super().__init__(optimizer, last_epoch)

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return schedules.wsd(
            base_lr,
            self.warmup_steps,
            self.stable_steps,
            self.decay_steps,
            self.end_factor,
            self.decay,
        )
