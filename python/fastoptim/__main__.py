"""The command line: ``python -m fastoptim info | selfcheck | bench | demo``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import fastoptim as fo
from fastoptim.commands import bench, demo, info, selfcheck

COMMANDS = {"info": info, "selfcheck": selfcheck, "bench": bench, "demo": demo}

# The exit status that shells report for a process killed by SIGPIPE: 128 + 13.
CLOSED_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status, which is 2 if the command cannot run."""
    try:
        try:
            options = parser().parse_args(arguments)
            return int(options.run(options))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe. Without this the interpreter would fail
        # to flush standard output when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; each sets the function that runs it."""
    top = argparse.ArgumentParser(
        prog="python -m fastoptim",
        description="Optimizers, losses, gradient clipping and schedules for NumPy arrays.",
    )
    top.add_argument("--version", action="version", version=f"fastoptim {fo.__version__}")
    commands = top.add_subparsers(title="commands", metavar="command")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.ABOUT, description=command.ABOUT)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)

    def show_help(_options: argparse.Namespace) -> int:
        top.print_help()
        return 0

    top.set_defaults(run=show_help)
    return top


if __name__ == "__main__":
    sys.exit(main())
