"""Schedulers along cosines and cycles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastoptim import schedules
from fastoptim.lr_scheduler._base import Curve, LRScheduler, of_group
from fastoptim.schedules.cycles import anneal, fall


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

    It sets the rates, whatever they are.

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

    def _made_from(self, base_lrs: list[float]) -> list[object]:
        return [self.last_epoch, *base_lrs, self.eta_min]

    def step(self, epoch: float | None = None) -> None:
        """Move to the next step, or to any, and write the rate of each group.

        Parameters
        ----------
        epoch : float, optional
            The step to move to, at least 0; fractions are fine. One further where None.
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

    def _restart(self) -> None:
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


class _Cycle(LRScheduler):
    """What the two schedulers share that also drive the momentum."""

    _acts_on_resume = True
    _floor = None

    cycle_momentum: bool
    base_momentum: Any
    max_momentum: Any

    def _begin(self, last_epoch: int, first_rates: Callable[[int], float]) -> None:
        """Check all that can be wrong, then give the groups their first rates."""
        groups = getattr(self.optimizer, "param_groups", [])
        rates = [first_rates(index) for index in range(len(groups))]
        for index, rate in enumerate(rates):
            self._schedule(rate, index)
        if self.cycle_momentum:
            self._more(max(last_epoch, 0))
        if last_epoch == -1:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = group["initial_lr"] = rate

    def _momentum(self, low: float, high: float, epoch: int) -> float:
        raise NotImplementedError

    def _curve_of(self, make: Callable[[], Any]) -> Any:
        """Keep the curve behind the momentum as long as the arguments stay the same."""
        made_from = self._given()
        known = self.__dict__.get("_momentum_curve")
        if known is None or known[0] != made_from:
            known = self._momentum_curve = (made_from, make())
        return known[1]

    def _more(self, epoch: int) -> list[dict[str, Any]]:
        if not self.cycle_momentum:
            return []
        found: list[dict[str, Any]] = []
        values: dict[tuple[float, float], float] = {}
        for index, group in enumerate(self.optimizer.param_groups):
            low = float(of_group("base_momentum", self.base_momentum, index))
            high = float(of_group("max_momentum", self.max_momentum, index))
            for name, end in (("base_momentum", low), ("max_momentum", high)):
                if not 0 <= end < 1:
                    raise ValueError(f"{name} must be in [0, 1), got {end}")
            if (low, high) not in values:
                values[low, high] = self._momentum(low, high, epoch)
            value = values[low, high]
            if "betas" in group:
                found.append({"betas": (value, *group["betas"][1:])})
            elif "momentum" in group:
                found.append({"momentum": value})
            else:
                raise ValueError("cycle_momentum needs an optimizer with momentum or betas")
        return found


class CyclicLR(_Cycle):
    r"""Take the rates up and down between two values, and the momentum down and up.

    It sets the rates, whatever they are. The state has no function: give the same one to the
    scheduler that loads it.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    base_lr : float or list of float
        The lower rate, at least 0; a list has one for each group.
    max_lr : float or list of float
        The upper rate, at least 0.
    step_size_up : float
        The number of steps of a rise, above 0.
    step_size_down : float, optional
        The number of steps of a fall; as of a rise where None.
    mode : {"triangular", "triangular2", "exp_range"}
        Keeps the height, halves it with each cycle, or multiplies it by ``gamma`` at each step.
    gamma : float
        For ``exp_range``, at least 0.
    scale_fn : function, optional
        Gives the factor of the height in place of ``mode``.
    scale_mode : {"cycle", "iterations"}
        Whether ``scale_fn`` takes the number of the cycle, from 1, or of the step.
    cycle_momentum : bool
        Also drives ``momentum``, or the first of ``betas``, against the rate.
    base_momentum, max_momentum : float or list of float
        Where the momentum is when the rate is high and low, in [0, 1).
    last_epoch : int
        -1 to start, else the number of the last step done.

    See Also
    --------
    fastoptim.schedules.cyclic : The closed form.

    References
    ----------
    L. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), momentum=0.9)
    >>> scheduler = fo.lr_scheduler.CyclicLR(opt, 0.5, 1.0, step_size_up=2)
    >>> for _ in range(2):
    ...     scheduler.step()
    >>> opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]
    (1.0, 0.8)
    """

    _arguments = (
        "max_lr",
        "step_size_up",
        "step_size_down",
        "mode",
        "gamma",
        "scale_mode",
        "cycle_momentum",
        "base_momentum",
        "max_momentum",
    )

    def __init__(
        self,
        optimizer: Any,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: float = 2000,
        step_size_down: float | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = optimizer
        self.max_lr = max_lr
        self.step_size_up = step_size_up
        self.step_size_down = step_size_down
        self.mode = mode
        self.gamma = gamma
        self.scale_fn = scale_fn
        self.scale_mode = scale_mode
        self.cycle_momentum = cycle_momentum
        self.base_momentum = base_momentum
        self.max_momentum = max_momentum
        if scale_mode not in ("cycle", "iterations"):
            raise ValueError(f"scale_mode must be one of cycle, iterations; got {scale_mode!r}")
        self._begin(last_epoch, lambda index: float(of_group("base_lr", base_lr, index)))
        super().__init__(optimizer, last_epoch)

    def _between(self, low: float, high: float) -> Curve:
        up, down = self.step_size_up, self.step_size_down
        if self.scale_fn is None:
            return schedules.cyclic(low, high, up, down, self.mode, self.gamma)
        return Cycled(schedules.cyclic(0.0, 1.0, up, down), low, high, self)

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return self._between(base_lr, of_group("max_lr", self.max_lr, index))

    def _momentum(self, low: float, high: float, epoch: int) -> float:
        # As the rate between 0 and the difference, turned over.
        height: float = self._curve_of(lambda: self._between(0.0, 1.0))(epoch)
        return high - height * (high - low)


class Cycled:
    """A cycle whose height a function of a user's own scales."""

    def __init__(
        self, height: schedules.cyclic, low: float, high: float, scheduler: CyclicLR
    ) -> None:
        self.height = height
        self.ends = low, high
        self.scheduler = scheduler

    def __call__(self, t: float) -> float:
        """Give the rate at ``t``."""
        low, high = self.ends
        up, down = self.height.step_size_up, self.height.step_size_down
        length = up + (up if down is None else down)
        position = math.floor(1 + t / length) if self.scheduler.scale_mode == "cycle" else t
        assert self.scheduler.scale_fn is not None
        return low + (high - low) * self.height(t) * self.scheduler.scale_fn(position)


class OneCycleLR(_Cycle):
    r"""Take the rates up to ``max_lr`` and far down once, and the momentum against them.

    It sets the rates, whatever they are. ``total_steps`` calls of :meth:`step` work; the last
    holds the final rate, and one more is an error that changes nothing.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    max_lr : float or list of float
        The highest rate, at least 0; a list has one for each group.
    total_steps : int, optional
        The number of steps; or ``epochs`` times ``steps_per_epoch``.
    epochs, steps_per_epoch : int, optional
        The number of steps as a product.
    pct_start : float
        The part of the steps that rises, in [0, 1].
    anneal_strategy : {"cos", "linear"}
        The form of rise and fall.
    cycle_momentum : bool
        Also drives ``momentum``, or the first of ``betas``, against the rate.
    base_momentum, max_momentum : float or list of float
        Where the momentum is when the rate is high and low, in [0, 1).
    div_factor : float
        The first rate is ``max_lr / div_factor``; above 0.
    final_div_factor : float
        The last rate is the first over this; above 0.
    three_phase : bool
        Fall to the first rate in as many steps as the rise, then on to the last.
    last_epoch : int
        -1 to start, else the number of the last step done.

    Raises
    ------
    ValueError
        An argument is out of range, or ``step`` is called once too often.

    See Also
    --------
    fastoptim.schedules.one_cycle : The closed form.

    References
    ----------
    L. Smith and N. Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates", 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), momentum=0.9)
    >>> scheduler = fo.lr_scheduler.OneCycleLR(opt, max_lr=1.0, total_steps=10)
    >>> for _ in range(2):
    ...     scheduler.step()
    >>> opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]
    (1.0, 0.85)
    """

    _arguments = (
        "max_lr",
        "total_steps",
        "pct_start",
        "anneal_strategy",
        "cycle_momentum",
        "base_momentum",
        "max_momentum",
        "div_factor",
        "final_div_factor",
        "three_phase",
    )

    def __init__(
        self,
        optimizer: Any,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("total_steps, or epochs and steps_per_epoch, must be given")
            total_steps = epochs * steps_per_epoch
        self.optimizer = optimizer
        self.max_lr = max_lr
        self.total_steps = total_steps
        self.pct_start = pct_start
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        self.base_momentum = base_momentum
        self.max_momentum = max_momentum
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.three_phase = three_phase
        # Its checks come first: a division by 0 among them.
        self._schedule(0.0, 0)
        self._begin(last_epoch, lambda index: float(of_group("max_lr", max_lr, index)) / div_factor)
        super().__init__(optimizer, last_epoch)

    def _schedule(self, base_lr: float, index: int) -> schedules.one_cycle:
        return schedules.one_cycle(
            of_group("max_lr", self.max_lr, index),
            self.total_steps,
            self.pct_start,
            self.anneal_strategy,
            self.div_factor,
            self.final_div_factor,
            self.three_phase,
        )

    def _momentum(self, low: float, high: float, epoch: int) -> float:
        rates = self._curve_of(lambda: self._schedule(0.0, 0))
        return float(anneal(rates.points(high, low, high), epoch, self.anneal_strategy))

    def _advance(self, *, act: bool, epoch: int | None = None) -> None:
        number = self.last_epoch + 1 if epoch is None else epoch
        if number > self.total_steps:
            raise ValueError(f"step {number} of {self.total_steps}: total_steps are done")
        super()._advance(act=act, epoch=epoch)
