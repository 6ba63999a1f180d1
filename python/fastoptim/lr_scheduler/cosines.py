"""Schedulers along cosines."""

from __future__ import annotations

import math
from typing import Any

from fastoptim import schedules
from fastoptim.lr_scheduler._base import Curve, LRScheduler
from fastoptim.lr_scheduler._groups import checked_epoch
from fastoptim.schedules._base import non_negative, positive
from fastoptim.schedules.cycles import fall


class CosineAnnealingLR(LRScheduler):
    r"""Take the rates to ``eta_min`` along a cosine in ``T_max`` steps, and back up in as many.

    .. math::
        \eta_t = \eta_\min + \frac{\eta_0 - \eta_\min}{2} \left(1 + \cos \frac{\pi t}{T_\max}\right)

    PyTorch's scheduler follows the cosine on after ``T_max``; `fastoptim.schedules.cosine` holds
    its last value there. A rate that something else has changed keeps its ratio to the cosine,
    measured from ``eta_min``:

    .. math::
        \eta_t = \eta_\min + (\eta_{t-1} - \eta_\min) \,
                 \frac{1 + \cos(\pi t / T_\max)}{1 + \cos(\pi (t - 1) / T_\max)}

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    T_max : float
        The number of steps from the top to the bottom, above 0.
    eta_min : float
        The lowest rate, at least 0.
    last_epoch : int
        -1 to start, else the number of the last step done.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a rate is a function of the step.
    ValueError
        If an argument is out of range.

    See Also
    --------
    fastoptim.schedules.cosine : The closed form.

    References
    ----------
    I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> scheduler = fo.lr_scheduler.CosineAnnealingLR(opt, T_max=2)
    >>> for _ in range(4):
    ...     scheduler.step()
    ...     print(f"{opt.param_groups[0]['lr']:.2f}")
    0.50
    0.00
    0.50
    1.00
    """

    _arguments = ("T_max", "eta_min")

    def __init__(
        self, optimizer: Any, T_max: float, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return schedules.cosine(base_lr, self.T_max, self.eta_min)

    def _phase(self, epoch: int) -> float:
        # Up and down between 0 and T_max, so that the cosine goes on after its end.
        return abs((epoch + self.T_max) % (2 * self.T_max) - self.T_max)

    @property
    def _floor(self) -> float:
        return self.eta_min


class CosineAnnealingWarmRestarts(LRScheduler):
    r"""Take the rates to ``eta_min`` along half a cosine, again and again from the top.

    .. math::
        \eta_t = \eta_\min + \frac{\eta_0 - \eta_\min}{2}
                 \left(1 + \cos \frac{\pi T_\text{cur}}{T_i}\right), \qquad
        T_i = T_0 T_\text{mult}^i

    with :math:`T_\text{cur}` steps since the last restart. It sets the rates, whatever they are.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    T_0 : int
        The number of steps of the first fall, at least 1.
    T_mult : int
        How much longer each fall is than the one before, at least 1.
    eta_min : float
        The lowest rate, at least 0.
    last_epoch : int
        -1 to start, else the number of the last step done.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a rate is a function of the step.
    ValueError
        If an argument is out of range.

    See Also
    --------
    fastoptim.schedules.cosine_restarts : The closed form.

    References
    ----------
    I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> scheduler = fo.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=2)
    >>> for epoch in (0.5, 1, 2):
    ...     scheduler.step(epoch)
    ...     print(f"{opt.param_groups[0]['lr']:.3f}")
    0.854
    0.500
    1.000
    """

    # T_cur is how far the current fall has come, and T_i how long it is.
    _arguments = ("T_0", "T_mult", "eta_min", "T_i", "T_cur")
    _acts_on_resume = True
    _floor = None

    def __init__(
        self,
        optimizer: Any,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        schedules.cosine_restarts(1.0, T_0, T_mult, eta_min)
        checked_epoch("last_epoch", last_epoch, low=-1)
        self.T_0 = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur, self.T_i = self._turn(last_epoch + 1)
        super().__init__(optimizer, last_epoch)

    def _turn(self, epoch: float) -> tuple[float, float]:
        start, length = 0.0, float(self.T_0)
        if self.T_mult == 1:
            return epoch % self.T_0, length
        while start + length <= epoch:
            start, length = start + length, length * self.T_mult
        return epoch - start, length

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return Fall(base_lr, self.eta_min)

    def _phase(self, epoch: int) -> float:
        return (self.T_i - self.T_cur) / self.T_i

    def _given(self) -> Any:
        return self.eta_min

    def _check(self) -> None:
        schedules.cosine_restarts(1.0, self.T_0, self.T_mult, self.eta_min)
        if not 0 <= non_negative("T_cur", self.T_cur) < positive("T_i", self.T_i):
            raise ValueError(f"T_cur must be below T_i, got {self.T_cur} and {self.T_i}")
        super()._check()

    def step(self, epoch: float | None = None) -> None:
        """Move to the next step, or to any, and write the rate of each group.

        Parameters
        ----------
        epoch : float, optional
            The step to move to, at least 0; fractions are fine. One further where None.

        Raises
        ------
        ValueError
            If ``epoch`` is negative, infinite or NaN. Nothing is written then.
        """
        before = self.T_cur, self.T_i
        if epoch is None:
            number = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur, self.T_i = self.T_cur % self.T_i, self.T_i * self.T_mult
        else:
            if not 0 <= epoch < math.inf:
                raise ValueError(f"epoch must be finite and >= 0, got {epoch}")
            number = math.floor(epoch)
            self.T_cur, self.T_i = self._turn(epoch)
        try:
            self._advance(act=True, epoch=number)
        except BaseException:
            self.T_cur, self.T_i = before
            raise

    def _begin(self) -> None:
        self.step(0)


class Fall:
    """A rate by the part of a fall that is left, so that every fall has the same one."""

    def __init__(self, high: float, low: float) -> None:
        checked = schedules.cosine(high, 1.0, low)
        self.ends = checked.base_lr, checked.eta_min

    def __call__(self, left: float) -> float:
        """Give the rate where ``left`` of the way is left."""
        w = fall(left)
        return float(w * self.ends[0] + (1 - w) * self.ends[1])
