"""The number of threads of the kernels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import SupportsIndex

from fastoptim._core import (
    get_num_threads,
    is_thread_count,
    set_num_threads,
    set_own_threads,
)

share = ""
"""Why the number of threads is not that of all processors, for ``python -m fastoptim info``."""

__all__ = ["get_num_threads", "num_threads", "set_num_threads"]


@contextmanager
def num_threads(n: SupportsIndex) -> Iterator[None]:
    """Use ``n`` threads for the calls of the current thread in a ``with`` block.

    Parameters
    ----------
    n : int
        At least 1. Results are bitwise identical for any number.

    Raises
    ------
    TypeError
        ``n`` is not an integer.
    ValueError
        ``n`` is not between 1 and 1024.

    Examples
    --------
    >>> import fastoptim as fo
    >>> with fo.num_threads(1):
    ...     fo.get_num_threads()
    1
    """
    if n is None:  # The core would use the number of the process.
        raise TypeError("n must be an int, got None")
    before = set_own_threads(n)
    try:
        yield
    finally:
        set_own_threads(before)


def _warn_of_invalid_value(variable: str = "FASTOPTIM_NUM_THREADS") -> None:
    text = os.environ.get(variable)
    if text is not None and not is_thread_count(text):
        warnings.warn(
            f"{variable}={text!r} is not a number of threads; the default is used",
            RuntimeWarning,
            stacklevel=3,
        )


_warn_of_invalid_value()
