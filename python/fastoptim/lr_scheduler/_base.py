"""The base class of the schedulers: counting steps, writing rates, resuming."""

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

# A closed form: a schedule of `fastoptim.schedules`, or a user's function.
Curve: TypeAlias = Callable[[float], Any]


def _base_rates(name: str, values: Any) -> list[float]:
    return [non_negative(name, value) for value in listed(name, values)]


class Place(NamedTuple):
    """The position on the curve, cached because its computation takes as long as a step."""

    # The base rates and arguments that determine the curve.
    made_from: tuple[Any, ...]
    curve: Any
    epoch: int
    # The value of the curve at the position, and the rate of each group.
    value: Any
    rates: list[float]


class LRScheduler(CheckedArguments, ABC):
    """The base class of the schedulers: counts steps and writes rates.

    A subclass names its arguments in `_arguments`, stores them as attributes, and returns the curve
    that all groups share as a closed form, for a base rate of 1. It may also define the position of
    an epoch on the curve, the rates of the groups, and the rate around which its recursion scales.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Its groups receive the key ``"initial_lr"``, the rate at step 0, unless they have it.
    last_epoch : int
        -1 to start. Otherwise the number of the last completed step, as in PyTorch; then each group
        must have ``"initial_lr"``.

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
    # Whether construction with `last_epoch` >= 0 changes the rates. In PyTorch, classes with
    # piecewise constant rates do; the others leave the rates unchanged.
    _acts_on_resume: ClassVar[bool] = False
    _made_from: ClassVar[Callable[[Any], Any]]

    def __init_subclass__(cls) -> None:
        """Prepare a fast reader of the arguments, since every step reads them."""
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
        """Return the closed form for all groups; refuse invalid arguments."""

    def _phase(self, epoch: int) -> float:
        """Return the step of the closed form for ``epoch``."""
        return epoch

    def _rates(self, curve: Any, value: Any, base_lrs: list[float]) -> list[float]:
        """Return the rate of each group for a value of the curve."""
        return [base_lr * value for base_lr in base_lrs]

    @property
    def _floor(self) -> float:
        """The rate around which the recursion scales."""
        return 0.0

    def _more(self, groups: list[dict[str, Any]], new: Place) -> list[tuple[str, Any]]:
        """Return the values to write to each group in addition to its rate."""
        return []

    def _check(self) -> None:
        """Refuse arguments and positions that can never work."""
        self._curve()

    def _begin(self, held: list[Any] | None = None) -> None:
        """Do step 0, as the constructor does, with the current rates or with others."""
        self._advance(act=True, anew=True, held=held)

    def _restart(self) -> None:
        """Do step 0 with the base rates instead of the current rates."""
        self._begin(self._extended(self.optimizer.param_groups))

    def step(self, epoch: int | None = None) -> None:
        """Move to the next step and write the rate of each group.

        Call it after the step of the optimizer.

        Parameters
        ----------
        epoch : int, optional
            The step to move to, at least 0. Deprecated, as in PyTorch: sets the rates to the closed
            form; `MultiplicativeLR`, which has no closed form, multiplies.

        Raises
        ------
        TypeError
            If ``epoch`` is not an integer, or a rate has become a function of the step. Nothing is
            written then.
        ValueError
            If a list among the arguments has become invalid, ``epoch`` is negative, or a group was
            removed. Nothing is written then.
        """
        if epoch is None:
            self._advance(act=True)
        else:
            number = integer("epoch", epoch, least=0)
            warnings.warn(EPOCH_DEPRECATED, UserWarning, stacklevel=2)
            self._advance(act=True, epoch=number, jump=True)

    def get_last_lr(self) -> list[float]:
        """Return the rate that this scheduler last set for each group."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps, the base rates, the last rates and the arguments."""
        names = ("last_epoch", "base_lrs", "_last_lr", *self._position, *self._arguments)
        return {name: plain(getattr(self, name)) for name in names}

    def load_state_dict(self, state_dict: Mapping[str, Any], set_lr: bool = False) -> None:
        """Load a state of this class, or of PyTorch's class of the same name.

        ``CyclicLR`` and ``OneCycleLR`` accept only their own state, because PyTorch stores a part
        of theirs in the groups of the optimizer.

        Parameters
        ----------
        state_dict : mapping
            A state that `state_dict` returned.
        set_lr : bool, default False
            If False, the rates of the optimizer do not change: they are part of the state of the
            optimizer, which may be loaded before or after this call. If True, they are set to the
            closed form of the step, and so is the momentum if the scheduler controls it: for an
            optimizer whose state is not loaded, or a scheduler that was constructed after that.
            `MultiplicativeLR`, which has no closed form, sets the last rates.

        Raises
        ------
        TypeError
            If ``set_lr`` is not a bool, or is True and a rate is a function of the step.
            Nothing has changed then.
        CheckpointError
            If the state is not one of this class, does not match the groups of the optimizer, or
            has a value that the constructor would refuse. Nothing has changed then.
        """
        flag("set_lr", set_lr)
        _core.call_all(self._loading(state_dict, set_lr))

    def _loading(self, state_dict: Any, set_lr: bool = False) -> list[Call]:
        """Check a state, and return the calls that load it."""
        state = checked_state(self, state_dict, self.state_dict())
        loaded = copy.copy(self)
        loaded.__dict__.update(state)
        groups = self.optimizer.param_groups
        try:
            loaded.last_epoch = integer("last_epoch", loaded.last_epoch, least=-1)
            loaded.base_lrs = rates_of("base_lrs", loaded.base_lrs, groups, non_negative)
            # A cosine chained by hand may reduce a rate below 0, as in PyTorch.
            loaded._last_lr = rates_of("_last_lr", loaded._last_lr, groups, finite)
            loaded._check()
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the state of a {type(self).__name__}: {error}") from error
        writes: list[Call] = []
        if set_lr:
            writes, loaded._last_lr = loaded._setting_rates()
        return [*writes, (self.__dict__.update, loaded.__dict__)]

    def _set_rates(self, *, last: bool = False) -> None:
        """Set the rates and momenta to the closed form, or the rates to the last ones."""
        writes, last_lr = self._setting_rates(last=last)
        _core.call_all([*writes, setting(self, _last_lr=last_lr)])

    def _setting_rates(self, *, last: bool = False) -> tuple[list[Call], list[float]]:
        """Return the calls that set the rates and momenta, and the rates after them."""
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
        """Return the rate of each group at this position, regardless of the current rate."""
        return place.rates

    def _translated(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state of PyTorch with the names of this package, and other states unchanged."""
        return state

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes to copy and pickle, without the cached position."""
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
        """Move to an epoch, by default the next: compute all rates, then write them at once.

        ``position`` has the other attributes of the scheduler that change.
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
        """Return the next rate of each group: on the curve, if the last rate was on it."""
        if held == old.rates:
            return new.rates
        return [
            now if rate == before else self._off_curve(rate, now - before, old, new)
            for rate, before, now in zip(held, old.rates, new.rates, strict=True)
        ]

    def _jump(self, held: list[Any], new: Place) -> list[float]:
        """Return the rate of each group at any step, regardless of its last rate."""
        return new.rates

    def _off_curve(self, held: Any, change: float, old: Place, new: Place) -> float:
        """Return the rate after ``held``, which was not set by this scheduler.

        The distance to the floor scales with the curve. If the curve leaves the floor, the rate
        changes by the same amount as the rate on the curve.
        """
        if old.value == 0:
            return float(held) + change
        ratio: float = new.value / old.value
        return self._floor + (float(held) - self._floor) * ratio

    def _extended(self, groups: list[dict[str, Any]]) -> list[float]:
        """Return the base rates, including those of groups added since the last step."""
        known = len(self.base_lrs)
        if len(groups) < known:
            raise ValueError(f"the optimizer has {len(groups)} groups, but had {known} before")
        return self.base_lrs + [base_rate(group, i) for i, group in enumerate(groups) if i >= known]

    def _find(self, epoch: int, base_lrs: list[float]) -> Place:
        """Create the curve, and return the position of ``epoch``."""
        curve = self._curve()
        value, rates = 1.0, base_lrs
        if epoch >= 0:
            value = curve(self._phase(epoch))
            rates = self._rates(curve, value, base_lrs)
        # Copies of lists, to detect changes of their items.
        _, *given = type(self)._made_from(self)
        made_from = tuple(
            list(part) if isinstance(part, list) else part for part in (base_lrs, *given)
        )
        return Place(made_from, curve, epoch, value, rates)
