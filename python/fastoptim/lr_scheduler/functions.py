"""Schedulers with user-defined functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from fastoptim import schedules
from fastoptim._checks import function
from fastoptim.lr_scheduler._arguments import for_groups, one_or_listed
from fastoptim.lr_scheduler._base import Curve, LRScheduler, Place
from fastoptim.lr_scheduler._groups import HasGroups

Factor: TypeAlias = Callable[[int], float]


class _ByFunction(LRScheduler):
    """The base class of the two; the functions are not part of the state."""

    _functions = ("lr_lambda",)

    def __init__(
        self, optimizer: HasGroups, lr_lambda: Factor | Iterable[Factor], last_epoch: int = -1
    ) -> None:
        self.lr_lambda = lr_lambda if callable(lr_lambda) else one_or_listed("lr_lambda", lr_lambda)
        super().__init__(optimizer, last_epoch)

    def _factors(self) -> list[Factor]:
        """Return the function of each group."""
        return for_groups("lr_lambda", self.lr_lambda, self.optimizer.param_groups, function)

    def _translated(self, state: dict[str, Any]) -> dict[str, Any]:
        # PyTorch stores the attributes of callable objects.
        return {name: value for name, value in state.items() if name != "lr_lambdas"}


class LambdaLR(_ByFunction):
    r"""Set each rate to its base rate times a function of the step.

    .. math:: \eta_t = \eta_0 \cdot \lambda(t)

    The state does not contain the functions: construct the scheduler that loads it with the same
    ones.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    lr_lambda : function or sequence of functions
        :math:`\lambda`, which takes the number of completed steps and returns the factor; one for
        all groups, or one for each.
    last_epoch : int
        -1 to start, otherwise the number of the last completed step.

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

    def _curve(self) -> Curve:
        factors = self._factors()
        if callable(self.lr_lambda):
            # Call it once for all groups, as it may be slow.
            return lambda t: [factors[0](int(t))] * len(factors)
        return lambda t: [factor(int(t)) for factor in factors]

    def _rates(self, curve: Any, value: Any, base_lrs: list[float]) -> list[float]:
        return [base_lr * factor for base_lr, factor in zip(base_lrs, value, strict=True)]

    def _next(self, held: list[Any], old: Place, new: Place) -> list[float]:
        return new.rates  # Regardless of the last rate.


class MultiplicativeLR(_ByFunction):
    r"""Multiply each rate at each step by a function of the step.

    .. math:: \eta_t = \eta_{t-1} \cdot \lambda(t)

    The state does not contain the functions: construct the scheduler that loads it with the same
    ones.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    lr_lambda : function or sequence of functions
        :math:`\lambda`, which takes the number of completed steps and returns the factor; one for
        all groups, or one for each.
    last_epoch : int
        -1 to start, otherwise the number of the last completed step.

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

    def _curve(self) -> Curve:
        # The product of all factors has no closed form: it is contained in the rate.
        self._factors()
        return schedules.constant(1.0)

    def _next(self, held: list[Any], old: Place, new: Place) -> list[float]:
        return self._times(held, new.epoch) if new.epoch > 0 else [float(rate) for rate in held]

    def _jump(self, held: list[Any], new: Place) -> list[float]:
        return self._times(held, new.epoch)

    def _settled(self, place: Place) -> list[float]:
        return self._last_lr

    def _times(self, rates: list[Any], epoch: int) -> list[float]:
        factors = self._factors()
        return [float(rate) * factor(epoch) for rate, factor in zip(rates, factors, strict=True)]

    def _restart(self) -> None:
        # As in PyTorch: the current rate times the factor of step 0.
        self._begin(self._times([group["lr"] for group in self.optimizer.param_groups], 0))
