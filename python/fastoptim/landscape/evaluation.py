"""The loss along lines and over planes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastoptim import _core
from fastoptim._checks import integer, scalar, shown
from fastoptim.params.structure import Array, Arrays, in_form, matched, real_arrays
from fastoptim.tools.progress import progress

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """The loss along a line: ``values[i]`` at ``params + alphas[i] direction``."""

    alphas: Numbers
    values: Numbers


@dataclass(frozen=True)
class Plane:
    """The loss over a plane: ``values[i, j]`` at ``params + alphas[i] d1 + betas[j] d2``."""

    alphas: Numbers
    betas: Numbers
    values: Numbers


def line(
    objective: Callable[[Any], float],
    params: Arrays,
    direction: Any,
    alphas: ArrayLike,
    *,
    workers: int = 1,
    quiet: bool = False,
) -> Line:
    r"""Evaluate the loss at :math:`p + \alpha d` for each of the alphas.

    Along the `difference` of two solutions it shows whether there is a barrier between them, and
    along a `random_direction` the width of the minimum.

    Parameters
    ----------
    objective : function
        Takes a copy of the parameters, in the form of ``params``, and returns the loss.
    params : FlatBuffer, array, or sequence or mapping of arrays
        The point at alpha 0; not changed.
    direction : FlatBuffer, array, or sequence or mapping of arrays
        In the structure of ``params``.
    alphas : array of float
        1-D and finite.
    workers : int, default 1
        The number of threads that evaluate concurrently, each with its own copy and a share of the
        threads of ``fo.get_num_threads()``. Useful if the objective releases the GIL, as NumPy and
        the losses do for large arrays.
    quiet : bool, default False
        Shows no progress bar; otherwise there is one if standard error is a terminal or notebook.

    Returns
    -------
    Line
        ``values`` in float64, which may be NaN or infinite.

    Raises
    ------
    TypeError
        ``params`` does not have real numbers, or ``objective`` does not return a number.
    ValueError
        The structures differ, or an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> def objective(w):
    ...     return float(w @ w)
    >>> ours, theirs = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    >>> direction = fo.landscape.difference(ours, theirs)
    >>> fo.landscape.line(objective, ours, direction, [0, 0.5, 1]).values
    array([1. , 0.5, 1. ])
    """
    steps = _steps("alphas", alphas)
    directions = [matched("direction", direction, params)]
    values = _evaluate(objective, params, directions, steps[:, None], workers, quiet)
    return Line(steps, values)


def plane(
    objective: Callable[[Any], float],
    params: Arrays,
    d1: Any,
    d2: Any,
    alphas: ArrayLike,
    betas: ArrayLike,
    *,
    workers: int = 1,
    quiet: bool = False,
) -> Plane:
    r"""Evaluate the loss at :math:`p + \alpha d_1 + \beta d_2` for all pairs of alphas and betas.

    Parameters
    ----------
    objective : function
        Takes a copy of the parameters, in the form of ``params``, and returns the loss.
    params : FlatBuffer, array, or sequence or mapping of arrays
        The point at alpha 0 and beta 0; not changed.
    d1, d2 : FlatBuffer, array, or sequence or mapping of arrays
        Two directions in the structure of ``params``.
    alphas, betas : array of float
        1-D and finite.
    workers : int, default 1
        The number of threads that evaluate concurrently; see `line`.
    quiet : bool, default False
        Shows no progress bar; otherwise there is one if standard error is a terminal or notebook.

    Returns
    -------
    Plane
        ``values[i, j]`` at ``alphas[i], betas[j]``, in float64.

    Raises
    ------
    TypeError
        ``params`` does not have real numbers, or ``objective`` does not return a number.
    ValueError
        The structures differ, or an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.zeros(2)
    >>> x, y = np.eye(2)
    >>> fo.landscape.plane(lambda w: w[0] + 10 * w[1], w, x, y, [0, 1], [0, 1, 2]).values
    array([[ 0., 10., 20.],
           [ 1., 11., 21.]])
    """
    first, second = _steps("alphas", alphas), _steps("betas", betas)
    directions = [matched(name, d, params) for name, d in (("d1", d1), ("d2", d2))]
    points = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)
    values = _evaluate(objective, params, directions, points, workers, quiet)
    return Plane(first, second, values.reshape(len(first), len(second)))


def _steps(name: str, values: ArrayLike) -> Numbers:
    try:
        steps = np.array(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers, got {shown(values)}") from None
    if steps.ndim != 1 or not np.isfinite(steps).all():
        raise ValueError(f"{name} must be 1-D and finite, got {shown(values)}")
    return steps


def _evaluate(
    objective: Callable[[Any], float],
    params: Arrays,
    directions: Sequence[Sequence[Array]],
    points: Numbers,
    workers: int,
    quiet: bool,
) -> Numbers:
    """Evaluate the loss at each point, given as one coordinate per direction."""
    integer("workers", workers, least=1)
    arrays = list(real_arrays("params", params).values())

    def value(point: Numbers) -> float:
        return scalar(
            "the value of objective", objective(moved_copy(params, arrays, directions, point))
        )

    if workers == 1:
        return np.array(
            [value(p) for p in progress(points, len(points), "landscape", quiet=quiet)], np.float64
        )
    from concurrent.futures import ThreadPoolExecutor  # Slow to import.

    # The workers share the threads of the kernels.
    threads = max(1, _core.get_num_threads() // workers)
    with ThreadPoolExecutor(
        workers, initializer=_core.set_own_threads, initargs=(threads,)
    ) as pool:
        found = pool.map(value, points)
        return np.array(list(progress(found, len(points), "landscape", quiet=quiet)), np.float64)


def moved_copy(
    params: Arrays,
    arrays: Sequence[Array],
    directions: Sequence[Sequence[Array]],
    point: Sequence[float] | Numbers,
) -> Arrays:
    """Return a displaced copy of the parameters, summed in float64 and rounded once."""
    moved = []
    for array, *ways in zip(arrays, *directions, strict=True):
        total = array.astype(np.float64)
        for step, way in zip(point, ways, strict=True):
            total += float(step) * way.astype(np.float64, copy=False)
        moved.append(total.astype(array.dtype, copy=False))
    return in_form(params, moved)
