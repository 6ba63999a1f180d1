"""Cosine schedulers."""

from __future__ import annotations

import math
from typing import Any

from fastoptim import schedules
from fastoptim._checks import integer, non_negative, positive
from fastoptim.lr_scheduler._base import Curve, LRScheduler, Place
from fastoptim.lr_scheduler._groups import HasGroups
from fastoptim.schedules.cycles import fall


class Cosine(LRScheduler):
    """A scheduler between the base rates and ``eta_min``; the curve is the weight of the first."""

    eta_min: float

    def _rates(self, curve: Any, value: Any, base_lrs: list[float]) -> list[float]:
        low = (1 - value) * self.eta_min
        return [value * base_lr + low for base_lr in base_lrs]

    @property
    def _floor(self) -> float:
        return self.eta_min


class CosineAnnealingLR(Cosine):
    r"""Change the rates along a cosine, to ``eta_min`` in ``T_max`` steps and back in as many.

    .. math::
        \eta_t = \eta_\min + \frac{\eta_0 - \eta_\min}{2} \left(1 + \cos \frac{\pi t}{T_\max}\right)

    As in PyTorch, the cosine continues after ``T_max``; `fastoptim.schedules.cosine` stays constant
    there. A rate that was changed by something else keeps its ratio to the cosine, measured from
    ``eta_min``:

    .. math::
        \eta_t = \eta_\min + (\eta_{t-1} - \eta_\min) \,
                 \frac{1 + \cos(\pi t / T_\max)}{1 + \cos(\pi (t - 1) / T_\max)}

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    T_max : float
        The number of steps from the highest to the lowest rate, above 0.
    eta_min : float
        The lowest rate, at least 0.
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
    fastoptim.schedules.cosine : The closed form.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.

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
        self, optimizer: HasGroups, T_max: float, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def _curve(self) -> Curve:
        schedules.cosine(1.0, self.T_max, self.eta_min)
        return schedules.cosine(1.0, self.T_max)

    def _phase(self, epoch: int) -> float:
        # Reflected between 0 and T_max, so that the cosine continues after its end.
        return abs((epoch + self.T_max) % (2 * self.T_max) - self.T_max)


class CosineAnnealingWarmRestarts(Cosine):
    r"""Decay the rates to ``eta_min`` along half a cosine, with warm restarts.

    .. math::
        \eta_t = \eta_\min + \frac{\eta_0 - \eta_\min}{2}
                 \left(1 + \cos \frac{\pi T_\text{cur}}{T_i}\right), \qquad
        T_i = T_0 T_\text{mult}^i

    with :math:`T_\text{cur}` steps since the last restart. It sets the rates regardless of their
    values.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    T_0 : int
        The length of the first period, at least 1.
    T_mult : int
        The factor from the length of one period to the next, at least 1.
    eta_min : float
        The lowest rate, at least 0.
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
    fastoptim.schedules.cosine_restarts : The closed form.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.

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

    _arguments = ("T_0", "T_mult", "eta_min")
    # The position in the current period, and its length.
    _position = ("T_cur", "T_i")
    _acts_on_resume = True

    def __init__(
        self,
        optimizer: HasGroups,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.T_0 = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        first = integer("last_epoch", last_epoch, least=-1) + 1
        self.T_cur, self.T_i = map(float, self._restarts()._turn(float(first)))
        super().__init__(optimizer, last_epoch)

    def _restarts(self) -> schedules.cosine_restarts:
        return schedules.cosine_restarts(1.0, self.T_0, self.T_mult, self.eta_min)

    def _curve(self) -> Curve:
        self._restarts()
        return fall

    def _phase(self, epoch: int) -> float:
        return (self.T_i - self.T_cur) / self.T_i

    def _next(self, held: list[Any], old: Place, new: Place) -> list[float]:
        return new.rates  # Regardless of the last rate.

    def _check(self) -> None:
        super()._check()
        if not non_negative("T_cur", self.T_cur) < positive("T_i", self.T_i):
            raise ValueError(f"T_cur must be below T_i, got {self.T_cur} and {self.T_i}")

    def step(self, epoch: float | None = None) -> None:
        """Move to the next step, or to any, and write the rate of each group.

        Parameters
        ----------
        epoch : float, optional
            The step to move to, at least 0; may be fractional. The next step if None.

        Raises
        ------
        TypeError
            If ``epoch`` is not a number. Nothing is written then.
        ValueError
            If ``epoch`` is negative, infinite or NaN. Nothing is written then.
        """
        if epoch is None:
            number, done, length = self.last_epoch + 1, self.T_cur + 1, self.T_i
            if done >= length:
                done, length = done % length, length * self.T_mult
        else:
            number = math.floor(non_negative("epoch", epoch))
            done, length = map(float, self._restarts()._turn(float(epoch)))
        self._advance(
            act=True, epoch=number, phase=(length - done) / length, T_cur=done, T_i=length
        )

    def _begin(self, held: list[Any] | None = None) -> None:
        self.step(0)  # Regardless of the rates.
