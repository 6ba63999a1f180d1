"""The division of parameters among ranks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from fastoptim._core import PART

Bounds = tuple[int, int]


def divided(sizes: Sequence[int], ranks: int, *, whole: bool) -> list[list[Bounds]]:
    """Return the elements of each parameter that each rank has, by rank and parameter.

    Ranks have consecutive parts of the concatenation of all parameters, as equal as possible: an
    array is cut at multiples of `PART` elements, or not at all with ``whole``.
    """
    starts = list(accumulate(sizes, initial=0))
    edges = np.array(starts)
    if not whole:
        inside = [np.arange(start, end, PART) for start, end in pairwise(starts)]
        edges = np.unique(np.concatenate([edges, *inside]))
    wanted = np.arange(ranks + 1) * (starts[-1] / ranks)
    after = np.searchsorted(edges, wanted).clip(1, len(edges) - 1)
    below, above = edges[after - 1], edges[after]
    cuts = np.where(wanted - below < above - wanted, below, above).tolist()
    cuts[0], cuts[-1] = 0, starts[-1]
    return [
        [_inside(low, high, start, end) for start, end in pairwise(starts)]
        for low, high in pairwise(cuts)
    ]


def _inside(low: int, high: int, start: int, end: int) -> Bounds:
    """Return the part of an array that is between two cuts, counted from its start."""
    first, last = max(low, start) - start, min(high, end) - start
    return (first, last) if first < last else (0, 0)
