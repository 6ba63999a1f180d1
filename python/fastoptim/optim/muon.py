"""Muon."""

from __future__ import annotations

from typing import Literal

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class Muon(Optimizer):
    r"""Muon: momentum with all singular values near 1; for hidden matrices.

    .. math::
        m &= \mu m + (1 - \mu) g, \qquad
        X = \frac{\mu m + (1 - \mu) g}{\max(\lVert \cdot \rVert, \epsilon)} \\
        X &= a X + (b\, G + c\, G G) X, \qquad G = X X^\top \qquad \text{ns\_steps times} \\
        p &= (1 - \text{lr} \lambda) p - s\, \text{lr}\, X

    Without Nesterov :math:`X` starts from :math:`m`. The iteration uses the precision of the
    parameters (PyTorch: bfloat16). Only matrices are supported: use AdamW for biases, embeddings
    and the last layer.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1e-3
        Learning rate, >= 0.
    weight_decay : float, default 0.1
        Decoupled: multiplies ``p`` by ``1 - lr * weight_decay``. >= 0.
    momentum : float, default 0.95
        :math:`\mu` >= 0.
    nesterov : bool, default True
        Uses Nesterov momentum.
    ns_coefficients : three floats, default (3.4445, -4.775, 2.0315)
        :math:`a, b, c`.
    eps : float, default 1e-7
        The lower bound of the divisor; >= 0.
    ns_steps : int, default 5
        The number of iterations, 0 to 99.
    adjust_lr_fn : {None, "original", "match_rms_adamw"}, default None
        :math:`s = \sqrt{\max(1, \text{rows} / \text{columns})}`, or :math:`0.2
        \sqrt{\max(\text{rows}, \text{columns})}` for rates that are tuned for AdamW.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    Raises
    ------
    ValueError
        A parameter is not two-dimensional.

    References
    ----------
    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.zeros((2, 2))
    >>> fo.Muon(w, lr=1.0).step(np.diag([3.0, 0.5])).applied
    True
    >>> bool(np.linalg.cond(w) < 2)
    True
    """

    _kind = "Muon"
    _works_by_shape = True
    _counted = False

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1e-3,
        weight_decay: Hyperparameter[float] = 0.1,
        momentum: Hyperparameter[float] = 0.95,
        nesterov: Hyperparameter[bool] = True,
        ns_coefficients: Hyperparameter[tuple[float, float, float]] = (3.4445, -4.775, 2.0315),
        eps: Hyperparameter[float] = 1e-7,
        ns_steps: Hyperparameter[int] = 5,
        adjust_lr_fn: Hyperparameter[Literal["original", "match_rms_adamw"] | None] = None,
        *,
        maximize: Hyperparameter[bool] = False,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "stochastic",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "nesterov": nesterov,
                "ns_coefficients": ns_coefficients,
                "eps": eps,
                "ns_steps": ns_steps,
                "adjust_lr_fn": adjust_lr_fn,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
