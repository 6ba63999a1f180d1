"""Comparison of the results on this machine with the published bits."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence

import fastoptim as fo
from fastoptim import _core
from fastoptim.commands.selfcheck import hashes as hashing
from fastoptim.tools.progress import bar

ABOUT = "compare the bits of every optimizer and loss on this machine with the published ones"
DESCRIPTION = f"""{ABOUT[0].upper()}{ABOUT[1:]}, for each instruction set and several numbers of
threads. Prints the verdict and the differences. Exits with 0 if all are the same, and with 1 if
one differs or a run fails."""

THREADS = (1, 2, 7)

Hashes = Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = DESCRIPTION
    parser.add_argument("--verbose", action="store_true", help="print every hash")


def run(options: argparse.Namespace) -> int:
    """Print the verdict, and the differences or, if requested, all hashes."""
    published: Hashes = json.loads(hashing.PUBLISHED.read_text(encoding="utf-8"))
    found: dict[str, Hashes] = {}
    tiers = _core.tiers()
    for tier in bar(tiers, "selfcheck", unit="instruction set", leave=False) or tiers:
        done = hashes_of(tier)
        if done.returncode != 0:
            print(f"the runs with FASTOPTIM_ISA={tier} fail:\n{done.stderr}", file=sys.stderr)
            return 1
        for threads, hashes in json.loads(done.stdout).items():
            found[f"{tier}, {threads} thread{'s' if int(threads) > 1 else ''}"] = hashes
    names = sorted({name for hashes in (published, *found.values()) for name in hashes})
    wrong = [
        name
        for name in names
        if any(hashes.get(name) != published.get(name) for hashes in found.values())
    ]
    print(verdict(len(names), len(wrong), tiers))
    if wrong or options.verbose:
        report(names if options.verbose else wrong, len(names), published, found)
    return 1 if wrong else 0


def verdict(count: int, wrong: int, tiers: Sequence[str]) -> str:
    """Return the verdict as two lines."""
    threads = ", ".join(map(str, THREADS))
    where = (
        f"(fastoptim {fo.__version__} on {platform.machine()}, {platform.system()}; "
        f"{', '.join(tiers)}; {threads} threads)"
    )
    if wrong:
        return f"FAILED: {wrong} of {count} results differ from the published bits\n{where}"
    return f"OK: all {count} results are the published bits\n{where}"


def hashes_of(tier: str) -> subprocess.CompletedProcess[str]:
    """Compute all hashes in another process with this instruction set."""
    command = [sys.executable, "-m", "fastoptim.commands.selfcheck.hashes", *map(str, THREADS)]
    return subprocess.run(
        command,
        env=os.environ | {"FASTOPTIM_ISA": tier},
        capture_output=True,
        text=True,
        check=False,
    )


def report(
    names: Sequence[str], count: int, published: Hashes, found: Mapping[str, Hashes]
) -> None:
    """Print the published hashes of these names, the hashes that differ, and the counts."""
    width = max(map(len, names))
    wrong: dict[str, int] = dict.fromkeys(found, 0)
    for name in names:
        expected = published.get(name, "not published")
        different = {
            place: hashes.get(name, "missing")
            for place, hashes in found.items()
            if hashes.get(name) != published.get(name)
        }
        print(f"  {name:{width}}  {expected}  {'' if different else 'same'}".rstrip())
        for place, got in different.items():
            wrong[place] += 1
            print(f"    {got} with {place}")
    for place, differing in wrong.items():
        print(f"{place:22} {count - differing} of {count} the same")
