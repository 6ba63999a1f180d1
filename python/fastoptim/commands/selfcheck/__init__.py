"""Whether this machine gives the bits that all machines give."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping

import fastoptim as fo
from fastoptim import _core
from fastoptim.commands.selfcheck import hashes as hashing

ABOUT = "compare the bits of every optimizer and loss on this machine with the published ones"
DESCRIPTION = f"""{ABOUT[0].upper()}{ABOUT[1:]}, for each instruction set and several numbers of
threads. Exits with 0 where all are the same, and with 1 where one differs or a run fails."""

THREADS = (1, 2, 7)

Hashes = Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the option."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "--brief", action="store_true", help="print no hashes but those that differ"
    )


def run(options: argparse.Namespace) -> int:
    """Print the published hashes, each with what differs from it, and the count for each tier."""
    published: Hashes = json.loads(hashing.PUBLISHED.read_text(encoding="utf-8"))
    print(f"fastoptim {fo.__version__} on {platform.machine()}, {platform.system()}")
    found: dict[str, Hashes] = {}
    for tier in _core.tiers():
        done = hashes_of(tier)
        if done.returncode != 0:
            print(f"the runs with FASTOPTIM_ISA={tier} fail:\n{done.stderr}", file=sys.stderr)
            return 1
        for threads, hashes in json.loads(done.stdout).items():
            found[f"{tier}, {threads} thread{'s' if int(threads) > 1 else ''}"] = hashes
    different = report(published, found, brief=options.brief)
    return 1 if different else 0


def hashes_of(tier: str) -> subprocess.CompletedProcess[str]:
    """Run everything in another process, with an instruction set forced."""
    command = [sys.executable, "-m", "fastoptim.commands.selfcheck.hashes", *map(str, THREADS)]
    return subprocess.run(
        command,
        env=os.environ | {"FASTOPTIM_ISA": tier},
        capture_output=True,
        text=True,
        check=False,
    )


def report(published: Hashes, found: Mapping[str, Hashes], *, brief: bool) -> int:
    """Print what was compared, and give the number of runs that differ."""
    names = sorted({name for hashes in (published, *found.values()) for name in hashes})
    width = max(map(len, names))
    wrong: dict[str, int] = dict.fromkeys(found, 0)
    for name in names:
        expected = published.get(name, "not published")
        different = {
            place: hashes.get(name, "missing")
            for place, hashes in found.items()
            if hashes.get(name) != expected
        }
        if different or not brief:
            print(f"  {name:{width}}  {expected}  {'' if different else 'same'}".rstrip())
        for place, got in different.items():
            wrong[place] += 1
            print(f"    {got} with {place}")
    for place, count in wrong.items():
        print(f"{place:22} {len(names) - count} of {len(names)} the same")
    return sum(wrong.values())
