"""Gradients by differences, and the check of gradients against them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim._checks import non_negative, positive, scalar
from fastoptim._commit import T, restored
from fastoptim.params.structure import Array, Arrays, in_form, matched, real_arrays
from fastoptim.tools.progress import progress

__all__ = ["GradCheck", "check_grad", "numerical_gradient"]

# Roundings that the value of a function may carry, as a multiple of float64's.
_ROUNDINGS = 16 * 2.0**-53
# Estimates of an error are taken this much larger: some are small by chance.
_SAFETY = 4.0


class _Probe:
    """A function of ``x`` at points that differ from ``x`` in one element.

    The function gets float64 arrays. ``x`` itself is moved too, for functions that read it from
    elsewhere, and only to points that its own dtype has: both see the same ones.
    """

    def __init__(self, fn: Callable[[Any], float], x: Arrays, eps: float) -> None:
        self.fn, self.eps = fn, positive("eps", eps)
        self.names = list(real_arrays("x", x))
        self.own = list(real_arrays("x", x).values())
        for name, array in zip(self.names, self.own, strict=True):
            if not array.flags.writeable:
                raise ValueError(f"x[{name!r}] is read-only, but moves to where fn is evaluated")
        if all(array.dtype == np.float64 for array in self.own):
            self.argument = x
        else:
            self.argument = in_form(x, [array.astype(np.float64) for array in self.own])
        self.given = list(real_arrays("x", self.argument).values())
        # Each element, by its array and its place there.
        self.places = [(i, k) for i, array in enumerate(self.own) for k in range(array.size)]

    def restored(self, action: Callable[[], T]) -> T:
        """Return what ``action`` does, and bring ``x`` back in any case, to the byte."""
        saved = [array.copy() for array in self.own]

        def restore() -> None:
            for array, copy in zip(self.own, saved, strict=True):
                array[...] = copy

        return restored(action, restore)

    def slope(self, place: tuple[int, int], h: float) -> tuple[float, float]:
        """Give the central difference by one element, and what rounding may have added to it."""
        i, k = place
        own, given = self.own[i].flat, self.given[i].flat
        start, start_given = own[k], given[k]
        kind, middle = self.own[i].dtype.type, float(start)
        h = max(h, float(np.spacing(abs(start))))
        # A step that the dtype has, so that both sides are equally far away.
        h = float(kind(middle + h)) - middle
        values, points = [], []
        try:
            for target in (middle + h, middle - h):
                own[k] = kind(target)
                given[k] = float(own[k])
                points.append(float(own[k]))
                values.append(scalar("the value of fn", self.fn(self.argument)))
        finally:
            own[k] = start
            given[k] = start_given
        width = points[0] - points[1]
        noise = _ROUNDINGS * max(map(abs, values)) / abs(width)
        return (values[0] - values[1]) / width, noise

    def slopes(self, quiet: bool) -> NDArray[np.float64]:
        """Give the difference by every element."""
        places = progress(self.places, len(self.places), "numerical gradient", quiet=quiet)
        return np.array([self.slope(place, self.eps)[0] for place in places], np.float64)

    def best_slope(self, place: tuple[int, int]) -> tuple[float, float]:
        """Give the difference of the width that errs least by its own account, and that error.

        Wide differences err by the curvature, narrow ones by rounding. How much shows in the change
        from one width to the next, relative to the slope: far from where a function varies all
        slopes, and so their changes, are small. Only a slope that no width shows is near zero.
        """
        element = abs(self.own[place[0]].flat[place[1]])
        scale = float(element)
        width = 1e3 * self.eps * max(1.0, scale)
        least = max(1e-3 * self.eps * (min(1.0, scale) or 1.0), float(np.spacing(element)))
        before, best, least_key = math.nan, (math.nan, math.inf), (True, math.inf)
        while width >= least:
            try:
                with np.errstate(all="ignore"):
                    slope, noise = self.slope(place, width)
            except (ArithmeticError, ValueError):  # Outside of where the function is defined.
                slope, noise = math.nan, math.inf
            error = _SAFETY * abs(slope - before) + noise
            shown = error < 0.1 * abs(slope)
            key = (not shown, error / abs(slope) if shown else error)
            if key < least_key:
                best, least_key = (slope, error), key
            before = slope
            width /= 10
        return best

    def index(self, place: tuple[int, int]) -> Any:
        """Name one element as the user would."""
        i, k = place
        inside = tuple(int(j) for j in np.unravel_index(k, self.own[i].shape))
        if isinstance(self.argument, np.ndarray):
            return inside
        return (self.names[i] if isinstance(self.argument, Mapping) else i, inside)


def numerical_gradient(
    fn: Callable[[Any], float], x: Arrays, eps: float = 1e-5, *, quiet: bool = False
) -> Any:
    r"""Estimate the gradient of a function by central differences, in float64.

    .. math::
        g_i = \frac{f(x + \epsilon e_i) - f(x - \epsilon e_i)}{2 \epsilon}

    For checking a gradient; training by it would take two evaluations per parameter and step.

    Parameters
    ----------
    fn : function
        Takes what has the form of ``x``, in float64, and returns a number; its data should be
        float64 too. It may also read ``x`` from elsewhere, as a network that holds it does: ``x``
        itself moves with what it is given.
    x : FlatBuffer, array, or sequence or mapping of arrays
        Where to take the gradient; of a floating dtype and writable. It is restored to the byte,
        also when ``fn`` raises.
    eps : float, default 1e-5
        Half the width of the differences, finite and > 0: near the third root of float64's
        precision, where the errors by curvature and by rounding balance. Where the dtype of ``x``
        has no such step, the next one.
    quiet : bool, default False
        Shows no progress bar. There is one only where standard error is looked at.

    Returns
    -------
    FlatBuffer, array, or list or dict of arrays
        The gradient in float64, in the form of ``x``.

    Raises
    ------
    TypeError
        ``x`` is not of real numbers, or ``fn`` returns no number.
    ValueError
        ``eps`` is out of range, or ``x`` is read-only.

    References
    ----------
    Press et al., "Numerical Recipes", 3rd edition, 2007, section 5.7.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> fo.numerical_gradient(lambda x: (x**3).sum(), np.array([1.0, -2.0])).round(6)
    array([ 3., 12.])
    """
    probe = _Probe(fn, x, eps)
    slopes = probe.restored(lambda: probe.slopes(quiet))
    ends = np.cumsum([array.size for array in probe.own])[:-1]
    parts = np.split(slopes, ends) if probe.own else []
    shaped = [part.reshape(array.shape) for part, array in zip(parts, probe.own, strict=True)]
    return in_form(x, shaped)


@dataclass(frozen=True)
class GradCheck:
    """The verdict on a gradient: true where it is right.

    Attributes
    ----------
    relative_error : float
        The largest of ``|a - n| / max(|a|, |n|)`` over the elements, less what the error of the
        difference ``n`` itself may explain.
    worst_index : tuple or None
        Where that is: the index of an array, or (name, index) for a FlatBuffer or mapping and
        (position, index) for a sequence. None where there are no elements.
    analytic, numerical : float
        The two derivatives there.
    tol : float
        The largest relative error of a gradient that is right.
    """

    relative_error: float
    worst_index: Any
    analytic: float
    numerical: float
    tol: float

    def __bool__(self) -> bool:
        return self.relative_error <= self.tol


def check_grad(
    fn: Callable[[Any], float],
    grad: Any,
    x: Arrays,
    eps: float = 1e-5,
    tol: float = 1e-6,
    *,
    quiet: bool = False,
) -> GradCheck:
    """Check a gradient, element by element, against central differences of its function.

    Elements that agree with differences of width ``eps`` to ``tol`` are right. For the others the
    width is varied, and the difference with the least error by its own account decides: gradients
    near zero among large ones, tiny and huge arguments and functions are told apart too. A function
    that computes in float32 carries its rounding into the differences: ``eps=1e-2, tol=1e-2`` then.

    Parameters
    ----------
    fn : function
        Takes what has the form of ``x``, in float64, and returns a number.
    grad : FlatBuffer, array, sequence or mapping of arrays, or function
        The gradient to check at ``x``, or a function that takes what ``fn`` takes and returns it.
    x : FlatBuffer, array, or sequence or mapping of arrays
        Where to check; restored to the byte, also when a function raises. Stay away from kinks,
        where no difference gives a derivative.
    eps : float, default 1e-5
        Half the width of the differences, finite and > 0.
    tol : float, default 1e-6
        The largest relative error of a gradient that is right, >= 0.
    quiet : bool, default False
        Shows no progress bar. There is one only where standard error is looked at.

    Returns
    -------
    GradCheck
        ``bool()`` of it is the verdict; it also tells where the gradient is worst.

    Raises
    ------
    TypeError
        ``x`` is not of real numbers, or ``fn`` returns no number.
    ValueError
        ``eps`` or ``tol`` is out of range, ``grad`` has another structure than ``x``, or ``x`` is
        read-only.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> x = np.array([[1.0, 2.0], [3.0, 1e-9]])
    >>> bool(fo.check_grad(lambda x: (x**2).sum(), 2 * x, x))
    True
    >>> check = fo.check_grad(lambda x: (x**2).sum(), lambda x: 2 * x + [0, 1e-3], x)
    >>> bool(check), check.worst_index
    (False, (1, 1))
    """
    tol = non_negative("tol", tol)
    probe = _Probe(fn, x, eps)

    def action() -> GradCheck:
        claimed = matched("grad", grad(probe.argument) if callable(grad) else grad, x)
        parts = [np.array(part, np.float64).reshape(-1) for part in claimed]
        analytic = np.concatenate([np.empty(0), *parts])
        numerical = probe.slopes(quiet)
        return _verdict(probe, analytic, numerical, tol)

    return probe.restored(action)


def _verdict(probe: _Probe, analytic: Array, numerical: Array, tol: float) -> GradCheck:
    errors = np.array(
        [_relative(*pair) for pair in zip(analytic, numerical, strict=True)], np.float64
    )
    worst = GradCheck(0.0, None, math.nan, math.nan, tol)
    for position in np.argsort(-errors, kind="stable"):
        # None of those that follow is worse by more than a hundredth.
        if worst.worst_index is not None and errors[position] <= 1.01 * worst.relative_error:
            break
        place = probe.places[position]
        a, n, error = float(analytic[position]), float(numerical[position]), errors[position]
        if error > tol:
            n, uncertain = probe.best_slope(place)
            error = _relative(a, n, uncertain)
        if worst.worst_index is None or error > worst.relative_error:
            worst = GradCheck(float(error), probe.index(place), a, n, tol)
    return worst


def _relative(a: float, n: float, uncertain: float = 0.0) -> float:
    if a == n:
        return 0.0
    if not (math.isfinite(a) and math.isfinite(n)):
        return math.inf
    largest = max(abs(a), abs(n))
    # Halves, so that the difference of the largest numbers is finite.
    return max(0.0, 2 * (abs(a / 2 - n / 2) - uncertain / 2) / largest)
