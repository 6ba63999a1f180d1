"""The base classes of the losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fastoptim import _core

Array = npt.NDArray[Any]
Reduction = Literal["mean", "sum", "none"]

# Weights of classes or of elements. Lists and tuples take the type of the input.
Weights: TypeAlias = Array | Sequence[float]

# The class of a single row.
Class: TypeAlias = int | np.integer[Any]

# A float, or an array with ``reduction="none"``. As a union with the array every user of a mean
# would have to tell the two apart; `Any` leaves that to those who asked for the array.
Value: TypeAlias = float | Any


class Loss(ABC):
    """The abstract base of all losses.

    A subclass defines one method, `value_and_grad`; the base adds the call and `grad`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> class Sum(fo.losses.Loss):
    ...     def value_and_grad(self, *inputs, out=None, loss_scale=1.0):
    ...         (x,) = inputs
    ...         gradient = np.empty_like(x) if out is None else out
    ...         gradient[...] = loss_scale
    ...         return float(x.sum()), gradient
    >>> Sum()(np.ones(3)), Sum().grad(np.ones(3))
    (3.0, array([1., 1., 1.]))
    """

    @abstractmethod
    def value_and_grad(self, *inputs: Any, **options: Any) -> Any:
        """Compute the loss and its gradient.

        Parameters
        ----------
        *inputs
            The predictions, then the targets. The losses of this package name them as PyTorch does,
            and take them by name too.
        **options
            ``out``, the array that the gradient is written to, which may be that of the
            predictions; a loss of several gradients takes a tuple of arrays; default: a new array.
            And ``loss_scale``, a factor of the gradient, finite and > 0, by which
            ``step(loss_scale=)`` divides again; default 1.

        Returns
        -------
        value
            A float, or an array with ``reduction="none"``. It is not scaled.
        gradient
            ``out`` if it is given. With ``reduction="none"`` it is the gradient of the sum.

        Notes
        -----
        The losses of this package take float32, float64, float16 and bfloat16 (of ``ml_dtypes``).
        16-bit inputs are computed in float32, a few rows at a time: the value is that of float32,
        the gradient and unreduced values are rounded to the type of the input, and targets and
        weights may be float32 too. Class indices and labels are of any integer type.

        Class indices are checked before anything is written, and a copy of them is used, so that
        another thread may write the target during the call. If another thread writes a different
        argument, the value and ``out`` are computed from old and new elements, or the call raises
        RuntimeError because an element out of range changed during the call. A call writes to
        ``out`` only.
        """

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Compute the loss without its gradient."""
        return self.value_and_grad(*inputs, **named)[0]

    def grad(self, *inputs: Any, **options: Any) -> Any:
        """Compute the gradient without the loss; the arguments are those of `value_and_grad`."""
        return self.value_and_grad(*inputs, **options)[1]

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


class BuiltinLoss(Loss):
    """A loss of the core. Its attributes are the arguments of its constructor.

    They may be changed later, and are checked then as in the constructor.
    """

    # The name of the loss in the core, which checks names and ranges of the arguments.
    _name: ClassVar[str]

    # `KLDivLoss` alone has the last one.
    reduction: Reduction | Literal["batchmean"]

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        self._set(reduction=reduction)

    def _set(self, **arguments: Any) -> None:
        """Check all arguments of the loss, and make them its attributes."""
        vars(self).update(_core.loss_arguments(self._name, arguments))

    def __setattr__(self, name: str, value: Any) -> None:
        arguments = vars(self)
        if name in arguments:
            # Arguments that contradict each other are refused too.
            value = _core.loss_arguments(self._name, {**arguments, name: value})[name]
        super().__setattr__(name, value)


class ElementLoss(BuiltinLoss):
    """A loss of two arrays of one shape."""

    def __call__(self, input: Array, target: Array) -> Value:
        """Compute the loss without its gradient."""
        arrays = input, target
        return _core.compute_loss(self._name, self.__dict__, arrays, None, 1.0, False)[0]

    def value_and_grad(
        self, input: Array, target: Array, *, out: Array | None = None, loss_scale: float = 1.0
    ) -> tuple[Value, Array]:
        """Compute the loss and its gradient by `input`: see `Loss.value_and_grad`."""
        arrays = input, target
        return _core.compute_loss(self._name, self.__dict__, arrays, out, loss_scale, True)

    def grad(
        self, input: Array, target: Array, *, out: Array | None = None, loss_scale: float = 1.0
    ) -> Array:
        """Compute the gradient by `input` without the loss: see `Loss.value_and_grad`."""
        return self.value_and_grad(input, target, out=out, loss_scale=loss_scale)[1]


class ClassLoss(BuiltinLoss):
    """A loss of scores and of classes, where the class of a single row may be an int."""

    def __call__(self, input: Array, target: Array | Class) -> Value:
        """Compute the loss without its gradient."""
        arrays = input, target
        return _core.compute_loss(self._name, self.__dict__, arrays, None, 1.0, False)[0]

    def value_and_grad(
        self,
        input: Array,
        target: Array | Class,
        *,
        out: Array | None = None,
        loss_scale: float = 1.0,
    ) -> tuple[Value, Array]:
        """Compute the loss and its gradient by `input`: see `Loss.value_and_grad`."""
        arrays = input, target
        return _core.compute_loss(self._name, self.__dict__, arrays, out, loss_scale, True)

    def grad(
        self,
        input: Array,
        target: Array | Class,
        *,
        out: Array | None = None,
        loss_scale: float = 1.0,
    ) -> Array:
        """Compute the gradient by `input` without the loss: see `Loss.value_and_grad`."""
        return self.value_and_grad(input, target, out=out, loss_scale=loss_scale)[1]
