"""Fair comparisons: alternating, in one process, with the same threads and checked results.

Contestants, fastoptim first, do the same work on equal inputs. Their results are compared before
any measurement. Then they are measured alternately, under equal conditions; a ratio is the median
of the ratios of the rounds.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import fastoptim as fo
from fastoptim import _core
from fastoptim._extras import has, require
from fastoptim.commands.machine import caches, disturbance, load, processor

Array = npt.NDArray[np.float32]

HAS_TORCH = has("torch")
HAS_OPTAX = has("optax")

# A measurement repeats the work for about this long, far above the resolution of the clock.
MEASUREMENT = 1e-3
# The seconds between contestants.
PAUSE = 5e-3
# The number of runs of each contestant before its result is compared.
CHECKED = 3
# The least rounds, however long they take.
LEAST_ROUNDS = 5


@dataclass
class Contestant:
    """One way to do the work of a case."""

    run: Callable[[], object]
    # None for other work, such as a ceiling.
    answer: Callable[[], Iterable[npt.ArrayLike]] | None
    # How often one run does the work.
    times: int = 1


def limit_threads(threads: int) -> None:
    """Set the threads of every contestant; XLA uses one per available processor."""
    fo.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(0, processors)
    if HAS_TORCH:
        require("torch", "this contestant").set_num_threads(threads)


def machine(threads: int) -> str:
    """Return the conditions of the measurements, one per line."""
    rows = {
        "processor": processor(),
        "caches": caches(),
        "threads": f"{threads} of {os.cpu_count()} processors",
    }
    busy = load()
    if busy is not None:
        rows["load"] = f"{busy:.1f} in the last minute"
    if warning := disturbance(threads):
        rows["note"] = warning
    rows["system"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    versions = [
        f"fastoptim {fo.__version__} ({_core.tier()})",
        f"Python {platform.python_version()}",
    ]
    versions += [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("numpy", "torch", "jax", "optax", "thinc", "bitsandbytes", "deepspeed")
        if has(name)
    ]
    rows["versions"] = ", ".join(versions)
    return "\n".join(f"{name:11} {text}" for name, text in rows.items())


def print_machine(threads: int) -> None:
    """Print the conditions of the measurements."""
    print(machine(threads))


def check(name: str, contestants: Mapping[str, Contestant], tolerance: float) -> None:
    """Run all contestants, and compare their results with the first."""
    first, *others = contestants
    for contestant in contestants.values():
        for _ in range(CHECKED):
            contestant.run()
    first_answer = contestants[first].answer
    if first_answer is None:
        return
    expected = [np.array(part) for part in first_answer()]
    for label in others:
        answer = contestants[label].answer
        if answer is None:
            continue
        for ours, given in zip(expected, answer(), strict=True):
            theirs = np.asarray(given)
            near = tolerance * float(np.abs(ours).max(initial=0))
            # The test of NumPy takes several times as long, and also refuses other shapes.
            if ours.shape == theirs.shape and np.abs(ours - theirs).max(initial=0) <= near:
                continue
            np.testing.assert_allclose(
                ours,
                theirs,
                rtol=tolerance,
                atol=near,
                err_msg=f"{name}: {first} and {label} differ",
            )


def measure(
    contestants: Iterable[Contestant],
    rounds: int,
    *,
    cold: bool = False,
    most_seconds: float = math.inf,
) -> npt.NDArray[np.float64]:
    """Return the seconds per time of the work, by contestant and round.

    If cold, of single calls after a pause. No round begins after `most_seconds` and `LEAST_ROUNDS`.
    """
    found = list(contestants)
    repeats = [1 if cold else repeats_of(contestant.run) for contestant in found]
    times = np.empty((len(found), rounds))
    start = time.perf_counter()
    for turn in range(rounds):
        if turn >= LEAST_ROUNDS and time.perf_counter() - start > most_seconds:
            return times[:, :turn]
        for i, contestant in enumerate(found):
            # PyTorch's threads spin for milliseconds after their work. They would take a processor
            # from the next contestant: a stream over 16 Mi elements reached 18 instead of 30 GB/s.
            time.sleep(PAUSE)
            if not cold:
                contestant.run()
            taken = seconds(contestant.run, repeats[i])
            times[i, turn] = taken / repeats[i] / contestant.times
    return times


def repeats_of(run: Callable[[], object]) -> int:
    """Return the number of runs in one measurement."""
    repeats = 1
    while (taken := seconds(run, repeats)) < MEASUREMENT / 2:
        repeats *= 2
    return max(1, math.ceil(repeats * MEASUREMENT / taken))


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Measure the time of these runs."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - start


def duration(value: float) -> str:
    """Format seconds with a readable unit."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if value * factor < 1000:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.3g} s"


def spread(times: npt.NDArray[np.float64]) -> str:
    """Format the interquartile range of the times."""
    low, high = np.percentile(times, [25, 75])
    return f"{duration(low)} to {duration(high)}"


def arrays(count: int, size: int, seed: int = 0) -> list[Array]:
    """Return arrays of normal random numbers."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size, dtype=np.float32) for _ in range(count)]


def torch_parameters(params: list[Array], grads: list[Array]) -> list[Any]:
    """Return copies as PyTorch parameters with gradients."""
    torch = require("torch", "this contestant")
    parameters = [torch.nn.Parameter(torch.tensor(p)) for p in params]
    for parameter, g in zip(parameters, grads, strict=True):
        parameter.grad = torch.tensor(g)
    return parameters


def torch_answer(parameters: list[Any]) -> list[Array]:
    """Return the values of PyTorch parameters."""
    return [parameter.detach().numpy() for parameter in parameters]
