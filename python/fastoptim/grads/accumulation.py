"""Gradients of batches that are too large to be made at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from fastoptim import _core
from fastoptim._checks import CheckedAttributes, Checks, non_negative, number
from fastoptim._commit import setting
from fastoptim.params.flat_buffer import FlatBuffer
from fastoptim.params.structure import Array, Grads, Params, all_arrays, averaged, in_order

__all__ = ["GradAccumulator"]


class GradAccumulator(CheckedAttributes):
    r"""The weighted mean of the gradients of micro-batches.

    .. math::
        \bar g \leftarrow \bar g + \frac{n}{N} (g - \bar g), \qquad N \leftarrow N + n

    For a loss that is a mean over rows, with the number of rows as the weight, this is the gradient
    of the whole batch, uneven micro-batches included. Adding up gradients that were divided by the
    number of micro-batches gives the rows of a short last one too much weight. For a loss that is a
    sum, the sum of the gradients is this mean times `weight` where each is added with weight 1.

    A parameter without gradient (None) in a micro-batch contributes nothing, as in PyTorch: its
    gradient there counts as zeros. One that has had none in any of them stays None.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        The parameters, for their names, shapes and dtypes: float64 all or none. The mean is
        kept in float64 for float64, in float32 for all others.

    Attributes
    ----------
    weight : float
        The sum of the weights since the last reset.

    Raises
    ------
    TypeError
        Some but not all parameters are float64.
    ValueError
        A layout, or a repeated name.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([1.0, -2.0])
    >>> opt, accumulator = fo.SGD(w, lr=0.5), fo.GradAccumulator(w)
    >>> accumulator.add(np.array([3.0, 0.0]), weight=3)
    >>> accumulator.add(np.array([7.0, 4.0]), weight=1)
    >>> accumulator.grads["0"]
    array([4., 1.])
    >>> opt.step(accumulator.grads).applied
    True
    >>> accumulator.reset()
    """

    _checks: ClassVar[Checks] = {"weight": non_negative}

    weight: float
    # Which parameters have had a gradient.
    _present: dict[str, bool]

    def __init__(self, params: Params) -> None:
        names, arrays = all_arrays(params)
        self._mean = averaged(names, arrays)
        self._dtypes = [array.dtype for array in arrays]
        self._buffer = self._mean if isinstance(params, FlatBuffer) else None
        self.reset()

    def reset(self) -> None:
        """Forget all gradients, for the next batch."""
        nothing = setting(self, _present=dict.fromkeys(self._mean, False), weight=0.0)
        mean = self._mean.flat
        _core.lerp([mean], [np.zeros_like(mean)], 1.0, "zeros", ["mean"], [nothing])

    def add(self, grads: Grads, weight: float) -> None:
        """Take the gradients of one more micro-batch into the mean.

        Parameters
        ----------
        grads : FlatBuffer, array, sequence or mapping
            Gradients in the structure of the parameters, of their dtype or, but for float64, of 16
            bits; None stands for a parameter without a gradient.
        weight : float
            What they count, such as the number of rows; finite and >= 0. With 0, as where all
            targets are ignored, nothing is added, whatever the gradients hold.

        Raises
        ------
        TypeError
            A gradient has another dtype than its parameter, or is not a plain array.
        ValueError
            A wrong structure, shape or layout, memory that is shared, or a weight out of range.
            Nothing has changed then.
        RuntimeError
            Another thread is working on the same memory.
        """
        weight = number("weight", weight)
        total = self.weight + weight
        if not (weight >= 0 and math.isfinite(total)):
            raise ValueError(f"weight must be >= 0 and its sum finite, got {weight}")
        given = in_order(self._mean.names, grads, self._buffer)
        if weight == 0:
            self._check(given)
            return
        present = {
            name: known or array is not None
            for (name, known), array in zip(self._present.items(), given, strict=True)
        }
        # A parameter without a gradient so far has a mean of zeros.
        names = [name for name in self._mean if present[name]]
        means = [self._mean[name] for name in names]
        values = [
            np.zeros_like(self._mean[name]) if array is None else array
            for name, array in zip(self._mean, given, strict=True)
            if present[name]
        ]
        added = [setting(self, _present=present, weight=total)]
        _core.lerp(means, values, weight / total, "grads", names, added)

    def _check(self, given: Sequence[Array | None]) -> None:
        """Refuse gradients that could not be added."""
        pairs = zip(self._mean, given, strict=True)
        arrays = {name: array for name, array in pairs if array is not None}
        nowhere = self._mean.zeros_like()
        means = [nowhere[name] for name in arrays]
        _core.lerp(means, list(arrays.values()), 1.0, "grads", list(arrays))

    @property
    def grads(self) -> FlatBuffer | dict[str, Any]:
        """The mean so far, by name, as ``step`` takes it; its arrays change with the next `add`.

        A FlatBuffer where all parameters have a gradient. Those of 16 bits get theirs rounded to
        their own dtype.

        Raises
        ------
        RuntimeError
            Nothing has been added.
        """
        if self.weight == 0:
            raise RuntimeError("there are no gradients before the first add")
        native = all(dtype == self._mean.dtype for dtype in self._dtypes)
        if native and all(self._present.values()):
            return self._mean
        with np.errstate(over="ignore"):
            return {
                name: self._mean[name].astype(dtype, copy=False) if here else None
                for (name, here), dtype in zip(self._present.items(), self._dtypes, strict=True)
            }

    def __repr__(self) -> str:
        return f"GradAccumulator(weight={self.weight}, {self._mean!r})"
