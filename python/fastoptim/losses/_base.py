"""What all losses share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from fastoptim import _core
from fastoptim._checks import number

Array = npt.NDArray[Any]
Reduction = Literal["mean", "sum", "none"]


class Loss(ABC):
    """The abstract base of all losses.

    A loss of one's own needs one method, `value_and_grad`; the call and `grad` come with the base.

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
    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and its gradient.

        Parameters
        ----------
        *inputs
            The predictions, then the targets.
        out
            Where the gradient goes; it may be the predictions themselves. Default: a new array.
        loss_scale
            A factor on the gradient, finite and > 0, which ``step(loss_scale=)`` divides out again.

        Returns
        -------
        value
            A float, or an array with ``reduction="none"``. It is not scaled.
        gradient
            `out`, where it is given. With ``reduction="none"`` it is the gradient of the sum.

        Notes
        -----
        The losses of this package check class indices before they write anything, and use what
        they checked: another thread may write the target meanwhile. Where one writes another
        argument, the value and `out` may come of old and of new elements, or the call raises
        RuntimeError because an element that is out of range was gone at a second look. Nothing
        but `out` is ever written.
        """

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss alone."""
        return self.value_and_grad(*inputs)[0]

    def grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the gradient alone; the arguments are those of `value_and_grad`."""
        return self.value_and_grad(*inputs, out=out, loss_scale=loss_scale)[1]

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


class Known(Loss):
    """A loss of the package: its attributes are the arguments of its constructor.

    They may be changed later, and are checked then as they are at first.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        arguments = vars(self)
        if name in arguments:
            # Arguments that do not go together are refused too.
            value = getattr(type(self)(**{**arguments, name: value}), name)
        super().__setattr__(name, value)


class Elementwise(Known):
    """A loss of one prediction and one target at a time, which the core knows by name."""

    _name: ClassVar[str]

    # "batchmean", too, where a loss has it.
    reduction: str

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        self.reduction = checked_reduction(reduction)

    def _parameters(self) -> tuple[float, ...]:
        return ()

    def _weights(self) -> tuple[Array | None, ...]:
        """Give the weights of the elements, then of the positives, as far as there are any."""
        return ()

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss alone."""
        x, target = two_inputs(inputs)
        return self._compute(self.reduction, x, target, None, 1.0, False)[0]

    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and its gradient by the first input; see `Loss.value_and_grad`."""
        x, target = two_inputs(inputs)
        return self._compute(self.reduction, x, target, out, loss_scale, True)

    def _compute(
        self, reduction: str, x: Array, target: Array, out: Any, loss_scale: float, grad: bool
    ) -> Any:
        return _core.elementwise_loss(
            self._name,
            self._parameters(),
            reduction,
            x,
            target,
            out,
            loss_scale,
            grad,
            *self._weights(),
        )


class Rows(Known):
    """A loss of rows of scores with a target each, which the core knows by name."""

    _name: ClassVar[str]
    # What a class counts for, if anything, and the class that counts for nothing.
    weight: Array | None = None
    ignore_index: int | None = None
    reduction: Reduction

    @abstractmethod
    def _parameters(self) -> tuple[float, ...]: ...

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss alone."""
        return self._compute(inputs, None, 1.0, False)[0]

    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and its gradient by the first input; see `Loss.value_and_grad`."""
        return self._compute(inputs, out, loss_scale, True)

    def _compute(self, inputs: tuple[Array, ...], out: Any, loss_scale: float, grad: bool) -> Any:
        scores, target = two_inputs(inputs)
        return _core.row_loss(
            self._name,
            self._parameters(),
            self.weight,
            self.ignore_index,
            self.reduction,
            scores,
            target,
            out,
            loss_scale,
            grad,
        )


class Vectors(Known):
    """A loss of several inputs of vectors, one per row, which the core knows by name."""

    _name: ClassVar[str]
    _inputs: ClassVar[tuple[str, ...]]
    _target: ClassVar[str | None] = None
    reduction: Reduction

    @abstractmethod
    def _parameters(self) -> tuple[float, ...]: ...

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss alone."""
        return self._compute(inputs, None, 1.0, False)[0]

    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and a tuple of its gradients; see `Loss.value_and_grad`."""
        return self._compute(inputs, out, loss_scale, True)

    def _compute(self, inputs: tuple[Array, ...], out: Any, loss_scale: float, grad: bool) -> Any:
        names = (*self._inputs, self._target) if self._target else self._inputs
        named = list(zip(names, checked_inputs(inputs, *names), strict=True))
        target = named.pop() if self._target else None
        return _core.vector_loss(
            self._name,
            self._parameters(),
            self.reduction,
            named,
            target,
            out,
            loss_scale,
            grad,
        )


def checked_inputs(inputs: tuple[Array, ...], *names: str) -> tuple[Array, ...]:
    """Check that there is an input per name."""
    if len(inputs) != len(names):
        raise TypeError(f"expected {', '.join(names)}, got {len(inputs)} arguments")
    return inputs


def two_inputs(inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """Check that there are an input and a target."""
    if len(inputs) != 2:
        raise TypeError(f"expected the input and the target, got {len(inputs)} arguments")
    return inputs


def checked_reduction(reduction: Reduction) -> Reduction:
    """Check the name of a reduction."""
    if not isinstance(reduction, str):
        raise TypeError(f"reduction must be a string, got {type(reduction).__name__}")
    if reduction not in {"mean", "sum", "none"}:
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    return reduction


def checked_number(
    name: str,
    value: float,
    *,
    least: float,
    most: float | None = None,
    open_end: bool = False,
) -> float:
    """Check a finite number, at least or above ``least``, and at most ``most`` if that is given."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    x = number(name, value)
    good = x > least if open_end else x >= least
    if not (good and np.isfinite(x) and (most is None or x <= most)):
        wanted = f"finite and {'>' if open_end else '>='} {least:g}"
        if most is not None:
            wanted = f"in [{least:g}, {most:g}]"
        raise ValueError(f"{name} must be {wanted}, got {value}")
    return x


def checked_weight(name: str, weight: Array | None) -> Array | None:
    """Check that a weight is an array, if it is given; its shape waits for the input's."""
    if weight is not None and not isinstance(weight, np.ndarray):
        raise TypeError(f"{name} must be a numpy.ndarray, got {type(weight).__name__}")
    return weight


def checked_class_weight(name: str, weight: Array | None) -> Array | None:
    """Check an array of a factor per class, if there is one."""
    if weight is not None and checked_weight(name, weight) is not None and weight.ndim != 1:
        raise ValueError(f"{name} must have shape (C,), got {weight.shape}")
    return weight
