"""Adagrad."""

from __future__ import annotations

import torch

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class Adagrad(Optimizer):
    r"""Adagrad: rates that decrease with the sum of squared gradients; for sparse features.

    .. math::
        v = v + g^2, \qquad
        p = p - \frac{\text{lr}}{1 + (t - 1)\, \text{lr\_decay}} \frac{g}{\sqrt v + \epsilon}

    Steps only become smaller, which may end the progress of long training runs too early; RMSprop
    uses a moving average instead.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-2
        Learning rate, >= 0.
    lr_decay : float, default 0
        The decay of the rate; >= 0.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    initial_accumulator_value : float, default 0
        The initial value of :math:`v`; >= 0.
    eps : float, default 1e-10
        Added to the square root; >= 0.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    foreach, fused, differentiable
        PyTorch's. ``foreach`` and ``fused`` change nothing; ``differentiable`` must be False.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Duchi, Hazan and Singer, "Adaptive Subgradient Methods", 2011.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.Adagrad([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "Adagrad"

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        lr_decay: Number = 0,
        weight_decay: Number = 0,
        initial_accumulator_value: Number = 0,
        eps: Number = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: Hyperparameter[bool] = False,
        differentiable: bool = False,
        fused: bool | None = None,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "nearest",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "fused": fused,
            },
            Storage(state_dtype, rounding, seed),
        )

        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float64),
                    "sum": torch.full_like(
                        parameter.detach(),
                        group["initial_accumulator_value"],
                        dtype=self._state_type(parameter),
                        memory_format=torch.preserve_format,
                    ),
                }

    def share_memory(self) -> None:
        """Move the sums of squares to shared memory."""
        for entry in self.state.values():
            entry["sum"].share_memory_()
