"""Adagrad."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class Adagrad(Optimizer):
    r"""Adagrad: rates that decrease with the sum of squared gradients; for sparse features.

    .. math::
        v = v + g^2, \qquad
        p = p - \frac{\text{lr}}{1 + (t - 1)\, \text{lr\_decay}} \frac{g}{\sqrt v + \epsilon}

    Steps only become smaller, which may end the progress of long training runs too early; RMSprop
    uses a moving average instead.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1e-2
        Learning rate, >= 0.
    lr_decay : float, default 0
        The decay of the rate; >= 0.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    initial_accumulator_value : float, default 0
        The initial value of :math:`v`; >= 0.
    eps : float, default 1e-10
        Added to the square root; >= 0.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Duchi, Hazan and Singer, "Adaptive Subgradient Methods", 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([1.0, -2.0])
    >>> fo.Adagrad(w, lr=0.5).step(np.array([3.0, -4.0])).applied
    True
    >>> w.round(6)
    array([ 0.5, -1.5])
    """

    _kind = "Adagrad"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1e-2,
        lr_decay: Hyperparameter[float] = 0,
        weight_decay: Hyperparameter[float] = 0,
        initial_accumulator_value: Hyperparameter[float] = 0,
        eps: Hyperparameter[float] = 1e-10,
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
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
