"""Schedule-Free SGD and AdamW."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class _ScheduleFree(Optimizer):
    """The base class of schedule-free optimizers; it cannot be used directly."""

    def eval(self) -> None:
        """Set the parameters to the average of the iterates, for evaluation or saving."""
        self._engine.average(self.param_groups, True)

    def train(self) -> None:
        """Set the parameters back to the point at which gradients are computed."""
        self._engine.average(self.param_groups, False)


class ScheduleFreeSGD(_ScheduleFree):
    r"""Schedule-Free SGD: averaging instead of a schedule, so no training length to choose.

    .. math::
        p &= (1 - c) p + c z - \text{lr} (1 - \beta_1 (1 - c)) u, \qquad z = z - \text{lr}\, u \\
        c &= \frac{w_t}{w_1 + \cdots + w_t}, \qquad w_t = t^r (\max \text{lr})^{\text{power}}

    with :math:`u = g + \lambda p` and :math:`\beta_1` the momentum.

    :math:`p` is the point :math:`y` of the paper, at which gradients are computed. :meth:`eval`
    sets the parameters to the average of the iterates, for evaluation or saving, and :meth:`train`
    sets them back. An optimizer starts in train mode, and a step in eval mode raises a
    RuntimeError.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1.0
        Learning rate, >= 0.
    momentum : float, default 0.9
        In (0, 1).
    weight_decay : float, default 0
        Coupled, computed at :math:`p`; >= 0.
    warmup_steps : int, default 0
        The number of steps of linear warm-up.
    r : float, default 0.0
        The exponent of the step in the weights of the average.
    weight_lr_power : float, default 2.0
        The exponent of the largest rate so far in the weights of the average.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Defazio et al., "The Road Less Scheduled", 2024.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([1.0, -2.0])
    >>> opt = fo.ScheduleFreeSGD(w, lr=0.1)
    >>> opt.step(np.array([3.0, -4.0])).applied
    True
    >>> opt.eval()
    >>> w.round(6)
    array([ 0.7, -1.6])
    """

    _kind = "ScheduleFreeSGD"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1.0,
        momentum: Hyperparameter[float] = 0.9,
        weight_decay: Hyperparameter[float] = 0,
        warmup_steps: Hyperparameter[int] = 0,
        r: Hyperparameter[float] = 0.0,
        weight_lr_power: Hyperparameter[float] = 2.0,
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
                "momentum": momentum,
                "weight_decay": weight_decay,
                "warmup_steps": warmup_steps,
                "r": r,
                "weight_lr_power": weight_lr_power,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )


class ScheduleFreeAdamW(_ScheduleFree):
    r"""Schedule-Free AdamW: averaging instead of a schedule, so no training length to choose.

    .. math::
        p &= (1 - c) p + c z - \text{lr} (1 - \beta_1 (1 - c)) u, \qquad z = z - \text{lr}\, u \\
        c &= \frac{w_t}{w_1 + \cdots + w_t}, \qquad w_t = t^r (\max \text{lr})^{\text{power}}

    with :math:`u = g / (\sqrt{v / (1 - \beta_2^t)} + \epsilon) + \lambda p`.

    :math:`p` is the point :math:`y` of the paper, at which gradients are computed. :meth:`eval`
    sets the parameters to the average of the iterates, for evaluation or saving, and :meth:`train`
    sets them back. An optimizer starts in train mode, and a step in eval mode raises a
    RuntimeError.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 2.5e-3
        Learning rate, >= 0.
    betas : pair of float, default (0.9, 0.999)
        The first in (0, 1), the decay of the squares in [0, 1).
    eps : float, default 1e-8
        Added to the square root after bias correction; >= 0.
    weight_decay : float, default 0
        Computed at :math:`p`; >= 0.
    warmup_steps : int, default 0
        The number of steps of linear warm-up.
    r : float, default 0.0
        The exponent of the step in the weights of the average.
    weight_lr_power : float, default 2.0
        The exponent of the largest rate so far in the weights of the average.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Defazio et al., "The Road Less Scheduled", 2024.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.ones(2)
    >>> opt = fo.ScheduleFreeAdamW(w, lr=0.5)
    >>> opt.step(np.array([3.0, -4.0])).applied
    True
    >>> opt.eval()
    >>> w.round(6)
    array([0.5, 1.5])
    """

    _kind = "ScheduleFreeAdamW"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 2.5e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Hyperparameter[float] = 1e-8,
        weight_decay: Hyperparameter[float] = 0,
        warmup_steps: Hyperparameter[int] = 0,
        r: Hyperparameter[float] = 0.0,
        weight_lr_power: Hyperparameter[float] = 2.0,
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
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "warmup_steps": warmup_steps,
                "r": r,
                "weight_lr_power": weight_lr_power,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
