"""Adamax."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class Adamax(Optimizer):
    r"""Adamax: Adam with a decaying maximum instead of the mean square; for rare features.

    .. math::
        m = \beta_1 m + (1 - \beta_1) g, \qquad u = \max(\beta_2 u, |g| + \epsilon), \qquad
        p = p - \frac{\text{lr}}{1 - \beta_1^t} \frac m u

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 2e-3
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.999)
        Decay of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the absolute value of the gradient; >= 0.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.ones(2)
    >>> fo.Adamax(w, lr=0.5).step(np.array([3.0, -4.0])).applied
    True
    >>> w.round(6)
    array([0.5, 1.5])
    """

    _kind = "Adamax"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 2e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Hyperparameter[float] = 1e-8,
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
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
