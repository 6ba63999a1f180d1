"""Rprop."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class Rprop(Optimizer):
    r"""Rprop: steps by sign, with a step size per element; for full batches only.

    .. math::
        s = \text{clamp}(s \cdot \{\eta_+, \eta_-, 1\}), \qquad p = p - s\, \text{sign}(g)

    The step size is multiplied by :math:`\eta_+` while the gradient keeps its sign, and by
    :math:`\eta_-` when the sign changes; in that step the gradient is treated as 0. With
    mini-batches, noise changes the signs, and so the step sizes, at random.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1e-2
        The initial step size; >= 0.
    etas : pair of float, default (0.5, 1.2)
        0 < shrink < 1 < grow.
    step_sizes : pair of float, default (1e-6, 50)
        The smallest and the largest step size; >= 0.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Riedmiller and Braun, "A Direct Adaptive Method for Faster Backpropagation", 1993.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([1.0, -2.0])
    >>> fo.Rprop(w, lr=0.25).step(np.array([3.0, -4.0])).applied
    True
    >>> w
    array([ 0.75, -1.75])
    """

    _kind = "Rprop"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1e-2,
        etas: Hyperparameter[tuple[float, float]] = (0.5, 1.2),
        step_sizes: Hyperparameter[tuple[float, float]] = (1e-6, 50),
        *,
        maximize: Hyperparameter[bool] = False,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "stochastic",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "etas": etas,
                "step_sizes": step_sizes,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
