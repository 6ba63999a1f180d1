"""LARS."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class LARS(Optimizer):
    r"""LARS: momentum with a separate rate for each layer; for very large batches.

    .. math::
        g = g + \lambda p, \qquad
        \text{ratio} = \text{trust\_coefficient}
        \frac{\lVert p \rVert}{\lVert g \rVert + \epsilon}, \qquad
        v = \mu v + (1 - \text{dampening})\, \text{ratio}\, g, \qquad p = p - \text{lr}\, v

    The norms are computed per array; the ratio is 1 if one of them is 0. The first step sets
    :math:`v` to :math:`\text{ratio}\, g`.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1.0
        Learning rate, >= 0.
    momentum : float, default 0.9
        :math:`\mu` >= 0; 0 needs no state.
    dampening : float, default 0
        >= 0; must be 0 with Nesterov.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    nesterov : bool, default False
        Steps by :math:`\text{ratio}\, g + \mu v`; needs momentum > 0.
    trust_coefficient : float, default 1e-3
        The size of a step relative to the norm of the array; >= 0.
    eps : float, default 1e-8
        Added to the gradient's norm; >= 0.
    layer_adaptation : bool, default True
        If False, the ratio is 1; for groups of biases and normalization.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks", 2017.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.LARS([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "LARS"

    def __init__(
        self,
        params: Params,
        lr: Number = 1.0,
        momentum: Number = 0.9,
        dampening: Number = 0,
        weight_decay: Number = 0,
        nesterov: Hyperparameter[bool] = False,
        trust_coefficient: Number = 1e-3,
        eps: Number = 1e-8,
        *,
        layer_adaptation: Hyperparameter[bool] = True,
        maximize: Hyperparameter[bool] = False,
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
                "trust_coefficient": trust_coefficient,
                "eps": eps,
                "layer_adaptation": layer_adaptation,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
