"""ASGD."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class ASGD(Optimizer):
    r"""Averaged SGD: SGD with an average of the iterates, ``ax`` in the state, as the result.

    .. math::
        p &= (1 - \lambda \eta) p - \eta g, \qquad \bar p = \bar p + \mu (p - \bar p) \\
        \eta &= \frac{\text{lr}}{(1 + \lambda\, \text{lr}\, t)^\alpha}, \qquad
        \mu = \frac{1}{\max(1, t - t_0)}

    :math:`\eta` and :math:`\mu` are the values for the next step. Averaging begins after step
    :math:`t_0`.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-2
        Learning rate, >= 0.
    lambd : float, default 1e-4
        Decay; >= 0.
    alpha : float, default 0.75
        The exponent of the decay of the rate; >= 0.
    t0 : float, default 1e6
        The step after which the iterates are averaged; >= 0.
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
    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.ASGD([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "ASGD"

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        lambd: Number = 1e-4,
        alpha: Number = 0.75,
        t0: Number = 1000000.0,
        weight_decay: Number = 0,
        foreach: bool | None = None,
        maximize: Hyperparameter[bool] = False,
        differentiable: bool = False,
        capturable: bool = False,
        *,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "nearest",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "lambd": lambd,
                "alpha": alpha,
                "t0": t0,
                "weight_decay": weight_decay,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
            Storage(state_dtype, rounding, seed),
        )
