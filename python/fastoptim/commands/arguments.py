"""What commands read from their options, and how they refuse."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fastoptim._extras import has, missing


def natural(text: str) -> int:
    """Read a whole number of at least 0."""
    return _whole(text, least=0)


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
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
    """Say what keeps a command from running, if anything: no directory, or a missing package."""
    if output is not None and not output.absolute().parent.is_dir():
        return f"--output: there is no directory {output.parent}"
    if output is not None and output.is_dir():
        return f"--output: {output} is a directory"
    needed = (*modules, *(() if output is None else ("matplotlib",)))
    lacking = [module for module in needed if not has(module)]
    return missing("it", *lacking) if lacking else None


def refuse(command: str, reason: str) -> int:
    """Say on standard error why a command cannot run, and give its exit status."""
    print(f"python -m fastoptim {command}: {reason}", file=sys.stderr)
    return 2
