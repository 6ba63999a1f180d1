"""The scheduler that depends on a metric."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from fastoptim import _core
from fastoptim._checks import (
    Checks,
    between,
    finite,
    flag,
    integer,
    non_negative,
    number,
    scalar,
    word,
)
from fastoptim._commit import Call, setting
from fastoptim.errors import CheckpointError
from fastoptim.lr_scheduler._arguments import (
    EPOCH_DEPRECATED,
    CheckedArguments,
    for_groups,
    one_or_listed,
    plain,
)
from fastoptim.lr_scheduler._groups import (
    HasGroups,
    check_optimizer,
    check_rates,
    writing_rate,
    written_rate,
)
from fastoptim.lr_scheduler._states import checked_state, rates_of

Mode: TypeAlias = Literal["min", "max"]
ThresholdMode: TypeAlias = Literal["rel", "abs"]


def _not_nan(name: str, value: Any) -> float:
    x = number(name, value)
    if math.isnan(x):
        raise ValueError(f"{name} must not be NaN")
    return x


class ReduceLROnPlateau(CheckedArguments):
    r"""Multiply the rates by ``factor`` when a metric has stopped improving.

    NaN is never an improvement. A relative threshold is relative to the absolute value of the best
    metric, so it also works for negative metrics: :math:`\text{best} - |\text{best}|\,
    \text{threshold}` for ``"min"``, where PyTorch has :math:`\text{best}\, (1 - \text{threshold})`.

    Parameters
    ----------
    optimizer : object with ``param_groups``
        The optimizer whose rates are set.
    mode : {"min", "max"}
        Whether smaller or larger metrics are better.
    factor : float
        In [0, 1).
    patience : int
        The number of steps without improvement before the rates are reduced.
    threshold : float
        The smallest improvement that counts, at least 0.
    threshold_mode : {"rel", "abs"}
        Whether the threshold is relative to the best value or absolute.
    cooldown : int
        The number of steps after a reduction that are ignored.
    min_lr : float or sequence of float
        The lowest rate, at least 0; a sequence has a value for each group.
    eps : float
        A rate is not changed if the change is at most this; at least 0.

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
    >>> scheduler = fo.lr_scheduler.ReduceLROnPlateau(opt, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     scheduler.step(loss)
    >>> scheduler.get_last_lr()
    [0.1]
    """

    _arguments = (
        "mode",
        "factor",
        "patience",
        "threshold",
        "threshold_mode",
        "cooldown",
        "min_lr",
        "eps",
    )
    _COUNTS = ("last_epoch", "num_bad_epochs", "cooldown_counter")
    _checks: ClassVar[Checks] = {
        **dict.fromkeys(_COUNTS, partial(integer, least=0)),
        "best": _not_nan,
    }

    def __init__(
        self,
        optimizer: HasGroups,
        mode: Mode = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: ThresholdMode = "rel",
        cooldown: int = 0,
        min_lr: float | Iterable[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        check_optimizer(optimizer)
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lr = one_or_listed("min_lr", min_lr)
        self.eps = eps
        self._check()
        self.best = math.inf if mode == "min" else -math.inf
        self.last_epoch = self.num_bad_epochs = self.cooldown_counter = 0
        self._last_lr = [float(group["lr"]) for group in optimizer.param_groups]

    def _check(self) -> None:
        word("mode", self.mode, get_args(Mode))
        word("threshold_mode", self.threshold_mode, get_args(ThresholdMode))
        for name in ("patience", "cooldown"):
            integer(name, getattr(self, name), least=0)
        for name in ("threshold", "eps"):
            non_negative(name, getattr(self, name))
        between("factor", self.factor, 0, 1, "[)")
        self._lows()

    def _lows(self) -> list[float]:
        """Return the lowest rate of each group."""
        return for_groups("min_lr", self.min_lr, self.optimizer.param_groups, non_negative)

    @property
    def in_cooldown(self) -> bool:
        """Whether steps are ignored after a reduction."""
        return self.cooldown_counter > 0

    def is_better(self, value: float) -> bool:
        """Return whether ``value`` is better than the best so far by the threshold."""
        value = scalar("value", value)
        if math.isinf(self.best):
            margin = 0.0
        elif self.threshold_mode == "rel":
            margin = abs(self.best) * self.threshold
        else:
            margin = self.threshold
        if self.mode == "min":
            return value < self.best - margin
        return value > self.best + margin

    def step(self, metrics: Any, epoch: int | None = None) -> None:
        """Record the next value of the metric, and reduce the rates if necessary.

        Parameters
        ----------
        metrics : float
            The value; may be an array or tensor of one number.
        epoch : int, optional
            The number of this step, at least 0, by default the next. Deprecated, as in PyTorch.

        Raises
        ------
        TypeError
            If ``metrics`` is not a single number, ``epoch`` is not an integer, or a rate has become
            a function of the step. Nothing has changed then.
        ValueError
            If a list among the arguments has become invalid, ``epoch`` is negative, or there
            are more groups than there are ``min_lr``. Nothing has changed then.
        """
        value = scalar("metrics", metrics)
        self._check()
        groups, lows = self.optimizer.param_groups, self._lows()
        check_rates([group["lr"] for group in groups])
        if epoch is None:
            epoch = self.last_epoch + 1
        else:
            epoch = integer("epoch", epoch, least=0)
            warnings.warn(EPOCH_DEPRECATED, UserWarning, stacklevel=2)
        best, bad, cooldown = self.best, self.num_bad_epochs + 1, self.cooldown_counter
        if self.is_better(value):
            best, bad = value, 0
        if self.in_cooldown:
            bad, cooldown = 0, cooldown - 1
        last_lr = [float(group["lr"]) for group in groups]
        writes: list[Call] = []
        if bad > self.patience:
            bad, cooldown = 0, self.cooldown
            for index, (group, low) in enumerate(zip(groups, lows, strict=True)):
                new = max(last_lr[index] * float(self.factor), low)
                if last_lr[index] - new > self.eps:
                    writes.append(writing_rate(group, new))
                    last_lr[index] = written_rate(group, new)
        counts = {"num_bad_epochs": bad, "cooldown_counter": cooldown}
        moved = setting(self, last_epoch=epoch, best=best, **counts, _last_lr=last_lr)
        _core.call_all([*writes, moved])

    def get_last_lr(self) -> list[float]:
        """Return the rate that this scheduler last set for each group."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, the best value and the arguments."""
        names = ("_last_lr", *self._COUNTS, "best", *self._arguments)
        return {name: plain(getattr(self, name)) for name in names}

    def load_state_dict(self, state_dict: Mapping[str, Any], set_lr: bool = False) -> None:
        """Load a state of this class, or of PyTorch's class of the same name.

        Parameters
        ----------
        state_dict : mapping
            A state that `state_dict` returned.
        set_lr : bool, default False
            If False, the rates of the optimizer do not change. If True, they are set to the last
            rates, since there is no closed form.

        Raises
        ------
        TypeError
            If ``set_lr`` is not a bool, or is True and a rate is a function of the step.
            Nothing has changed then.
        CheckpointError
            If the state is not one of this class. Nothing has changed then.
        """
        flag("set_lr", set_lr)
        _core.call_all(self._loading(state_dict, set_lr))

    def _loading(self, state_dict: Any, set_lr: bool = False) -> list[Call]:
        """Check a state, and return the calls that load it."""
        state = checked_state(self, state_dict, self.state_dict())
        loaded = copy.copy(self)
        loaded.__dict__.update(state)
        try:
            for name in self._COUNTS:
                integer(name, state[name], least=0)
            groups = self.optimizer.param_groups
            loaded._last_lr = rates_of("_last_lr", state["_last_lr"], groups, finite)
            # Infinite before the first metric; a metric may be NaN, but the best value is not.
            loaded.best = _not_nan("best", state["best"])
            loaded._check()
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the state of a ReduceLROnPlateau: {error}") from error
        writes: list[Call] = []
        if set_lr:
            check_rates([group["lr"] for group in groups])
            writes = list(map(writing_rate, groups, loaded._last_lr))
            loaded._last_lr = list(map(written_rate, groups, loaded._last_lr))
        return [*writes, (self.__dict__.update, loaded.__dict__)]

    def _translated(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state of PyTorch with the names of this package, and other states unchanged."""
        if "min_lrs" not in state:
            return state
        ours = {"min_lr" if name == "min_lrs" else name: state[name] for name in state}
        return {name: ours[name] for name in ours if name not in ("default_min_lr", "mode_worse")}
