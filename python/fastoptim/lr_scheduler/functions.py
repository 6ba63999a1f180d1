"""Schedulers by functions of a user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from fastoptim import schedules
from fastoptim.lr_scheduler._base import Curve, LRScheduler, of_group, write_rate

Factor: TypeAlias = Callable[[int], float]


def _checked(optimizer: Any, lr_lambda: Any) -> Factor | list[Factor]:
    if not isinstance(lr_lambda, (list, tuple)):
        if not callable(lr_lambda):
            raise TypeError(f"lr_lambda must be a function or a list of them, got {lr_lambda!r}")
        function: Factor = lr_lambda
        return function
    groups = len(getattr(optimizer, "param_groups", ()))
    if len(lr_lambda) != groups:
        raise ValueError(f"lr_lambda has {len(lr_lambda)} functions for {groups} groups")
    if not all(callable(function) for function in lr_lambda):
        raise TypeError(f"lr_lambda must be a function or a list of them, got {lr_lambda!r}")
    return list(lr_lambda)


class Scaled:
    """A rate times a function of the step."""

    def __init__(self, base_lr: float, function: Factor) -> None:
        self.base_lr = base_lr
        self.function = function

    def __call__(self, t: float) -> float:
        """Give the rate at ``t``."""
        return self.base_lr * self.function(int(t))


class LambdaLR(LRScheduler):
    r"""Set each rate to its base times a function of the step.

    The state has no functions: give the same ones to the scheduler that loads it.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    lr_lambda : function or list of functions
        Takes the number of steps done and gives the factor; one for all groups, or one for each.
    last_epoch : int
        -1 to start, else the number of the last step done.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> scheduler = fo.lr_scheduler.LambdaLR(opt, lambda t: 0.5**t)
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    _arguments = ()
    _acts_on_resume = True
    _floor = None

    def __init__(
        self, optimizer: Any, lr_lambda: Factor | Sequence[Factor], last_epoch: int = -1
    ) -> None:
        self.lr_lambda = _checked(optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return Scaled(base_lr, of_group("lr_lambda", self.lr_lambda, index))


class MultiplicativeLR(LRScheduler):
    r"""Multiply each rate at each step by a function of the step.

    The state has no functions: give the same ones to the scheduler that loads it.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    lr_lambda : function or list of functions
        Takes the number of steps done and gives the factor; one for all groups, or one for each.
    last_epoch : int
        -1 to start, else the number of the last step done.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.SGD(np.zeros(3), lr=1.0)
    >>> scheduler = fo.lr_scheduler.MultiplicativeLR(opt, lambda t: 0.5)
    >>> for _ in range(2):
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]
    """

    _arguments = ()

    def __init__(
        self, optimizer: Any, lr_lambda: Factor | Sequence[Factor], last_epoch: int = -1
    ) -> None:
        self.lr_lambda = _checked(optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def _schedule(self, base_lr: float, index: int) -> Curve:
        # The product of all factors has no form but itself: it is in the rate.
        return schedules.constant(base_lr)

    def _next(self, index: int, epoch: int, held: Any, before: float, now: float) -> float:
        if epoch == 0:
            return float(held)
        function: Factor = of_group("lr_lambda", self.lr_lambda, index)
        return float(held) * function(epoch)

    def _restart(self) -> None:
        # As PyTorch: from the rate that it finds, by the factor of step 0.
        groups = self.optimizer.param_groups
        functions = [of_group("lr_lambda", self.lr_lambda, i) for i in range(len(groups))]
        rates = [float(group["lr"]) * f(0) for group, f in zip(groups, functions, strict=True)]
        for group, rate in zip(groups, rates, strict=True):
            write_rate(group, rate)
        self.last_epoch = 0
        self._last_lr = rates
