"""RAdam."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class RAdam(Optimizer):
    r"""RAdam: Adam with a correction for the variance of its second moment; needs no warm-up.

    .. math::
        \rho_\infty = \frac{2}{1 - \beta_2} - 1, \qquad
        \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}, \qquad
        r_t = \sqrt{
            \frac{(\rho_t - 4)(\rho_t - 2)\rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2)\rho_t}
        } \\
        p = p - \frac{\text{lr}}{1 - \beta_1^t}\, m \cdot
        \begin{cases}
            r_t \sqrt{1 - \beta_2^t} / (\sqrt v + \epsilon) & \rho_t > 5 \\
            1 & \text{before}
        \end{cases}

    with Adam's :math:`m` and :math:`v`.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1e-3
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.999)
        Decay of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the square root; >= 0.
    weight_decay : float, default 0
        Coupled (added to the gradient) unless ``decoupled_weight_decay``; >= 0.
    decoupled_weight_decay : bool, default False
        Decouples the weight decay, as AdamW does.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.ones(2)
    >>> fo.RAdam(w, lr=0.5).step(np.array([3.0, -4.0])).applied
    True
    >>> w.round(6)
    array([-0.5,  3. ])
    """

    _kind = "RAdam"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Hyperparameter[float] = 1e-8,
        weight_decay: Hyperparameter[float] = 0,
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
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
