"""The one-cycle scheduler."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastoptim import schedules
from fastoptim._checks import integer, non_negative
from fastoptim.lr_scheduler._arguments import for_groups, one_or_listed
from fastoptim.lr_scheduler._base import Curve
from fastoptim.lr_scheduler._cycle import Cycle, Swing
from fastoptim.lr_scheduler._groups import HasGroups, all_or_nothing, check_optimizer
from fastoptim.schedules.cycles import Points, Strategy, phase_at, reached


class OneCycleLR(Cycle):
    r"""Increase the rates to ``max_lr`` and decay them, with momentum in the opposite direction.

    .. math::
        \frac{\text{max\_lr}}{\text{div\_factor}} \to \text{max\_lr}
        \to \frac{\text{max\_lr}}{\text{div\_factor} \cdot \text{final\_div\_factor}}

    It sets the rates regardless of their values. :meth:`step` may be called ``total_steps`` times;
    the last call leaves the final rate unchanged, and one more raises an error without changing
    anything.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    max_lr : float or sequence of float
        The highest rate, at least 0; a sequence has a value for each group.
    total_steps : int, optional
        The number of steps; or ``epochs`` times ``steps_per_epoch``.
    epochs, steps_per_epoch : int, optional
        The number of steps as a product.
    pct_start : float
        The fraction of the steps in which the rate increases, in [0, 1].
    anneal_strategy : {"cos", "linear"}
        The interpolation between the rates.
    cycle_momentum : bool
        Also changes ``momentum``, or the first of ``betas``, in the opposite direction.
    base_momentum, max_momentum : float or sequence of float
        The momentum at the highest and the lowest rate, at least 0; below 1 for ``betas``.
    div_factor : float
        The first rate is ``max_lr / div_factor``; above 0.
    final_div_factor : float
        The last rate is the first over this; above 0.
    three_phase : bool
        Decay to the first rate in as many steps as the increase, then to the last.
    last_epoch : int
        -1 to start, otherwise the number of the last completed step.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a rate is a function of the step.
    ValueError
        If an argument is out of range, or ``step`` is called too often.

    See Also
    --------
    fastoptim.schedules.one_cycle : The closed form.

    References
    ----------
    Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates", 2018.

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
        optimizer: HasGroups,
        max_lr: float | Iterable[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Strategy = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Iterable[float] = 0.85,
        max_momentum: float | Iterable[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("total_steps, or epochs and steps_per_epoch, must be given")
            epochs = integer("epochs", epochs, least=1)
            total_steps = epochs * integer("steps_per_epoch", steps_per_epoch, least=1)
        check_optimizer(optimizer)
        self.optimizer = optimizer
        self.max_lr = one_or_listed("max_lr", max_lr)
        self.total_steps = total_steps
        self.pct_start = pct_start
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        self.base_momentum = one_or_listed("base_momentum", base_momentum)
        self.max_momentum = one_or_listed("max_momentum", max_momentum)
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.three_phase = three_phase
        self.last_epoch = integer("last_epoch", last_epoch, least=-1)
        self._check()
        groups, begin = optimizer.param_groups, super().__init__

        def action() -> None:
            if last_epoch == -1:
                for group, cycle in zip(groups, self._cycles(), strict=True):
                    group["initial_lr"] = cycle._first
            begin(optimizer, last_epoch)

        all_or_nothing(action, groups, [])

    def _check(self) -> None:
        super()._check()
        self._phase(self.last_epoch)

    def _cycle(self, max_lr: float) -> schedules.one_cycle:
        return schedules.one_cycle(
            max_lr,
            self.total_steps,
            self.pct_start,
            self.anneal_strategy,
            self.div_factor,
            self.final_div_factor,
            self.three_phase,
        )

    def _cycles(self) -> list[schedules.one_cycle]:
        groups = self.optimizer.param_groups
        highs = for_groups("max_lr", self.max_lr, groups, non_negative)
        return [self._cycle(high) for high in highs]

    def _shape(self) -> Curve:
        return Phases(self._cycle(1.0)._points(0.0, 1.0, 0.0), self.anneal_strategy)

    def _ends(self) -> list[Points]:
        return [cycle._points(cycle._first, cycle.max_lr, cycle._last) for cycle in self._cycles()]

    def _rates(self, curve: Any, value: Any, base_lrs: list[float]) -> list[float]:
        return [reached(points, *value) for points in curve.ends]

    def _height(self, swing: Swing, value: Any) -> float:
        assert isinstance(swing.shape, Phases)
        height: float = reached(swing.shape.heights, *value)
        return height

    def _phase(self, epoch: int) -> float:
        if epoch > self.total_steps:
            raise ValueError(f"step {epoch} exceeds total_steps={self.total_steps}")
        return epoch


class Phases:
    """The phases of an annealing."""

    def __init__(self, heights: Points, strategy: Strategy) -> None:
        self.heights = heights
        self.steps = [step for step, _ in heights]
        self.strategy = strategy

    def __call__(self, t: float) -> tuple[int, float]:
        """Return the phase at ``t``, and the weight of the value at its start."""
        return phase_at(self.steps, t, self.strategy)
