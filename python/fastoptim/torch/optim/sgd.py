"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Literal

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class SGD(Optimizer):
    r"""Stochastic gradient descent with momentum, the usual choice for convolutional networks.

    .. math::
        v = \mu v + (1 - \text{dampening})\, g, \qquad p = p - \text{lr}\, v

    The first step sets :math:`v` to :math:`g`. Nesterov momentum steps by :math:`g + \mu v`. This
    is the look-ahead form :math:`v = \mu v - \text{lr}\, g(p + \mu v);\ p = p + v`, where the
    stored parameter is the shifted point :math:`p + \mu v`.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-3
        Learning rate, >= 0.
    momentum : float, default 0
        :math:`\mu` >= 0; 0 needs no state.
    dampening : float, default 0
        >= 0; must be 0 with Nesterov.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    nesterov : bool, default False
        Uses Nesterov momentum; requires momentum > 0.
    momentum_form : {"outside", "inside"}, default "outside"
        ``"inside"`` is :math:`v = \mu v - \text{lr}\, g;\ p = p + v` (Keras): the two agree only
        while the rate is constant.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    foreach, fused, differentiable
        PyTorch's. ``foreach`` and ``fused`` change nothing; ``differentiable`` must be False.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.SGD([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "SGD"
    _counted = False

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        momentum: Number = 0,
        dampening: Number = 0,
        weight_decay: Number = 0,
        nesterov: Hyperparameter[bool] = False,
        *,
        maximize: Hyperparameter[bool] = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        momentum_form: Hyperparameter[Literal["outside", "inside"]] = "outside",
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "nearest",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
                "foreach": foreach,
                "differentiable": differentiable,
                "fused": fused,
                "momentum_form": momentum_form,
            },
            Storage(state_dtype, rounding, seed),
        )
