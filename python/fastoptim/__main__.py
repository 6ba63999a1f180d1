"""The command line: ``python -m fastoptim info | selfcheck | bench | demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import fastoptim as fo
from fastoptim.commands import bench, demo, info, selfcheck

COMMANDS = {"info": info, "selfcheck": selfcheck, "bench": bench, "demo": demo}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give the exit status, which is 2 where the command cannot run."""
    options = parser().parse_args(arguments)
    return int(options.run(options))


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; each sets the function that runs it."""
    top = argparse.ArgumentParser(
        prog="python -m fastoptim",
        description="Optimizers, losses, gradient clipping and schedules for NumPy arrays.",
    )
    top.add_argument("--version", action="version", version=f"fastoptim {fo.__version__}")
    commands = top.add_subparsers(title="commands", metavar="command", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.ABOUT, description=command.ABOUT)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return top


if __name__ == "__main__":
    sys.exit(main())
