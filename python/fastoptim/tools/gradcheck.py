"""Numerical gradients, and the check of gradients against them."""

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

# The rounding error of the value of a function, as a multiple of the epsilon of float64.
_ROUNDINGS = 16 * 2.0**-53
# Error estimates are multiplied by this, since some are small by chance.
_SAFETY = 4.0


class _Probe:
    """A function of ``x``, evaluated at points that differ from ``x`` in one element.

    The function receives float64 arrays. ``x`` itself is changed too, for functions that read it
    from elsewhere. Points are representable in the dtype of ``x``, so that both are equal.
    """

    def __init__(self, fn: Callable[[Any], float], x: Arrays, eps: float) -> None:
        self.fn, self.eps = fn, positive("eps", eps)
        self.names = list(real_arrays("x", x))
        self.own = list(real_arrays("x", x).values())
        for name, array in zip(self.names, self.own, strict=True):
            if not array.flags.writeable:
                raise ValueError(f"x[{name!r}] is read-only, but must be changed to evaluate fn")
        if all(array.dtype == np.float64 for array in self.own):
            self.argument = x
        else:
            self.argument = in_form(x, [array.astype(np.float64) for array in self.own])
        self.given = list(real_arrays("x", self.argument).values())
        # Each element, as the index of its array and its index there.
        self.places = [(i, k) for i, array in enumerate(self.own) for k in range(array.size)]

    def restored(self, action: Callable[[], T]) -> T:
        """Return the result of ``action``, and always restore ``x``, bit for bit."""
        saved = [array.copy() for array in self.own]

        def restore() -> None:
            for array, copy in zip(self.own, saved, strict=True):
                array[...] = copy

        return restored(action, restore)

    def slope(self, place: tuple[int, int], h: float) -> tuple[float, float]:
        """Return the central difference for one element, and its rounding error."""
        i, k = place
        own, given = self.own[i].flat, self.given[i].flat
        start, start_given = own[k], given[k]
        kind, middle = self.own[i].dtype.type, float(start)
        h = max(h, float(np.spacing(abs(start))))
        # A step that is exact in the dtype, so that both points have the same distance.
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
        """Return the difference for every element."""
        places = progress(self.places, len(self.places), "numerical gradient", quiet=quiet)
        return np.array([self.slope(place, self.eps)[0] for place in places], np.float64)

    def best_slope(self, place: tuple[int, int]) -> tuple[float, float]:
        """Return the difference with the smallest estimated error, and this error.

        Wide differences have a truncation error, and narrow ones a rounding error. The change from
        one width to the next, relative to the slope, estimates the error: far from the region in
        which a function varies, all slopes and their changes are small. A slope is considered zero
        only if it is zero for all widths.
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
            except (ArithmeticError, ValueError):  # Outside the domain of the function.
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
        """Return the index of an element in the structure of ``x``."""
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

    For checking gradients; it needs two evaluations per parameter.

    Parameters
    ----------
    fn : function
        Takes an argument in the form of ``x``, in float64, and returns a number; its data should be
        float64 too. It may also read ``x`` from elsewhere, as a network does that holds it: ``x``
        changes together with the argument.
    x : FlatBuffer, array, or sequence or mapping of arrays
        The point of the gradient; of a floating dtype and writable. It is restored bit for bit,
        also if ``fn`` raises an error.
    eps : float, default 1e-5
        Half the width of the differences, finite and > 0. The default is near the cube root of the
        epsilon of float64, where truncation and rounding errors are about equal. Rounded to the
        next step that the dtype of ``x`` can represent.
    quiet : bool, default False
        Shows no progress bar; otherwise there is one if standard error is a terminal or notebook.

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
    """The result of a gradient check: true if the gradient is right.

    Attributes
    ----------
    relative_error : float
        The largest of ``|a - n| / max(|a|, |n|)`` over the elements, minus the estimated error of
        the difference ``n``.
    worst_index : tuple or None
        The element with this error: an index for an array, (name, index) for a FlatBuffer or
        mapping, and (position, index) for a sequence. None if there are no elements.
    analytic, numerical : float
        The two derivatives of this element.
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
    width is varied, and the difference with the smallest estimated error is used, so that gradients
    near zero among large ones, and very small or large arguments and functions, are also checked
    correctly. For a function that computes in float32, use ``eps=1e-2, tol=1e-2``, because the
    differences contain its rounding error.

    Parameters
    ----------
    fn : function
        Takes an argument in the form of ``x``, in float64, and returns a number.
    grad : FlatBuffer, array, sequence or mapping of arrays, or function
        The gradient to check at ``x``, or a function that takes the argument of ``fn`` and returns
        it.
    x : FlatBuffer, array, or sequence or mapping of arrays
        The point of the check; restored bit for bit, also if a function raises an error. It must
        not be near kinks, where differences do not approximate a derivative.
    eps : float, default 1e-5
        Half the width of the differences, finite and > 0.
    tol : float, default 1e-6
        The largest relative error of a gradient that is right, >= 0.
    quiet : bool, default False
        Shows no progress bar; otherwise there is one if standard error is a terminal or notebook.

    Returns
    -------
    GradCheck
        True if the gradient is right; also has the element with the largest error.

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
        # No later element has an error larger by more than 1%.
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
    # Halved, so that the difference of the largest numbers is finite.
    return max(0.0, 2 * (abs(a / 2 - n / 2) - uncertain / 2) / largest)
