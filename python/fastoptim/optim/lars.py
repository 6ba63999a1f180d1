"""LARS."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class LARS(Optimizer):
    r"""LARS: momentum with a separate rate for each layer; for very large batches.

    .. math::
        g = g + \lambda p, \qquad
        \text{ratio} = \text{trust\_coefficient}
        \frac{\lVert p \rVert}{\lVert g \rVert + \epsilon}, \qquad
        v = \mu v + (1 - \text{dampening})\, \text{ratio}\, g, \qquad p = p - \text{lr}\, v

    The norms are computed per array; the ratio is 1 if one of them is 0. The first step sets
    :math:`v` to :math:`\text{ratio}\, g`.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1.0
        Learning rate, >= 0.
    momentum : float, default 0.9
        :math:`\mu` >= 0; 0 needs no state.
    dampening : float, default 0
        >= 0; must be 0 with Nesterov.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    nesterov : bool, default False
        Steps by :math:`\text{ratio}\, g + \mu v`; needs momentum > 0.
    trust_coefficient : float, default 1e-3
        The size of a step relative to the norm of the array; >= 0.
    eps : float, default 1e-8
        Added to the gradient's norm; >= 0.
    layer_adaptation : bool, default True
        If False, the ratio is 1; for groups of biases and normalization.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([3.0, 4.0])
    >>> fo.LARS(w, lr=1.0, trust_coefficient=0.1).step(np.array([0.0, 2.0])).applied
    True
    >>> w.round(6)
    array([3. , 3.5])
    """

    _kind = "LARS"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1.0,
        momentum: Hyperparameter[float] = 0.9,
        dampening: Hyperparameter[float] = 0,
        weight_decay: Hyperparameter[float] = 0,
        nesterov: Hyperparameter[bool] = False,
        trust_coefficient: Hyperparameter[float] = 1e-3,
        eps: Hyperparameter[float] = 1e-8,
        *,
        layer_adaptation: Hyperparameter[bool] = True,
        maximize: Hyperparameter[bool] = False,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "stochastic",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "trust_coefficient": trust_coefficient,
                "eps": eps,
                "layer_adaptation": layer_adaptation,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
