"""Linear, polynomial and warm-up schedulers."""

from __future__ import annotations

from fastoptim import schedules
from fastoptim._checks import positive
from fastoptim.lr_scheduler._base import Curve, LRScheduler
from fastoptim.lr_scheduler._groups import HasGroups
from fastoptim.schedules.combinations import Decay


class LinearLR(LRScheduler):
    r"""Change the rates linearly from one factor to another.

    .. math:: \eta_t = \eta_0 \left(a + (b - a) \frac{\min(t, T)}{T}\right)

    A rate that was changed by something else keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    start_factor : float
        :math:`a`, the factor at step 0, in (0, 1].
    end_factor : float
        :math:`b`, the factor at the end and after it, in [0, 1].
    total_iters : int
        :math:`T`, the number of steps, at least 1.
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

    _arguments = ("start_factor", "end_factor", "total_iters")

    def __init__(
        self,
        optimizer: HasGroups,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _curve(self) -> Curve:
        # A rate cannot scale from 0.
        positive("start_factor", self.start_factor)
        return schedules.linear(1.0, self.start_factor, self.end_factor, self.total_iters)


class PolynomialLR(LRScheduler):
    r"""Decay the rates to 0 as a power of the remaining fraction.

    .. math:: \eta_t = \eta_0 \left(1 - \frac{\min(t, T)}{T}\right)^\text{power}

    A rate that was changed by something else keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    total_iters : int
        :math:`T`, the number of steps, at least 1.
    power : float
        The exponent, at least 0; 1 is linear.
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

    _arguments = ("total_iters", "power")

    def __init__(
        self, optimizer: HasGroups, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def _curve(self) -> Curve:
        return schedules.polynomial(1.0, self.total_iters, self.power)


class WarmupStableDecayLR(LRScheduler):
    r"""Warm up, stay constant, and decay; the total length need not be known at the start.

    .. math:: \eta_t = \eta_0 \cdot \begin{cases}
        t / \text{warmup\_steps} & \text{first} \\
        1 & \text{then} \\
        e + (1 - e)\, d(x) & \text{at the fraction } x \text{ of the decay, then } e
        \end{cases}

    A rate that was changed by something else keeps its ratio to the curve.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    warmup_steps : int
        The number of warm-up steps, at least 0.
    stable_steps : int
        The number of steps between warm-up and decay, at least 0.
    decay_steps : int
        The number of decay steps, at least 0.
    end_factor : float
        :math:`e`, the factor after the decay, in [0, 1].
    decay : {"linear", "cosine", "sqrt"}
        :math:`d(x)` is :math:`1 - x`, half a cosine, or :math:`1 - \sqrt x`.
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
    fastoptim.schedules.wsd : The closed form.

    References
    ----------
    Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models", 2024.

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
        optimizer: HasGroups,
        warmup_steps: int,
        stable_steps: int,
        decay_steps: int,
        end_factor: float = 0.0,
        decay: Decay = "linear",
        last_epoch: int = -1,
    ) -> None:
        self.warmup_steps = warmup_steps
        self.stable_steps = stable_steps
        self.decay_steps = decay_steps
        self.end_factor = end_factor
        self.decay = decay
        super().__init__(optimizer, last_epoch)

    def _curve(self) -> Curve:
        return schedules.wsd(
            1.0,
            self.warmup_steps,
            self.stable_steps,
            self.decay_steps,
            self.end_factor,
            self.decay,
        )
