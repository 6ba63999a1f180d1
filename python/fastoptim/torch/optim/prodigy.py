"""Prodigy."""

from __future__ import annotations

import math

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class Prodigy(Optimizer):
    r"""Prodigy: Adam that finds its learning rate; leave ``lr`` at 1.

    .. math::
        l &= d\, \text{lr}, \qquad m = \beta_1 m + (1 - \beta_1) d g, \qquad
        v = \beta_2 v + (1 - \beta_2) d^2 g^2 \\
        s &= \beta_3 s + \tfrac{d}{d_0} l g, \qquad
        n = \beta_3 n + \tfrac{d}{d_0} l \langle g, p_0 - p \rangle, \qquad
        d = \max\left(d, d_\text{coef} \frac{n}{\lVert s \rVert_1}\right) \\
        p &= p - l \left(\frac{m}{\sqrt v + d \epsilon} + \lambda p\right)

    The product and the norm are taken over all arrays of all groups. The state keeps a copy of the
    first parameters, ``p0``; ``d``, ``d_max`` and ``d_numerator`` are the same in every
    parameter's state.

    Parameters
    ----------
    params : iterable of tensors, of names and tensors, or of groups
        Dense CPU tensors in float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1.0
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.999)
        Decay of the two moments, each in [0, 1).
    beta3 : float, optional
        Decay of the estimate, in [0, 1); :math:`\sqrt{\beta_2}` where None.
    eps : float, default 1e-8
        Added to the root times :math:`d`; >= 0.
    weight_decay : float, default 0
        Decoupled unless ``decouple`` is False; >= 0.
    decouple : bool, default True
        Decays the parameter and not the gradient.
    use_bias_correction : bool, default False
        Multiplies :math:`l` by :math:`\sqrt{1 - \beta_2^t} / (1 - \beta_1^t)`.
    safeguard_warmup : bool, default False
        Leaves ``lr`` out of :math:`s`: for long warm-ups.
    d0 : float, default 1e-6
        The first estimate; > 0.
    d_coef : float, default 1.0
        What the estimate is multiplied by; >= 0.
    growth_rate : float, default math.inf
        How fast the estimate may grow; > 0.
    maximize : bool, default False
        Ascends: the gradient is negated first; decay still shrinks.
    state_dtype, rounding, seed
        How moments and 16-bit parameters are kept: see :class:`~fastoptim.optim.Storage`. It finds
        its rate by how far its first tiny steps lead, which parameters in 16 bits show on average
        alone: with ``rounding="nearest"`` they never move.

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
