"""The sharpness of a minimum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastoptim._checks import non_negative
from fastoptim.grads.clip import get_total_norm
from fastoptim.landscape.evaluation import moved_copy
from fastoptim.params.structure import Arrays, matched, real_arrays
from fastoptim.tools.objective import loss_and_grads


def sharpness(
    objective_with_grad: Callable[[Any], tuple[float, Any]], params: Arrays, rho: float = 0.05
) -> float:
    r"""Return the sharpness of a minimum: the increase of the loss at the perturbation of SAM.

    .. math::
        L\left(p + \rho \frac{g}{\lVert g \rVert + 10^{-12}}\right) - L(p)

    Parameters
    ----------
    objective_with_grad : function
        Takes a copy of the parameters and returns the loss and the gradients in their structure;
        it is called twice.
    params : FlatBuffer, array, or sequence or mapping of arrays
        The point; not changed.
    rho : float, default 0.05
        The norm of the perturbation; finite and >= 0.

    Returns
    -------
    float
        About ``rho`` times the norm of the gradient, and near a minimum, ``rho**2 / 2`` times the
        curvature along it; 0 where the gradient is 0.

    Raises
    ------
    TypeError
        ``objective_with_grad`` does not return a pair.
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
    rho = non_negative("rho", rho)
    arrays = list(real_arrays("params", params).values())
    here = moved_copy(params, arrays, [], [])
    loss, grads = loss_and_grads("objective_with_grad", objective_with_grad(here))
    # Copies: the second call may write its gradients into the same memory.
    ascent = [grad.astype(np.float64) for grad in matched("gradients", grads, params)]
    factor = rho / (get_total_norm([np.ascontiguousarray(grad) for grad in ascent]) + 1e-12)
    there = moved_copy(params, arrays, [ascent], [factor])
    return loss_and_grads("objective_with_grad", objective_with_grad(there))[0] - loss
