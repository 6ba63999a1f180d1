"""The base class of the schedules."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

# A float or a float64 array: every closed form is written once for both.
Steps: TypeAlias = Any


def where(condition: Any, a: Steps, b: Steps) -> Steps:
    """Select as `numpy.where` does, which takes 2 us for a single number."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, a, b)
    return a if condition else b


def minimum(a: Steps, b: float) -> Steps:
    """Return the smaller value, as `numpy.minimum` does for arrays."""
    return where(a < b, a, b)


def maximum(a: Steps, b: float) -> Steps:
    """Return the larger value, as `numpy.maximum` does for arrays."""
    return where(a > b, a, b)


def power(base: Steps, exponent: Steps) -> Steps:
    """Return a power, as `numpy.power` does, with the same bits for a number and an array.

    NumPy has special cases for some exponents, but only for a scalar exponent.
    """
    if isinstance(exponent, np.ndarray):
        raised = np.power(base, exponent)
        raised = np.where(exponent == 0.5, np.sqrt(base), raised)
        return np.where(exponent == 2, base * base, raised)
    if exponent == 2:
        return base * base
    return np.sqrt(base) if exponent == 0.5 else np.power(base, exponent)


class Schedule(ABC):
    """The base class of the schedules, which are functions of the step."""

    @overload
    def __call__(self, step: float) -> float: ...
    @overload
    def __call__(self, step: npt.ArrayLike) -> npt.NDArray[np.float64]: ...
    def __call__(self, step: npt.ArrayLike) -> float | npt.NDArray[np.float64]:
        """Return the value at ``step``.

        Parameters
        ----------
        step : number or array_like of numbers
            The number of completed steps, finite and at least 0; may be fractional.

        Returns
        -------
        float or ndarray
            A float for a number; a float64 array of the same shape for an array.

        Raises
        ------
        TypeError
            If ``step`` does not consist of real numbers.
        ValueError
            If a step is negative, infinite or NaN.
        """
        if isinstance(step, (int, float, np.integer, np.floating)):
            if not 0 <= step < math.inf:
                raise ValueError(f"step must be finite and >= 0, got {step}")
            return float(self._at(float(step)))
        given = np.asarray(step)
        if given.dtype.kind not in "iuf":
            raise TypeError(f"step must be a real number or an array of them, got {step!r}")
        steps = given.astype(np.float64, order="C")
        if not ((steps >= 0) & (steps < math.inf)).all():
            raise ValueError("every step must be finite and >= 0")
        return np.asarray(self._at(steps))

    @abstractmethod
    def _at(self, t: Steps) -> Steps:
        """Evaluate the closed form at ``t >= 0``."""

    def _check(self, **checks: Callable[[str, object], float]) -> None:
        """Replace each named argument by the result of its check."""
        for name, check in checks.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
