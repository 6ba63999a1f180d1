"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class Adam(Optimizer):
    r"""Adam: steps scaled per element by running moments; robust to the choice of rate.

    .. math::
        m &= \beta_1 m + (1 - \beta_1) g, \qquad v = \beta_2 v + (1 - \beta_2) g^2 \\
        p &= p - \text{lr} \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-3
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
    foreach, fused, capturable, differentiable
        PyTorch's. ``foreach`` and ``fused`` change nothing; ``capturable`` and ``differentiable``
        must be False.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.Adam([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "Adam"

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        amsgrad: Hyperparameter[bool] = False,
        *,
        foreach: bool | None = None,
        maximize: Hyperparameter[bool] = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: Hyperparameter[bool] = False,
        cautious: Hyperparameter[bool] = False,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "nearest",
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
                "foreach": foreach,
                "maximize": maximize,
                "capturable": capturable,
                "differentiable": differentiable,
                "fused": fused,
                "decoupled_weight_decay": decoupled_weight_decay,
                "cautious": cautious,
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
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-3
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
    foreach, fused, capturable, differentiable
        PyTorch's. ``foreach`` and ``fused`` change nothing; ``capturable`` and ``differentiable``
        must be False.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.AdamW([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "Adam"
    _fixed: ClassVar[Mapping[str, Any]] = {"decoupled_weight_decay": True}

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 1e-2,
        amsgrad: Hyperparameter[bool] = False,
        *,
        maximize: Hyperparameter[bool] = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        cautious: Hyperparameter[bool] = False,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "nearest",
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
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "differentiable": differentiable,
                "fused": fused,
                "cautious": cautious,
                "decoupled_weight_decay": True,
            },
            Storage(state_dtype, rounding, seed),
        )
