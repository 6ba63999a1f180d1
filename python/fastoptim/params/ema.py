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
    gone_through,
    in_order,
    is_groups,
)

__all__ = ["EMA"]

_decay = partial(between, low=0, high=1, ends="[)")


class EMA(CheckedAttributes):
    r"""An exponential moving average of the parameters, to evaluate with in their place.

    .. math::
        s \leftarrow s + (1 - d_t) (p - s), \qquad
        d_t = \text{decay}, \text{ or with warm-up } \min(\text{decay}, (1 + t) / (10 + t))

    The average of the last 1 / (1 - decay) steps or so has less of the noise of each of them, and
    often generalizes better than the last step, as if the rate had been lowered. It costs no
    training and no gradients. With ``step(ema=ema)`` of an optimizer it is made in the sweep of the
    step itself: the bits of `update`, without reading the parameters again. `ScheduleFreeAdamW`
    averages by itself and needs none.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        The parameters that the average starts from: float64 all or none.
    decay : float, default 0.999
        How much of the average each update keeps, in [0, 1); 0 copies the parameters.
    warmup : bool, default False
        Keep less at first, so that short trainings do not remember their initialization. Update t,
        counted from 0, then keeps (1 + t) / (10 + t) at most.

    Attributes
    ----------
    shadow : FlatBuffer
        The average, under the names of the parameters: float64 for float64, float32 for all
        others, as an average in 16 bits would not move.
    decay, warmup
        The arguments; they may be changed between updates.
    updates : int
        The number of updates so far.

    Raises
    ------
    TypeError
        Some but not all parameters are float64, or an argument has the wrong type.
    ValueError
        A layout, a repeated name, or a decay outside [0, 1).

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
        # While swapped: what the shadow cannot keep, None where it does.
        self._kept: list[Array | None] | None = None

    @property
    def swapped(self) -> bool:
        """Whether the average is in the place of the parameters."""
        return self._kept is not None

    def update(self, params: Params) -> None:
        """Move the average towards the parameters.

        Parameters
        ----------
        params : FlatBuffer, array, sequence, mapping or list of groups
            The parameters in the structure of those that the average started from.

        Raises
        ------
        TypeError
            A parameter has another dtype, or is not a plain array.
        ValueError
            A wrong structure, shape or layout, or memory that is shared. Nothing has changed then.
        RuntimeError
            The average is swapped in, or another thread is working on the same memory.
        """
        weight = self._weight("update")
        ordered = self._in_order(params)
        counted = [setting(self, updates=self.updates + 1)]
        _core.lerp(self.shadow.views, ordered, weight, "params", self.shadow.names, counted)

    def swap(self, params: Params) -> None:
        """Exchange the parameters and the average; once more brings both back, to the bit.

        Parameters in 16 bits get the average rounded to the nearest, and are kept meanwhile in
        memory of their own; all others are kept in ``shadow``.

        Parameters
        ----------
        params : FlatBuffer, array, sequence, mapping or list of groups
            The parameters in the structure of those that the average started from.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As `update` does, and for parameters that are read-only.
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
        """Return the average of those parameters that have another dtype, in theirs."""
        with np.errstate(all="ignore"):
            return [
                None if array.dtype == dtype else array.astype(dtype)
                for array, dtype in zip(self.shadow.views, self._dtypes, strict=True)
            ]

    def _begin(self) -> tuple[tuple[list[Array], float], list[Call]]:
        """Return what a step needs to make the next update, and to count it.

        Returns
        -------
        tuple
            The arrays of the average and the weight of the parameters in it.
        list of calls
            What the step calls when it is done.

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
        """Continue from what ``state_dict`` returned; everything is checked before that.

        Raises
        ------
        CheckpointError
            The dict is not one of an average of these parameters.
        RuntimeError
            The average is swapped in.
        """
        self._refuse_swapped("load_state_dict")
        expected = {"decay", "warmup", "updates", "shadow"}
        if not isinstance(state_dict, Mapping) or set(state_dict) != expected:
            raise CheckpointError(f"the state of an EMA has {sorted(expected)}")
        loaded = self._loading(state_dict)
        try:
            values = self._loaded(state_dict["shadow"])
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the state of an EMA: {error}") from None
        _core.lerp(self.shadow.views, values, 1.0, "shadow", self.shadow.names, loaded)

    def _loading(self, state: Mapping[str, Any]) -> list[Call]:
        """Check what a state has beside the average, and return the calls that take it over."""
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
        """Return the share of the parameters in the next average."""
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
        params = gone_through(params)
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
