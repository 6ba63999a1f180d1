"""Schedulers made of schedulers."""

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
    """What sequences and chains share: parts of one optimizer, and their states."""

    # The entries of the state besides the parts' states and the last rates.
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
                raise ValueError("schedulers must all have the optimizer that is given")
        self.optimizer = optimizer
        self._last_lr: list[float] = []

    def _checked_attribute(self, name: str, value: Any) -> Any:
        return self._checked(name, value) if name in self._own else value

    @abstractmethod
    def _begin(self, held: list[Any] | None = None) -> None:
        """Do step 0 on the rates that it finds, or on others."""

    @abstractmethod
    def _restart(self) -> None:
        """Do step 0 from the base rates, whatever the rates are now."""

    @abstractmethod
    def step(self) -> None:
        """Move to the next step and write the rate of each group."""

    def _parts(self) -> Iterator[Part]:
        """Give its schedulers, and those inside them."""
        for scheduler in self._schedulers:
            yield scheduler
            if isinstance(scheduler, Composition):
                yield from scheduler._parts()

    def get_last_lr(self) -> list[float]:
        """Give the rate of each group as this scheduler last left it."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Give the states of all schedulers, and where in them this one is."""
        return {
            **{name: plain(getattr(self, name)) for name in self._own},
            "_last_lr": list(self._last_lr),
            "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers],
        }

    @abstractmethod
    def _set_rates(self, *, last: bool = False) -> None:
        """Write the rates and momenta by the closed form, or the last rates in its place."""

    def load_state_dict(self, state_dict: Mapping[str, Any], set_lr: bool = False) -> None:
        """Take over a state, one of PyTorch's included.

        Parameters
        ----------
        state_dict : mapping
            What `state_dict` gave.
        set_lr : bool, default False
            The optimizer's rates stay as they are. With True they are set: by a sequence to what
            the scheduler whose turn it is would set, by a chain, which has no closed form, to the
            last rates; the momenta too where a scheduler drives them.

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
        """Check a state, and give the calls that take it over."""
        state = checked_state(self, state_dict, (*self._own, "_last_lr", "_schedulers"))
        states = state["_schedulers"]
        if not isinstance(states, list) or len(states) != len(self._schedulers):
            raise CheckpointError(f"_schedulers must be {len(self._schedulers)} states")
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
        """Give a state of PyTorch under our names; one of ours as it is."""
        return state

    def _checked(self, name: str, value: Any) -> Any:
        """Give what the state has under a name of one's own, refused if it can never work."""
        raise NotImplementedError(name)

    def __repr__(self) -> str:
        own = [f"{name}={getattr(self, name)!r}" for name in self._own]
        return f"{type(self).__name__}({', '.join([repr(self._schedulers), *own])})"


Part: TypeAlias = LRScheduler | Composition


class SequentialLR(Composition):
    """Follow one scheduler after another, each from its own step 0.

    The first begins on the groups' ``"initial_lr"``, each other one from its own base rates, and
    `MultiplicativeLR`, which has no base but the rate itself, from the rate that it finds.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    schedulers : sequence of schedulers
        All of this optimizer; at least one. A part may be a chain or a sequence itself.
    milestones : sequence of int
        The step at which each but the first begins, at least 0 and in ascending order. A scheduler
        without any steps, such as a warm-up of 0, is passed over.
    last_epoch : int
        -1 to start. Otherwise the number of the last step done; then the schedulers go on from
        where they have been made to, and no rate is written.

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
            # Every constructor has acted on the rates: only the first scheduler's counts.
            self._begin([float(group["initial_lr"]) for group in optimizer.param_groups])
        self._last_lr = [float(group["lr"]) for group in optimizer.param_groups]

    def _checked_milestones(self, milestones: Iterable[int]) -> list[int]:
        found = [integer("milestones", part, least=0) for part in listed("milestones", milestones)]
        if found != sorted(found):
            raise ValueError(f"milestones must be in ascending order, got {found}")
        if len(found) != len(self._schedulers) - 1:
            raise ValueError(
                f"milestones must be {len(self._schedulers) - 1}, one between each two schedulers, "
                f"got {len(found)}"
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
        """Move the scheduler whose turn it is at an epoch."""
        scheduler = self._at(epoch)

        def action() -> None:
            move(scheduler)
            self.last_epoch = epoch
            self._last_lr = scheduler.get_last_lr()

        all_or_nothing(action, self.optimizer.param_groups, [self, *self._parts()])

    def _at(self, epoch: int) -> Part:
        """Give the scheduler whose turn it is at an epoch."""
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
    """Step several schedulers of one optimizer at once, each on what the one before has left.

    Parameters
    ----------
    schedulers : sequence of schedulers
        All of one optimizer; at least one.
    optimizer : object with ``param_groups``, optional
        That optimizer.

    Raises
    ------
    TypeError
        If a scheduler needs a metric, or is none.
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
        # Each in its turn, since one may drive the momentum; the rates are those of the last.
        for scheduler in self._schedulers:
            scheduler._set_rates(last=True)
        self._note()

    def step(self) -> None:
        """Move all schedulers to the next step, or none where one of them cannot."""
        self._move(*(scheduler.step for scheduler in self._schedulers))

    def _move(self, *moves: Callable[[], None]) -> None:
        """Make one move after another, and undo them if one cannot be made."""

        def action() -> None:
            for move in moves:
                move()
            self._note()

        all_or_nothing(action, self.optimizer.param_groups, [self, *self._parts()])
