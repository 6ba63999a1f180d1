"""Minibatches as arrays of indices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from fastoptim._checks import flag, integer

__all__ = ["Minibatches", "minibatches"]


class Minibatches(Iterator[NDArray[np.int64]]):
    """One pass over shuffled indices in batches; `len` is the number of batches."""

    def __init__(self, order: NDArray[np.int64], batch_size: int, drop_last: bool) -> None:
        self._order = order
        self._batch_size = batch_size
        self._next = 0
        whole, rest = divmod(len(order), batch_size)
        self._count = whole + (rest > 0 and not drop_last)

    def __len__(self) -> int:
        return self._count

    def __next__(self) -> NDArray[np.int64]:
        if self._next == self._count:
            raise StopIteration
        start = self._next * self._batch_size
        self._next += 1
        return self._order[start : start + self._batch_size]


def minibatches(
    n: SupportsIndex, batch_size: SupportsIndex, seed: SupportsIndex = 0, drop_last: bool = False
) -> Minibatches:
    """Shuffle the indices from 0 to ``n - 1`` and return them in batches, each index once.

    Parameters
    ----------
    n : int
        The number of samples, >= 0.
    batch_size : int
        Indices per batch, >= 1; the last batch has the remaining ones.
    seed : int, default 0
        The same seed gives the same order on every machine; use the number of the epoch for a
        different order in each. >= 0.
    drop_last : bool, default False
        Omits a last batch that is not full, so that all have the same shape.

    Returns
    -------
    Minibatches
        An iterator of int64 arrays, for one pass; ``len()`` is the number of batches.

    Raises
    ------
    TypeError
        A number is not an integer, or ``drop_last`` is not a bool.
    ValueError
        A number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> x = np.arange(10) ** 2
    >>> for epoch in range(2):
    ...     for rows in fo.minibatches(len(x), batch_size=4, seed=epoch):
    ...         print(x[rows])
    [ 9  4  1 64]
    [36  0 49 16]
    [25 81]
    [81  4 16 49]
    [25  0 64 36]
    [9 1]
    >>> len(fo.minibatches(10, 4, drop_last=True))
    2
    """
    count = integer("n", n, least=0)
    size = integer("batch_size", batch_size, least=1)
    whole = flag("drop_last", drop_last)
    # Sorted raw bits: NumPy guarantees the stream of raw bits, but not the algorithm of shuffle.
    keys = np.random.PCG64(integer("seed", seed, least=0)).random_raw(count)
    order = np.argsort(np.atleast_1d(keys), kind="stable").astype(np.int64, copy=False)
    return Minibatches(order, size, whole)
