"""Adafactor."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


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
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1e-2
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
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.ones((100, 50), dtype=np.float32)
    >>> opt = fo.Adafactor(w)
    >>> opt.step(np.ones_like(w)).applied
    True
    >>> opt.state["0"]["row_var"].size + opt.state["0"]["col_var"].size
    150
    """

    _kind = "Adafactor"
    _works_by_shape = True

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1e-2,
        beta2_decay: Hyperparameter[float] = -0.8,
        eps: Hyperparameter[tuple[float | None, float]] = (None, 1e-3),
        d: Hyperparameter[float] = 1.0,
        weight_decay: Hyperparameter[float] = 0,
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
                "beta2_decay": beta2_decay,
                "eps": eps,
                "d": d,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
