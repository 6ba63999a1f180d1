"""Averages of gradients over all ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastoptim._checks import non_negative, shown
from fastoptim.distributed.team import team_of
from fastoptim.params.flat_buffer import DTYPES, FlatBuffer
from fastoptim.params.structure import Array


def average_gradients(grads: FlatBuffer | Array, comm: Any, *, weight: float | None = None) -> None:
    r"""Replace gradients by their average over all ranks, in one in-place Allreduce.

    Prefer `ShardedOptimizer` if the state of the optimizer takes much memory. With
    ``average_gradients``, every rank has the whole state and makes the same step:

    .. math::
        g \leftarrow \frac{1}{n} \sum_r g_r, \qquad \text{or} \qquad
        g \leftarrow \sum_r \frac{w_r}{\sum_s w_s} g_r

    Parameters
    ----------
    grads : FlatBuffer or array
        The gradients of this rank, with the same shape and dtype on all: float32, float64, float16
        or bfloat16. Gradients of 16 bits are summed in float32 and rounded once.
    comm : mpi4py.MPI.Intracomm
        The communicator.
    weight : float, optional
        The weight of this rank, finite and >= 0, such as its number of samples if that differs
        between ranks and its gradients are means over them. Either all ranks give one or none.

    Raises
    ------
    TypeError
        ``grads`` is not a buffer or an array of these dtypes, or ``comm`` not a communicator.
    ValueError
        The array is read-only or not C-contiguous, shapes or dtypes differ between ranks, or the
        weights are out of range or all 0.

    An error on one rank raises on all of them, and nothing has changed then.

    Examples
    --------
    On one rank:

    >>> import numpy as np
    >>> from fastoptim.distributed import average_gradients
    >>> from mpi4py import MPI
    >>> grads = np.full(3, 2.0)
    >>> average_gradients(grads, MPI.COMM_WORLD, weight=64)
    >>> grads
    array([2., 2., 2.])
    """
    team = team_of(comm)
    mpi = team.mpi
    total = np.zeros(1)
    with team.agreement() as agreement:
        flat = _checked(grads)
        if weight is not None:
            total[0] = own = non_negative("weight", weight)
        agreement.meet(
            {"grads": (flat.dtype.name, flat.shape), "weight is given": weight is not None}
        )
    if weight is not None:
        team.comm.Allreduce(mpi.IN_PLACE, total, mpi.SUM)
        if total[0] == 0.0:
            raise ValueError("weight must be > 0 on at least one rank")
    half = flat.dtype.itemsize == 2
    summed = flat.astype(np.float32) if half else flat
    if weight is not None:
        np.multiply(summed, summed.dtype.type(own / total[0]), out=summed)
    team.comm.Allreduce(mpi.IN_PLACE, summed, mpi.SUM)
    if weight is None:
        np.divide(summed, summed.dtype.type(team.size), out=summed)
    if half:
        flat[...] = summed


def _checked(grads: FlatBuffer | Array) -> Array:
    """Return the elements as one array that shares their memory."""
    array = grads.flat if isinstance(grads, FlatBuffer) else grads
    if type(array) not in (np.ndarray, np.memmap):
        raise TypeError(f"grads must be a FlatBuffer or an array, got {shown(grads)}")
    if array.dtype.name not in DTYPES or not array.dtype.isnative:
        raise TypeError(f"grads must be {', '.join(DTYPES)}, got {array.dtype}")
    if not (array.flags.c_contiguous and array.flags.aligned and array.flags.writeable):
        raise ValueError("grads must be writable, aligned and C-contiguous: average a copy of it")
    return array.reshape(-1)
