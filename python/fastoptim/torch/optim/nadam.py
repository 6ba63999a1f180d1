"""NAdam."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


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
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 2e-3
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
    foreach, capturable, differentiable
        PyTorch's. ``foreach`` changes nothing; ``capturable`` and ``differentiable`` must be False.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Dozat, "Incorporating Nesterov Momentum into Adam", 2016.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.NAdam([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "NAdam"

    def __init__(
        self,
        params: Params,
        lr: Number = 2e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        momentum_decay: Number = 4e-3,
        decoupled_weight_decay: Hyperparameter[bool] = False,
        *,
        foreach: bool | None = None,
        maximize: Hyperparameter[bool] = False,
        capturable: bool = False,
        differentiable: bool = False,
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
                "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "foreach": foreach,
                "maximize": maximize,
                "capturable": capturable,
                "differentiable": differentiable,
            },
            Storage(state_dtype, rounding, seed),
        )
