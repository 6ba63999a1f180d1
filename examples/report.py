"""The command line, tables and plots of the experiments."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).with_name("output")


def arguments(doc: str | None) -> argparse.Namespace:
    """Read ``--quick`` and ``--output``."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="run for a few seconds, as a test")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="directory of the plot")
    return parser.parse_args()


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with its first column left-aligned and all others right-aligned."""
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for first, *rest in lines:
        cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        print("  ".join([f"{first:{widths[0]}}", *cells]))


def picture(figure: Any, directory: Path, name: str) -> None:
    """Write a figure as a PNG and print its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.png"
    figure.savefig(path, dpi=100)
    print(f"\nwrote {path}")
