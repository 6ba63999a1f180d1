"""The storage of moments and parameters."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

from fastoptim._checks import word

StateDtype: TypeAlias = Literal["float32", "bfloat16", "int8"]
Rounding: TypeAlias = Literal["stochastic", "nearest"]


class Storage(NamedTuple):
    """The storage of moments and 16-bit parameters; it does not change the type of computation.

    float16 and bfloat16 parameters have float32 moments by default. Moments take half the memory in
    bfloat16, and a quarter in int8 (plus one float32 per 256 elements). Averages of parameters,
    step sizes, growing sums and matrix factors are never stored in low precision.

    Attributes
    ----------
    state_dtype : {"float32", "bfloat16", "int8"} or None
        The storage of the moments. None: float64 for float64 parameters, float32 for all others.
        "int8" stores a first moment in int8, scaled by the largest absolute value of each block of
        256 (``exp_avg`` and ``exp_avg_scale`` in the state), and a second moment in uint8, scaled
        by the largest square root. Codes are logarithmic: for values down to 1e-4 of the largest in
        the block, the relative error is at most 1/7 for a first moment and 1/15 for the square root
        of a second moment.
    rounding : {"stochastic", "nearest"}
        The rounding of parameters and moments that are stored in lower precision than computed.
        Stochastic rounding is unbiased, so that small updates are not lost. Rounding to nearest
        loses updates of less than half a unit, and prevents second moments in int8 from decreasing,
        so that steps become too small: use stochastic rounding for bfloat16 parameters and int8
        moments.
    seed : int
        The seed of the random bits, which depend only on it, the parameter, its step and the
        element. They are the same for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> opt = fo.AdamW(np.ones(512, "f4"), state_dtype="int8", seed=1)
    >>> opt.step(np.ones(512, "f4")).applied
    True
    >>> {name: x.dtype.name for name, x in opt.state["0"].items() if name != "step"}
    {'exp_avg': 'int8', 'exp_avg_scale': 'float32', 'exp_avg_sq': 'uint8', \
'exp_avg_sq_scale': 'float32'}
    """

    state_dtype: StateDtype | None = None
    rounding: Rounding = "stochastic"
    seed: int = 0

    def check(self) -> None:
        """Check the strings; the core checks the seed."""
        word("state_dtype", self.state_dtype, (*get_args(StateDtype), None))
        word("rounding", self.rounding, get_args(Rounding))
