"""Schedulers by functions of a user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from fastoptim import schedules
from fastoptim.lr_scheduler._base import Curve, LRScheduler
from fastoptim.lr_scheduler._groups import of_group, write_rate

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


class _ByFunction(LRScheduler):
    """What the two share: functions, which are no part of the state."""

    _arguments = ()

    def __init__(
        self, optimizer: Any, lr_lambda: Factor | Sequence[Factor], last_epoch: int = -1
    ) -> None:
        self.lr_lambda = _checked(optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def _given(self) -> Any:
        return self.lr_lambda

    def _translated(self, state: dict[str, Any]) -> dict[str, Any]:
        # PyTorch keeps the attributes of functions that are objects.
        state.pop("lr_lambdas", None)
        return super()._translated(state)


class Scaled:
    """A rate times a function of the step."""

    def __init__(self, base_lr: float, function: Factor) -> None:
        self.base_lr = base_lr
        self.function = function

    def __call__(self, t: float) -> float:
        """Give the rate at ``t``."""
        return self.base_lr * self.function(int(t))


class LambdaLR(_ByFunction):
    r"""Set each rate to its base times a function of the step, whatever it is.

    .. math:: \eta_t = \eta_0 \cdot \lambda(t)

    The state has no functions: give the same ones to the scheduler that loads it.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    lr_lambda : function or list of functions
        :math:`\lambda`, which takes the number of steps done and gives the factor; one for all
        groups, or one for each.
    last_epoch : int
        -1 to start, else the number of the last step done.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a rate is a function of the step.
    ValueError
        If an argument is out of range.

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

    _acts_on_resume = True
    _floor = None

    def _schedule(self, base_lr: float, index: int) -> Curve:
        return Scaled(base_lr, of_group("lr_lambda", self.lr_lambda, index))


class MultiplicativeLR(_ByFunction):
    r"""Multiply each rate at each step by a function of the step.

    .. math:: \eta_t = \eta_{t-1} \cdot \lambda(t)

    The state has no functions: give the same ones to the scheduler that loads it.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        Whose rates to write.
    lr_lambda : function or list of functions
        :math:`\lambda`, which takes the number of steps done and gives the factor; one for all
        groups, or one for each.
    last_epoch : int
        -1 to start, else the number of the last step done.

    Raises
    ------
    TypeError
        If an argument has a wrong type, or a rate is a function of the step.
    ValueError
        If an argument is out of range.

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

    def _schedule(self, base_lr: float, index: int) -> Curve:
        # The product of all factors has no form but itself: it is in the rate.
        return schedules.constant(base_lr)

    def _rates(
        self, epoch: int, groups: list[dict[str, Any]], before: list[float], now: list[float]
    ) -> list[float]:
        if epoch == 0:
            return [float(group["lr"]) for group in groups]
        return self._products(groups, epoch)

    def _products(self, groups: list[dict[str, Any]], epoch: int) -> list[float]:
        return [
            float(group["lr"]) * of_group("lr_lambda", self.lr_lambda, index)(epoch)
            for index, group in enumerate(groups)
        ]

    def _restart(self) -> None:
        # As PyTorch: from the rate that it finds, by the factor of step 0.
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, self._products(groups, 0), strict=True):
            write_rate(group, rate)
        self._begin()
