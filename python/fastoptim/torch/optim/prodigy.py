"""Prodigy."""

from __future__ import annotations

import math

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class Prodigy(Optimizer):
    r"""Prodigy: Adam with an estimated learning rate; leave ``lr`` at 1.

    .. math::
        l &= d\, \text{lr}, \qquad m = \beta_1 m + (1 - \beta_1) d g, \qquad
        v = \beta_2 v + (1 - \beta_2) d^2 g^2 \\
        s &= \beta_3 s + \tfrac{d}{d_0} l g, \qquad
        n = \beta_3 n + \tfrac{d}{d_0} l \langle g, p_0 - p \rangle, \qquad
        d = \max\left(d, d_\text{coef} \frac{n}{\lVert s \rVert_1}\right) \\
        p &= p - l \left(\frac{m}{\sqrt v + d \epsilon} + \lambda p\right)

    The inner product and the norm are over all arrays of all groups. The state has a copy of the
    initial parameters, ``p0``; ``d``, ``d_max`` and ``d_numerator`` are the same in the state of
    every parameter.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1.0
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.999)
        Decay of the two moments, each in [0, 1).
    beta3 : float, optional
        Decay of the estimate, in [0, 1); :math:`\sqrt{\beta_2}` if None.
    eps : float, default 1e-8
        Added to the square root times :math:`d`; >= 0.
    weight_decay : float, default 0
        Decoupled unless ``decouple`` is False; >= 0.
    decouple : bool, default True
        Decays the parameter instead of adding to the gradient.
    use_bias_correction : bool, default False
        Multiplies :math:`l` by :math:`\sqrt{1 - \beta_2^t} / (1 - \beta_1^t)`.
    safeguard_warmup : bool, default False
        Omits ``lr`` in :math:`s`, for long warm-ups.
    d0 : float, default 1e-6
        The initial estimate; > 0.
    d_coef : float, default 1.0
        The factor of the estimate; >= 0.
    growth_rate : float, default math.inf
        The largest factor by which the estimate may grow in a step; > 0.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here. The
        rate is estimated from the distance of the first, very small steps, which 16-bit parameters
        represent only with stochastic rounding: with ``rounding="nearest"`` they do not change.

    References
    ----------
    Mishchenko and Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", 2023.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.Prodigy([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "Prodigy"
    _estimates = ("d",)

    def __init__(
        self,
        params: Params,
        lr: Number = 1.0,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        beta3: Hyperparameter[float | None] = None,
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        decouple: Hyperparameter[bool] = True,
        use_bias_correction: Hyperparameter[bool] = False,
        safeguard_warmup: Hyperparameter[bool] = False,
        d0: Number = 1e-6,
        d_coef: Number = 1.0,
        growth_rate: Number = math.inf,
        *,
        maximize: Hyperparameter[bool] = False,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "nearest",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "beta3": beta3,
                "eps": eps,
                "weight_decay": weight_decay,
                "decouple": decouple,
                "use_bias_correction": use_bias_correction,
                "safeguard_warmup": safeguard_warmup,
                "d0": d0,
                "d_coef": d_coef,
                "growth_rate": growth_rate,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
