"""LAMB."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class LAMB(Optimizer):
    r"""LAMB: Adam with a separate rate for each layer; for transformers with very large batches.

    .. math::
        u = \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \lambda p, \qquad
        \text{ratio} = \min\left(
            \frac{\lVert p \rVert}{\lVert u \rVert}, \text{max\_trust}
        \right), \qquad
        p = p - \text{lr}\, \text{ratio}\, u

    with Adam's :math:`m` and :math:`v`. The norms are computed per array; the ratio is 1 if one of
    them is 0. Gradients are not normalized first; use ``step(max_norm=)`` for that.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1e-3
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.999)
        Decay of the two moments, each in [0, 1).
    eps : float, default 1e-6
        Added to the square root after bias correction; >= 0.
    weight_decay : float, default 0.01
        Decoupled: added to :math:`u`. >= 0.
    bias_correction : bool, default True
        Divides the moments by :math:`1 - \beta^t`.
    max_trust : float, optional
        The largest ratio; >= 0.
    layer_adaptation : bool, default True
        If False, the ratio is 1; for groups of biases and normalization.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    You et al., "Large Batch Optimization for Deep Learning", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([3.0, 4.0])
    >>> fo.LAMB(w, lr=0.1, weight_decay=0).step(np.array([0.0, 2.0])).applied
    True
    >>> w.round(6)
    array([3. , 3.5])
    """

    _kind = "LAMB"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Hyperparameter[float] = 1e-6,
        weight_decay: Hyperparameter[float] = 0.01,
        bias_correction: Hyperparameter[bool] = True,
        max_trust: Hyperparameter[float | None] = None,
        *,
        layer_adaptation: Hyperparameter[bool] = True,
        maximize: Hyperparameter[bool] = False,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "stochastic",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "bias_correction": bias_correction,
                "max_trust": max_trust,
                "layer_adaptation": layer_adaptation,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
