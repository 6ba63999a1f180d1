"""What all schedulers share: counting steps, writing rates, resuming."""

from __future__ import annotations

import copy
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, ClassVar, TypeAlias

from fastoptim.errors import CheckpointError

# What PyTorch's state dicts hold besides ours; a load passes over it.
_PYTORCH_ONLY = frozenset({"_get_lr_called_within_step", "_is_initial", "_step_count"})


# A closed form: what a schedule of `fastoptim.schedules` is, or a function of a user's own.
Curve: TypeAlias = Callable[[float], float]


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
        """Prepare to read the arguments quickly: a step does it twice."""
        names = cls.__dict__.get("_arguments")
        if names is not None:
            read = operator.attrgetter(*names) if names else _nothing
            cls._read_arguments = staticmethod(read)

    def __init__(self, optimizer: Any, last_epoch: int = -1) -> None:
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(f"optimizer must have param_groups, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.last_epoch = checked_epoch("last_epoch", last_epoch, low=-1)
        if last_epoch >= 0:
            for i, group in enumerate(optimizer.param_groups):
                if "initial_lr" not in group:
                    raise KeyError(f"last_epoch needs 'initial_lr' in param_groups[{i}]")
        self.base_lrs: list[float] = []
        self._last_lr: list[float] = []
        self._memo: tuple[list[object], list[Curve], list[float]] = ([], [], [])
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
        """Give what is written to each group beside its rate."""
        return []

    def _restart(self) -> None:
        """Go back to step 0 and write its rates, whatever the rates are now."""
        self.last_epoch = -1
        self._memo = ([], [], [])
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            write_rate(group, base_lr)
        self._advance(act=True)

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
        arguments = {name: getattr(self, name) for name in self._arguments}
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": list(self.base_lrs),
            "_last_lr": list(self._last_lr),
            **arguments,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state, one of PyTorch's class of the same name included.

        The optimizer's rates stay as they are: they come back with the optimizer's own state,
        before or after this call.

        Raises
        ------
        CheckpointError
            If the state is not one of this class, does not fit the optimizer's groups or has a
            value that the constructor would refuse. The scheduler is unchanged then.
        """
        expected = {"last_epoch", "base_lrs", "_last_lr", *self._arguments}
        given = set(state_dict) - _PYTORCH_ONLY
        if given != expected:
            raise CheckpointError(
                f"the state of a {type(self).__name__} has {sorted(expected)}, got {sorted(given)}"
            )
        loaded = copy.copy(self)
        try:
            loaded.last_epoch = checked_epoch("last_epoch", state_dict["last_epoch"], low=0)
            loaded.base_lrs = checked_rates("base_lrs", state_dict["base_lrs"])
            loaded._last_lr = checked_rates("_last_lr", state_dict["_last_lr"])
            for name in self._arguments:
                setattr(loaded, name, self._from_state(name, state_dict[name]))
            loaded._curves(loaded.base_lrs)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the state of a {type(self).__name__}: {error}") from error
        groups = len(self.optimizer.param_groups)
        if not len(loaded.base_lrs) == len(loaded._last_lr) == groups:
            raise CheckpointError(
                f"the optimizer has {groups} groups, the state has {len(loaded.base_lrs)} base_lrs "
                f"and {len(loaded._last_lr)} _last_lr"
            )
        self.__dict__.update(loaded.__dict__)

    @staticmethod
    def _from_state(name: str, value: Any) -> Any:
        """Give an argument as the constructor takes it."""
        return value

    def __repr__(self) -> str:
        arguments = [f"{name}={getattr(self, name)!r}" for name in self._arguments]
        return f"{type(self).__name__}({', '.join([*arguments, f'last_epoch={self.last_epoch}'])})"

    def _advance(self, *, act: bool, epoch: int | None = None) -> None:
        """Move to an epoch, by default the next: compute every rate, then write them all."""
        groups = self.optimizer.param_groups
        base_lrs = self._bases(groups)
        epoch = self.last_epoch + 1 if epoch is None else epoch
        curves, before = self._curves(base_lrs)
        phase = self._phase(epoch)
        now = [curve(phase) for curve in curves]
        if act:
            rates = [
                self._next(index, epoch, group["lr"], *values)
                for index, (group, *values) in enumerate(zip(groups, before, now, strict=True))
            ]
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
        self._memo = (self._made_from(base_lrs), curves, now)

    def _next(self, index: int, epoch: int, held: Any, before: float, now: float) -> float:
        """Give the rate after ``held`` for a group whose curve goes from ``before`` to ``now``."""
        floor = self._floor
        if floor is None or held == before:
            return now
        # Off the curve: scale the distance to the floor as the curve of unit height does, or where
        # that curve leaves the floor, move along with the group's own.
        unit = self._schedule(floor + 1.0, index)
        height_before = 1.0 if epoch == 0 else unit(self._phase(epoch - 1)) - floor
        if height_before == 0:
            return float(held) + (now - before)
        return floor + (float(held) - floor) * ((unit(self._phase(epoch)) - floor) / height_before)

    def _bases(self, groups: list[dict[str, Any]]) -> list[float]:
        """Give the rate of each group at step 0, of groups added since the last step too."""
        known = len(self.base_lrs)
        if len(groups) == known:
            return self.base_lrs
        if len(groups) < known:
            raise ValueError(f"the optimizer has {len(groups)} groups, the scheduler knows {known}")
        return self.base_lrs + [_base(group, known + i) for i, group in enumerate(groups[known:])]

    def _curves(self, base_lrs: list[float]) -> tuple[list[Curve], list[float]]:
        """Give each group's curve and its value at the last epoch.

        They come from memory unless something has changed: making them costs as much as a step.
        """
        made_from, curves, values = self._memo
        if made_from != self._made_from(base_lrs):
            curves = [self._schedule(base_lr, index) for index, base_lr in enumerate(base_lrs)]
            values = base_lrs
            if self.last_epoch >= 0:
                phase = self._phase(self.last_epoch)
                values = [curve(phase) for curve in curves]
        return curves, values

    def _made_from(self, base_lrs: list[float]) -> list[object]:
        return [self.last_epoch, *base_lrs, self._given()]

    def _given(self) -> Any:
        """Give the values of the arguments."""
        return type(self)._read_arguments(self)


def _base(group: Mapping[str, Any], index: int) -> float:
    """Read the rate at which a group started."""
    if callable(group["lr"]):
        raise TypeError(f"lr of param_groups[{index}] is a function of the step already")
    return float(group.get("initial_lr", group["lr"]))


def _nothing(_scheduler: Any) -> None:
    """Read the arguments of a scheduler without any."""


def of_group(name: str, value: Any, index: int) -> Any:
    """Give the value of an argument for one group: the same for all unless it is a list."""
    if not isinstance(value, (list, tuple)):
        return value
    if index >= len(value):
        raise ValueError(f"{name} has {len(value)} values, the optimizer more groups")
    return value[index]


def write_rate(group: dict[str, Any], rate: float) -> None:
    """Write the rate of a group; a rate kept in a tensor, as PyTorch allows, stays that tensor."""
    if hasattr(group["lr"], "fill_"):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def checked_epoch(name: str, value: Any, *, low: int) -> int:
    try:
        epoch = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if epoch < low:
        raise ValueError(f"{name} must be >= {low}, got {epoch}")
    return epoch


def checked_rates(name: str, values: Any) -> list[float]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, Real) for v in values):
        raise TypeError(f"{name} must be a list of numbers, got {values!r}")
    if not all(0 <= v < math.inf for v in values):
        raise ValueError(f"{name} must be finite and >= 0, got {values!r}")
    return [float(v) for v in values]
