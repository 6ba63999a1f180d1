"""Adadelta."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class Adadelta(Optimizer):
    r"""Adadelta: steps in the units of the parameters; the rate needs little tuning.

    .. math::
        v &= \rho v + (1 - \rho) g^2, \qquad u = \sqrt{\frac{d + \epsilon}{v + \epsilon}}\, g \\
        d &= \rho d + (1 - \rho) u^2, \qquad p = p - \text{lr}\, u

    Training starts slowly: :math:`\epsilon` alone determines the first steps.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1.0
        Learning rate, >= 0.
    rho : float, default 0.9
        Decay of both averages, in [0, 1).
    eps : float, default 1e-6
        Added inside both square roots; >= 0.
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
    Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.Adadelta([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "Adadelta"

    def __init__(
        self,
        params: Params,
        lr: Number = 1.0,
        rho: Number = 0.9,
        eps: Number = 1e-6,
        weight_decay: Number = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: Hyperparameter[bool] = False,
        differentiable: bool = False,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "nearest",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "rho": rho,
                "eps": eps,
                "weight_decay": weight_decay,
                "foreach": foreach,
                "capturable": capturable,
                "maximize": maximize,
                "differentiable": differentiable,
            },
            Storage(state_dtype, rounding, seed),
        )
