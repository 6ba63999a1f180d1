"""Fair comparisons: in turns, in one process, on the same threads, with the answers checked.

A benchmark is a table of cases. Each case has contestants, fastoptim first, that do the same work
on equal inputs. Their answers are compared before anything is timed. Then they are timed in turns,
so that all of them meet the same machine; a ratio is the median of the ratios of the single rounds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import fastoptim as fo
from fastoptim import _core

Array = npt.NDArray[np.float32]

HAS_TORCH = importlib.util.find_spec("torch") is not None
HAS_OPTAX = importlib.util.find_spec("optax") is not None

# A measurement repeats the work until it takes about this long: far above the clock's resolution.
MEASUREMENT = 1e-3
# The times that each contestant works before its answer is compared.
CHECKED = 3


@dataclass
class Contestant:
    """One way to do the work of a case."""

    run: Callable[[], object]
    # None for other work, as a ceiling is.
    answer: Callable[[], Iterable[npt.ArrayLike]] | None


@dataclass
class Options:
    """What the command line asks for."""

    threads: int
    rounds: int
    cold: bool
    quick: bool

    def size(self, full: int, quick: int) -> int:
        """Choose a size: small where the benchmark runs as a test."""
        return min(full, quick) if self.quick else full


def options(description: str) -> Options:
    """Read the command line, fix the threads of all contestants and print the machine."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=fo.get_num_threads())
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument(
        "--cold", action="store_true", help="single calls, 5 ms apart: pools have gone to sleep"
    )
    parser.add_argument("--quick", action="store_true", help="small and once: only a test")
    given = parser.parse_args()
    asked = Options(given.threads, given.rounds, given.cold, given.quick)
    limit_threads(asked.threads)
    print_machine(asked.threads)
    return asked


def limit_threads(threads: int) -> None:
    """Give every contestant as many threads; XLA takes one for each processor that it may use."""
    fo.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(0, processors)
    if HAS_TORCH:
        import torch

        torch.set_num_threads(threads)


def print_machine(threads: int) -> None:
    """Print what the times depend on."""
    print(f"processor   {processor()}")
    print(f"caches      {caches()}")
    print(f"threads     {threads} of {os.cpu_count()}")
    print(f"system      {platform.system()} {platform.release()}, {platform.machine()}")
    versions = [
        f"fastoptim {fo.__version__} ({_core.tier()})",
        f"Python {platform.python_version()}",
    ]
    versions += [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("numpy", "torch", "jax", "optax")
        if importlib.util.find_spec(name) is not None
    ]
    print(f"versions    {', '.join(versions)}")


def processor() -> str:
    """Give the name of the processor."""
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def caches() -> str:
    """Give the caches of the first processor, as far as the system tells."""
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (
            (index / name).read_text().strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "unknown"


def compare(
    title: str,
    cases: Iterator[tuple[str, Mapping[str, Contestant]]],
    asked: Options,
    *,
    tolerance: float = 1e-4,
) -> None:
    """Check and time each case, and print the table."""
    print(f"\n{title}", flush=True)
    for name, contestants in cases:
        check(name, contestants, tolerance)
        if asked.quick:
            print(f"  {name}, made small: {', '.join(contestants)} agree", flush=True)
            continue
        times = measure([contestant.run for contestant in contestants.values()], asked)
        print(f"  {name}")
        for label, taken in zip(contestants, times, strict=True):
            ratio = float(np.median(taken / times[0]))
            print(
                f"    {label:16} {duration(float(np.median(taken))):>10} {ratio:8.2f}x", flush=True
            )


def check(name: str, contestants: Mapping[str, Contestant], tolerance: float) -> None:
    """Let all do the same work and compare their answers with the first one's."""
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
        for ours, theirs in zip(expected, answer(), strict=True):
            np.testing.assert_allclose(
                ours,
                np.asarray(theirs),
                rtol=tolerance,
                atol=tolerance * float(np.abs(ours).max(initial=0)),
                err_msg=f"{name}: {first} and {label} differ",
            )


def measure(runs: list[Callable[[], object]], asked: Options) -> npt.NDArray[np.float64]:
    """Give the seconds of one run of each, round by round."""
    repeats = [1 if asked.cold else repeats_of(run) for run in runs]
    times = np.empty((len(runs), asked.rounds))
    for turn in range(asked.rounds):
        for i, run in enumerate(runs):
            if asked.cold:
                time.sleep(5e-3)
            times[i, turn] = seconds(run, repeats[i]) / repeats[i]
    return times


def repeats_of(run: Callable[[], object]) -> int:
    """Find how often to run for one measurement."""
    repeats = 1
    while (taken := seconds(run, repeats)) < MEASUREMENT / 2:
        repeats *= 2
    return max(1, math.ceil(repeats * MEASUREMENT / taken))


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Time so many runs."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - start


def duration(value: float) -> str:
    """Write seconds in a readable unit."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if value * factor < 1000:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.3g} s"


def arrays(count: int, size: int, seed: int = 0) -> list[Array]:
    """Give so many arrays of normal random numbers."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size, dtype=np.float32) for _ in range(count)]


def torch_parameters(params: list[Array], grads: list[Array]) -> list[Any]:
    """Give PyTorch's parameters with their gradients, as copies."""
    import torch

    parameters = [torch.nn.Parameter(torch.tensor(p)) for p in params]
    for parameter, g in zip(parameters, grads, strict=True):
        parameter.grad = torch.tensor(g)
    return parameters


def torch_answer(parameters: list[Any]) -> list[Array]:
    """Give the values of PyTorch's parameters."""
    return [parameter.detach().numpy() for parameter in parameters]
