"""The linear score function. The matrix products are those of NumPy, which uses a BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def linear_scores(W: Array, x: Array, b: Array | None = None) -> Array:
    r"""Compute one score per class, :math:`f = W x + b`, for one vector or for a batch.

    Parameters
    ----------
    W : array of shape (C, D)
        One row of weights per class, float32 or float64.
    x : array of shape (D,) or (N, D)
        One vector, or one per row. All arrays have one dtype.
    b : array of shape (C,), optional
        One bias per class.

    Returns
    -------
    array of shape (C,) or (N, C)
        A new array of the same dtype, the logits for the losses over classes.

    Raises
    ------
    TypeError
        An argument is not an array, or the dtypes differ.
    ValueError
        The shapes do not match.

    Notes
    -----
    The bias can be a column of ``W`` instead, multiplied by a constant 1 at the end of each x. A
    linear classifier for the 32 x 32 x 3 images and 10 classes of CIFAR-10 is then a single 10 x
    3073 matrix instead of a 10 x 3072 matrix and 10 biases. The two differ with regularization,
    which also shrinks a bias that is a column.

    Unlike the kernels of this package, a BLAS may return results with other last bits on another
    machine or with another number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> W, b = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), np.array([0.0, 0.0, 0.5])
    >>> fo.linear_scores(W, np.array([3.0, 4.0]), b)
    array([3. , 8. , 7.5])
    >>> trick = np.column_stack([W, b])
    >>> fo.linear_scores(trick, np.array([3.0, 4.0, 1.0]))
    array([3. , 8. , 7.5])
    """
    _check_inputs(W, x)
    if b is not None:
        _check("b", b, W, W.shape[:1])
    scores: Array = x @ W.T
    if b is not None:
        scores += b
    return scores


def linear_scores_grad(dscores: Array, W: Array, x: Array) -> tuple[Array, Array, Array]:
    r"""Compute the gradients of a loss for W, x and b from the gradient for the scores.

    .. math::
        \frac{\partial L}{\partial W} = \sum_n d_n x_n^T, \qquad
        \frac{\partial L}{\partial x_n} = W^T d_n, \qquad
        \frac{\partial L}{\partial b} = \sum_n d_n, \qquad
        d_n = \frac{\partial L}{\partial f_n}

    Parameters
    ----------
    dscores : array of shape (C,) or (N, C)
        The gradient for the scores, which includes the factor of the mean over the batch if the
        loss is a mean.
    W : array of shape (C, D)
        The weights.
    x : array of shape (D,) or (N, D)
        The inputs of the scores.

    Returns
    -------
    dW : array of shape (C, D)
        C-contiguous, as optimizers require.
    dx : array of the shape of x
        The gradient for x.
    db : array of shape (C,)
        The gradient for the bias, if there is one.

    Raises
    ------
    TypeError
        An argument is not an array, or the dtypes differ.
    ValueError
        The shapes do not match.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> W, x = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([3.0, 4.0])
    >>> dW, dx, db = fo.linear_scores_grad(np.array([1.0, -1.0]), W, x)
    >>> dW
    array([[ 3.,  4.],
           [-3., -4.]])
    >>> dx, db
    (array([ 1., -2.]), array([ 1., -1.]))
    """
    _check_inputs(W, x)
    _check("dscores", dscores, W, (*x.shape[:-1], W.shape[0]))
    d, rows = np.atleast_2d(dscores), np.atleast_2d(x)
    return d.T @ rows, dscores @ W, d.sum(axis=0)


def _check_inputs(W: Array, x: Array) -> None:
    _check_floats("W", W)
    if W.ndim != 2:
        raise ValueError(f"W must have shape (C, D), got {W.shape}")
    _check_floats("x", x)
    if x.ndim not in (1, 2):
        raise ValueError(f"x must have shape (D,) or (N, D), got {x.shape}")
    _check("x", x, W, (*x.shape[:-1], W.shape[1]))


def _check(name: str, array: Array, W: Array, shape: tuple[int, ...]) -> None:
    _check_floats(name, array)
    if array.dtype != W.dtype:
        raise TypeError(f"{name} must be {W.dtype} as W is, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape} for W {W.shape}, got {array.shape}")


def _check_floats(name: str, array: Array) -> None:
    # Other subclasses may define @ differently.
    if type(array) not in (np.ndarray, np.memmap):
        raise TypeError(f"{name} must be a plain numpy.ndarray, got {type(array).__name__}")
    if array.dtype.type not in (np.float32, np.float64) or not array.dtype.isnative:
        raise TypeError(
            f"{name} must be float32 or float64 of native byte order, got {array.dtype}"
        )
