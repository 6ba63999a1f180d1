"""Compare the speed of the package with that of another commit, and list what became slower.

    python benches/python/regressions.py BASE

The base is built in a worktree under target/. Two processes, one per build, time the same cases in
turn. Exits with 1 if a case is slower by more than 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
LIMIT = 1.05
ROUNDS = 15
# Of those that are slower at first, to tell a regression from a slow minute.
AGAIN = 45
# The seconds of one measurement.
MEASUREMENT = 5e-3

Run = Callable[[], object]


def stepping(rule: str, count: int, size: int, **options: Any) -> Run:
    import fastoptim as fo

    rng = np.random.default_rng(0)
    params, grads = (
        [rng.standard_normal(size, dtype=np.float32) for _ in range(count)] for _ in range(2)
    )
    opt = getattr(fo, rule)(params, lr=1e-3)
    return lambda: opt.step(grads, **options)


def losing(loss: str, *shape: int) -> Run:
    import fastoptim as fo

    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, dtype=np.float32)
    target = x[::-1].copy() if len(shape) == 1 else rng.integers(0, shape[1], shape[0])
    out = np.empty_like(x)
    function = getattr(fo.losses, loss)()
    return lambda: function.value_and_grad(x, target, out=out)


# Made of calls that every version has.
CASES: dict[str, Callable[[], Run]] = {
    "AdamW, 1 Ki": partial(stepping, "AdamW", 1, 1 << 10),
    "AdamW, 64 Ki": partial(stepping, "AdamW", 1, 1 << 16),
    "AdamW, 1 Mi": partial(stepping, "AdamW", 1, 1 << 20),
    "AdamW, 16 Mi": partial(stepping, "AdamW", 1, 1 << 24),
    "AdamW, 1000 arrays of 1 Ki": partial(stepping, "AdamW", 1000, 1 << 10),
    "AdamW, clipped, 1 Mi": partial(stepping, "AdamW", 1, 1 << 20, max_norm=1.0),
    **{
        f"{rule}, 1 Mi": partial(stepping, rule, 1, 1 << 20)
        for rule in ("SGD", "RMSprop", "Adagrad", "NAdam", "Lion", "LAMB")
    },
    "cross-entropy, 128 x 10": partial(losing, "CrossEntropyLoss", 128, 10),
    "cross-entropy, 65536 x 10": partial(losing, "CrossEntropyLoss", 65536, 10),
    "cross-entropy, 1024 x 1000": partial(losing, "CrossEntropyLoss", 1024, 1000),
    "MSE, 1 Mi": partial(losing, "MSELoss", 1 << 20),
    "Huber, 1 Mi": partial(losing, "HuberLoss", 1 << 20),
}
QUICK = ["AdamW, 1 Ki", "cross-entropy, 128 x 10"]


def seconds(run: Run, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - start


def serve() -> None:
    """Answer each line with a case and a number of runs by the seconds, or by null if it fails."""
    prepared: dict[str, Run] = {}
    for line in sys.stdin:
        name, repeats = json.loads(line)
        try:
            if name not in prepared:
                prepared.clear()
                prepared[name] = CASES[name]()
                seconds(prepared[name], 3)
            taken = seconds(prepared[name], repeats)
        except (AttributeError, TypeError, ValueError) as error:
            print(json.dumps([None, str(error)]), flush=True)
        else:
            print(json.dumps([taken, ""]), flush=True)


class Build:
    """A process with one build of the package."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def seconds(self, name: str, repeats: int) -> float | None:
        """Time a case; None if this version does not have it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([name, repeats]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"a build stopped in {name!r}")
        taken, error = json.loads(answer)
        if taken is None:
            print(f"  {name}: {error}")
            return None
        return float(taken)


@contextmanager
def started(package: Path) -> Iterator[Build]:
    """Start a process that imports the package from this folder."""
    command = [sys.executable, __file__, "--serve"]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Build(process)


def ratio(base: list[float], new: list[float]) -> float:
    """Return the median of the ratios of the rounds: above 1, the new build is slower."""
    return float(np.median(np.array(new) / np.array(base)))


def slower(ratios: dict[str, float], limit: float = LIMIT) -> list[str]:
    """Return the cases that are slower than the limit, slowest first."""
    return sorted((name for name in ratios if ratios[name] > limit), key=ratios.__getitem__)[::-1]


def compared(base: Build, new: Build, name: str, rounds: int) -> float | None:
    """Time a case in both builds in turn, and return the ratio, or None if one lacks the case."""
    repeats = 1
    while True:
        first, second = (build.seconds(name, repeats) for build in (base, new))
        if first is None or second is None:
            return None
        if max(first, second) >= MEASUREMENT:
            break
        repeats *= 2
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        # Each goes first in half of the rounds.
        for i in (0, 1) if turn % 2 else (1, 0):
            taken = (base, new)[i].seconds(name, repeats)
            assert taken is not None
            times[i].append(taken)
    return ratio(*times)


def built(commit: str) -> Path:
    """Build a commit in a worktree, and return the folder with its package."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run(
        [*git, "rev-parse", "--verify", f"{commit}^{{commit}}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode:
        raise SystemExit(f"BASE={commit} is no commit of this repository")
    name = found.stdout.strip()
    target = ROOT / "target" / "base"
    tree, package = target / f"{name}-source", target / name
    if (package / "fastoptim").is_dir():
        return package
    if not tree.exists():
        subprocess.run([*git, "worktree", "add", "--detach", str(tree), name], check=True)
    wheels = target / f"{name}-wheel"
    maturin = [sys.executable, "-m", "maturin", "build", "--release", "--out", str(wheels)]
    subprocess.run(
        [*maturin, "--compatibility", "linux", "--interpreter", sys.executable],
        cwd=tree,
        env={**os.environ, "CARGO_TARGET_DIR": str(target / "cargo")},
        check=True,
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(package), *map(str, wheels.glob("*.whl"))], check=True)
    subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)
    return package


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base", nargs="?", help="the commit to compare with")
    parser.add_argument("--package", type=Path, help="the folder of a package instead of a commit")
    parser.add_argument("--quick", action="store_true", help="two cases, as a test")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return 0
    if (given.base is None) == (given.package is None):
        parser.error("state the base: make bench-compare BASE=<commit>")
    package = given.package or built(given.base)
    ratios: dict[str, float] = {}
    with started(package) as base, started(ROOT / "python") as new:
        for name in QUICK if given.quick else CASES:
            rounds = 3 if given.quick else ROUNDS
            found = compared(base, new, name, rounds)
            if found is not None and found > LIMIT and not given.quick:
                found = compared(base, new, name, AGAIN)
            if found is not None:
                ratios[name] = found
                print(f"  {name:32} {found:6.3f}", flush=True)
        for build in (base, new):
            assert build.process.stdin is not None
            build.process.stdin.close()
    worse = slower(ratios)
    print(f"slower than the base by more than {LIMIT - 1:.0%}: {len(worse) or 'none'}")
    for name in worse:
        print(f"  {name}: {ratios[name]:.3f} of its time")
    return 0 if given.quick else int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
