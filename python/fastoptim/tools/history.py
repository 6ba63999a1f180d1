"""A record of the loss, rates and gradient norms of a training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim import _core
from fastoptim._checks import scalar
from fastoptim._commit import Call, setting
from fastoptim.grads.clip import Gradients, get_total_norm

__all__ = ["History"]


class History(Mapping[str, NDArray[np.float64]]):
    """Records loss, rate, gradient norms and other values of each step, and plots them.

    A mapping from names to float64 arrays of the values so far. Values that are not recorded at
    every step, such as a test loss, have shorter arrays; `steps` returns their steps.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([3.0, 4.0])
    >>> opt = fo.SGD({"w": w}, lr=0.1)
    >>> history = fo.History()
    >>> for _ in range(3):
    ...     grads = {"w": w.copy()}
    ...     history.record(loss=0.5 * float(w @ w), optimizer=opt, grads=grads)
    ...     info = opt.step(grads)
    >>> list(history)
    ['loss', 'lr', 'grad_norm', 'grad_norm/w']
    >>> history["grad_norm"].round(6)
    array([5.  , 4.5 , 4.05])
    """

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._steps: dict[str, list[int]] = {}
        self._count = 0

    def record(
        self,
        loss: float | None = None,
        *,
        optimizer: Any = None,
        grads: Gradients | None = None,
        **values: float,
    ) -> None:
        """Record the values of one step; after an error nothing is recorded.

        Parameters
        ----------
        loss : float, optional
            The loss, recorded as ``"loss"``.
        optimizer : object with ``param_groups``, optional
            Its rate is recorded as ``"lr"``; with several groups as ``"lr/0"``, ``"lr/1"``, ... A
            rate that is a function of the step is evaluated for the next step: call `record` before
            ``step``, or always after it.
        grads : FlatBuffer, array, sequence or mapping, optional
            Their global 2-norm is recorded as ``"grad_norm"``, and that of each array as
            ``"grad_norm/NAME"`` if they have names, or ``"grad_norm/0"``, ..., in one pass over the
            gradients. They have any dtype that ``step`` accepts; None counts as zero.
        **values : float
            Other values, recorded under their names.

        Raises
        ------
        TypeError
            A value is not a number, or ``optimizer`` has no ``param_groups``.
        """
        found = {} if loss is None else {"loss": scalar("loss", loss)}
        found |= _rates(optimizer) if optimizer is not None else {}
        found |= _norms(grads) if grads is not None else {}
        for name, value in values.items():
            found[name] = scalar(name, value)
        recorded: list[Call] = [setting(self, _count=self._count + 1)]
        for name, value in found.items():
            for lists, item in (self._values, value), (self._steps, self._count):
                known: list[Any] | None = lists.get(name)
                if known is None:
                    recorded.append((lists.update, {name: [item]}))
                else:
                    recorded.append((known.append, item))
        _core.call_all(recorded)

    def steps(self, name: str) -> NDArray[np.int64]:
        """Return the numbers of the steps, from 0, at which ``name`` was recorded."""
        return np.array(self._steps[name], np.int64)

    def plot(self, *names: str, ax: Any = None) -> Any:
        """Plot the values of these names, or all; see `fastoptim.plot.history`."""
        from fastoptim.plot import history

        return history(self, *names, ax=ax)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return np.array(self._values[name], np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"History({self._count} steps of {', '.join(self._values) or 'nothing'})"


def _rates(optimizer: Any) -> dict[str, float]:
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(f"optimizer must have param_groups, got {type(optimizer).__name__}")
    rates = [group["lr"] for group in optimizer.param_groups]
    if any(callable(rate) for rate in rates):
        rates = [optimizer.current("lr", index) for index in range(len(rates))]
    if len(rates) == 1:
        return {"lr": scalar("lr", rates[0])}
    return {f"lr/{index}": scalar("lr", rate) for index, rate in enumerate(rates)}


def _norms(grads: Gradients) -> dict[str, float]:
    if isinstance(grads, np.ndarray):
        return {"grad_norm": get_total_norm(grads)}
    if isinstance(grads, Mapping):
        named = dict(grads)
    else:
        named = {str(index): grad for index, grad in enumerate(grads)}
    norms = {name: 0.0 if g is None else get_total_norm({name: g}) for name, g in named.items()}
    # Squares of very large or small norms overflow or underflow; hypot avoids this.
    total = math.hypot(*norms.values())
    return {"grad_norm": total} | {f"grad_norm/{name}": norm for name, norm in norms.items()}
