"""The speed of fastoptim on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import fastoptim as fo
from fastoptim.commands.arguments import obstacle, positive, refuse

ABOUT = "time a step and a loss, and compare them with NumPy and, if installed, PyTorch and optax"
DESCRIPTION = f"""{ABOUT[0].upper()}{ABOUT[1:]}: the median time, the interquartile
range, the ratio to the time of fastoptim (above 1, fastoptim is faster),
the throughput in GB/s of the required memory traffic, and the share of the ceiling that it reaches.
The ceiling is a stream, a plain pass over the same memory with the same threads, or, if that takes
longer in a cache, the arithmetic alone, repeated on one block in the L1 cache. All results are
compared first; exits with 1 if one differs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "--threads",
        type=positive,
        default=fo.get_num_threads(),
        help="threads of each package but NumPy, which has one (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds", type=positive, default=15, help="measurements per package (default: 15)"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="also sizes larger than the caches, up to 16 Mi parameters",
    )
    parser.add_argument("--output", type=Path, metavar="PNG", help="file for a plot of the times")


def run(options: argparse.Namespace) -> int:
    """Run the command, unless a requirement is missing."""
    reason = obstacle(options.output)
    if reason is None:
        try:
            fo.set_num_threads(options.threads)
        except ValueError as error:
            reason = f"--threads: {error}"
    if reason is not None:
        return refuse("bench", reason)
    from fastoptim.commands.bench import cases

    try:
        cases.run(options.threads, options.rounds, options.output, full=options.full)
    except AssertionError as error:
        print(f"python -m fastoptim bench: {error}", file=sys.stderr)
        return 1
    return 0
