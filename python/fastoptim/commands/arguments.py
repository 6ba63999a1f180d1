"""Parsing and checks of the options of commands."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fastoptim._extras import has, missing


def natural(text: str) -> int:
    """Parse an integer >= 0."""
    return _whole(text, least=0)


def positive(text: str) -> int:
    """Parse an integer >= 1."""
    return _whole(text, least=1)


def _whole(text: str, *, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
    return number


def obstacle(output: Path | None, *modules: str) -> str | None:
    """Return why a command cannot run, a missing directory or package, or None."""
    if output is not None and not output.absolute().parent.is_dir():
        return f"--output: the directory {output.parent} does not exist"
    if output is not None and output.is_dir():
        return f"--output: {output} is a directory"
    needed = (*modules, *(() if output is None else ("matplotlib",)))
    lacking = [module for module in needed if not has(module)]
    return missing("it", *lacking) if lacking else None


def refuse(command: str, reason: str) -> int:
    """Print to standard error why a command cannot run, and return its exit status."""
    print(f"python -m fastoptim {command}: {reason}", file=sys.stderr)
    return 2
