"""Training on several processes and machines, by MPI through mpi4py (extra ``mpi``).

Every process, a rank, computes the gradients of its own samples. `average_gradients` averages them,
and each rank then makes the same step. `ShardedOptimizer` also divides the state of the optimizer
among the ranks, and updates only a part of the parameters on each.

Start a program with ``mpiexec -n 4 python train.py``. All functions and methods here are
collective: all ranks call them, in the same order. An error on one rank raises on all of them, with
the message of that rank. A rank that ends by an uncaught exception, or is killed, ends the job.

Ranks on one machine share its processors: unless `fastoptim.set_num_threads` or
``FASTOPTIM_NUM_THREADS`` has set it, the number of threads of each becomes its share.
"""

from __future__ import annotations

from fastoptim.distributed.averaging import average_gradients
from fastoptim.distributed.sharded import ShardedOptimizer

__all__ = ["ShardedOptimizer", "average_gradients"]


def __dir__() -> list[str]:
    return __all__
