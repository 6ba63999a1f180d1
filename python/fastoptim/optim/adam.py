"""Adam and AdamW."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class Adam(Optimizer):
    r"""Adam: steps scaled per element by running moments; robust to the choice of rate.

    .. math::
        m &= \beta_1 m + (1 - \beta_1) g, \qquad v = \beta_2 v + (1 - \beta_2) g^2 \\
        p &= p - \text{lr} \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1e-3
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.999)
        Decay of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the square root after bias correction; >= 0.
    weight_decay : float, default 0
        Coupled (added to the gradient) unless ``decoupled_weight_decay``; >= 0.
    amsgrad : bool, default False
        Divides by the maximum of (uncorrected) ``v`` so far (Reddi et al., 2018).
    decoupled_weight_decay : bool, default False
        Decouples the weight decay, as AdamW does.
    cautious : bool, default False
        Updates only elements whose step and gradient have the same sign, and divides the step by
        the fraction of these elements (Liang et al., 2024).
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
    >>> opt = fo.Adam({"w": w}, lr=0.5)
    >>> opt.step({"w": np.array([3.0, -4.0])}, max_norm=1.0).grad_norm
    5.0
    >>> w.round(6)
    array([0.5, 1.5])
    """

    _kind = "Adam"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Hyperparameter[float] = 1e-8,
        weight_decay: Hyperparameter[float] = 0,
        amsgrad: Hyperparameter[bool] = False,
        decoupled_weight_decay: Hyperparameter[bool] = False,
        *,
        cautious: Hyperparameter[bool] = False,
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
                "amsgrad": amsgrad,
                "decoupled_weight_decay": decoupled_weight_decay,
                "cautious": cautious,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )


class AdamW(Optimizer):
    r"""Adam with decoupled weight decay, the usual choice for transformers.

    .. math::
        m &= \beta_1 m + (1 - \beta_1) g, \qquad v = \beta_2 v + (1 - \beta_2) g^2 \\
        p &= (1 - \text{lr}\, \lambda) p
             - \text{lr} \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Unlike in :class:`Adam`, the decay :math:`\lambda`, which is ``weight_decay``, is not added to
    the gradient, and does not affect the moments.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1e-3
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.999)
        Decay of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the square root after bias correction; >= 0.
    weight_decay : float, default 1e-2
        Decoupled, >= 0.
    amsgrad : bool, default False
        Divides by the maximum of (uncorrected) ``v`` so far.
    cautious : bool, default False
        Updates only elements whose step and gradient have the same sign, and divides the step by
        the fraction of these elements (Liang et al., 2024).
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.

    Examples
    --------
    >>> import fastoptim as fo
    >>> params = fo.FlatBuffer({"w": (2, 3), "b": (3,)})
    >>> grads = params.zeros_like()
    >>> fo.AdamW(params, lr=1e-3).step(grads).applied
    True
    """

    _kind = "Adam"
    _fixed = frozenset({"decoupled_weight_decay"})

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Hyperparameter[float] = 1e-8,
        weight_decay: Hyperparameter[float] = 1e-2,
        amsgrad: Hyperparameter[bool] = False,
        *,
        cautious: Hyperparameter[bool] = False,
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
                "amsgrad": amsgrad,
                "decoupled_weight_decay": True,
                "cautious": cautious,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
