"""The base classes of the losses."""

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
    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and its gradient.

        Parameters
        ----------
        *inputs
            The predictions, then the targets.
        out
            The array that the gradient is written to, which may be that of the predictions. A loss
            of several gradients takes a tuple of arrays. Default: a new array.
        loss_scale
            A factor of the gradient, finite and > 0, by which ``step(loss_scale=)`` divides again.

        Returns
        -------
        value
            A float, or an array with ``reduction="none"``. It is not scaled.
        gradient
            `out` if it is given. With ``reduction="none"`` it is the gradient of the sum.

        Notes
        -----
        The losses of this package check class indices before they write anything, and use a copy of
        the indices, so that another thread may write the target during the call. If another thread
        writes a different argument, the value and `out` are computed from old and new elements, or
        the call raises RuntimeError because an element out of range changed before it could be
        named. A call writes to `out` only.
        """

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss without its gradient."""
        return self.value_and_grad(*inputs)[0]

    def grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the gradient without the loss; the arguments are those of `value_and_grad`."""
        return self.value_and_grad(*inputs, out=out, loss_scale=loss_scale)[1]

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


class BuiltinLoss(Loss):
    """A loss of the core. Its attributes are the arguments of its constructor.

    They may be changed later, and are checked then as in the constructor.
    """

    # The name of the loss in the core, which checks names and ranges of the arguments.
    _name: ClassVar[str]

    # A loss may have more reductions than `Reduction`.
    reduction: str

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

    def __call__(self, *inputs: Array) -> Any:
        """Compute the loss without its gradient."""
        return _core.compute_loss(self._name, self.__dict__, inputs, None, 1.0, False)[0]

    def value_and_grad(self, *inputs: Array, out: Any = None, loss_scale: float = 1.0) -> Any:
        """Compute the loss and its gradient, or a tuple of gradients: see `Loss.value_and_grad`."""
        return _core.compute_loss(self._name, self.__dict__, inputs, out, loss_scale, True)


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
