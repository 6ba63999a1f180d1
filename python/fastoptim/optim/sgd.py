"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Literal

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class SGD(Optimizer):
    r"""Stochastic gradient descent with momentum, the usual choice for convolutional networks.

    .. math::
        v = \mu v + (1 - \text{dampening})\, g, \qquad p = p - \text{lr}\, v

    The first step sets :math:`v` to :math:`g`. Nesterov momentum steps by :math:`g + \mu v`. This
    is the look-ahead form :math:`v = \mu v - \text{lr}\, g(p + \mu v);\ p = p + v`, where the
    stored parameter is the shifted point :math:`p + \mu v`.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1e-3
        Learning rate, >= 0.
    momentum : float, default 0
        :math:`\mu` >= 0; 0 needs no state.
    dampening : float, default 0
        >= 0; must be 0 with Nesterov.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    nesterov : bool, default False
        Uses Nesterov momentum; requires momentum > 0.
    momentum_form : {"outside", "inside"}, default "outside"
        ``"inside"`` is :math:`v = \mu v - \text{lr}\, g;\ p = p + v` (Keras): the two agree only
        while the rate is constant.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([1.0, -2.0], dtype=np.float32)
    >>> opt = fo.SGD(w, lr=0.1, momentum=0.9)
    >>> opt.step(2 * w).applied
    True
    >>> w
    array([ 0.8, -1.6], dtype=float32)
    """

    _kind = "SGD"
    _counted = False

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1e-3,
        momentum: Hyperparameter[float] = 0,
        dampening: Hyperparameter[float] = 0,
        weight_decay: Hyperparameter[float] = 0,
        nesterov: Hyperparameter[bool] = False,
        momentum_form: Hyperparameter[Literal["outside", "inside"]] = "outside",
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
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "momentum_form": momentum_form,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
