"""The cyclic scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias, get_args

from fastoptim import _core, schedules
from fastoptim._checks import function, integer, non_negative, shown, word
from fastoptim.lr_scheduler._arguments import for_groups, one_or_listed
from fastoptim.lr_scheduler._base import Curve
from fastoptim.lr_scheduler._cycle import Cycle, Swing
from fastoptim.lr_scheduler._groups import HasGroups, all_or_nothing, check_optimizer, writing_rate
from fastoptim.schedules.cycles import Mode

ScaleMode: TypeAlias = Literal["cycle", "iterations"]


class CyclicLR(Cycle):
    r"""Cycle the rates between two values, and the momentum in the opposite direction.

    .. math:: \eta_t = \text{base\_lr} + (\text{max\_lr} - \text{base\_lr})\, h(t)\, s(t)

    where :math:`h` rises from 0 to 1 and falls back, and :math:`s` is the factor of ``mode`` or
    ``scale_fn``. It sets the rates regardless of their values; as in PyTorch, the first one is the
    group's ``"initial_lr"`` if another scheduler has set it. The state does not contain
    ``scale_fn``: construct the scheduler that loads it with the same function.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    base_lr : float or sequence of float
        The lower rate, at least 0; a sequence has a value for each group.
    max_lr : float or sequence of float
        The upper rate, at least 0.
    step_size_up : float
        The number of increasing steps, above 0.
    step_size_down : float, optional
        The number of decreasing steps; ``step_size_up`` if None.
    mode : {"triangular", "triangular2", "exp_range"}
        The amplitude is constant, halved with each cycle, or multiplied by ``gamma`` at each step.
    gamma : float
        The base for ``exp_range``, at least 0.
    scale_fn : function, optional
        Returns the factor of the amplitude; replaces ``mode``.
    scale_mode : {"cycle", "iterations"}
        Whether ``scale_fn`` takes the number of the cycle, counted from 1, or of the step.
    cycle_momentum : bool
        Also changes ``momentum``, or the first of ``betas``, in the opposite direction.
    base_momentum, max_momentum : float or sequence of float
        The momentum at the highest and the lowest rate, at least 0; below 1 for ``betas``.
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
    fastoptim.schedules.cyclic : The closed form.

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.

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
    _functions = ("scale_fn",)

    def __init__(
        self,
        optimizer: HasGroups,
        base_lr: float | Iterable[float],
        max_lr: float | Iterable[float],
        step_size_up: float = 2000,
        step_size_down: float | None = None,
        mode: Mode = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: ScaleMode = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Iterable[float] = 0.8,
        max_momentum: float | Iterable[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(optimizer)
        self.optimizer = optimizer
        self.max_lr = one_or_listed("max_lr", max_lr)
        self.step_size_up = step_size_up
        self.step_size_down = step_size_down
        self.mode = mode
        self.gamma = gamma
        self.scale_fn = scale_fn
        self.scale_mode = scale_mode
        self.cycle_momentum = cycle_momentum
        self.base_momentum = one_or_listed("base_momentum", base_momentum)
        self.max_momentum = one_or_listed("max_momentum", max_momentum)
        self.last_epoch = integer("last_epoch", last_epoch, least=-1)
        self._check()
        groups = optimizer.param_groups
        rates = for_groups("base_lr", one_or_listed("base_lr", base_lr), groups, non_negative)
        begin = super().__init__

        def action() -> None:
            if last_epoch == -1:
                _core.call_all(list(map(writing_rate, groups, rates)))
            begin(optimizer, last_epoch)

        all_or_nothing(action, groups, [])
        self.base_lrs = rates

    def _shape(self) -> Curve:
        word("scale_mode", self.scale_mode, get_args(ScaleMode))
        up, down = self.step_size_up, self.step_size_down
        if self.scale_fn is None:
            return schedules.cyclic(0.0, 1.0, up, down, self.mode, self.gamma)
        # As in PyTorch, the mode may be any string if a function replaces it.
        if not isinstance(self.mode, str):
            raise TypeError(f"mode must be a string, got {shown(self.mode)}")
        height = schedules.cyclic(0.0, 1.0, up, down, gamma=self.gamma)
        return Scaled(height, function("scale_fn", self.scale_fn), self.scale_mode == "cycle")

    def _ends(self) -> list[float]:
        return for_groups("max_lr", self.max_lr, self.optimizer.param_groups, non_negative)

    def _rates(self, curve: Any, value: Any, base_lrs: list[float]) -> list[float]:
        return [low + (high - low) * value for low, high in zip(base_lrs, curve.ends, strict=True)]

    def _height(self, swing: Swing, value: Any) -> float:
        return float(value)


class Scaled:
    """A cycle whose amplitude is scaled by a user's function."""

    def __init__(
        self, height: schedules.cyclic, scale_fn: Callable[[float], float], by_cycle: bool
    ) -> None:
        self.height = height
        self.scale_fn = scale_fn
        down = height.step_size_up if height.step_size_down is None else height.step_size_down
        self.length = height.step_size_up + down if by_cycle else None

    def __call__(self, t: float) -> float:
        """Return the height at ``t``."""
        position = t if self.length is None else math.floor(1 + t / self.length)
        return self.height(t) * self.scale_fn(position)
