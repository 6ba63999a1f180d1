"""AdEMAMix."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class AdEMAMix(Optimizer):
    r"""AdEMAMix: AdamW with a second, very slow momentum; for long training runs.

    .. math::
        n &= \beta_3(t)\, n + (1 - \beta_3(t)) g \\
        p &= (1 - \text{lr} \lambda) p - \text{lr}
        \frac{m / (1 - \beta_1^t) + \alpha(t)\, n}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    with Adam's :math:`m` (the state's ``exp_avg_fast``) and :math:`v`. :math:`\alpha(t)` increases
    linearly over ``t_alpha`` steps, and :math:`\beta_3(t)` from :math:`\beta_1` over ``t_beta3``
    steps such that its half-life increases linearly; the paper sets both to the length of the run.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-3
        Learning rate, >= 0.
    betas : three floats, default (0.9, 0.999, 0.9999)
        Decay of the fast average, the squares and the slow average, each in [0, 1).
    alpha : float, default 5.0
        The weight of the slow average; >= 0.
    t_alpha : float, optional
        If None, :math:`\alpha` is constant.
    t_beta3 : float, optional
        If None, :math:`\beta_3` is constant.
    eps : float, default 1e-8
        Added to the square root after bias correction; >= 0.
    weight_decay : float, default 0
        Decoupled: multiplies ``p`` by ``1 - lr * weight_decay``. >= 0.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer", 2024.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.AdEMAMix([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "AdEMAMix"

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: Hyperparameter[tuple[float, float, float]] = (0.9, 0.999, 0.9999),
        alpha: Number = 5.0,
        t_alpha: Hyperparameter[float | None] = None,
        t_beta3: Hyperparameter[float | None] = None,
        eps: Number = 1e-8,
        weight_decay: Number = 0,
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
                "alpha": alpha,
                "t_alpha": t_alpha,
                "t_beta3": t_beta3,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
