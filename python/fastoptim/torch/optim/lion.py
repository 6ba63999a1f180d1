"""Lion."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class Lion(Optimizer):
    r"""Lion: the sign of an interpolated momentum; half of Adam's state, large batches.

    .. math::
        p = (1 - \text{lr} \lambda) p - \text{lr}\, \text{sign}(\beta_1 m + (1 - \beta_1) g), \qquad
        m = \beta_2 m + (1 - \beta_2) g

    Every element moves by the rate, so use a rate 3 to 10 times smaller than AdamW's and a
    weight decay as many times larger. sign(0) is 0.

    Parameters
    ----------
    params : iterable of tensors, of names and tensors, or of groups
        Dense CPU tensors in float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-4
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.99)
        Decay of the two moments, each in [0, 1).
    weight_decay : float, default 0
        Decoupled: multiplies ``p`` by ``1 - lr * weight_decay``. >= 0.
    cautious : bool, default False
        Keeps only the elements of the step whose sign the gradient shares, scaled by what
        is lost (Liang et al., 2024).
    maximize : bool, default False
        Ascends: the gradient is negated first; decay still shrinks.
    state_dtype, rounding, seed
        How moments and 16-bit parameters are kept: see :class:`~fastoptim.optim.Storage`. Here
        ``rounding`` is "nearest" unless "stochastic" is asked for.

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
