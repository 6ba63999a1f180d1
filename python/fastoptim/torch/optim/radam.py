"""RAdam."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class RAdam(Optimizer):
    r"""RAdam: Adam with a correction for the variance of its second moment; needs no warm-up.

    .. math::
        \rho_\infty = \frac{2}{1 - \beta_2} - 1, \qquad
        \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t}, \qquad
        r_t = \sqrt{
            \frac{(\rho_t - 4)(\rho_t - 2)\rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2)\rho_t}
        } \\
        p = p - \frac{\text{lr}}{1 - \beta_1^t}\, m \cdot
        \begin{cases}
            r_t \sqrt{1 - \beta_2^t} / (\sqrt v + \epsilon) & \rho_t > 5 \\
            1 & \text{before}
        \end{cases}

    with Adam's :math:`m` and :math:`v`.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-3
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.999)
        Decay of the two moments, each in [0, 1).
    eps : float, default 1e-8
        Added to the square root; >= 0.
    weight_decay : float, default 0
        Coupled (added to the gradient) unless ``decoupled_weight_decay``; >= 0.
    decoupled_weight_decay : bool, default False
        Decouples the weight decay, as AdamW does.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    foreach, capturable, differentiable
        PyTorch's. ``foreach`` changes nothing; ``capturable`` and ``differentiable`` must be False.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.RAdam([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "RAdam"

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        decoupled_weight_decay: Hyperparameter[bool] = False,
        *,
        foreach: bool | None = None,
        maximize: Hyperparameter[bool] = False,
        capturable: bool = False,
        differentiable: bool = False,
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
                "decoupled_weight_decay": decoupled_weight_decay,
                "foreach": foreach,
                "maximize": maximize,
                "capturable": capturable,
                "differentiable": differentiable,
            },
            Storage(state_dtype, rounding, seed),
        )
