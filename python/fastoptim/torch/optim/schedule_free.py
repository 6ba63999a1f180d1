"""Schedule-Free SGD and AdamW."""

from __future__ import annotations

from typing import Any

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class ScheduleFree(Optimizer):
    """The abstract base class of the schedule-free optimizers.

    The key ``train_mode`` of the groups says at which of the two points the parameters are.
    """

    def eval(self) -> None:
        """Move the parameters to the average of the iterates, for evaluation or saving."""
        self._average(True)

    def train(self) -> None:
        """Move the parameters back to the point at which gradients are computed."""
        self._average(False)

    def _average(self, averaged: bool) -> None:
        then = [(group.update, {"train_mode": not averaged}) for group in self.param_groups]
        self._engine.average(self.param_groups, averaged, then)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        modes = [group.get("train_mode", True) for group in self.param_groups]
        self._engine.set_averaged(not all(modes))


class ScheduleFreeSGD(ScheduleFree):
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
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1.0
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
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Defazio et al., "The Road Less Scheduled", 2024.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.ScheduleFreeSGD([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "ScheduleFreeSGD"

    def __init__(
        self,
        params: Params,
        lr: Number = 1.0,
        momentum: Number = 0.9,
        weight_decay: Number = 0,
        warmup_steps: Hyperparameter[int] = 0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        *,
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
                "weight_decay": weight_decay,
                "warmup_steps": warmup_steps,
                "r": r,
                "weight_lr_power": weight_lr_power,
                "maximize": maximize,
                "train_mode": True,
            },
            Storage(state_dtype, rounding, seed),
        )


class ScheduleFreeAdamW(ScheduleFree):
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
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 2.5e-3
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
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Defazio et al., "The Road Less Scheduled", 2024.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.ScheduleFreeAdamW([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "ScheduleFreeAdamW"

    def __init__(
        self,
        params: Params,
        lr: Number = 2.5e-3,
        betas: Hyperparameter[tuple[float, float]] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0,
        warmup_steps: Hyperparameter[int] = 0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        *,
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
                "warmup_steps": warmup_steps,
                "r": r,
                "weight_lr_power": weight_lr_power,
                "maximize": maximize,
                "train_mode": True,
            },
            Storage(state_dtype, rounding, seed),
        )
