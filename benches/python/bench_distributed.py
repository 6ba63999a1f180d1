"""AdamW on several ranks: one step with its communication, by parameters and ranks.

Ranks run on this machine, with the threads of one process divided among them. A model of
communication, alpha seconds per message and beta seconds per byte, is fitted to the measured
collectives on two ranks, and predicts collectives of other numbers of ranks and other networks.

    python benches/python/bench_distributed.py
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastoptim as fo

RANKS = [1, 2, 4]
SIZES = [2**12, 2**16, 2**20, 2**23]
QUICK = [2**12, 2**16]
# Assumed networks: seconds per message, and seconds per byte.
NETWORKS = {"10 Gb/s Ethernet": (30e-6, 1 / 1.1e9), "100 Gb/s InfiniBand": (2e-6, 1 / 11e9)}
JOB = "BENCH_DISTRIBUTED"  # Set in the ranks of a job.


def median(call: Callable[[], object], barrier: Callable[[], object], seconds: float) -> float:
    """Return the median time of a call on this rank; all ranks make as many calls."""
    times: list[float] = []
    for _ in range(5 if seconds < 1 else 15):
        barrier()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def measure(size: int, seconds: float) -> dict[str, float]:
    """Measure as one rank of a job; the slowest rank counts."""
    from mpi4py import MPI

    from fastoptim.distributed import ShardedOptimizer, average_gradients

    comm = MPI.COMM_WORLD
    params, alone = (fo.FlatBuffer({"w": (size,)}) for _ in range(2))
    params.flat[...] = alone.flat[...] = np.linspace(-1, 1, size, dtype="f4")
    grads, mean = params.zeros_like(), params.zeros_like()
    grads.flat[...] = np.float32(comm.rank + 1)
    mean.flat[...] = np.float32((comm.size + 1) / 2)
    sharded, plain = ShardedOptimizer(fo.AdamW, params, comm), fo.AdamW(alone)
    sharded.step(grads)
    plain.step(mean)
    if params.flat.tobytes() != alone.flat.tobytes():
        raise SystemExit("the results differ")
    part = np.empty(size // comm.size, np.float32)

    def averaged() -> None:
        average_gradients(grads, comm)
        plain.step(grads)

    def collectives() -> None:
        comm.Reduce_scatter_block(grads.flat, part)
        comm.Allgather(part, params.flat)

    calls = {
        "sharded": lambda: sharded.step(grads),
        "averaged": averaged,
        "collectives": collectives,
        "step": lambda: plain.step(mean),
    }
    found = {
        name: comm.allreduce(median(call, comm.Barrier, seconds), MPI.MAX)
        for name, call in calls.items()
    }
    state = sum(x.nbytes for x in sharded.state["w"].values() if isinstance(x, np.ndarray))
    return {**found, "size": size, "state": comm.allreduce(state, MPI.MAX)}


def measure_training(batch: int, seconds: float) -> float:
    """Return the time of a whole step of a network of two layers, as one rank of a job."""
    from mpi4py import MPI

    from fastoptim.distributed import ShardedOptimizer

    comm = MPI.COMM_WORLD
    params = fo.FlatBuffer({"v": (512, 512), "w": (512, 512)})
    grads = params.zeros_like()
    rng = np.random.default_rng(0)
    params.flat[...] = rng.standard_normal(params.size) / 32
    share = batch // comm.size
    x = rng.standard_normal((batch, 512), np.float32)[comm.rank * share :][:share]
    opt = ShardedOptimizer(fo.AdamW, params, comm) if comm.size > 1 else fo.AdamW(params)

    def train() -> None:
        hidden = np.maximum(x @ params["v"], 0)
        delta = (hidden @ params["w"] - x) / share
        np.matmul(hidden.T, delta, out=grads["w"])
        np.matmul(x.T, (delta @ params["w"].T) * (hidden > 0), out=grads["v"])
        opt.step(grads, max_norm=1.0)

    train()
    return float(comm.allreduce(median(train, comm.Barrier, seconds), MPI.MAX))


def job(ranks: int, threads: int, quick: bool) -> tuple[list[dict[str, float]], float]:
    launcher = Path(sysconfig.get_path("scripts")) / "mpiexec"
    command = [str(launcher), "-n", str(ranks), sys.executable, __file__, *["--quick"] * quick]
    names = ("FASTOPTIM", "OPENBLAS", "OMP", "MKL")
    one = {JOB: "1", **{f"{name}_NUM_THREADS": str(threads) for name in names}}
    done = subprocess.run(
        command, env={**os.environ, **one}, check=True, stdout=subprocess.PIPE, text=True
    )
    rows, training = json.loads(done.stdout)
    return rows, training


def ring(ranks: int, size: float, alpha: float, beta: float) -> float:
    """Predict reduce-scatter and all-gather in a ring: 2 (n - 1) messages of a part."""
    return 2 * (ranks - 1) * (alpha + size / ranks * beta)


def tree(ranks: int, size: float, alpha: float, beta: float) -> float:
    """Predict a reduction and a broadcast by binary trees: 2 log2(n) messages of everything."""
    return 2 * math.ceil(math.log2(ranks)) * (alpha + size * beta)


def fitted(rows: list[dict[str, float]]) -> tuple[float, float]:
    """Fit alpha and beta to collectives of two ranks, by relative least squares."""
    times = np.array([row["collectives"] for row in rows])
    terms = np.array([[2.0, 2 * row["size"] * 4 / 2] for row in rows])
    alpha, beta = np.linalg.lstsq(terms / times[:, None], np.ones(len(rows)), rcond=None)[0]
    return float(alpha), float(beta)


def show(found: dict[int, list[dict[str, float]]], whole: list[dict[str, float]]) -> None:
    print("\nmilliseconds     parameters  sharded  averaged  collectives  state per rank, MB")
    for ranks, rows in found.items():
        for row in rows:
            cells = (f"{row[k] * 1e3:9.3f}" for k in ("sharded", "averaged", "collectives"))
            print(f"{ranks:>3} ranks  {row['size']:>14,} ", *cells, f"{row['state'] / 1e6:12.3f}")
    for row in whole:
        print(f"one process, all threads {row['size']:>11,}: step {row['step'] * 1e3:.3f}")
    alpha, beta = fitted(found[2])
    print(f"\nfitted to 2 ranks here: alpha {alpha * 1e6:.1f} us, 1 / beta {1e-9 / beta:.2f} GB/s")
    for row in found[2]:
        model = ring(2, row["size"] * 4, alpha, beta)
        print(f"  {row['size']:>11,}: measured {row['collectives'] * 1e3:8.3f} ms, "
              f"model {model * 1e3:8.3f}")  # fmt: skip
    print("\npredicted collectives of 25 M float32 parameters, ms (ring / tree)")
    for name, (alpha, beta) in NETWORKS.items():
        predicted = [
            f"{n}: {ring(n, 1e8, alpha, beta) * 1e3:.1f} / {tree(n, 1e8, alpha, beta) * 1e3:.0f}"
            for n in (2, 8, 32, 128, 512)
        ]
        print(f"  {name:20} {'  '.join(predicted)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few sizes and calls, as a test")
    quick = parser.parse_args().quick
    sizes, seconds = (QUICK, 0.1) if quick else (SIZES, 2.0)
    if JOB in os.environ:
        from mpi4py import MPI

        rows = [measure(size, seconds) for size in sizes]
        training = measure_training(256 if quick else 2048, seconds)
        if MPI.COMM_WORLD.rank == 0:
            print(json.dumps([rows, training]))
        return
    cores = len(os.sched_getaffinity(0))
    jobs = {ranks: job(ranks, max(1, cores // ranks), quick) for ranks in RANKS}
    show({ranks: rows for ranks, (rows, _) in jobs.items()}, jobs[1][0])
    print("\na whole step of a network, with all threads divided among the ranks, ms:")
    print("  ".join(f"{ranks} ranks: {seconds * 1e3:.1f}" for ranks, (_, seconds) in jobs.items()))
    print("\nsharded steps and steps of one process agree to the bit")


if __name__ == "__main__":
    main()
