"""Penalties on the size of the parameters, to be added to a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastoptim import _core
from fastoptim._checks import non_negative
from fastoptim.params.flat_buffer import FlatBuffer
from fastoptim.params.structure import Array, Grads, Params, all_arrays, in_order

__all__ = ["L1", "L2", "ElasticNet", "Regularizer"]


@dataclass(frozen=True)
class Regularizer(ABC):
    r"""The base of the regularizers, :math:`l_1 \sum |w| + l_2 \sum w^2` over all elements.

    Attributes
    ----------
    l1, l2 : float
        The two coefficients. One that is 0 switches its term off, for infinite parameters too.
    """

    l1: float = field(init=False, repr=False)
    l2: float = field(init=False, repr=False)

    @abstractmethod
    def __post_init__(self) -> None:
        """Check the arguments and set the coefficients."""

    def _set(self, **values: float) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def value(self, params: Params) -> float:
        """Compute the penalty.

        Parameters
        ----------
        params : FlatBuffer, array, sequence or mapping of arrays, or list of group dicts
            float32, float64, float16 or bfloat16.

        Returns
        -------
        float
            Accumulated in float64: the same bits for any number of threads, and for a FlatBuffer
            and its arrays. What is not finite goes on into it.

        Raises
        ------
        TypeError
            An array has another dtype, or is not a plain array.
        ValueError
            A layout is wrong.
        """
        names, arrays = all_arrays(params)
        return _core.penalty(names, arrays, self.l1, self.l2)

    def add_grad(self, params: Params, grads: Grads | Iterator[Array | None]) -> float:
        """Add the gradient of the penalty to the gradients, and return the penalty, in one pass.

        Parameters
        ----------
        params : FlatBuffer, array, sequence or mapping of arrays, or list of group dicts
            float32, float64, float16 or bfloat16.
        grads : FlatBuffer, array, sequence or mapping
            Gradients in the structure of the parameters, changed in place: of their dtypes, or of
            16 bits for float32. Those in 16 bits are added to in float32 and rounded to nearest. A
            parameter whose gradient is None is left out of the penalty, too.

        Returns
        -------
        float
            As `value` of the parameters that have a gradient, to the bit.

        Raises
        ------
        TypeError
            A gradient has a dtype that does not go with its parameter, or is not a plain array.
        ValueError
            A wrong structure, shape or layout, memory that is shared, or gradients that are
            read-only. Nothing has changed then.
        RuntimeError
            Another thread is working on the same memory.
        """
        names, arrays = all_arrays(params)
        ordered = in_order(names, grads, params if isinstance(params, FlatBuffer) else None)
        return _core.add_penalty(names, arrays, ordered, self.l1, self.l2)


@dataclass(frozen=True)
class L1(Regularizer):
    r"""The sum of the absolute values: drives what is not needed to exactly 0.

    .. math::
        R = \lambda \sum_i |w_i|, \qquad
        \frac{\partial R}{\partial w_i} = \lambda \operatorname{sign}(w_i)

    The pull does not fade as a weight gets small: many end near 0, which selects features. At 0 the
    gradient is taken to be 0. Steps of gradient descent then swing around 0 by up to lr times
    lambda; set what is as small as that to 0 after training.

    Parameters
    ----------
    lam : float
        The factor lambda; finite and >= 0.

    Raises
    ------
    TypeError
        ``lam`` is not a number.
    ValueError
        It is negative, infinite or NaN.

    References
    ----------
    Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w, g = np.array([1.0, -2.0, 0.0]), np.ones(3)
    >>> fo.regularizers.L1(0.5).add_grad(w, g)
    1.5
    >>> g
    array([1.5, 0.5, 1. ])
    """

    lam: float

    def __post_init__(self) -> None:
        lam = non_negative("lam", self.lam)
        self._set(lam=lam, l1=lam, l2=0.0)


@dataclass(frozen=True)
class L2(Regularizer):
    r"""The sum of the squares: prefers many small weights to a few large ones.

    .. math::
        R = \lambda \sum_i w_i^2, \qquad
        \frac{\partial R}{\partial w_i} = 2 \lambda w_i

    There is no factor one half: ``L2(lam)`` is ``weight_decay=2 * lam`` of `SGD`, which needs no
    gradients to be written. In adaptive methods such as `Adam` a penalty is divided by the size of
    the gradients; to shrink all weights alike there, use the decoupled decay of `AdamW`.

    Parameters
    ----------
    lam : float
        The factor lambda; finite and >= 0.

    Raises
    ------
    TypeError
        ``lam`` is not a number.
    ValueError
        It is negative, infinite or NaN.

    References
    ----------
    Hoerl and Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", 1970.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w, g = np.array([1.0, -2.0, 0.0]), np.ones(3)
    >>> fo.regularizers.L2(0.5).add_grad(w, g)
    2.5
    >>> g
    array([ 2., -1.,  1.])
    """

    lam: float

    def __post_init__(self) -> None:
        lam = non_negative("lam", self.lam)
        self._set(lam=lam, l1=0.0, l2=lam)


@dataclass(frozen=True)
class ElasticNet(Regularizer):
    r"""Both: zeros as with `L1`, but features that go together stay together.

    .. math::
        R = l_1 \sum_i |w_i| + l_2 \sum_i w_i^2, \qquad
        \frac{\partial R}{\partial w_i} = l_1 \operatorname{sign}(w_i) + 2\, l_2 w_i

    Parameters
    ----------
    l1 : float
        The coefficient of the absolute values; finite and >= 0.
    l2 : float
        The coefficient of the squares, without a factor one half; finite and >= 0.

    Raises
    ------
    TypeError
        A coefficient is not a number.
    ValueError
        It is negative, infinite or NaN.

    References
    ----------
    Zou and Hastie, "Regularization and Variable Selection via the Elastic Net", 2005.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w, g = np.array([1.0, -2.0, 0.0]), np.ones(3)
    >>> fo.regularizers.ElasticNet(0.5, 0.5).add_grad(w, g)
    4.0
    >>> g
    array([ 2.5, -1.5,  1. ])
    """

    l1: float
    l2: float

    def __post_init__(self) -> None:
        self._set(l1=non_negative("l1", self.l1), l2=non_negative("l2", self.l2))
