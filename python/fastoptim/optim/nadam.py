"""NAdam."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class NAdam(Optimizer):
    r"""NAdam: Adam with Nesterov momentum; often slightly faster at the beginning.

    .. math::
        \mu_t &= \beta_1 (1 - \tfrac12 0.96^{t \psi}), \qquad M = \mu_1 \cdots \mu_t \\
        p &= p - \text{lr} \left(
            \frac{(1 - \mu_t) g}{1 - M} + \frac{\mu_{t+1} m}{1 - M \mu_{t+1}}\right)
        \Big/ \left(\sqrt{\frac{v}{1 - \beta_2^t}} + \epsilon\right)

    with Adam's :math:`m` and :math:`v`. The product :math:`M` is ``mu_product`` in the state.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 2e-3
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.999)
        Decay of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the square root; >= 0.
    weight_decay : float, default 0
        Coupled (added to the gradient) unless ``decoupled_weight_decay``; >= 0.
    momentum_decay : float, default 4e-3
        :math:`\psi` >= 0.
    decoupled_weight_decay : bool, default False
        Decouples the weight decay, as AdamW does.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Dozat, "Incorporating Nesterov Momentum into Adam", 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.ones(2)
    >>> opt = fo.NAdam(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0])).applied
    True
    >>> round(opt.state["0"]["mu_product"], 6)
    0.450073
    """

    _kind = "NAdam"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 2e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Hyperparameter[float] = 1e-8,
        weight_decay: Hyperparameter[float] = 0,
        momentum_decay: Hyperparameter[float] = 4e-3,
        decoupled_weight_decay: Hyperparameter[bool] = False,
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
                "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
