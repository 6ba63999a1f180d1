"""Gradient accumulation, for batches that are too large for one pass."""

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

    If the loss is a mean over rows and the weight is the number of rows, this is the gradient of
    the whole batch, even if the micro-batches have different sizes. The usual sum of gradients
    divided by the number of micro-batches gives too much weight to the rows of a shorter last one.
    If the loss is a sum, add each gradient with weight 1; the sum of the gradients is then this
    mean times `weight`.

    A gradient of None in a micro-batch counts as zeros, as in PyTorch. If it is None in all of
    them, it stays None.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        The parameters, for their names, shapes and dtypes; either all or none are float64. The mean
        is float64 for float64, and float32 for all others.

    Attributes
    ----------
    weight : float
        The sum of the weights since the last reset.

    Raises
    ------
    TypeError
        Some but not all parameters are float64.
    ValueError
        A layout is invalid, or a name is repeated.

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
    # For each parameter, whether it had a gradient.
    _present: dict[str, bool]

    def __init__(self, params: Params) -> None:
        names, arrays = all_arrays(params)
        self._mean = averaged(names, arrays)
        self._dtypes = [array.dtype for array in arrays]
        self._buffer = self._mean if isinstance(params, FlatBuffer) else None
        self.reset()

    def reset(self) -> None:
        """Discard all gradients, to begin the next batch."""
        nothing = setting(self, _present=dict.fromkeys(self._mean, False), weight=0.0)
        mean = self._mean.flat
        _core.lerp([mean], [np.zeros_like(mean)], 1.0, "zeros", ["mean"], [nothing])

    def add(self, grads: Grads, weight: float) -> None:
        """Add the gradients of a micro-batch to the mean.

        Parameters
        ----------
        grads : FlatBuffer, array, sequence or mapping
            Gradients in the structure of the parameters, with their dtype or, except for float64,
            16 bits; None for a parameter without a gradient.
        weight : float
            The weight of these gradients, such as the number of rows; finite and >= 0. With 0, as
            for a batch whose targets are all ignored, nothing is added, even if the gradients are
            NaN.

        Raises
        ------
        TypeError
            The dtype of a gradient does not match its parameter, or it is not a plain array.
        ValueError
            A structure, shape or layout is invalid, arrays share memory, or the weight is out of
            range. Nothing has changed then.
        RuntimeError
            Another thread is using the same memory.
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
        # The mean is zero for a parameter that had no gradient so far.
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
        """Refuse gradients that cannot be added."""
        pairs = zip(self._mean, given, strict=True)
        arrays = {name: array for name, array in pairs if array is not None}
        nowhere = self._mean.zeros_like()
        means = [nowhere[name] for name in arrays]
        _core.lerp(means, list(arrays.values()), 1.0, "grads", list(arrays))

    @property
    def grads(self) -> FlatBuffer | dict[str, Any]:
        """The mean so far, by name, as an argument of ``step``; the next `add` changes its arrays.

        A FlatBuffer if all parameters have a gradient. Gradients of 16-bit parameters are rounded
        to the dtype of the parameters.

        Raises
        ------
        RuntimeError
            No gradients have been added.
        """
        if self.weight == 0:
            raise RuntimeError("call add before reading the gradients")
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
