"""What the two schedulers share that also drive the momentum."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from fastoptim.lr_scheduler._base import Curve, LRScheduler
from fastoptim.lr_scheduler._groups import checked_epoch, checked_list, of_group
from fastoptim.schedules._base import non_negative


class Cycle(LRScheduler):
    """A scheduler that sets the rates, and the momentum against them."""

    _acts_on_resume = True
    _floor = None

    cycle_momentum: bool
    base_momentum: Any
    max_momentum: Any

    @abstractmethod
    def _height(self) -> Curve:
        """Give the height of the rate, which is 1 where the momentum is at its base."""

    def _each(self, name: str, value: Any) -> Any:
        return checked_list(name, value, self.optimizer.param_groups)

    def _start(self, rates: list[float], last_epoch: int) -> None:
        """Check all that can be wrong, before a group is written."""
        self.last_epoch = checked_epoch("last_epoch", last_epoch, low=-1)
        self.base_lrs = rates
        self._check()

    def _check(self) -> None:
        super()._check()
        if not isinstance(self.cycle_momentum, bool):
            raise TypeError(f"cycle_momentum must be a bool, got {self.cycle_momentum!r}")
        if self.cycle_momentum:
            self._momenta()

    def _momenta(self) -> list[tuple[str, float, float]]:
        """Give for each group what is driven, and between which values."""
        found = []
        for index, group in enumerate(self.optimizer.param_groups):
            driven = "betas" if "betas" in group else "momentum"
            if driven not in group:
                raise ValueError("cycle_momentum needs an optimizer with momentum or betas")
            if callable(group[driven]):
                raise TypeError(f"{driven} of param_groups[{index}] is a function of the step")
            low, high = (
                self._momentum(name, index, driven) for name in ("base_momentum", "max_momentum")
            )
            found.append((driven, low, high))
        return found

    def _momentum(self, name: str, index: int, driven: str) -> float:
        value = non_negative(name, of_group(name, getattr(self, name), index))
        if driven == "betas" and value >= 1:
            raise ValueError(f"{name} must be in [0, 1) for betas, got {value}")
        return value

    def _curves(self, base_lrs: list[float]) -> tuple[list[Curve], list[float]]:
        # Made together with the curves of the rates, and kept as long.
        self._driven = (self._height(), self._momenta()) if self.cycle_momentum else None
        return super()._curves(base_lrs)

    def _more(self, epoch: int) -> list[dict[str, Any]]:
        if self._driven is None:
            return []
        curve, momenta = self._driven
        height = curve(epoch)
        found: list[dict[str, Any]] = []
        for group, (driven, low, high) in zip(self.optimizer.param_groups, momenta, strict=True):
            value = (1 - height) * high + height * low
            found.append({driven: (value, *group["betas"][1:]) if driven == "betas" else value})
        return found
