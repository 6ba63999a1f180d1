"""Gradient norms and clipping, under the names of PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastoptim import _core
from fastoptim._checks import flag, number
from fastoptim.params.flat_buffer import FlatBuffer
from fastoptim.params.structure import is_ordered, reiterable

Gradients: TypeAlias = (
    FlatBuffer | NDArray[Any] | Iterable[NDArray[Any] | None] | Mapping[str, NDArray[Any] | None]
)


def _named(grads: Gradients) -> tuple[list[NDArray[Any] | None], list[str] | None]:
    """Return the arrays, and their names for error messages if they have names."""
    if isinstance(grads, FlatBuffer):
        return list(grads.views), list(grads)
    if isinstance(grads, np.ndarray):
        return [grads], None
    if isinstance(grads, Mapping):
        return list(grads.values()), list(map(str, grads))
    if is_ordered(grads):
        return list(grads), None
    raise TypeError(f"grads must be arrays, got {type(grads).__name__}")


def get_total_norm(
    grads: Gradients, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Return the norm of all gradients as one vector.

    Parameters
    ----------
    grads : FlatBuffer, array, sequence or mapping
        float32, float64, float16 or bfloat16, which may be mixed; None is ignored.
    norm_type : float, default 2.0
        The p of the p-norm, > 0; ``math.inf`` for the largest absolute value.
    error_if_nonfinite : bool, default False
        Raise an error if the norm is NaN or infinite.

    Returns
    -------
    float
        Accumulated in float64: finite for all finite gradients in float32 or 16 bits.

    Raises
    ------
    RuntimeError
        The norm is not finite and ``error_if_nonfinite`` is set.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> fo.get_total_norm([np.array([3.0]), np.array([-4.0])])
    5.0
    """
    norm = _core.total_norm(*_named(grads), number("norm_type", norm_type))
    if flag("error_if_nonfinite", error_if_nonfinite) and not math.isfinite(norm):
        raise RuntimeError(f"the total norm of order {norm_type} of the gradients is {norm}")
    return norm


def clip_grads_with_norm_(grads: Gradients, max_norm: float, total_norm: float) -> None:
    """Scale gradients with a known norm by ``min(1, max_norm / (total_norm + 1e-6))``.

    Parameters
    ----------
    grads : FlatBuffer, array, sequence or mapping
        Scaled in place; nothing is written if the factor is 1 or the norm is not finite. 16-bit
        gradients are scaled in float32 and rounded to nearest.
    max_norm : float
        > 0; infinity does not clip.
    total_norm : float
        The result of :func:`get_total_norm`.

    Raises
    ------
    ValueError
        ``max_norm`` is not > 0, ``total_norm`` is negative, or a gradient is read-only.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> g = np.array([3.0, 4.0])
    >>> fo.clip_grads_with_norm_(g, 1.0, 5.0)
    >>> g.round(6)
    array([0.6, 0.8])
    """
    max_norm, total_norm = number("max_norm", max_norm), number("total_norm", total_norm)
    if total_norm < 0:
        raise ValueError(f"total_norm must be >= 0, got {total_norm}")
    _core.scale_to_norm(*_named(grads), max_norm, total_norm)


def clip_grad_norm_(
    grads: Gradients,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Limit the norm of all gradients as one vector, and return the norm before that.

    Parameters
    ----------
    grads : FlatBuffer, array, sequence or mapping
        Scaled in place; nothing is written if the norm is small enough or not finite. 16-bit
        gradients are scaled in float32 and rounded to nearest.
    max_norm : float
        > 0; infinity only computes the norm, also of read-only gradients.
    norm_type : float, default 2.0
        The p of the p-norm, > 0.
    error_if_nonfinite : bool, default False
        Raise an error, before anything is written, if the norm is NaN or infinite.

    Returns
    -------
    float
        The norm before clipping.

    References
    ----------
    Pascanu et al., "On the difficulty of training recurrent neural networks", 2013.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> g = np.array([30.0, 40.0])
    >>> fo.clip_grad_norm_(g, max_norm=5.0)
    50.0
    >>> g.round(6)
    array([3., 4.])
    """
    max_norm = number("max_norm", max_norm)
    if math.isnan(max_norm) or max_norm <= 0:
        raise ValueError(f"max_norm must be > 0, got {max_norm}")
    grads = reiterable(grads)
    norm = get_total_norm(grads, norm_type, error_if_nonfinite)
    if max_norm < math.inf:
        clip_grads_with_norm_(grads, max_norm, norm)
    return norm


def clip_grad_value_(grads: Gradients, clip_value: float) -> None:
    """Limit every element to ``-clip_value..clip_value``; NaN stays NaN.

    Parameters
    ----------
    grads : FlatBuffer, array, sequence or mapping
        Changed in place.
    clip_value : float
        >= 0; rounded to the nearest number for 16-bit gradients.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> g = np.array([-3.0, 0.5])
    >>> fo.clip_grad_value_(g, 1.0)
    >>> g
    array([-1. ,  0.5])
    """
    _core.clamp(*_named(grads), number("clip_value", clip_value))
