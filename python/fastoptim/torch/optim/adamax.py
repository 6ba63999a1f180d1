"""Adamax."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class Adamax(Optimizer):
    r"""Adamax: Adam with a decaying maximum instead of the mean square; for rare features.

    .. math::
        m = \beta_1 m + (1 - \beta_1) g, \qquad u = \max(\beta_2 u, |g| + \epsilon), \qquad
        p = p - \frac{\text{lr}}{1 - \beta_1^t} \frac m u

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 2e-3
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.999)
        Decay of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the absolute value of the gradient; >= 0.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    foreach, capturable, differentiable
        PyTorch's. ``foreach`` changes nothing; ``capturable`` and ``differentiable`` must be False.
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
    >>> opt = fastoptim.torch.Adamax([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "Adamax"

    def __init__(
        self,
        params: Params,
        lr: Number = 2e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        foreach: bool | None = None,
        *,
        maximize: Hyperparameter[bool] = False,
        differentiable: bool = False,
        capturable: bool = False,
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
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
            Storage(state_dtype, rounding, seed),
        )
