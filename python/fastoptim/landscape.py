"""The loss around a point: along lines, over planes, and how sharp its minimum is.

Draw what comes back with `fastoptim.plot.landscape`.

References
----------
Goodfellow, Vinyals and Saxe, "Qualitatively characterizing neural network optimization problems",
2015 (lines between solutions). Li et al., "Visualizing the Loss Landscape of Neural Nets", 2018
(planes, and directions normalized by filters).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastoptim import _core
from fastoptim.buffer import FlatBuffer
from fastoptim.clip import get_total_norm
from fastoptim.forms import Array, Arrays, arrays_of, in_form, matched
from fastoptim.objective import loss_and_grads, number
from fastoptim.progress import progress

__all__ = [
    "Line",
    "Plane",
    "coordinates",
    "difference",
    "line",
    "plane",
    "random_direction",
    "sharpness",
]

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

    Along `difference` between two solutions it tells whether a barrier lies between them; along a
    `random_direction`, how wide the valley is.

    Parameters
    ----------
    objective : function
        Takes a copy of the parameters, in the form of ``params``, and returns the loss.
    params : FlatBuffer, array, or sequence or mapping of arrays
        Where alpha is 0; never changed.
    direction : FlatBuffer, array, or sequence or mapping of arrays
        In the structure of ``params``.
    alphas : array of float
        1-D and finite.
    workers : int, default 1
        Threads that evaluate at once, each with a copy of its own. It pays where the objective
        spends its time outside the interpreter, as NumPy and the losses do on large arrays.
    quiet : bool, default False
        Shows no progress bar.

    Returns
    -------
    Line
        ``values`` in float64; what is NaN or infinite stays so.

    Raises
    ------
    TypeError
        ``params`` is not of real numbers, or ``objective`` returns no number.
    ValueError
        Another structure, or an argument out of range.

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
        Where both are 0; never changed.
    d1, d2 : FlatBuffer, array, or sequence or mapping of arrays
        Two directions in the structure of ``params``.
    alphas, betas : array of float
        1-D and finite.
    workers : int, default 1
        Threads that evaluate at once; see `line`.
    quiet : bool, default False
        Shows no progress bar.

    Returns
    -------
    Plane
        ``values[i, j]`` at ``alphas[i], betas[j]``, in float64.

    Raises
    ------
    TypeError
        ``params`` is not of real numbers, or ``objective`` returns no number.
    ValueError
        Another structure, or an argument out of range.

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
    steps = np.array(values, np.float64)
    if steps.ndim != 1 or not np.isfinite(steps).all():
        raise ValueError(f"{name} must be 1-D and finite, got {values!r}")
    return steps


def _evaluate(
    objective: Callable[[Any], float],
    params: Arrays,
    directions: Sequence[Sequence[Array]],
    points: Numbers,
    workers: int,
    quiet: bool,
) -> Numbers:
    """Give the loss at each point, which has one coordinate per direction."""
    if operator.index(workers) < 1:
        raise ValueError(f"workers must be >= 1, got {workers}")
    arrays = list(arrays_of("params", params).values())

    def value(point: Numbers) -> float:
        return number("objective", objective(_moved(params, arrays, directions, point)))

    if workers == 1:
        return np.array(
            [value(p) for p in progress(points, len(points), "landscape", quiet=quiet)], np.float64
        )
    from concurrent.futures import ThreadPoolExecutor  # Takes as long to import as all of this.

    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(value, points)
        return np.array(list(progress(found, len(points), "landscape", quiet=quiet)), np.float64)


def _moved(
    params: Arrays,
    arrays: Sequence[Array],
    directions: Sequence[Sequence[Array]],
    point: Sequence[float] | Numbers,
) -> Arrays:
    """Give a copy of the parameters elsewhere: summed in float64 and rounded once."""
    moved = []
    for array, *ways in zip(arrays, *directions, strict=True):
        total = array.astype(np.float64)
        for step, way in zip(point, ways, strict=True):
            total += float(step) * way.astype(np.float64, copy=False)
        moved.append(total.astype(array.dtype, copy=False))
    return in_form(params, moved)


def difference(params: Arrays, other: Any) -> FlatBuffer:
    """Return the direction from one solution to another: ``other - params``.

    `line` then interpolates between them, from alpha 0 to 1.

    Parameters
    ----------
    params : FlatBuffer, array, or sequence or mapping of arrays
        Where alpha is 0.
    other : FlatBuffer, array, or sequence or mapping of arrays
        Where alpha is 1; in the structure of ``params``.

    Returns
    -------
    FlatBuffer
        In float64; arrays without names have "0", "1", ...

    Raises
    ------
    TypeError
        ``params`` is not of real numbers.
    ValueError
        Another structure.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> fo.landscape.difference(np.array([1.0, 2.0]), np.array([4.0, 4.0])).flat
    array([3., 2.])
    """
    arrays = arrays_of("params", params)
    others = matched("other", other, params)
    return FlatBuffer.from_arrays(
        {
            name: there.astype(np.float64) - here.astype(np.float64)
            for (name, here), there in zip(arrays.items(), others, strict=True)
        }
    )


def coordinates(points: Sequence[Any], params: Arrays, d1: Any, d2: Any) -> Numbers:
    """Return where points lie in a plane: what `fastoptim.plot.landscape` draws as a path.

    Points beside the plane are projected onto it at right angles; ``d1`` and ``d2`` need not be
    perpendicular.

    Parameters
    ----------
    points : sequence of what has the structure of ``params``
        The parameters along a training, for instance; copies, since a training writes in place.
    params, d1, d2
        What `plane` was given.

    Returns
    -------
    array of shape (len(points), 2)
        The alpha and the beta of each.

    Raises
    ------
    ValueError
        Another structure, or directions that span no plane.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> x, y = np.array([2.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0])
    >>> fo.landscape.coordinates([np.array([3.0, 1.0, 9.0])], np.zeros(3), x, y)
    array([[1., 1.]])
    """
    ways = [_flat(matched(name, d, params)) for name, d in (("d1", d1), ("d2", d2))]
    basis = np.stack(ways, axis=1)
    if np.linalg.matrix_rank(basis) < 2:
        raise ValueError("d1 and d2 must span a plane")
    if len(points) == 0:
        return np.empty((0, 2))
    offsets = np.stack([difference(params, point).flat for point in points], axis=1)
    solved: Numbers = np.linalg.lstsq(basis, offsets, rcond=None)[0].T
    return solved


def _flat(arrays: Sequence[Array]) -> Numbers:
    return np.concatenate([np.empty(0), *(array.astype(np.float64).ravel() for array in arrays)])


def random_direction(params: Arrays, normalize: str | None = "filter", seed: int = 0) -> FlatBuffer:
    r"""Return a random direction whose filters have the norms of the parameters' filters.

    .. math::
        d_{i} = \frac{\lVert w_i \rVert}{\lVert z_i \rVert} z_i, \qquad z \sim N(0, 1)

    Networks with rectifiers do not change when one layer is scaled up and the next one down; a
    direction that scales along makes their landscapes comparable.

    Parameters
    ----------
    params : FlatBuffer, array, or sequence or mapping of arrays
        float32, float64, float16 or bfloat16, all of one dtype.
    normalize : {"filter", "layer"} or None, default "filter"
        Filter by filter, which are the rows along the first axis; array by array; or not at all.
        Normalized directions are zero in arrays of fewer than two axes: biases and scales.
    seed : int, default 0
        The same seed gives the same direction for any number of threads.

    Returns
    -------
    FlatBuffer
        Of the dtype of ``params``; arrays without names have "0", "1", ...

    Raises
    ------
    TypeError
        ``params`` is not of real numbers, or of more than one dtype.
    ValueError
        ``normalize`` or ``seed`` is none of these.

    References
    ----------
    Li et al., "Visualizing the Loss Landscape of Neural Nets", 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> params = {"w": np.array([[3.0, 4.0], [0.0, 2.0]]), "b": np.ones(2)}
    >>> direction = fo.landscape.random_direction(params)
    >>> np.linalg.norm(direction["w"], axis=1).round(6), direction["b"]
    (array([5., 2.]), array([0., 0.]))
    """
    if normalize not in ("filter", "layer", None):
        raise ValueError(f'normalize must be "filter", "layer" or None, got {normalize!r}')
    if not 0 <= operator.index(seed) < 2**64:
        raise ValueError(f"seed must be in [0, 2**64), got {seed}")
    arrays = arrays_of("params", params)
    draws = [np.zeros(array.shape) for array in arrays.values()]
    _core.add_normal(draws, 1.0, operator.index(seed), 0)
    return FlatBuffer.from_arrays(
        {
            name: _normalized(draw, array, normalize).astype(array.dtype)
            for (name, array), draw in zip(arrays.items(), draws, strict=True)
        }
    )


def _normalized(draw: Numbers, array: Array, normalize: str | None) -> Numbers:
    if normalize is None:
        return draw
    if array.ndim < 2 or array.size == 0:
        return np.zeros(array.shape)
    rows = array.shape[0] if normalize == "filter" else 1
    weights, drawn = array.astype(np.float64).reshape(rows, -1), draw.reshape(rows, -1)
    wanted, norms = (np.linalg.norm(x, axis=1, keepdims=True) for x in (weights, drawn))
    factors = np.divide(wanted, norms, out=np.zeros_like(wanted), where=norms > 0)
    result: Numbers = (drawn * factors).reshape(array.shape)
    return result


def sharpness(
    objective_with_grad: Callable[[Any], tuple[float, Any]], params: Arrays, rho: float = 0.05
) -> float:
    r"""Return the rise of the loss at the perturbation of SAM: how sharp a minimum is.

    .. math::
        L\left(p + \rho \frac{g}{\lVert g \rVert + 10^{-12}}\right) - L(p)

    Parameters
    ----------
    objective_with_grad : function
        Takes a copy of the parameters and returns the loss and the gradients in their structure;
        it is called twice.
    params : FlatBuffer, array, or sequence or mapping of arrays
        Where to measure; never changed.
    rho : float, default 0.05
        How far to go; finite and >= 0.

    Returns
    -------
    float
        About ``rho`` times the norm of the gradient, and near a minimum, ``rho**2 / 2`` times the
        curvature along it; 0 where the gradient is 0.

    Raises
    ------
    TypeError
        ``objective_with_grad`` returns no pair.
    ValueError
        ``rho`` is out of range, or the gradients have another structure.

    References
    ----------
    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2021.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([3.0, 4.0])
    >>> round(fo.landscape.sharpness(lambda w: (w @ w, 2 * w), w, rho=0.5), 6)  # 5.5**2 - 5**2
    5.25
    """
    rho = float(rho)
    if not (math.isfinite(rho) and rho >= 0):
        raise ValueError(f"rho must be finite and >= 0, got {rho}")
    arrays = list(arrays_of("params", params).values())
    here = _moved(params, arrays, [], [])
    loss, grads = loss_and_grads("objective_with_grad", objective_with_grad(here))
    # Copies: the second call may write its gradients into the same memory.
    ascent = [grad.astype(np.float64) for grad in matched("gradients", grads, params)]
    factor = rho / (get_total_norm([np.ascontiguousarray(grad) for grad in ascent]) + 1e-12)
    there = _moved(params, arrays, [ascent], [factor])
    return loss_and_grads("objective_with_grad", objective_with_grad(there))[0] - loss
