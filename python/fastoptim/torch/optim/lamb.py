"""LAMB."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


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
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-3
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
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    You et al., "Large Batch Optimization for Deep Learning", 2020.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.LAMB([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "LAMB"

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Number = 1e-6,
        weight_decay: Number = 1e-2,
        bias_correction: Hyperparameter[bool] = True,
        max_trust: Hyperparameter[float | None] = None,
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
