"""What all schedulers share: counting steps, writing rates, resuming."""

from __future__ import annotations

import copy
import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeAlias

from fastoptim import _core
from fastoptim._checks import Checks, finite, flag, integer, non_negative
from fastoptim._commit import Call, setting
from fastoptim.errors import CheckpointError
from fastoptim.lr_scheduler._arguments import EPOCH_DEPRECATED, CheckedArguments, listed, plain
from fastoptim.lr_scheduler._groups import (
    HasGroups,
    base_rate,
    check_optimizer,
    check_rates,
    noting_base_rate,
    writing_rate,
    written_rate,
)
from fastoptim.lr_scheduler._states import checked_state, rates_of

# A closed form: what a schedule of `fastoptim.schedules` is, or a function of a user's own.
Curve: TypeAlias = Callable[[float], Any]


def _base_rates(name: str, values: Any) -> list[float]:
    return [non_negative(name, value) for value in listed(name, values)]


class Place(NamedTuple):
    """Where a scheduler is on its curve: kept, because finding it costs as much as a step."""

    # The base rates and arguments behind the curve.
    made_from: tuple[Any, ...]
    curve: Any
    epoch: int
    # The value of the curve there, and the rate of each group.
    value: Any
    rates: list[float]


class LRScheduler(CheckedArguments, ABC):
    """The base of all schedulers: counts the steps and writes the rates.

    A subclass names its own arguments in `_arguments`, keeps each under its name, and gives the
    curve that all groups share as a closed form: what becomes of a rate of 1. It may also say where
    on it an epoch lies, how it makes the groups' rates, and around which rate its recursion scales.

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

    _checks: ClassVar[Checks] = {"last_epoch": partial(integer, least=-1), "base_lrs": _base_rates}

    # Other attributes that are part of the state.
    _position: ClassVar[tuple[str, ...]] = ()
    # Whether construction with `last_epoch` >= 0 already acts on the rates. PyTorch's classes of
    # piecewise constant rates do; the others keep the rate that they find.
    _acts_on_resume: ClassVar[bool] = False
    _made_from: ClassVar[Callable[[Any], Any]]

    def __init_subclass__(cls) -> None:
        """Prepare to read the arguments quickly: every step does it."""
        names = cls._arguments + cls._functions
        if names:
            cls._made_from = staticmethod(operator.attrgetter("base_lrs", *names))

    def __init__(self, optimizer: HasGroups, last_epoch: int = -1) -> None:
        check_optimizer(optimizer)
        self.optimizer = optimizer
        self.last_epoch = last_epoch
        if last_epoch >= 0:
            for i, group in enumerate(optimizer.param_groups):
                if "initial_lr" not in group:
                    raise KeyError(f"last_epoch needs 'initial_lr' in param_groups[{i}]")
        self.base_lrs: list[float] = []
        self._last_lr: list[float] = []
        self._place: Place | None = None
        self._advance(act=last_epoch < 0 or self._acts_on_resume)

    @abstractmethod
    def _curve(self) -> Curve:
        """Give the closed form of all groups, or refuse arguments that can never work."""

    def _phase(self, epoch: int) -> float:
        """Give the step of the closed form at which ``epoch`` lies."""
        return epoch

    def _rates(self, curve: Any, value: Any, base_lrs: list[float]) -> list[float]:
        """Give each group's rate where the curve has a value."""
        return [base_lr * value for base_lr in base_lrs]

    @property
    def _floor(self) -> float:
        """The rate around which the recursion scales."""
        return 0.0

    def _more(self, groups: list[dict[str, Any]], new: Place) -> list[tuple[str, Any]]:
        """Give what is written to each group beside its rate, or nothing."""
        return []

    def _check(self) -> None:
        """Refuse arguments and positions that can never work."""
        self._curve()

    def _begin(self, held: list[Any] | None = None) -> None:
        """Do step 0, as the constructor does: on the rates that it finds, or on others."""
        self._advance(act=True, anew=True, held=held)

    def _restart(self) -> None:
        """Do step 0 from the base rates, whatever the rates are now."""
        self._begin(self._extended(self.optimizer.param_groups))

    def step(self, epoch: int | None = None) -> None:
        """Move to the next step and write the rate of each group.

        It belongs after the optimizer's step.

        Parameters
        ----------
        epoch : int, optional
            The step to move to, at least 0. Deprecated, as in PyTorch: the rates are then those of
            the closed form, whatever they were; `MultiplicativeLR`, which has none, multiplies.

        Raises
        ------
        TypeError
            If ``epoch`` is not an integer, or a rate is a function of the step by now. Nothing is
            written then.
        ValueError
            If a list among the arguments has become invalid, ``epoch`` is negative, or a
            group was taken away. Nothing is written then.
        """
        if epoch is None:
            self._advance(act=True)
        else:
            number = integer("epoch", epoch, least=0)
            warnings.warn(EPOCH_DEPRECATED, UserWarning, stacklevel=2)
            self._advance(act=True, epoch=number, jump=True)

    def get_last_lr(self) -> list[float]:
        """Give the rate of each group as this scheduler last left it."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Give the number of steps, the base rates, the last rates and the arguments."""
        names = ("last_epoch", "base_lrs", "_last_lr", *self._position, *self._arguments)
        return {name: plain(getattr(self, name)) for name in names}

    def load_state_dict(self, state_dict: Mapping[str, Any], set_lr: bool = False) -> None:
        """Take over a state, one of PyTorch's class of the same name included.

        ``CyclicLR`` and ``OneCycleLR`` take their own only: PyTorch's keep half of theirs in the
        optimizer's groups.

        Parameters
        ----------
        state_dict : mapping
            What `state_dict` gave.
        set_lr : bool, default False
            The optimizer's rates stay as they are: they come back with the optimizer's own state,
            before or after this call. With True they are set to the closed form of the step, and
            the momenta too where the scheduler drives them: for an optimizer whose own state is
            not loaded, or a scheduler that was made after it was. `MultiplicativeLR`, which has no
            closed form, sets the last rates.

        Raises
        ------
        TypeError
            If ``set_lr`` is not a bool, or is True and a rate is a function of the step.
            Nothing has changed then.
        CheckpointError
            If the state is not one of this class, does not fit the optimizer's groups or has a
            value that the constructor would refuse. Nothing has changed then.
        """
        flag("set_lr", set_lr)
        _core.call_all(self._loading(state_dict, set_lr))

    def _loading(self, state_dict: Any, set_lr: bool = False) -> list[Call]:
        """Check a state, and give the calls that take it over."""
        state = checked_state(self, state_dict, self.state_dict())
        loaded = copy.copy(self)
        loaded.__dict__.update(state)
        groups = self.optimizer.param_groups
        try:
            loaded.last_epoch = integer("last_epoch", loaded.last_epoch, least=-1)
            loaded.base_lrs = rates_of("base_lrs", loaded.base_lrs, groups, non_negative)
            # Chained by hand, a cosine may take a rate below 0, as in PyTorch.
            loaded._last_lr = rates_of("_last_lr", loaded._last_lr, groups, finite)
            loaded._check()
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the state of a {type(self).__name__}: {error}") from error
        writes: list[Call] = []
        if set_lr:
            writes, loaded._last_lr = loaded._setting_rates()
        return [*writes, (self.__dict__.update, loaded.__dict__)]

    def _set_rates(self, *, last: bool = False) -> None:
        """Write the rates and momenta by the closed form, or the last rates in its place."""
        writes, last_lr = self._setting_rates(last=last)
        _core.call_all([*writes, setting(self, _last_lr=last_lr)])

    def _setting_rates(self, *, last: bool = False) -> tuple[list[Call], list[float]]:
        """Give the calls that do, and the rates after them."""
        groups = self.optimizer.param_groups
        check_rates([group["lr"] for group in groups])
        place = self._find(self.last_epoch, self.base_lrs)
        rates = self._last_lr if last else self._settled(place)
        more = self._more(groups, place)
        writes = list(map(writing_rate, groups, rates))
        for group, (name, item) in zip(groups, more, strict=False):
            writes.append((group.__setitem__, name, item))
        return writes, list(map(written_rate, groups, rates))

    def _settled(self, place: Place) -> list[float]:
        """Give the rate of each group where the scheduler is, whatever it is now."""
        return place.rates

    def _translated(self, state: dict[str, Any]) -> dict[str, Any]:
        """Give a state of PyTorch under our names; one of ours as it is."""
        return state

    def __getstate__(self) -> dict[str, Any]:
        """Give what copies and pickles hold: the place can be found again."""
        return {**self.__dict__, "_place": None}

    def __repr__(self) -> str:
        arguments = [f"{name}={getattr(self, name)!r}" for name in self._arguments]
        return f"{type(self).__name__}({', '.join([*arguments, f'last_epoch={self.last_epoch}'])})"

    def _advance(
        self,
        *,
        act: bool,
        epoch: int | None = None,
        phase: float | None = None,
        anew: bool = False,
        held: list[Any] | None = None,
        jump: bool = False,
        **position: Any,
    ) -> None:
        """Move to an epoch, by default the next: compute every rate, then write all at once.

        ``position`` has what else changes in the scheduler.
        """
        groups = self.optimizer.param_groups
        base_lrs, old = self.base_lrs, self._place
        if len(groups) != len(base_lrs):
            base_lrs, old = self._extended(groups), None
        last_epoch = -1 if anew else self.last_epoch
        if old is None or old.epoch != last_epoch or old.made_from != type(self)._made_from(self):
            old = self._find(last_epoch, base_lrs)
        epoch = last_epoch + 1 if epoch is None else epoch
        value = old.curve(self._phase(epoch) if phase is None else phase)
        on_curve = self._rates(old.curve, value, base_lrs)
        new = Place(old.made_from, old.curve, epoch, value, on_curve)
        rates, more = [], []
        if act:
            held = [group["lr"] for group in groups] if held is None else held
            if held != old.rates:
                check_rates(held)
            rates = self._jump(held, new) if jump else self._next(held, old, new)
            more = self._more(groups, new)
        writes: list[Call] = []
        if base_lrs is not self.base_lrs:
            writes += map(noting_base_rate, groups, base_lrs)
        if act:
            writes += map(writing_rate, groups, rates)
            last_lr = list(map(written_rate, groups, rates))
        else:
            last_lr = [float(group["lr"]) for group in groups]
        for group, (name, item) in zip(groups, more, strict=False):
            writes.append((group.__setitem__, name, item))
        moved = {"base_lrs": base_lrs, "last_epoch": epoch, "_last_lr": last_lr, "_place": new}
        _core.call_all([*writes, setting(self, **moved, **position)])

    def _next(self, held: list[Any], old: Place, new: Place) -> list[float]:
        """Give the rate of each group after what it held: on the curve, if it was there before."""
        if held == old.rates:
            return new.rates
        return [
            now if rate == before else self._off_curve(rate, now - before, old, new)
            for rate, before, now in zip(held, old.rates, new.rates, strict=True)
        ]

    def _jump(self, held: list[Any], new: Place) -> list[float]:
        """Give the rate of each group at a step that is not the next, whatever it held."""
        return new.rates

    def _off_curve(self, held: Any, change: float, old: Place, new: Place) -> float:
        """Give the rate after ``held``, which something else has set.

        The distance to the floor scales as the curve does. Where the curve leaves the floor, the
        rate moves along with the group's own.
        """
        if old.value == 0:
            return float(held) + change
        ratio: float = new.value / old.value
        return self._floor + (float(held) - self._floor) * ratio

    def _extended(self, groups: list[dict[str, Any]]) -> list[float]:
        """Give the base rates with those of groups added since the last step."""
        known = len(self.base_lrs)
        if len(groups) < known:
            raise ValueError(f"the optimizer has {len(groups)} groups, the scheduler knows {known}")
        return self.base_lrs + [base_rate(group, i) for i, group in enumerate(groups) if i >= known]

    def _find(self, epoch: int, base_lrs: list[float]) -> Place:
        """Make the curve, and find where ``epoch`` is on it."""
        curve = self._curve()
        value, rates = 1.0, base_lrs
        if epoch >= 0:
            value = curve(self._phase(epoch))
            rates = self._rates(curve, value, base_lrs)
        # Copies of lists, so that a change inside one is seen.
        _, *given = type(self)._made_from(self)
        made_from = tuple(
            list(part) if isinstance(part, list) else part for part in (base_lrs, *given)
        )
        return Place(made_from, curve, epoch, value, rates)
