"""What all schedulers share: counting steps, writing rates, resuming."""

from __future__ import annotations

import copy
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

from fastoptim.errors import CheckpointError
from fastoptim.lr_scheduler._groups import (
    base_rate,
    check_optimizer,
    checked_epoch,
    checked_mapping,
    checked_rates,
    write_rate,
)

# What PyTorch's state dicts hold besides ours; a load passes over it.
PYTORCH_ONLY = frozenset({"_get_lr_called_within_step", "_is_initial", "_step_count"})


# A closed form: what a schedule of `fastoptim.schedules` is, or a function of a user's own.
Curve: TypeAlias = Callable[[float], float]
# The curves of the groups, their values at the last epoch, and what both were made from: making
# them costs as much as a step.
Memo: TypeAlias = tuple[tuple[object, ...], list[Curve], list[float]]
_NO_MEMO: Memo = ((), [], [])


class LRScheduler(ABC):
    """The base of all schedulers: counts the steps and writes the rates.

    A subclass names its own arguments in `_arguments`, keeps each under its name, and gives its
    closed form as a schedule. It may also say where on the schedule an epoch lies, and around which
    rate its recursion scales.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Its groups get the key ``"initial_lr"``, the rate at step 0, unless they have it.
    last_epoch : int
        -1 to start. Otherwise the number of the last step done, as in PyTorch; then each group must
        have its ``"initial_lr"``.

    Raises
    ------
    TypeError
        If the optimizer has no ``param_groups``, a rate is a function of the step, or an argument
        has a wrong type.
    ValueError
        If an argument is out of range.
    KeyError
        If ``last_epoch`` is given and a group has no ``"initial_lr"``.
    """

    # The constructor's own arguments, which are attributes and part of the state.
    _arguments: ClassVar[tuple[str, ...]]
    _read_arguments: ClassVar[Callable[[Any], Any]]
    # Whether construction with `last_epoch` >= 0 already acts on the rates. PyTorch's classes of
    # piecewise constant rates do; the others keep the rate that they find.
    _acts_on_resume: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Prepare to read the arguments quickly: every step does it."""
        names = cls.__dict__.get("_arguments")
        if names is not None:
            read = operator.attrgetter(*names) if names else _nothing
            cls._read_arguments = staticmethod(read)

    def __init__(self, optimizer: Any, last_epoch: int = -1) -> None:
        check_optimizer(optimizer)
        self.optimizer = optimizer
        self.last_epoch = checked_epoch("last_epoch", last_epoch, low=-1)
        if last_epoch >= 0:
            for i, group in enumerate(optimizer.param_groups):
                if "initial_lr" not in group:
                    raise KeyError(f"last_epoch needs 'initial_lr' in param_groups[{i}]")
        self.base_lrs: list[float] = []
        self._last_lr: list[float] = []
        self._memo: Memo = _NO_MEMO
        self._advance(act=last_epoch < 0 or self._acts_on_resume)

    @abstractmethod
    def _schedule(self, base_lr: float, index: int) -> Curve:
        """Give the closed form for group ``index``, which starts at ``base_lr``."""

    def _phase(self, epoch: int) -> float:
        """Give the step of the schedule at which ``epoch`` lies."""
        return epoch

    @property
    def _floor(self) -> float | None:
        """The rate around which the recursion scales, or None where it sets any rate anew."""
        return 0.0

    def _more(self, epoch: int) -> list[dict[str, Any]]:
        """Give what is written to each group beside its rate, or nothing."""
        return []

    def _check(self) -> None:
        """Refuse arguments that can never work."""
        for index, base_lr in enumerate(self.base_lrs):
            self._schedule(base_lr, index)

    def _begin(self) -> None:
        """Do step 0, as the constructor does: on the rates that it finds."""
        self.last_epoch = -1
        self._memo = _NO_MEMO
        self._advance(act=True)

    def _restart(self) -> None:
        """Do step 0 from the base rates, whatever the rates are now."""
        groups = self.optimizer.param_groups
        for group, base_lr in zip(groups, self._bases(groups), strict=True):
            write_rate(group, base_lr)
        self._begin()

    def step(self) -> None:
        """Move to the next step and write the rate of each group.

        It belongs after the optimizer's step.

        Raises
        ------
        ValueError
            If an argument was changed to one that is out of range, or a group was taken away.
            Nothing is written then.
        """
        self._advance(act=True)

    def get_last_lr(self) -> list[float]:
        """Give the rate of each group as this scheduler last left it."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Give the number of steps, the base rates, the last rates and the arguments."""
        arguments = {name: copy.copy(getattr(self, name)) for name in self._arguments}
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": list(self.base_lrs),
            "_last_lr": list(self._last_lr),
            **arguments,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state, one of PyTorch's class of the same name included.

        ``CyclicLR`` and ``OneCycleLR`` take their own only: PyTorch's keep half of theirs in the
        optimizer's groups.

        The optimizer's rates stay as they are: they come back with the optimizer's own state,
        before or after this call.

        Raises
        ------
        CheckpointError
            If the state is not one of this class, does not fit the optimizer's groups or has a
            value that the constructor would refuse. The scheduler is unchanged then.
        """
        expected = {"last_epoch", "base_lrs", "_last_lr", *self._arguments}
        state = self._translated(checked_mapping(self, state_dict))
        if set(state) != expected:
            raise CheckpointError(
                f"the state of a {type(self).__name__} has {sorted(expected)}, got {sorted(state)}"
            )
        loaded = copy.copy(self)
        groups = self.optimizer.param_groups
        try:
            loaded.last_epoch = checked_epoch("last_epoch", state["last_epoch"], low=-1)
            loaded.base_lrs = checked_rates("base_lrs", state["base_lrs"], groups)
            loaded._last_lr = checked_rates("_last_lr", state["_last_lr"], groups)
            for name in self._arguments:
                setattr(loaded, name, copy.copy(state[name]))
            loaded._check()
        except (TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"the state of a {type(self).__name__}: {error}") from error
        self.__dict__.update(loaded.__dict__)

    def _translated(self, state: dict[str, Any]) -> dict[str, Any]:
        """Give a state of PyTorch under our names; one of ours as it is."""
        return {key: value for key, value in state.items() if key not in PYTORCH_ONLY}

    def __repr__(self) -> str:
        arguments = [f"{name}={getattr(self, name)!r}" for name in self._arguments]
        return f"{type(self).__name__}({', '.join([*arguments, f'last_epoch={self.last_epoch}'])})"

    def _advance(self, *, act: bool, epoch: int | None = None) -> None:
        """Move to an epoch, by default the next: compute every rate, then write them all."""
        groups = self.optimizer.param_groups
        base_lrs = self._bases(groups)
        epoch = self.last_epoch + 1 if epoch is None else epoch
        given = self._given()
        made_from, curves, before = self._memo
        if made_from != (self.last_epoch, base_lrs, given):
            curves, before = self._curves(base_lrs)
        phase = self._phase(epoch)
        now = [curve(phase) for curve in curves]
        if act:
            rates = self._rates(epoch, groups, before, now)
            more = self._more(epoch)
            for group, rate in zip(groups, rates, strict=True):
                write_rate(group, rate)
            for group, items in zip(groups, more, strict=False):
                group.update(items)
        if base_lrs is not self.base_lrs:
            for group, base_lr in zip(groups, base_lrs, strict=True):
                group.setdefault("initial_lr", base_lr)
            self.base_lrs = base_lrs
        self.last_epoch = epoch
        self._last_lr = [float(group["lr"]) for group in groups]
        self._memo = ((epoch, base_lrs.copy(), given), curves, now)

    def _rates(
        self, epoch: int, groups: list[dict[str, Any]], before: list[float], now: list[float]
    ) -> list[float]:
        """Give the rate of each group, whose curve goes from ``before`` to ``now``."""
        floor = self._floor
        if floor is None:
            return now
        return [
            new
            if group["lr"] == old
            else self._off_curve(index, epoch, floor, group["lr"], new - old)
            for index, (group, old, new) in enumerate(zip(groups, before, now, strict=True))
        ]

    def _off_curve(self, index: int, epoch: int, floor: float, held: Any, change: float) -> float:
        """Give the rate after ``held``, which something else has set.

        The distance to the floor scales as that of the curve of unit height does. Where that curve
        leaves the floor, the rate moves along with the group's own.
        """
        unit = self._schedule(floor + 1.0, index)
        height_before = 1.0 if epoch == 0 else unit(self._phase(epoch - 1)) - floor
        if height_before == 0:
            return float(held) + change
        return floor + (float(held) - floor) * ((unit(self._phase(epoch)) - floor) / height_before)

    def _bases(self, groups: list[dict[str, Any]]) -> list[float]:
        """Give the rate of each group at step 0, of groups added since the last step too."""
        known = len(self.base_lrs)
        if len(groups) == known:
            return self.base_lrs
        if len(groups) < known:
            raise ValueError(f"the optimizer has {len(groups)} groups, the scheduler knows {known}")
        return self.base_lrs + [
            base_rate(group, known + i) for i, group in enumerate(groups[known:])
        ]

    def _curves(self, base_lrs: list[float]) -> tuple[list[Curve], list[float]]:
        """Make each group's curve, and its value at the last epoch."""
        curves = [self._schedule(base_lr, index) for index, base_lr in enumerate(base_lrs)]
        if self.last_epoch < 0:
            return curves, base_lrs
        phase = self._phase(self.last_epoch)
        return curves, [curve(phase) for curve in curves]

    def _given(self) -> Any:
        """Give the values of the arguments."""
        return type(self)._read_arguments(self)


def _nothing(_scheduler: Any) -> None:
    """Read the arguments of a scheduler without any."""
