"""The base class of the two schedulers that also control the momentum."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastoptim._checks import flag, non_negative
from fastoptim.lr_scheduler._arguments import for_groups
from fastoptim.lr_scheduler._base import Curve, LRScheduler, Place
from fastoptim.lr_scheduler._groups import refuse_function


class Momentum(NamedTuple):
    """The momentum hyperparameter of a group, and its range."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Swing:
    """The shape that all groups share, and the range of the rate and momentum of each."""

    shape: Curve
    ends: list[Any]
    momenta: list[Momentum]

    def __call__(self, t: float) -> Any:
        """Return the value of the shape at ``t``."""
        return self.shape(t)


class Cycle(LRScheduler):
    """A scheduler that sets the rates, and the momentum in the opposite direction."""

    _acts_on_resume = True

    cycle_momentum: bool
    base_momentum: Any
    max_momentum: Any

    @abstractmethod
    def _shape(self) -> Curve:
        """Return the shape that all groups share."""

    @abstractmethod
    def _ends(self) -> list[Any]:
        """Return the range of the rate of each group."""

    @abstractmethod
    def _height(self, swing: Swing, value: Any) -> float:
        """Return the relative height of the rate; at 1 the momentum has its base value."""

    def _curve(self) -> Swing:
        return Swing(self._shape(), self._ends(), self._momenta())

    def _momenta(self) -> list[Momentum]:
        if not flag("cycle_momentum", self.cycle_momentum):
            return []
        groups = self.optimizer.param_groups
        names = [_driven(index, group) for index, group in enumerate(groups)]
        lows, highs = (
            for_groups(end, getattr(self, end), groups, non_negative)
            for end in ("base_momentum", "max_momentum")
        )
        for name, low, high in zip(names, lows, highs, strict=True):
            if name == "betas" and max(low, high) >= 1:
                end = "base_momentum" if low >= 1 else "max_momentum"
                raise ValueError(f"{end} must be in [0, 1) for betas, got {max(low, high)}")
        return [Momentum(*each) for each in zip(names, lows, highs, strict=True)]

    def _next(self, held: list[Any], old: Place, new: Place) -> list[float]:
        return new.rates  # Regardless of the last rate.

    def _more(self, groups: list[dict[str, Any]], new: Place) -> list[tuple[str, Any]]:
        swing: Swing = new.curve
        if not swing.momenta:
            return []
        height = self._height(swing, new.value)
        found: list[tuple[str, Any]] = []
        for group, (name, low, high) in zip(groups, swing.momenta, strict=True):
            value = (1 - height) * high + height * low
            found.append((name, (value, *group[name][1:]) if name == "betas" else value))
        return found


def _driven(index: int, group: dict[str, Any]) -> str:
    name = "betas" if "betas" in group else "momentum"
    if name not in group:
        raise ValueError("cycle_momentum=True requires an optimizer with momentum or betas")
    refuse_function(name, group[name], index)
    return name
