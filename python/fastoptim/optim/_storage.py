"""How an optimizer keeps its moments and its parameters."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

from fastoptim._checks import word

StateDtype: TypeAlias = Literal["float32", "bfloat16", "int8"]
Rounding: TypeAlias = Literal["stochastic", "nearest"]


class Storage(NamedTuple):
    """How an optimizer keeps what it need not keep exactly; arithmetic is in float32 all the same.

    Parameters in float16 and bfloat16 have float32 moments unless ``state_dtype`` says otherwise.
    Moments in bfloat16 take half the memory, in int8 a quarter (and one float32 per 256 numbers).
    Averages of parameters, step sizes, sums that only grow and the factors of matrices are never
    kept in fewer bits.

    Attributes
    ----------
    state_dtype : {"float32", "bfloat16", "int8"} or None
        The storage of the moments. None: float64 for float64 parameters, float32 for all others.
        "int8" keeps a first moment in int8 with the largest absolute value of each block of 256 as
        its scale (``exp_avg`` and ``exp_avg_scale`` in the state), and a second moment in uint8
        with the largest root as its scale. Codes are logarithmic: down to 1e-4 of the block's
        largest, a first moment and the root of a second are kept to within 1/7 and 1/15 of
        themselves.
    rounding : {"stochastic", "nearest"}
        Of parameters and moments that are kept in fewer bits than they are computed in.
        Stochastic rounding is right on average, so that small updates are not lost; nearest loses
        what is less than half a unit, and moves a second moment in int8 up alone, which ends in
        steps that are too small: use stochastic for parameters in bfloat16 and moments in int8.
    seed : int
        Of the random bits, which depend on it, the parameter, its step and the place alone: they
        are the same for any number of threads.

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
        """Refuse words that are unknown; the core checks the seed."""
        word("state_dtype", self.state_dtype, (*get_args(StateDtype), None))
        word("rounding", self.rounding, get_args(Rounding))
