"""Train on 1, 2 and 4 processes, with the state of the optimizer divided among them.

A perceptron learns digits. Each process computes the gradients of its share of every batch, and a
sharded AdamW makes one step of all. The losses agree up to the rounding of sums, whatever the
number of processes. This needs the extra `mpi`.

    python examples/distributed.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mpi4py import MPI

import fastoptim as fo
import report
from fastoptim.distributed import ShardedOptimizer
from images import digits
from networks import Dense, Flatten, Network, ReLU

RANKS = [1, 2, 4]
BATCH = 256
RESULT = "DISTRIBUTED_RESULT"  # Set by `launch` in the processes that train.


def train(epochs: int, path: Path) -> None:
    """Train as one rank of a job; the first one writes the result."""
    comm = MPI.COMM_WORLD
    data = digits()
    network = Network([Flatten(), Dense(256), ReLU(), Dense(256), ReLU(), Dense(10)], (64,))
    steps = epochs * (len(data.x) // BATCH)
    lr = fo.schedules.cosine(2e-3, steps)
    opt = ShardedOptimizer(fo.AdamW, network.params, comm, lr=lr, weight_decay=0.01)
    rng = np.random.default_rng(0)  # All ranks draw the same batches.
    share = BATCH // comm.size
    losses, sync = [], 0.0
    start = time.perf_counter()
    for _ in range(epochs):
        order = rng.permutation(len(data.x))
        for at in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[at + comm.rank * share :][:share]
            loss = network.loss_and_gradients(data.x[rows], data.y[rows])
            begin = time.perf_counter()
            opt.step(network.grads, max_norm=1.0)
            sync += time.perf_counter() - begin
            losses.append(loss)
    seconds = time.perf_counter() - start
    mean = comm.reduce(np.array(losses) / comm.size)
    if comm.rank == 0:
        state = sum(x["exp_avg"].nbytes + x["exp_avg_sq"].nbytes for x in opt.state.values())
        found = {
            "losses": mean.tolist(),
            "accuracy": network.evaluate(data.x_test, data.y_test)[1],
            "samples": steps * BATCH / seconds,
            "step": sync / steps,
            # A rank sends n - 1 of n parts of its gradients, and its part of the parameters.
            "bytes": 2 * network.params.flat.nbytes * (comm.size - 1) / comm.size,
            "state": state,
        }
        path.write_text(json.dumps(found))


def launch(ranks: int, threads: int, quick: bool) -> dict[str, Any]:
    """Run this script on several ranks, and return what the first found."""
    launcher = Path(sysconfig.get_path("scripts")) / "mpiexec"  # That of the package mpich.
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "result.json")
        libraries = ("FASTOPTIM", "OMP", "OPENBLAS", "MKL")
        one = {f"{name}_NUM_THREADS": str(threads) for name in libraries}
        command = [str(launcher), "-n", str(ranks), sys.executable, __file__, *["--quick"] * quick]
        subprocess.run(command, env={**os.environ, **one, RESULT: str(path)}, check=True)
        result: dict[str, Any] = json.loads(path.read_text())
    return result


def draw(found: dict[int, dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    styles = ["-", "--", ":"]
    for (ranks, result), style in zip(found.items(), styles, strict=True):
        name = "1 rank" if ranks == 1 else f"{ranks} ranks"
        left.semilogy(result["losses"], style, linewidth=2, label=name)
        apart = np.abs(np.subtract(result["losses"], found[1]["losses"])) / found[1]["losses"]
        if ranks > 1:
            right.semilogy(apart, style, label=f"{name} against 1")
    left.set(title="Loss of the batch", xlabel="step")
    right.set(title="Relative difference", xlabel="step")
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    if RESULT in os.environ:
        train(2 if asked.quick else 30, Path(os.environ[RESULT]))
        return
    found = {ranks: launch(ranks, 1, asked.quick) for ranks in RANKS}
    threaded = launch(1, 2, asked.quick)
    report.table(
        "Training on several ranks",
        ["ranks x threads", "samples/s", "step", "sent per step", "state", "last loss", "accuracy"],
        [
            [
                name,
                f"{one['samples']:,.0f}",
                f"{one['step'] * 1e6:.0f} us",
                f"{one['bytes'] / 1e3:.0f} kB",
                f"{one['state'] / 1e3:.0f} kB",
                f"{one['losses'][-1]:.6f}",
                f"{one['accuracy']:.1%}",
            ]
            for name, one in [
                *((f"{ranks} x 1", one) for ranks, one in found.items()),
                ("1 x 2", threaded),
            ]
        ],
    )
    report.picture(draw(found), asked.output, "distributed")


if __name__ == "__main__":
    main()
