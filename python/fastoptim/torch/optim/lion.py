"""Lion."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class Lion(Optimizer):
    r"""Lion: the sign of an interpolated momentum; half the state of Adam, for large batches.

    .. math::
        p = (1 - \text{lr} \lambda) p - \text{lr}\, \text{sign}(\beta_1 m + (1 - \beta_1) g), \qquad
        m = \beta_2 m + (1 - \beta_2) g

    Every element changes by the rate, so use a rate 3 to 10 times smaller than for AdamW, and a
    weight decay larger by the same factor. sign(0) is 0.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-4
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.99)
        Decay of the two moments, each in [0, 1).
    weight_decay : float, default 0
        Decoupled: multiplies ``p`` by ``1 - lr * weight_decay``. >= 0.
    cautious : bool, default False
        Updates only elements whose step and gradient have the same sign, and divides the step by
        the fraction of these elements (Liang et al., 2024).
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.Lion([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "Lion"

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-4,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.99),
        weight_decay: Number = 0,
        *,
        cautious: Hyperparameter[bool] = False,
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
                "weight_decay": weight_decay,
                "cautious": cautious,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
