"""Exponential moving averages of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from fastoptim import _core
from fastoptim._checks import CheckedAttributes, Checks, between, flag, integer
from fastoptim._commit import Call, setting
from fastoptim.errors import CheckpointError
from fastoptim.params.flat_buffer import FlatBuffer
from fastoptim.params.structure import (
    Array,
    Params,
    all_arrays,
    averaged,
    in_order,
    is_groups,
    reiterable,
)

__all__ = ["EMA"]

_decay = partial(between, low=0, high=1, ends="[)")


class EMA(CheckedAttributes):
    r"""An exponential moving average of the parameters, for evaluation.

    .. math::
        s \leftarrow s + (1 - d_t) (p - s), \qquad
        d_t = \text{decay}, \text{ or with warm-up } \min(\text{decay}, (1 + t) / (10 + t))

    The average of about the last :math:`1 / (1 - \text{decay})` steps has less noise than a single
    step, and often generalizes better than the last step, as a smaller rate would. It needs no
    additional gradients. With ``step(ema=ema)``, an optimizer updates it in the sweep of the step:
    the result is bitwise equal to that of `update`, but the parameters are not read again.
    `ScheduleFreeAdamW` has its own average.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        The initial parameters; either all or none are float64.
    decay : float, default 0.999
        The weight of the previous average in an update, in [0, 1); 0 copies the parameters.
    warmup : bool, default False
        Limits the decay of update t, counted from 0, to (1 + t) / (10 + t), which reduces the
        influence of the initial parameters in short trainings.

    Attributes
    ----------
    shadow : FlatBuffer
        The average, under the names of the parameters: float64 for float64, and float32 for all
        others, since small updates are lost in 16 bits.
    decay, warmup
        The arguments; they may be changed between updates.
    updates : int
        The number of updates so far.

    Raises
    ------
    TypeError
        Some but not all parameters are float64, or an argument has the wrong type.
    ValueError
        A layout is invalid, a name is repeated, or the decay is not in [0, 1).

    References
    ----------
    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
    Tarvainen and Valpola, "Mean teachers are better role models", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([1.0, -2.0])
    >>> opt, ema = fo.SGD(w, lr=1.0), fo.EMA(w, decay=0.75)
    >>> opt.step(np.array([4.0, -4.0])).applied
    True
    >>> ema.update(w)
    >>> ema.swap(w)
    >>> w
    array([ 0., -1.])
    >>> ema.swap(w)
    >>> w
    array([-3.,  2.])
    """

    _checks: ClassVar[Checks] = {
        "decay": _decay,
        "warmup": flag,
        "updates": partial(integer, least=0),
    }

    decay: float
    warmup: bool
    updates: int

    def __init__(self, params: Params, decay: float = 0.999, warmup: bool = False) -> None:
        self.decay = decay
        self.warmup = warmup
        names, arrays = all_arrays(params)
        self.shadow = averaged(names, arrays)
        self.updates = 0
        self._buffer = self.shadow if isinstance(params, FlatBuffer) else None
        self._dtypes = [array.dtype for array in arrays]
        # While swapped: copies of parameters whose dtype differs from the shadow's, otherwise None.
        self._kept: list[Array | None] | None = None

    @property
    def swapped(self) -> bool:
        """Whether the parameters hold the average."""
        return self._kept is not None

    def update(self, params: Params) -> None:
        """Move the average towards the parameters.

        Parameters
        ----------
        params : FlatBuffer, array, sequence, mapping or list of groups
            The parameters, in the structure given to the constructor.

        Raises
        ------
        TypeError
            The dtype of a parameter has changed, or it is not a plain array.
        ValueError
            A structure, shape or layout is invalid, or arrays share memory. Nothing has changed
            then.
        RuntimeError
            The average is swapped in, or another thread is using the same memory.
        """
        weight = self._weight("update")
        ordered = self._in_order(params)
        counted = [setting(self, updates=self.updates + 1)]
        _core.lerp(self.shadow.views, ordered, weight, "params", self.shadow.names, counted)

    def swap(self, params: Params) -> None:
        """Exchange the parameters and the average; a second call restores both, bit for bit.

        16-bit parameters receive the average rounded to nearest, and are copied to separate memory;
        all others are stored in ``shadow`` until the next call.

        Parameters
        ----------
        params : FlatBuffer, array, sequence, mapping or list of groups
            The parameters, in the structure given to the constructor.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As for `update`, or a parameter is read-only.
        """
        ordered = self._in_order(params)
        kept = self._rounded() if self._kept is None else self._kept
        views = [
            mine if other is None else other
            for mine, other in zip(self.shadow.views, kept, strict=True)
        ]
        exchanged = [setting(self, _kept=kept if self._kept is None else None)]
        _core.exchange(views, ordered, "params", self.shadow.names, exchanged)

    def _rounded(self) -> list[Array | None]:
        """Return the averages of parameters of other dtypes, rounded to these dtypes."""
        with np.errstate(all="ignore"):
            return [
                None if array.dtype == dtype else array.astype(dtype)
                for array, dtype in zip(self.shadow.views, self._dtypes, strict=True)
            ]

    def _begin(self) -> tuple[tuple[list[Array], float], list[Call]]:
        """Return the arguments with which a step makes and counts the next update.

        Returns
        -------
        tuple
            The arrays of the average, and the weight of the parameters.
        list of calls
            The calls that the step makes at its end.

        Raises
        ------
        RuntimeError
            The average is swapped in.
        """
        weight = self._weight("step")
        return (list(self.shadow.views), weight), [setting(self, updates=self.updates + 1)]

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the average, with the count and the arguments.

        Raises
        ------
        RuntimeError
            The average is swapped in.
        """
        self._refuse_swapped("state_dict")
        return {
            "decay": self.decay,
            "warmup": self.warmup,
            "updates": self.updates,
            "shadow": dict(averaged(self.shadow.names, self.shadow.views)),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state that ``state_dict`` returned; everything is checked first.

        Raises
        ------
        CheckpointError
            The dict is not a state of an average of these parameters.
        RuntimeError
            The average is swapped in.
        """
        self._refuse_swapped("load_state_dict")
        expected = {"decay", "warmup", "updates", "shadow"}
        if not isinstance(state_dict, Mapping) or set(state_dict) != expected:
            raise CheckpointError(f"the state of an EMA must have the keys {sorted(expected)}")
        loaded = self._loading(state_dict)
        try:
            values = self._loaded(state_dict["shadow"])
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the state of an EMA: {error}") from None
        _core.lerp(self.shadow.views, values, 1.0, "shadow", self.shadow.names, loaded)

    def _loading(self, state: Mapping[str, Any]) -> list[Call]:
        """Check the values of a state except the average, and return the calls that load them."""
        try:
            decay, warmup = _decay("decay", state["decay"]), flag("warmup", state["warmup"])
            updates = integer("updates", state["updates"], least=0)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the state of an EMA: {error}") from None
        return [setting(self, decay=decay, warmup=warmup, updates=updates)]

    def _loaded(self, shadow: Any) -> list[Array]:
        """Check the saved arrays against those of the average."""
        if not isinstance(shadow, Mapping) or shadow.keys() != self.shadow.keys():
            raise ValueError(f"shadow must have the names {list(self.shadow)}")
        values = [np.asarray(shadow[name], order="C") for name in self.shadow]
        for (name, array), found in zip(self.shadow.items(), values, strict=True):
            if (found.dtype, found.shape) != (array.dtype, array.shape):
                raise ValueError(
                    f"shadow of {name!r} is {found.dtype} of shape {found.shape}, "
                    f"expected {array.dtype} of shape {array.shape}"
                )
            if np.isnan(found).any():
                raise ValueError(f"shadow of {name!r} has NaN")
        return values

    def _weight(self, call: str) -> float:
        """Return the weight of the parameters in the next average."""
        self._refuse_swapped(call)
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        return 1.0 - decay

    def _refuse_swapped(self, call: str) -> None:
        if self.swapped:
            raise RuntimeError(f"{call} while the average is swapped in; swap it back first")

    def _in_order(self, params: Params) -> list[Array]:
        """Return the parameters in the order of the average."""
        params = reiterable(params)
        given: Any = dict(zip(*all_arrays(params), strict=True)) if is_groups(params) else params
        ordered: list[Any] = in_order(self.shadow.names, given, self._buffer, "params")
        for name, array, dtype in zip(self.shadow, ordered, self._dtypes, strict=True):
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                what = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                raise TypeError(f"params[{name!r}] must be {dtype} as it was at first, got {what}")
        return ordered

    def __repr__(self) -> str:
        return (
            f"EMA(decay={self.decay}, warmup={self.warmup}, updates={self.updates}, "
            f"shadow={self.shadow!r})"
        )
