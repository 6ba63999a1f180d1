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
    r"""The base class of the regularizers, :math:`l_1 \sum |w| + l_2 \sum w^2` over all elements.

    Attributes
    ----------
    l1, l2 : float
        The two coefficients. A term with coefficient 0 is 0 even for infinite parameters.
    proximal : bool
        Whether the first term is applied by its proximal operator instead of its subgradient.

    Notes
    -----
    A proximal term is not part of the gradient. In the same pass, after the update of the
    parameters, a step applies the proximal operator of the term for the learning rate:

    .. math::
        p \leftarrow \operatorname{argmin}_w \frac{(w - p)^2}{2\, \text{lr}} + l_1 |w|
        = \operatorname{sign}(p) \max(0, |p| - \text{lr}\, l_1)

    which sets values smaller than lr times :math:`l_1` to exactly 0. With plain `SGD` this is ISTA,
    proximal gradient descent, which minimizes the loss and the penalty together. Any other
    optimizer shrinks by the same amount after its own step, as `AdamW` decays: the threshold is not
    divided by the size of the gradients, so :math:`l_1` means less or more than in a penalty on the
    loss. The rate is that of the step, with `Adagrad`'s ``lr_decay`` and `Prodigy`'s estimate.
    A ValueError is raised for optimizers that average their parameters (`ASGD`, `ScheduleFreeSGD`,
    `ScheduleFreeAdamW`), where zeros would not persist, and for `Rprop`, which has its own step
    sizes.

    The term is not included in the norm for ``max_norm``, not limited by ``clip_value``, and not
    applied to a parameter without a gradient. `SAM` applies it only in its second step.
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
        """Compute the penalty of both terms, proximal or not.

        Parameters
        ----------
        params : FlatBuffer, array, sequence or mapping of arrays, or list of group dicts
            float32, float64, float16 or bfloat16.

        Returns
        -------
        float
            Accumulated in float64: bitwise identical for any number of threads, and for a
            FlatBuffer and its arrays. Infinities and NaN propagate.

        Raises
        ------
        TypeError
            A dtype is not supported, or an array is not a plain array.
        ValueError
            A layout is invalid.
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
            Gradients in the structure of the parameters, changed in place. They have the dtypes of
            the parameters, or 16 bits for float32 parameters; 16-bit gradients are converted to
            float32, and the sum is rounded to nearest. A parameter whose gradient is None is
            omitted from the penalty, too.

        Returns
        -------
        float
            The same bits as `value` of the parameters that have a gradient.

        Raises
        ------
        TypeError
            The dtype of a gradient does not match its parameter, or it is not a plain array.
        ValueError
            A structure, shape or layout is invalid, arrays share memory, a gradient is read-only,
            or the regularizer is proximal and so has no gradient to add: pass it to
            ``step(regularizer=)`` or a parameter group. Nothing has changed then.
        RuntimeError
            Another thread is using the same memory.
        """
        if self.proximal:
            raise ValueError(
                f"{self} has no gradient to add, as it is applied after the update: pass it to "
                "step(regularizer=) or to a parameter group"
            )
        names, arrays = all_arrays(params)
        ordered = in_order(names, grads, params if isinstance(params, FlatBuffer) else None)
        return _core.add_penalty(names, arrays, ordered, self.l1, self.l2)


def _shown(self: Any) -> str:
    """Return the repr without arguments that have their default value."""
    names = ["lam"] if isinstance(self, L1) else ["l1", "l2"]
    arguments = [f"{name}={getattr(self, name)}" for name in names]
    arguments += ["proximal=True"] * self.proximal
    return f"{type(self).__name__}({', '.join(arguments)})"


@dataclass(frozen=True)
class L1(Regularizer):
    r"""The sum of the absolute values: drives unimportant parameters towards 0, or to exactly 0.

    .. math::
        R = \lambda \sum_i |w_i|, \qquad
        \frac{\partial R}{\partial w_i} = \lambda \operatorname{sign}(w_i)

    The gradient does not decrease with the size of a weight: many weights end near 0, which selects
    features. The gradient at 0 is defined as 0. Steps along this subgradient oscillate around 0 by
    up to lr times lambda. With ``proximal=True`` a step soft-thresholds the updated weights by lr
    times lambda instead, and unimportant weights become exactly 0: see `Regularizer`.

    Parameters
    ----------
    lam : float
        The factor lambda; finite and >= 0.
    proximal : bool, default False
        Soft-thresholds after the update instead of adding a subgradient before it.

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

    There is no factor one half: ``L2(lam)`` equals ``weight_decay=2 * lam`` of `SGD`, which does
    not write to the gradients. In adaptive methods such as `Adam` a penalty is divided by the size
    of the gradients; to shrink all weights equally, use the decoupled decay of `AdamW`.

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
    r"""The sum of both: selects features as `L1` does, but keeps correlated features together.

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
        Soft-thresholds after the update instead of adding a subgradient of the absolute values.

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
    """Return the regularizer that plain values describe: the present one if equal, or a new one.

    Raises
    ------
    CheckpointError
        They do not describe a regularizer of this module.
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
        problem = "whose class is not one of fastoptim"
    except (TypeError, KeyError, ValueError) as error:
        problem = f"which is not valid: {error!r}"
    raise CheckpointError(
        f"regularizer of a group is {saved!r}, {problem}; set the same regularizer in the group "
        "before the load"
    )
