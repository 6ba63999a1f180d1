"""Penalties on the size of the parameters, to be added to a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from fastoptim import _core
from fastoptim._checks import flag, non_negative
from fastoptim.errors import CheckpointError
from fastoptim.params.flat_buffer import FlatBuffer
from fastoptim.params.structure import Grads, Params, all_arrays, in_order

__all__ = ["L1", "L2", "ElasticNet", "Regularizer"]


@dataclass(frozen=True)
class Regularizer(ABC):
    r"""The base of the regularizers, :math:`l_1 \sum |w| + l_2 \sum w^2` over all elements.

    Attributes
    ----------
    l1, l2 : float
        The two coefficients. One that is 0 switches its term off, for infinite parameters too.
    proximal : bool
        Whether the first term is applied by its proximal operator, and not by its subgradient.

    Notes
    -----
    A proximal term is no part of the gradient. Once a step has updated the parameters, it solves
    for them, in the same pass, the problem that the term makes at the learning rate:

    .. math::
        p \leftarrow \operatorname{argmin}_w \frac{(w - p)^2}{2\, \text{lr}} + l_1 |w|
        = \operatorname{sign}(p) \max(0, |p| - \text{lr}\, l_1)

    which sets to exactly 0 what is smaller than lr times :math:`l_1`. With plain `SGD` this is
    ISTA, proximal gradient descent, which minimizes the loss and the penalty together. Any other
    optimizer shrinks by the same amount after its own step, as `AdamW` decays: the threshold is not
    divided by the size of the gradients, so :math:`l_1` means less or more than in a penalty on the
    loss. The rate is that of the step, with `Adagrad`'s ``lr_decay`` and `Prodigy`'s estimate.
    Optimizers that average their parameters (`ASGD`, `ScheduleFreeSGD`, `ScheduleFreeAdamW`), where
    zeros would not last, and `Rprop`, whose steps have sizes of their own, raise a ValueError.

    The norm that ``max_norm`` clips does not have the term in it, ``clip_value`` does not limit it,
    and a parameter without a gradient is left alone. Parameters that `SAM` perturbs are shrunk by
    its second step only.
    """

    l1: float = field(init=False, repr=False)
    l2: float = field(init=False, repr=False)

    @property
    def proximal(self) -> bool:
        """Whether the first term is applied by its proximal operator."""
        return False

    @abstractmethod
    def __post_init__(self) -> None:
        """Check the arguments and set the coefficients."""

    def _set(self, **values: float) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def value(self, params: Params) -> float:
        """Compute the penalty, with both terms, proximal or not.

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

    def add_grad(self, params: Params, grads: Grads) -> float:
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
            read-only; or a proximal regularizer, which has no gradient to add and belongs to
            ``step(regularizer=)`` or to a parameter group. Nothing has changed then.
        RuntimeError
            Another thread is working on the same memory.
        """
        if self.proximal:
            raise ValueError(
                f"{self} has no gradient to add, as it is applied after the update: give it to "
                "step(regularizer=) or to a parameter group"
            )
        names, arrays = all_arrays(params)
        ordered = in_order(names, grads, params if isinstance(params, FlatBuffer) else None)
        return _core.add_penalty(names, arrays, ordered, self.l1, self.l2)


def _shown(self: Any) -> str:
    """Leave out what is as by default."""
    names = ["lam"] if isinstance(self, L1) else ["l1", "l2"]
    arguments = [f"{name}={getattr(self, name)}" for name in names]
    arguments += ["proximal=True"] * self.proximal
    return f"{type(self).__name__}({', '.join(arguments)})"


@dataclass(frozen=True)
class L1(Regularizer):
    r"""The sum of the absolute values: drives what is not needed towards 0, or to exactly 0.

    .. math::
        R = \lambda \sum_i |w_i|, \qquad
        \frac{\partial R}{\partial w_i} = \lambda \operatorname{sign}(w_i)

    The pull does not fade as a weight gets small: many end near 0, which selects features. At 0 the
    gradient is taken to be 0. Steps along this subgradient do not end at 0: they swing around it by
    up to lr times lambda. With ``proximal=True`` a step soft-thresholds the updated weights by lr
    times lambda instead, and what is not needed becomes exactly 0: see `Regularizer`.

    Parameters
    ----------
    lam : float
        The factor lambda; finite and >= 0.
    proximal : bool, default False
        Soft-threshold after the update instead of adding a subgradient before it.

    Raises
    ------
    TypeError
        ``lam`` is not a number, or ``proximal`` not a bool.
    ValueError
        It is negative, infinite or NaN.

    References
    ----------
    Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996.
    Daubechies, Defrise and De Mol, "An iterative thresholding algorithm for linear inverse problems
    with a sparsity constraint", 2004 (ISTA).
    Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse
    Problems", 2009.
    Duchi and Singer, "Efficient Online and Batch Learning Using Forward Backward Splitting", 2009
    (stochastic gradients).

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w, g = np.array([1.0, -2.0, 0.0]), np.ones(3)
    >>> fo.regularizers.L1(0.5).add_grad(w, g)
    1.5
    >>> g
    array([1.5, 0.5, 1. ])
    >>> w, g = np.array([1.0, -2.0, 0.25]), np.array([0.0, -1.0, 1.0])
    >>> opt = fo.SGD(w, lr=0.5)
    >>> opt.step(g, regularizer=fo.regularizers.L1(0.5, proximal=True)).applied
    True
    >>> w
    array([ 0.75, -1.25,  0.  ])
    """

    lam: float
    proximal: bool = False

    def __post_init__(self) -> None:
        lam = non_negative("lam", self.lam)
        self._set(lam=lam, l1=lam, l2=0.0)
        flag("proximal", self.proximal)

    __repr__ = _shown


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
    r"""Both: few features as with `L1`, but those that go together stay together.

    .. math::
        R = l_1 \sum_i |w_i| + l_2 \sum_i w_i^2, \qquad
        \frac{\partial R}{\partial w_i} = l_1 \operatorname{sign}(w_i) + 2\, l_2 w_i

    With ``proximal=True`` a step adds the gradient of the squares alone, and soft-thresholds the
    updated weights by lr times :math:`l_1`: see `Regularizer`.

    Parameters
    ----------
    l1 : float
        The coefficient of the absolute values; finite and >= 0.
    l2 : float
        The coefficient of the squares, without a factor one half; finite and >= 0.
    proximal : bool, default False
        Soft-threshold after the update instead of adding a subgradient of the absolute values.

    Raises
    ------
    TypeError
        A coefficient is not a number, or ``proximal`` not a bool.
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
    proximal: bool = False

    def __post_init__(self) -> None:
        self._set(l1=non_negative("l1", self.l1), l2=non_negative("l2", self.l2))
        flag("proximal", self.proximal)

    __repr__ = _shown


def described(regularizer: Any) -> dict[str, Any] | None:
    """Return a regularizer as plain values, for the state of an optimizer."""
    if not isinstance(regularizer, Regularizer):
        return None
    return {
        "class": type(regularizer).__name__,
        "l1": regularizer.l1,
        "l2": regularizer.l2,
        "proximal": regularizer.proximal,
    }


def restored(saved: Any, mine: Any) -> Regularizer | None:
    """Return what plain values describe: the regularizer that is there already, or a new one.

    Raises
    ------
    CheckpointError
        They describe none of this module.
    """
    if saved is None or saved == described(mine):
        return None if saved is None else mine
    try:
        match saved["class"]:
            case "L1":
                return L1(saved["l1"], saved["proximal"])
            case "L2":
                return L2(saved["l2"])
            case "ElasticNet":
                return ElasticNet(saved["l1"], saved["l2"], saved["proximal"])
        problem = "which has another class than those of fastoptim"
    except (TypeError, KeyError, ValueError) as error:
        problem = f"which describes none: {error!r}"
    raise CheckpointError(
        f"regularizer of a group is {saved!r}, {problem}; give the group here the same regularizer "
        "before the load"
    )
