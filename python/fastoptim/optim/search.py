"""Random search, as a baseline."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from fastoptim import _core
from fastoptim._checks import CheckedAttributes, Checks, integer, non_negative
from fastoptim.params.flat_buffer import FlatBuffer
from fastoptim.params.structure import Array, Arrays, named_arrays


class _Search(CheckedAttributes):
    """The base class of random searches; it cannot be used directly."""

    _local: bool

    _checks: ClassVar[Checks] = {
        "scale": non_negative,
        "seed": partial(integer, unsigned=True),
    }

    def __init__(self, params: Arrays, scale: float = 1e-3, seed: int = 0) -> None:
        self.params = params
        self.scale = scale
        self.seed = seed
        self.steps = 0
        self.best: float | None = None
        # Whether the parameters hold a draw that may be rejected.
        self._trying = False
        if isinstance(params, FlatBuffer):
            self._arrays: list[Array] = [params.flat]
        else:
            _, self._arrays = named_arrays(params)
        if not self._arrays:
            raise ValueError("params is empty")
        # A scale of 0 checks the arrays without changing them.
        _core.add_normal(self._arrays, 0.0, self.seed, 0)
        self._saved = [array.copy() for array in self._arrays]

    def step(self, objective: Callable[[Any], float]) -> float:
        """Try one draw, and accept it if it is better.

        Parameters
        ----------
        objective : function
            Takes the parameters in the form in which they were given, and returns the value to
            minimize. NaN is never better. If it raises an error, the parameters are restored.

        Returns
        -------
        float
            The best value so far, which the parameters attain. The first step also evaluates the
            initial parameters.
        """
        best = self.best
        if best is None:
            best = float(objective(self.params))
            best = math.inf if math.isnan(best) else best
        for saved, array in zip(self._saved, self._arrays, strict=True):
            saved[...] = array
        steps = self.steps

        def action() -> float:
            self._trying = True
            # A scale of 0 only checks that no other thread is using the memory.
            _core.add_normal(self._arrays, 0.0, self.seed, steps)
            if not self._local:
                for array in self._arrays:
                    array[...] = 0
            _core.add_normal(self._arrays, self.scale, self.seed, steps)
            value = float(objective(self.params))
            better = value < best
            if not better:
                restore()
            found = value if better else best
            vars(self).update(steps=steps + 1, best=found, _trying=False)
            return found

        def restore() -> None:
            for saved, array in zip(self._saved, self._arrays, strict=True):
                array[...] = saved

        def settle() -> None:
            if self.steps == steps:
                restore()
                self._trying = False

        return _core.attempt(action, settle)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(scale={self.scale}, seed={self.seed}, best={self.best})"


class RandomSearch(_Search):
    r"""Random search: :math:`p = \text{scale}\, N(0, 1)`, the best of all draws.

    A baseline: an optimizer that is not better than this does not learn.

    Parameters
    ----------
    params : FlatBuffer, array, sequence or mapping
        float32 or float64 arrays, updated in place.
    scale : float, default 1e-3
        Standard deviation of the draws; finite and >= 0.
    seed : int, default 0
        The same seed gives the same draws for any number of threads.

    References
    ----------
    Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011 (the generator).

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([3.0, -4.0])
    >>> search = fo.RandomSearch(w, scale=1.0)
    >>> values = [search.step(lambda w: float(w @ w)) for _ in range(50)]
    >>> values == sorted(values, reverse=True), values[-1] == float(w @ w)
    (True, True)
    """

    _local = False


class RandomLocalSearch(_Search):
    r"""Random local search: :math:`p + \text{scale}\, N(0, 1)`, accepted if it is better.

    Needs no gradient, but in many dimensions few directions reduce the loss: gradient descent is
    faster by a factor of about the number of parameters.

    Parameters
    ----------
    params : FlatBuffer, array, sequence or mapping
        float32 or float64 arrays, updated in place.
    scale : float, default 1e-3
        Standard deviation of the draws around the best so far; finite and >= 0.
    seed : int, default 0
        The same seed gives the same draws for any number of threads.

    References
    ----------
    Rastrigin, "The convergence of the random search method in the extremal control of a
    many-parameter system", 1963.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([3.0, -4.0])
    >>> search = fo.RandomLocalSearch(w, scale=0.3)
    >>> best = [search.step(lambda w: float(w @ w)) for _ in range(200)][-1]
    >>> best < 0.1
    True
    """

    _local = True
