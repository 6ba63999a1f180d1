"""Adadelta."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class Adadelta(Optimizer):
    r"""Adadelta: steps in the units of the parameters; the rate needs little tuning.

    .. math::
        v &= \rho v + (1 - \rho) g^2, \qquad u = \sqrt{\frac{d + \epsilon}{v + \epsilon}}\, g \\
        d &= \rho d + (1 - \rho) u^2, \qquad p = p - \text{lr}\, u

    Training starts slowly: :math:`\epsilon` alone determines the first steps.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1.0
        Learning rate, >= 0.
    rho : float, default 0.9
        Decay of both averages, in [0, 1).
    eps : float, default 1e-6
        Added inside both square roots; >= 0.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.ones(2)
    >>> opt = fo.Adadelta(w)
    >>> opt.step(np.array([3.0, -4.0])).applied
    True
    >>> opt.state["0"]["square_avg"].round(6)
    array([0.9, 1.6])
    """

    _kind = "Adadelta"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1.0,
        rho: Hyperparameter[float] = 0.9,
        eps: Hyperparameter[float] = 1e-6,
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
                "rho": rho,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
