"""How fast this machine is with fastoptim."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import fastoptim as fo
from fastoptim.commands.arguments import obstacle, positive, refuse

ABOUT = "time a step and a loss beside NumPy, and PyTorch and optax where they are installed"
DESCRIPTION = f"""{ABOUT[0].upper()}{ABOUT[1:]}: the median time, the times between which
the middle half of the rounds is, the ratio to the time of fastoptim (above 1, fastoptim is faster),
the speed in GB/s of what must be moved, and the share of what a plain pass over the same memory
reaches on the same threads, the stream ceiling. The answers of all are compared first; exits with
1 where one differs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "--threads",
        type=positive,
        default=fo.get_num_threads(),
        help="for every contestant but NumPy, which has one (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds", type=positive, default=15, help="timings of each contestant (default: 15)"
    )
    parser.add_argument(
        "--full", action="store_true", help="sizes beyond the caches too, up to 16 Mi parameters"
    )
    parser.add_argument("--output", type=Path, metavar="PNG", help="where to draw the times")


def run(options: argparse.Namespace) -> int:
    """Run it, unless something that it needs is missing."""
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
