"""RMSprop."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class RMSprop(Optimizer):
    r"""RMSprop: the gradient divided by its running root mean square; for recurrent networks.

    .. math::
        v = \alpha v + (1 - \alpha) g^2, \qquad p = p - \text{lr} \frac{g}{\sqrt v + \epsilon}

    With ``centered``, the square of the running mean gradient is subtracted from :math:`v` before
    the square root. A negative difference is replaced by 0 (PyTorch: NaN). With momentum, :math:`b
    = \mu b + g / (\ldots)` and :math:`p = p - \text{lr}\, b`.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-2
        Learning rate, >= 0.
    alpha : float, default 0.99
        Decay of :math:`v`, in [0, 1].
    eps : float, default 1e-8
        Added to the square root; >= 0.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    momentum : float, default 0
        :math:`\mu` >= 0; 0 needs no buffer.
    centered : bool, default False
        Divides by the standard deviation of the gradient.
    eps_inside_sqrt : bool, default False
        :math:`\sqrt{v + \epsilon}`, as in TensorFlow.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    foreach, capturable, differentiable
        PyTorch's. ``foreach`` changes nothing; ``capturable`` and ``differentiable`` must be False.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Hinton, "Lecture 6.5: rmsprop", 2012. Graves, "Generating Sequences", 2013.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.RMSprop([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "RMSprop"

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        alpha: Number = 0.99,
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        momentum: Number = 0,
        centered: Hyperparameter[bool] = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: Hyperparameter[bool] = False,
        differentiable: bool = False,
        *,
        eps_inside_sqrt: Hyperparameter[bool] = False,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "nearest",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
                "capturable": capturable,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "eps_inside_sqrt": eps_inside_sqrt,
            },
            Storage(state_dtype, rounding, seed),
        )
