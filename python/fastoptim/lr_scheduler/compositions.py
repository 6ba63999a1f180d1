"""Schedulers made of schedulers."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from fastoptim.errors import CheckpointError
from fastoptim.lr_scheduler._base import LRScheduler, checked_epoch, write_rate


def _checked(optimizer: Any, schedulers: Sequence[Any]) -> list[LRScheduler]:
    found = list(schedulers)
    if not found:
        raise ValueError("schedulers must not be empty")
    for scheduler in found:
        if not isinstance(scheduler, LRScheduler):
            raise TypeError(f"schedulers must be of fastoptim.lr_scheduler, got {scheduler!r}")
        if scheduler.optimizer is not optimizer:
            raise ValueError("schedulers must all have the optimizer that is given")
    return found


def _load_all(schedulers: list[LRScheduler], states: Any) -> None:
    """Load a state into each, all or none."""
    if not isinstance(states, (list, tuple)) or len(states) != len(schedulers):
        raise CheckpointError(f"_schedulers must be the states of {len(schedulers)} schedulers")
    loaded = [copy.copy(scheduler) for scheduler in schedulers]
    for scheduler, state in zip(loaded, states, strict=True):
        scheduler.load_state_dict(state)
    for scheduler, new in zip(schedulers, loaded, strict=True):
        scheduler.__dict__.update(new.__dict__)


class SequentialLR:
    """Follow one scheduler after another, each from its own step 0.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    schedulers : sequence of LRScheduler
        All of this optimizer; at least one.
    milestones : sequence of int
        The step at which each but the first begins, in strictly ascending order.

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

    def __init__(
        self, optimizer: Any, schedulers: Sequence[Any], milestones: Sequence[int]
    ) -> None:
        self._schedulers = _checked(optimizer, schedulers)
        self.milestones = [
            checked_epoch("milestones", milestone, low=1) for milestone in milestones
        ]
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones must be in ascending order, got {self.milestones}")
        if len(self.milestones) != len(self._schedulers) - 1:
            raise ValueError(
                f"milestones must be {len(self._schedulers) - 1}, one between each two schedulers, "
                f"got {len(self.milestones)}"
            )
        self.optimizer = optimizer
        self.last_epoch = 0
        # Every constructor has acted on the rates: only the first scheduler's counts.
        for group in optimizer.param_groups:
            write_rate(group, group["initial_lr"])
        self._schedulers[0]._restart()
        self._last_lr = self._schedulers[0].get_last_lr()

    def step(self) -> None:
        """Move to the next step and write the rate of each group."""
        epoch = self.last_epoch + 1
        index = bisect_right(self.milestones, epoch)
        scheduler = self._schedulers[index]
        if index > 0 and self.milestones[index - 1] == epoch:
            scheduler._restart()
        else:
            scheduler.step()
        self.last_epoch = epoch
        self._last_lr = scheduler.get_last_lr()

    def get_last_lr(self) -> list[float]:
        """Give the rate of each group as this scheduler last left it."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Give the number of steps and the states of all schedulers."""
        return {
            "last_epoch": self.last_epoch,
            "milestones": list(self.milestones),
            "_last_lr": list(self._last_lr),
            "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; the optimizer's rates stay as they are.

        Raises
        ------
        CheckpointError
            If the state is not one of this class with as many schedulers. Nothing has changed
            then.
        """
        try:
            epoch = checked_epoch("last_epoch", state_dict["last_epoch"], low=0)
            milestones = [checked_epoch("milestones", m, low=1) for m in state_dict["milestones"]]
            last = [float(rate) for rate in state_dict["_last_lr"]]
            states = state_dict["_schedulers"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the state of a SequentialLR: {error}") from error
        if len(milestones) != len(self.milestones) or milestones != sorted(set(milestones)):
            raise CheckpointError(f"milestones must be {len(self.milestones)} in ascending order")
        _load_all(self._schedulers, states)
        self.last_epoch, self.milestones, self._last_lr = epoch, milestones, last


class ChainedScheduler:
    """Step several schedulers of one optimizer at once, each on what the one before has left.

    Parameters
    ----------
    schedulers : sequence of LRScheduler
        All of one optimizer; at least one.
    optimizer : object with ``param_groups``, optional
        That optimizer.

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

    def __init__(self, schedulers: Sequence[Any], optimizer: Any = None) -> None:
        found = list(schedulers)
        if optimizer is None and found:
            optimizer = getattr(found[0], "optimizer", None)
        self._schedulers = _checked(optimizer, found)
        self.optimizer = optimizer
        self._last_lr = [float(group["lr"]) for group in optimizer.param_groups]

    def step(self) -> None:
        """Move all schedulers to the next step."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = [float(group["lr"]) for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """Give the rate of each group as the last scheduler left it."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Give the states of all schedulers."""
        return {
            "_last_lr": list(self._last_lr),
            "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; the optimizer's rates stay as they are.

        Raises
        ------
        CheckpointError
            If the state is not one of this class with as many schedulers. Nothing has changed
            then.
        """
        try:
            last = [float(rate) for rate in state_dict["_last_lr"]]
            states = state_dict["_schedulers"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the state of a ChainedScheduler: {error}") from error
        _load_all(self._schedulers, states)
        self._last_lr = last
