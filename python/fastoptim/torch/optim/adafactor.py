"""Adafactor."""

from __future__ import annotations

from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage
from fastoptim.torch.optim._base import Number, Optimizer, Params


class Adafactor(Optimizer):
    r"""Adafactor: second moments factored into rows and columns; almost no memory.

    .. math::
        b &= t^{\text{beta2\_decay}}, \qquad
        a = \max(\epsilon_2, \text{rms}(p)) \min(\text{lr}, 1 / \sqrt t) \\
        r &= r + b\, (\text{mean of } g^2 \text{ over columns} - r), \qquad
        c = c + b\, (\text{mean of } g^2 \text{ over rows} - c) \\
        u &= \frac{g}{\sqrt{\max(v, \epsilon_1^2)}}, \qquad
        v = \frac{r c}{\max(\text{mean}(r), \epsilon_1)},
        \qquad p = (1 - \text{lr} \lambda) p - \frac{a\, u}{\max(1, \text{rms}(u) / d)}

    Vectors have a full average, ``variance``. Arrays of more than two dimensions are treated as
    stacks of matrices.

    Parameters
    ----------
    params : iterable of tensors, of pairs of name and tensor, or of groups
        Dense CPU tensors of float32, float64, bfloat16 or float16, updated in place.
    lr : float, tensor or function of the step, default 1e-2
        The largest relative step; >= 0.
    beta2_decay : float, default -0.8
        The exponent of :math:`t` in :math:`b`; <= 0.
    eps : pair, default (None, 1e-3)
        :math:`\epsilon_1`, by default the machine epsilon of the dtype, and :math:`\epsilon_2`; >=
        0.
    d : float, default 1.0
        The bound of the root mean square of :math:`u`; > 0.
    weight_decay : float, default 0
        Decoupled: multiplies ``p`` by ``1 - lr * weight_decay``. >= 0.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    foreach
        PyTorch's. ``foreach`` changes nothing.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.
        The default of ``rounding`` is ``"nearest"`` here.

    References
    ----------
    Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> opt = fastoptim.torch.Adafactor([w])
    >>> (w * w).sum().backward()
    >>> opt.step()
    >>> opt.last_info.applied
    True
    """

    _kind = "Adafactor"

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        beta2_decay: Number = -0.8,
        eps: Hyperparameter[tuple[float | None, float]] = (None, 0.001),
        d: Number = 1.0,
        weight_decay: Number = 0,
        *,
        foreach: bool | None = None,
        maximize: Hyperparameter[bool] = False,
        state_dtype: StateDtype | None = None,
        rounding: Rounding = "nearest",
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "beta2_decay": beta2_decay,
                "eps": eps,
                "d": d,
                "weight_decay": weight_decay,
                "foreach": foreach,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
