"""Schedulers composed of schedulers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeAlias

from fastoptim import _core
from fastoptim._checks import CheckedAttributes, finite, flag, integer
from fastoptim._commit import Call, setting
from fastoptim.errors import CheckpointError
from fastoptim.lr_scheduler._arguments import listed, plain
from fastoptim.lr_scheduler._base import LRScheduler
from fastoptim.lr_scheduler._groups import HasGroups, all_or_nothing
from fastoptim.lr_scheduler._states import checked_state, rates_of


class Composition(CheckedAttributes, ABC):
    """The base class of sequences and chains of schedulers of one optimizer."""

    # The entries of the state besides the states of the parts and the last rates.
    _own: ClassVar[tuple[str, ...]] = ()

    optimizer: HasGroups

    def __init__(self, optimizer: HasGroups, schedulers: Iterable[Part]) -> None:
        self._schedulers: list[Part] = listed("schedulers", schedulers)
        if not self._schedulers:
            raise ValueError("schedulers must not be empty")
        for scheduler in self._schedulers:
            if not isinstance(scheduler, (LRScheduler, Composition)):
                raise TypeError(
                    f"schedulers must be of fastoptim.lr_scheduler, without metrics; "
                    f"got {scheduler!r}"
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError("schedulers must all belong to the given optimizer")
        self.optimizer = optimizer
        self._last_lr: list[float] = []

    def _checked_attribute(self, name: str, value: Any) -> Any:
        return self._checked(name, value) if name in self._own else value

    @abstractmethod
    def _begin(self, held: list[Any] | None = None) -> None:
        """Do step 0 with the current rates, or with others."""

    @abstractmethod
    def _restart(self) -> None:
        """Do step 0 with the base rates instead of the current rates."""

    @abstractmethod
    def step(self) -> None:
        """Move to the next step and write the rate of each group."""

    def _parts(self) -> Iterator[Part]:
        """Return the schedulers, and those inside them."""
        for scheduler in self._schedulers:
            yield scheduler
            if isinstance(scheduler, Composition):
                yield from scheduler._parts()

    def get_last_lr(self) -> list[float]:
        """Return the rate that this scheduler last set for each group."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all schedulers, and the position of this one."""
        return {
            **{name: plain(getattr(self, name)) for name in self._own},
            "_last_lr": list(self._last_lr),
            "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers],
        }

    @abstractmethod
    def _set_rates(self, *, last: bool = False) -> None:
        """Set the rates and momenta to the closed form, or the rates to the last ones."""

    def load_state_dict(self, state_dict: Mapping[str, Any], set_lr: bool = False) -> None:
        """Load a state of this class, or of PyTorch's class of the same name.

        Parameters
        ----------
        state_dict : mapping
            A state that `state_dict` returned.
        set_lr : bool, default False
            If False, the rates of the optimizer do not change. If True, a sequence sets them as the
            current scheduler would, and a chain, which has no closed form, sets the last rates; so
            is the momentum if a scheduler controls it.

        Raises
        ------
        TypeError
            If ``set_lr`` is not a bool, or is True and a rate is a function of the step.
            Nothing has changed then.
        CheckpointError
            If the state is not one of this class with as many schedulers. Nothing has changed
            then.
        """
        flag("set_lr", set_lr)
        calls = self._loading(state_dict)

        def action() -> None:
            _core.call_all(calls)
            if set_lr:
                self._set_rates()

        groups = self.optimizer.param_groups
        all_or_nothing(action, groups if set_lr else [], [self, *self._parts()])

    def _loading(self, state_dict: Any) -> list[Call]:
        """Check a state, and return the calls that load it."""
        state = checked_state(self, state_dict, (*self._own, "_last_lr", "_schedulers"))
        states = state["_schedulers"]
        if not isinstance(states, list) or len(states) != len(self._schedulers):
            raise CheckpointError(f"_schedulers must have {len(self._schedulers)} states")
        try:
            groups = self.optimizer.param_groups
            own = {name: self._checked(name, state[name]) for name in self._own}
            own["_last_lr"] = rates_of("_last_lr", state["_last_lr"], groups, finite)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the state of a {type(self).__name__}: {error}") from error
        calls = [setting(self, **own)]
        for scheduler, part in zip(self._schedulers, states, strict=True):
            calls += scheduler._loading(part)
        return calls

    def _translated(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state of PyTorch with the names of this package, and other states unchanged."""
        return state

    def _checked(self, name: str, value: Any) -> Any:
        """Check and return the value of an entry of the state that only this class has."""
        raise NotImplementedError(name)

    def __repr__(self) -> str:
        own = [f"{name}={getattr(self, name)!r}" for name in self._own]
        return f"{type(self).__name__}({', '.join([repr(self._schedulers), *own])})"


Part: TypeAlias = LRScheduler | Composition


class SequentialLR(Composition):
    """Follow one scheduler after another, each from its own step 0.

    The first begins with the ``"initial_lr"`` of the groups, each other one with its own base
    rates, and `MultiplicativeLR`, which has no base rates, with the current rates.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    schedulers : sequence of schedulers
        At least one, all of this optimizer; may contain chains and sequences.
    milestones : sequence of int
        The step at which each scheduler but the first begins, at least 0 and in ascending order. A
        scheduler without steps, such as a warm-up of length 0, is skipped.
    last_epoch : int
        -1 to start. Otherwise the number of the last completed step; then the schedulers continue
        from their own positions, and no rate is written.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a scheduler needs a metric.
    ValueError
        If there are no schedulers, or they are of another optimizer, or the milestones are not
        in order or not one fewer than the schedulers.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> first = fo.lr_scheduler.ConstantLR(opt, factor=0.1, total_iters=2)
    >>> second = fo.lr_scheduler.ExponentialLR(opt, gamma=0.5)
    >>> scheduler = fo.lr_scheduler.SequentialLR(opt, [first, second], milestones=[2])
    >>> for _ in range(4):
    ...     print(opt.param_groups[0]["lr"])
    ...     scheduler.step()
    0.1
    0.1
    1.0
    0.5
    """

    _own = ("last_epoch", "milestones")

    milestones: Any
    last_epoch: int

    def __init__(
        self,
        optimizer: HasGroups,
        schedulers: Iterable[Part],
        milestones: Iterable[int],
        last_epoch: int = -1,
    ) -> None:
        super().__init__(optimizer, schedulers)
        self.milestones = milestones
        self.last_epoch = integer("last_epoch", last_epoch, least=-1) + 1
        if last_epoch == -1:
            # Every constructor has changed the rates; only the first scheduler should.
            self._begin([float(group["initial_lr"]) for group in optimizer.param_groups])
        self._last_lr = [float(group["lr"]) for group in optimizer.param_groups]

    def _checked_milestones(self, milestones: Iterable[int]) -> list[int]:
        found = [integer("milestones", part, least=0) for part in listed("milestones", milestones)]
        if found != sorted(found):
            raise ValueError(f"milestones must be in ascending order, got {found}")
        if len(found) != len(self._schedulers) - 1:
            raise ValueError(
                f"milestones must have {len(self._schedulers) - 1} values, one between two "
                f"schedulers, got {len(found)}"
            )
        return found

    def _begin(self, held: list[Any] | None = None) -> None:
        self._move(0, lambda first: first._begin(held))

    def _restart(self) -> None:
        self._move(0, lambda first: first._restart())

    def step(self) -> None:
        """Move to the next step and write the rate of each group."""
        epoch = self.last_epoch + 1
        begins = epoch in self.milestones
        self._move(epoch, lambda part: part._restart() if begins else part.step())

    def _move(self, epoch: int, move: Callable[[Part], None]) -> None:
        """Move the scheduler that is active at an epoch."""
        scheduler = self._at(epoch)

        def action() -> None:
            move(scheduler)
            self.last_epoch = epoch
            self._last_lr = scheduler.get_last_lr()

        all_or_nothing(action, self.optimizer.param_groups, [self, *self._parts()])

    def _at(self, epoch: int) -> Part:
        """Return the scheduler that is active at an epoch."""
        return self._schedulers[bisect_right(self.milestones, epoch)]

    def _set_rates(self, *, last: bool = False) -> None:
        scheduler = self._at(self.last_epoch)
        scheduler._set_rates(last=last)
        self._last_lr = scheduler.get_last_lr()

    def _translated(self, state: dict[str, Any]) -> dict[str, Any]:
        return {"milestones" if key == "_milestones" else key: state[key] for key in state}

    def _checked(self, name: str, value: Any) -> Any:
        if name == "milestones":
            return self._checked_milestones(value)
        return integer(name, value, least=0)


class ChainedScheduler(Composition):
    """Step several schedulers of one optimizer together, each on the rates set by the previous one.

    Parameters
    ----------
    schedulers : sequence of schedulers
        At least one, all of one optimizer.
    optimizer : object with ``param_groups``, optional
        That optimizer.

    Raises
    ------
    TypeError
        If a scheduler needs a metric, or is not a scheduler.
    ValueError
        If there are no schedulers, or they are of different optimizers.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> first = fo.lr_scheduler.ConstantLR(opt, factor=0.1, total_iters=2)
    >>> second = fo.lr_scheduler.ExponentialLR(opt, gamma=0.5)
    >>> scheduler = fo.lr_scheduler.ChainedScheduler([first, second])
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.05]
    """

    def __init__(self, schedulers: Iterable[Part], optimizer: HasGroups | None = None) -> None:
        found = listed("schedulers", schedulers)
        first: Any = getattr(found[0], "optimizer", None) if found else None
        super().__init__(first if optimizer is None else optimizer, found)
        self._note()

    def _note(self) -> None:
        self._last_lr = [float(group["lr"]) for group in self.optimizer.param_groups]

    def _begin(self, held: list[Any] | None = None) -> None:
        first, *others = self._schedulers
        self._move(lambda: first._begin(held), *(scheduler._begin for scheduler in others))

    def _restart(self) -> None:
        first, *others = self._schedulers
        self._move(first._restart, *(scheduler._begin for scheduler in others))

    def _set_rates(self, *, last: bool = False) -> None:
        # All of them, in order, since one may control the momentum; the rates are those of the
        # last.
        for scheduler in self._schedulers:
            scheduler._set_rates(last=True)
        self._note()

    def step(self) -> None:
        """Move all schedulers to the next step, or none if one of them fails."""
        self._move(*(scheduler.step for scheduler in self._schedulers))

    def _move(self, *moves: Callable[[], None]) -> None:
        """Make the moves in order, and undo them if one fails."""

        def action() -> None:
            for move in moves:
                move()
            self._note()

        all_or_nothing(action, self.optimizer.param_groups, [self, *self._parts()])
