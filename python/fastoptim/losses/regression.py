"""Losses of predicted numbers."""

from __future__ import annotations

from fastoptim.losses._base import ElementLoss, Reduction


class MSELoss(ElementLoss):
    r"""Squared error, without a factor of one half.

    .. math::
        L = \frac{1}{n} \sum_i (x_i - y_i)^2, \qquad
        \frac{\partial L}{\partial x_i} = \frac{2 (x_i - y_i)}{n}

    Input and target have the same shape and the same float type; nothing is broadcast.

    Parameters
    ----------
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> fo.losses.MSELoss().value_and_grad(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    (2.0, array([0., 2.]))

    References
    ----------
    `torch.nn.MSELoss <https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html>`_
    """

    _name = "mse"


class L1Loss(ElementLoss):
    r"""Absolute error, whose minimum is the median: the gradient of outliers is not larger.

    .. math::
        L = \frac{1}{n} \sum_i |x_i - y_i|, \qquad
        \frac{\partial L}{\partial x_i} = \frac{\operatorname{sign}(x_i - y_i)}{n}

    Input and target have the same shape and the same float type; nothing is broadcast.
    The gradient at 0 is 0.

    Parameters
    ----------
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> fo.losses.L1Loss().value_and_grad(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    (1.0, array([0. , 0.5]))

    References
    ----------
    `torch.nn.L1Loss <https://docs.pytorch.org/docs/stable/generated/torch.nn.L1Loss.html>`_
    """

    _name = "l1"


class HuberLoss(ElementLoss):
    r"""Squared near the target, absolute far from it: smooth, and robust against outliers.

    .. math::
        l = \begin{cases} d^2 / 2 & |d| < \delta \\ \delta\, (|d| - \delta / 2) & \text{else}
        \end{cases}, \qquad d = x - y

    Input and target have the same shape and the same float type; nothing is broadcast.

    Parameters
    ----------
    delta
        The ``|d|`` where the linear part begins, > 0.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> fo.losses.HuberLoss().value_and_grad(np.array([1.5, 4.0]), np.array([1.0, 1.0]))
    (1.3125, array([0.25, 0.5 ]))

    References
    ----------
    Huber, "Robust Estimation of a Location Parameter", 1964.
    """

    _name = "huber"

    delta: float

    def __init__(self, delta: float = 1.0, *, reduction: Reduction = "mean") -> None:
        self._set(reduction=reduction, delta=delta)


class SmoothL1Loss(ElementLoss):
    r"""Huber's loss divided by its delta: the linear part has slope 1 for any ``beta``.

    .. math::
        l = \begin{cases} d^2 / (2 \beta) & |d| < \beta \\ |d| - \beta / 2 & \text{else}
        \end{cases}, \qquad d = x - y

    Input and target have the same shape and the same float type; nothing is broadcast.

    Parameters
    ----------
    beta
        The ``|d|`` where the linear part begins, >= 0; 0 is `L1Loss`.
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> loss_fn = fo.losses.SmoothL1Loss(beta=2.0)
    >>> loss_fn.value_and_grad(np.array([2.0, 4.0]), np.array([1.0, 1.0]))
    (1.125, array([0.25, 0.5 ]))

    References
    ----------
    Girshick, "Fast R-CNN", 2015.
    """

    _name = "smooth_l1"

    beta: float

    def __init__(self, beta: float = 1.0, *, reduction: Reduction = "mean") -> None:
        self._set(reduction=reduction, beta=beta)


class LogCoshLoss(ElementLoss):
    r"""Squared near the target, absolute far from it, with every derivative continuous.

    .. math::
        l = \ln \cosh d, \qquad \frac{\partial l}{\partial x} = \tanh d, \qquad d = x - y

    It is :math:`d^2 / 2` near 0 and :math:`|d| - \ln 2` far from 0: like `HuberLoss`, but without
    a delta to choose. Value and gradient have full relative accuracy near 0, and never overflow.

    Input and target have the same shape and the same float type; nothing is broadcast.

    Parameters
    ----------
    reduction
        ``"mean"`` over all elements, ``"sum"``, or ``"none"``: an array of the input's shape, with
        the gradient of the sum.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> loss_fn = fo.losses.LogCoshLoss(reduction="sum")
    >>> value, gradient = loss_fn.value_and_grad(np.array([1.5, 0.75]), np.array([0.5, 1.0]))
    >>> round(value, 6), gradient.round(6)
    (0.464711, array([ 0.761594, -0.244919]))

    References
    ----------
    Saleh and Saleh, "Statistical Properties of the log-cosh Loss Function Used in Machine
    Learning", 2022.
    """

    _name = "log_cosh"
