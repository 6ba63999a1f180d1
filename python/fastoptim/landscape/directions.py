"""Directions in parameter space, and coordinates along them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastoptim import _core
from fastoptim._checks import integer, word
from fastoptim.params.flat_buffer import FlatBuffer
from fastoptim.params.structure import Array, Arrays, matched, real_arrays

Numbers = NDArray[np.float64]


def random_direction(
    params: Arrays, normalize: Literal["filter", "layer"] | None = "filter", seed: int = 0
) -> FlatBuffer:
    r"""Return a random direction whose filters have the norms of the parameters' filters.

    .. math::
        d_{i} = \frac{\lVert w_i \rVert}{\lVert z_i \rVert} z_i, \qquad z \sim N(0, 1)

    Networks with rectifiers do not change if one layer is scaled up and the next one down; a
    direction that scales with the parameters makes their landscapes comparable.

    Parameters
    ----------
    params : FlatBuffer, array, or sequence or mapping of arrays
        float32, float64, float16 or bfloat16, all of one dtype.
    normalize : {"filter", "layer"} or None, default "filter"
        Normalizes each filter, a row along the first axis, or each array, or nothing. Normalized
        directions are zero in arrays of fewer than two dimensions: biases and scales.
    seed : int, default 0
        The same seed gives the same direction for any number of threads.

    Returns
    -------
    FlatBuffer
        A buffer of the dtype of ``params``; arrays without names are named "0", "1", ...

    Raises
    ------
    TypeError
        ``params`` does not have real numbers, or has more than one dtype.
    ValueError
        ``normalize`` or ``seed`` is out of range.

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
    word("normalize", normalize, ("filter", "layer", None))
    seed = integer("seed", seed, unsigned=True)
    arrays = real_arrays("params", params)
    draws = [np.zeros(array.shape) for array in arrays.values()]
    _core.add_normal(draws, 1.0, seed, 0)
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


def difference(params: Arrays, other: Any) -> FlatBuffer:
    """Return the direction from one solution to another: ``other - params``.

    `line` then interpolates between them, from alpha 0 to 1.

    Parameters
    ----------
    params : FlatBuffer, array, or sequence or mapping of arrays
        The point at alpha 0.
    other : FlatBuffer, array, or sequence or mapping of arrays
        The point at alpha 1; in the structure of ``params``.

    Returns
    -------
    FlatBuffer
        A float64 buffer; arrays without names are named "0", "1", ...

    Raises
    ------
    TypeError
        ``params`` does not have real numbers.
    ValueError
        The structures differ.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> fo.landscape.difference(np.array([1.0, 2.0]), np.array([4.0, 4.0])).flat
    array([3., 2.])
    """
    arrays = real_arrays("params", params)
    others = matched("other", other, params)
    return FlatBuffer.from_arrays(
        {
            name: there.astype(np.float64) - here.astype(np.float64)
            for (name, here), there in zip(arrays.items(), others, strict=True)
        }
    )


def coordinates(points: Sequence[Any], params: Arrays, d1: Any, d2: Any) -> Numbers:
    """Return the coordinates of points in a plane, as `fastoptim.plot.landscape` plots them.

    Points outside the plane are projected onto it orthogonally; ``d1`` and ``d2`` need not be
    orthogonal.

    Parameters
    ----------
    points : sequence of arrays in the structure of ``params``
        For example copies of the parameters during a training.
    params, d1, d2
        The arguments of `plane`.

    Returns
    -------
    array of shape (len(points), 2)
        The alpha and the beta of each point.

    Raises
    ------
    ValueError
        The structures differ, or the directions do not span a plane.

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
    solved = np.linalg.lstsq(basis, _offsets(points, params).T, rcond=None)[0]
    return np.asarray(solved.T, np.float64)


def principal_directions(points: Sequence[Any], params: Arrays) -> tuple[FlatBuffer, FlatBuffer]:
    """Return the two directions with the most variation of points around the parameters.

    For trajectories: most of the movement of a training is in few directions, and is hardly visible
    in a plane of random directions. ``params`` is usually the end of the training.

    Parameters
    ----------
    points : sequence of arrays in the structure of ``params``
        For example copies of the parameters during a training.
    params : FlatBuffer, array, or sequence or mapping of arrays
        The origin.

    Returns
    -------
    tuple of two FlatBuffers
        The first two principal components without centering, of norm 1, in float64. The coordinates
        of the first point are not negative.

    Raises
    ------
    ValueError
        The structures differ, or the points are on one line.

    References
    ----------
    Li et al., "Visualizing the Loss Landscape of Neural Nets", 2018, section 7.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> points = [np.array([9.0, 0.0, 1.0]), np.array([-9.0, 0.0, 1.0])]
    >>> d1, d2 = fo.landscape.principal_directions(points, np.zeros(3))
    >>> d1.flat.round(6) + 0.0, d2.flat.round(6) + 0.0
    (array([1., 0., 0.]), array([0., 0., 1.]))
    """
    offsets = _offsets(points, params)
    _, sizes, rows = np.linalg.svd(offsets, full_matrices=False)
    if len(sizes) < 2 or sizes[1] <= sizes[0] * np.finfo(np.float64).eps * max(offsets.shape):
        raise ValueError("points must not lie on one line through params")
    found = []
    for row in rows[:2]:
        direction = difference(params, params)
        direction.flat[:] = row if offsets[0] @ row >= 0 else -row
        found.append(direction)
    return found[0], found[1]


def _offsets(points: Sequence[Any], params: Arrays) -> Numbers:
    """Return the offset of each point as a row."""
    if len(points) == 0:
        return np.empty((0, sum(array.size for array in real_arrays("params", params).values())))
    return np.stack([difference(params, point).flat for point in points])


def _flat(arrays: Sequence[Array]) -> Numbers:
    return np.concatenate([np.empty(0), *(array.astype(np.float64).ravel() for array in arrays)])
