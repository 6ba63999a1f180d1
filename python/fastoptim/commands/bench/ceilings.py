"""The upper bounds on the speed of a step: that of memory and, in a cache, that of arithmetic.

One call does the work many times, so that starting the threads takes no part of its time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fastoptim import _core
from fastoptim.commands.bench.harness import Contestant
from fastoptim.commands.machine import last_cache

# One call moves so many bytes, or updates so many elements, if one time of the work is less: about
# a millisecond.
LEAST_BYTES, LEAST_ELEMENTS = 64 << 20, 1 << 21
# The most passes of one call, of arrays that are smaller than those of any benchmark.
MOST_PASSES = 1000


class Ceiling(Contestant):
    """An upper bound on the speed of the work. It has no result."""

    # What bounds the speed.
    bound = ""


class Stream(Ceiling):
    """A plain pass over memory: it updates some arrays of one size and reads one more.

    ``reads`` is how often it reads that array before, as a norm does.
    """

    bound = "memory"

    def __init__(self, updated: int, size: int, passes: int = 1, *, reads: int = 0) -> None:
        # Written first, because reads of untouched pages of zeros come from one page in a cache.
        held, read = [np.ones(size, np.float32) for _ in range(updated)], np.ones(size, np.float32)
        self.held = 4 * size * (updated + 1)
        self.moved = passes * 4 * size * (2 * updated + 1) + reads * 4 * size
        times = min(max(1, LEAST_BYTES // self.moved), MOST_PASSES)

        def run() -> None:
            if reads:
                _core.stream([], read, reads * times)
            _core.stream(held, read, passes * times)

        super().__init__(run, None, times)


class Arithmetic(Ceiling):
    """The loop of an optimizer's rule over one block in the L1 cache of each thread."""

    bound = "arithmetic"

    def __init__(self, opt: Any, size: int, double: bool = False) -> None:
        times = max(1, LEAST_ELEMENTS // size)
        run = partial(_core.arithmetic, opt._kind, opt.param_groups[0], size * times, double)
        super().__init__(run, None, times)


def ceilings(stream: Stream, opt: Any, size: int, *, double: bool = False) -> dict[str, Ceiling]:
    """Return the ceilings of a step of ``size`` parameters in float32 or float64, by name.

    ``opt`` has the hyperparameters. Arithmetic is one only of a step whose arrays fit in a cache.
    """
    found: dict[str, Ceiling] = {f"stream of {stream.moved // size} B": stream}
    if stream.held <= last_cache():
        found["arithmetic"] = Arithmetic(opt, size, double)
    return found
