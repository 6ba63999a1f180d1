"""ASGD."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class ASGD(Optimizer):
    r"""Averaged SGD: SGD with an average of the iterates, ``ax`` in the state, as the result.

    .. math::
        p &= (1 - \lambda \eta) p - \eta g, \qquad \bar p = \bar p + \mu (p - \bar p) \\
        \eta &= \frac{\text{lr}}{(1 + \lambda\, \text{lr}\, t)^\alpha}, \qquad
        \mu = \frac{1}{\max(1, t - t_0)}

    :math:`\eta` and :math:`\mu` are the values for the next step. Averaging begins after step
    :math:`t_0`.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1e-2
        Learning rate, >= 0.
    lambd : float, default 1e-4
        Decay; >= 0.
    alpha : float, default 0.75
        The exponent of the decay of the rate; >= 0.
    t0 : float, default 1e6
        The step after which the iterates are averaged; >= 0.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([1.0, -2.0])
    >>> opt = fo.ASGD(w, lr=0.1, lambd=0.0)
    >>> opt.step(np.array([3.0, -4.0])).applied
    True
    >>> opt.state["0"]["ax"].round(6)
    array([ 0.7, -1.6])
    """

    _kind = "ASGD"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1e-2,
        lambd: Hyperparameter[float] = 1e-4,
        alpha: Hyperparameter[float] = 0.75,
        t0: Hyperparameter[float] = 1e6,
        weight_decay: Hyperparameter[float] = 0,
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
                "lambd": lambd,
                "alpha": alpha,
                "t0": t0,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
