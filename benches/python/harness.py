"""The options of the benchmarks, tables that compare contestants, and records of these."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import fastoptim as fo
from fastoptim import _core
from fastoptim.commands.bench.ceilings import Ceiling, Stream, ceilings
from fastoptim.commands.bench.harness import (
    CHECKED,
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
    "Ceiling",
    "Contestant",
    "Exact",
    "Options",
    "Stream",
    "arrays",
    "ceilings",
    "compare",
    "options",
    "record",
    "timed",
    "torch_answer",
    "torch_parameters",
]


class Exact(Contestant):
    """The same work in float64, as often as results are checked. It is not timed."""

    def __init__(self, make: Callable[[], Contestant]) -> None:
        def answer() -> Iterable[npt.ArrayLike]:
            contestant = make()
            assert contestant.answer is not None
            for _ in range(CHECKED):
                contestant.run()
            return contestant.answer()

        super().__init__(lambda: None, answer)


@dataclass
class Options:
    """The options of the command line."""

    threads: int
    rounds: int
    cold: bool
    quick: bool
    # A file to which each case is appended as a line of JSON.
    json: Path | None = None
    # The most seconds of the rounds of a case.
    seconds: float = math.inf
    # Whether to leave out errors, peaks of memory, compiled contestants and the largest size.
    brief: bool = False

    def size(self, full: int, quick: int) -> int:
        """Choose a size, which is small if the benchmark runs as a test."""
        return min(full, quick) if self.quick else full


def options(description: str) -> Options:
    """Read the command line, set the threads of all contestants and print the machine."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=fo.get_num_threads())
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="no round of a case begins after so many"
    )
    parser.add_argument(
        "--cold", action="store_true", help="single calls, 5 ms apart, so that thread pools sleep"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, once, as a test")
    parser.add_argument(
        "--brief",
        action="store_true",
        help="without errors, peaks of memory, compiled contestants and the largest size",
    )
    parser.add_argument("--json", type=Path, help="a file to append each case to, as JSON")
    given = parser.parse_args()
    asked = Options(
        given.threads,
        given.rounds,
        given.cold,
        given.quick,
        given.json,
        given.seconds,
        given.brief,
    )
    limit_threads(asked.threads)
    print_machine(asked.threads)
    return asked


def errors(contestants: Mapping[str, Contestant], exact: Contestant) -> dict[str, float]:
    """Return each contestant's largest error, as a share of the largest value of that result."""
    assert exact.answer is not None
    expected = [np.array(part, np.float64) for part in exact.answer()]
    found = {}
    for label, contestant in contestants.items():
        if contestant.answer is None:
            continue
        shares = [
            np.abs(np.asarray(part, np.float64) - wanted).max() / np.abs(wanted).max()
            for part, wanted in zip(contestant.answer(), expected, strict=True)
        ]
        found[label] = float(max(shares))
    return found


def timed(
    contestants: Mapping[str, Contestant], asked: Options, *, most: int = sys.maxsize
) -> npt.NDArray[np.float64]:
    """Measure the contestants: once if the benchmark runs as a test, else by the options."""
    rounds = 1 if asked.quick else min(asked.rounds, most)
    return measure(contestants.values(), rounds, cold=asked.cold, most_seconds=asked.seconds)


def record(
    title: str,
    name: str,
    contestants: Mapping[str, Contestant],
    times: npt.NDArray[np.float64],
    asked: Options,
    *,
    error: Mapping[str, float] | None = None,
    memory: Mapping[str, int] | None = None,
) -> None:
    """Append a case to the file of records, if one is wanted."""
    if asked.json is None:
        return
    rows = []
    for label, taken in zip(contestants, times, strict=True):
        low, median, high = np.percentile(taken, [25, 50, 75])
        rows.append(
            {
                "contestant": label,
                "seconds": median,
                "low": low,
                "high": high,
                "ratio": float(np.median(taken / times[0])),
                "ceiling": getattr(contestants[label], "bound", None),
                "error": (error or {}).get(label),
                "memory": (memory or {}).get(label),
            }
        )
    stream = next((c for c in contestants.values() if isinstance(c, Stream)), None)
    case = {
        "script": Path(sys.argv[0]).stem,
        "title": title,
        "case": name,
        "tier": _core.tier(),
        "threads": asked.threads,
        "cold": asked.cold,
        "moved": stream and stream.moved,
        "held": stream and stream.held,
        "rows": rows,
    }
    with asked.json.open("a", encoding="utf-8") as file:
        print(json.dumps(case), file=file)


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
    print(f"\n{title} ({_core.tier()}, {asked.threads} threads)", flush=True)
    goals = goals or {}
    below: list[str] = []
    for name, prepared in cases:
        contestants = {k: v for k, v in prepared.items() if not isinstance(v, Exact)}
        check(name, contestants, tolerance)
        exact = next((v for v in prepared.values() if isinstance(v, Exact)), None)
        error = {} if exact is None or asked.brief else errors(contestants, exact)
        assert all(value <= tolerance for value in error.values()), (name, error)
        if asked.quick:
            print(f"  {name}, made small: {', '.join(contestants)} agree", flush=True)
            if asked.json is None:
                continue
        times = timed(contestants, asked)
        record(title, name, contestants, times, asked, error=error)
        if asked.quick:
            continue
        print(f"  {name}")
        for label, taken in zip(contestants, times, strict=True):
            ratio = float(np.median(taken / times[0]))
            median = duration(float(np.median(taken)))
            goal = goals.get(f"{name}/{label}", goals.get(label))
            wanted = "" if goal is None else f"  goal {goal:g}x"
            if goal is not None and ratio < goal:
                below.append(f"    {name}: {ratio:.2f}x of {label}, goal {goal:g}x")
            off = f"  error {error[label]:.1e}" if label in error else ""
            print(
                f"    {label:16} {median:>10} {spread(taken):>22} {ratio:8.2f}x{wanted}{off}",
                flush=True,
            )
    if goals and not asked.quick:
        print(f"  below goal ({_core.tier()}, {asked.threads} threads): {len(below) or 'none'}")
        for line in below:
            print(line, flush=True)
