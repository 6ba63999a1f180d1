"""Sums and collections of many arrays, with one message per dtype."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from fastoptim.distributed.partition import Bounds
from fastoptim.distributed.team import Team
from fastoptim.params.structure import Array


class Bundles:
    """The parts of arrays that each rank has, and memory for messages.

    Arrays that are adjacent in one buffer are sent from there; others are copied into a message.
    """

    def __init__(self, team: Team, parts: Sequence[Sequence[Bounds]]) -> None:
        self._team = team
        self._parts = parts
        self._own = parts[team.rank]
        self._message = np.empty(0, np.uint8)
        # The sums of each dtype. New memory in each step would take as long as the sums.
        self._sums: dict[str, Array] = {}

    def own(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the parts of this rank, as 1-D views."""
        pairs = zip(arrays, self._own, strict=True)
        return [array.reshape(-1)[start:end] for array, (start, end) in pairs]

    def summed(
        self, grads: Array | Sequence[Array | None], *, average: bool
    ) -> Array | list[Array | None]:
        """Return the sums, or averages, over all ranks of the parts of this rank."""
        if isinstance(grads, np.ndarray):
            return self._reduced(grads, range(len(self._own)), average)
        found: list[Array | None] = [None] * len(grads)
        present = [index for index, grad in enumerate(grads) if grad is not None]
        for indices in self._by_dtype(grads, present):
            arrays: list[Array] = [grad for index in indices if (grad := grads[index]) is not None]
            whole = self._buffer(arrays)
            np.concatenate([array.reshape(-1) for array in arrays], out=whole)
            sums = self._reduced(whole, indices, average)
            lengths = [end - start for start, end in (self._own[index] for index in indices)]
            ends = list(accumulate(lengths))
            for index, length, end in zip(indices, lengths, ends, strict=True):
                found[index] = sums[end - length : end]
        return found

    def collect(self, arrays: Array | Sequence[Array]) -> None:
        """Fill arrays with the parts of all ranks; each has its own part."""
        if isinstance(arrays, np.ndarray):
            self._collected(arrays, range(len(self._own)))
            return
        for indices in self._by_dtype(arrays, range(len(arrays))):
            whole = self._buffer([arrays[index] for index in indices])
            counts = self._counts(indices)
            place = sum(counts[: self._team.rank])
            own = whole[place : place + counts[self._team.rank]]
            parts = self.own(arrays)
            if own.size:
                np.concatenate([parts[index] for index in indices], out=own)
            self._collected(whole, indices)
            end = 0
            for index in indices:
                start, end = end, end + arrays[index].size
                arrays[index][...] = whole[start:end].reshape(arrays[index].shape)

    def _by_dtype(self, arrays: Sequence[Any], indices: Sequence[int]) -> list[list[int]]:
        """Return the indices of the arrays of each dtype, in order."""
        found: dict[str, list[int]] = {}
        for index in indices:
            found.setdefault(arrays[index].dtype.name, []).append(index)
        return list(found.values())

    def _counts(self, indices: Sequence[int]) -> list[int]:
        """Return the number of elements that each rank has of these arrays."""
        return [
            sum(end - start for start, end in (parts[index] for index in indices))
            for parts in self._parts
        ]

    def _buffer(self, arrays: Sequence[Array]) -> Array:
        """Return memory for the concatenation of arrays of one dtype."""
        size, dtype = sum(array.size for array in arrays), arrays[0].dtype
        if self._message.nbytes < size * dtype.itemsize:
            self._message = np.empty(size * dtype.itemsize, np.uint8)
        return self._message[: size * dtype.itemsize].view(dtype)

    def _reduced(self, whole: Array, indices: Sequence[int], average: bool) -> Array:
        """Return the sums of the part of this rank, in the dtype of the array."""
        counts = self._counts(indices)
        # 16 bits are summed in float32 and rounded once.
        sent = whole.astype(np.float32) if whole.dtype.itemsize == 2 else whole
        count = counts[self._team.rank]
        sums = self._sums.get(whole.dtype.name)
        if sums is None or sums.size != count:
            sums = self._sums[whole.dtype.name] = np.empty(count, sent.dtype)
        self._team.comm.Reduce_scatter(sent, sums, counts, self._team.mpi.SUM)
        if average:
            np.divide(sums, sums.dtype.type(self._team.size), out=sums)
        return sums.astype(whole.dtype, copy=False)

    def _collected(self, whole: Array, indices: Sequence[int]) -> None:
        mpi, size = self._team.mpi, whole.dtype.itemsize
        counts = [count * size for count in self._counts(indices)]
        if min(counts) == max(counts):  # MPICH takes a quarter of the time for equal parts.
            self._team.comm.Allgather(mpi.IN_PLACE, [whole.view(np.uint8), mpi.BYTE])
        else:
            self._team.comm.Allgatherv(mpi.IN_PLACE, [whole.view(np.uint8), counts, mpi.BYTE])
