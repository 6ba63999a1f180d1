"""Rprop."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class Rprop(Optimizer):
    r"""Rprop: steps by sign, with a step size per element; for full batches only.

    .. math::
        s = \text{clamp}(s \cdot \{\eta_+, \eta_-, 1\}), \qquad p = p - s\, \text{sign}(g)

    The step size is multiplied by :math:`\eta_+` while the gradient keeps its sign, and by
    :math:`\eta_-` when the sign changes; in that step the gradient is treated as 0. With
    mini-batches, noise changes the signs, and so the step sizes, at random.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-2
        The initial step size; >= 0.
    etas : pair of float, default (0.5, 1.2)
        0 < shrink < 1 < grow.
    step_sizes : pair of float, default (1e-6, 50)
        The smallest and the largest step size; >= 0.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    foreach, capturable, differentiable
        PyTorch's. ``foreach`` changes nothing; ``capturable`` and ``differentiable`` must be False.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Riedmiller and Braun, "A Direct Adaptive Method for Faster Backpropagation", 1993.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.Rprop([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "Rprop"

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        etas: Hyperparameter[tuple[float, float]] = (0.5, 1.2),
        step_sizes: Hyperparameter[tuple[float, float]] = (1e-06, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
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
                "etas": etas,
                "step_sizes": step_sizes,
                "capturable": capturable,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
            },
            Storage(state_dtype, rounding, seed),
        )
