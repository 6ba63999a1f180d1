"""The options of the benchmarks, and tables that compare contestants."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

import fastoptim as fo
from fastoptim import _core
from fastoptim.commands.bench.harness import (
    HAS_OPTAX,
    HAS_TORCH,
    Array,
    Contestant,
    arrays,
    check,
    duration,
    limit_threads,
    measure,
    print_machine,
    spread,
    torch_answer,
    torch_parameters,
)

__all__ = [
    "HAS_OPTAX",
    "HAS_TORCH",
    "Array",
    "Contestant",
    "Options",
    "arrays",
    "compare",
    "options",
    "torch_answer",
    "torch_parameters",
]


@dataclass
class Options:
    """The options of the command line."""

    threads: int
    rounds: int
    cold: bool
    quick: bool

    def size(self, full: int, quick: int) -> int:
        """Choose a size, which is small if the benchmark runs as a test."""
        return min(full, quick) if self.quick else full


def options(description: str) -> Options:
    """Read the command line, set the threads of all contestants and print the machine."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=fo.get_num_threads())
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument(
        "--cold", action="store_true", help="single calls, 5 ms apart, so that thread pools sleep"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, once, as a test")
    given = parser.parse_args()
    asked = Options(given.threads, given.rounds, given.cold, given.quick)
    limit_threads(asked.threads)
    print_machine(asked.threads)
    return asked


def compare(
    title: str,
    cases: Iterator[tuple[str, Mapping[str, Contestant]]],
    asked: Options,
    *,
    tolerance: float = 1e-4,
    goals: Mapping[str, float] | None = None,
) -> None:
    """Check and time each case, and print the table.

    ``goals`` has the least ratio of a contestant's time to that of the first, by the name of the
    contestant or by ``case/contestant``. It is printed beside the ratio, and the ratios below their
    goals are listed at the end.
    """
    print(f"\n{title}", flush=True)
    goals = goals or {}
    below: list[str] = []
    for name, contestants in cases:
        check(name, contestants, tolerance)
        if asked.quick:
            print(f"  {name}, made small: {', '.join(contestants)} agree", flush=True)
            continue
        times = measure(
            [contestant.run for contestant in contestants.values()], asked.rounds, cold=asked.cold
        )
        print(f"  {name}")
        for label, taken in zip(contestants, times, strict=True):
            ratio = float(np.median(taken / times[0]))
            median = duration(float(np.median(taken)))
            goal = goals.get(f"{name}/{label}", goals.get(label))
            wanted = "" if goal is None else f"  goal {goal:g}x"
            if goal is not None and ratio < goal:
                below.append(f"    {name}: {ratio:.2f}x of {label}, goal {goal:g}x")
            print(
                f"    {label:16} {median:>10} {spread(taken):>22} {ratio:8.2f}x{wanted}", flush=True
            )
    if goals and not asked.quick:
        print(f"  below goal ({_core.tier()}, {asked.threads} threads): {len(below) or 'none'}")
        for line in below:
            print(line, flush=True)
