"""RMSprop."""

from __future__ import annotations

from fastoptim.optim._base import Optimizer, Params
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Rounding, StateDtype, Storage


class RMSprop(Optimizer):
    r"""RMSprop: the gradient divided by its running root mean square; for recurrent networks.

    .. math::
        v = \alpha v + (1 - \alpha) g^2, \qquad p = p - \text{lr} \frac{g}{\sqrt v + \epsilon}

    With ``centered``, the square of the running mean gradient is subtracted from :math:`v` before
    the square root. A negative difference is replaced by 0 (PyTorch: NaN). With momentum, :math:`b
    = \mu b + g / (\ldots)` and :math:`p = p - \text{lr}\, b`.

    Parameters
    ----------
    params : FlatBuffer, array, sequence, mapping or list of groups
        float32, float64, float16 or bfloat16 arrays, updated in place.
    lr : float or function of the step, default 1e-2
        Learning rate, >= 0.
    alpha : float, default 0.99
        Decay of :math:`v`, in [0, 1].
    eps : float, default 1e-8
        Added to the square root; >= 0.
    weight_decay : float, default 0
        Coupled: adds ``weight_decay * p`` to the gradient. >= 0.
    momentum : float, default 0
        :math:`\mu` >= 0; 0 needs no buffer.
    centered : bool, default False
        Divides by the standard deviation of the gradient.
    eps_inside_sqrt : bool, default False
        :math:`\sqrt{v + \epsilon}`, as in TensorFlow.
    maximize : bool, default False
        Maximizes the objective: negates the gradient first. Decay still shrinks the parameters.
    state_dtype, rounding, seed
        The storage of moments and 16-bit parameters: see :class:`~fastoptim.optim.Storage`.

    References
    ----------
    Hinton, "Lecture 6.5: rmsprop", 2012. Graves, "Generating Sequences", 2013.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([1.0, -2.0])
    >>> fo.RMSprop(w, lr=0.1, alpha=0.75).step(np.array([3.0, -4.0])).applied
    True
    >>> w.round(6)
    array([ 0.8, -1.8])
    """

    _kind = "RMSprop"

    def __init__(
        self,
        params: Params,
        lr: Hyperparameter[float] = 1e-2,
        alpha: Hyperparameter[float] = 0.99,
        eps: Hyperparameter[float] = 1e-8,
        weight_decay: Hyperparameter[float] = 0,
        momentum: Hyperparameter[float] = 0,
        centered: Hyperparameter[bool] = False,
        eps_inside_sqrt: Hyperparameter[bool] = False,
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
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
                "eps_inside_sqrt": eps_inside_sqrt,
                "maximize": maximize,
            },
            Storage(state_dtype, rounding, seed),
        )
