"""The command line: ``python -m fastoptim info`` and ``python -m fastoptim demo``."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import fastoptim as fo
from fastoptim import _core

# What fastoptim works with, or is compared with, where it is installed.
COMPANIONS = ("numpy", "ml_dtypes", "torch", "optax", "scikit-learn", "matplotlib", "tqdm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give the exit status: 0, or 2 where the command cannot run."""
    options = parser().parse_args(arguments)
    return int(options.command(options))


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; each sets the function that runs it."""
    top = argparse.ArgumentParser(
        prog="python -m fastoptim",
        description="Optimizers, losses, gradient clipping and schedules for NumPy arrays.",
    )
    top.add_argument("--version", action="version", version=f"fastoptim {fo.__version__}")
    commands = top.add_subparsers(title="commands", metavar="command", required=True)

    about = "print the version, the instruction set and threads in use, and the packages around"
    info_command = commands.add_parser("info", help=about, description=about)
    info_command.set_defaults(command=info)

    about = "train a network on handwritten digits, and time the step and the loss beside NumPy"
    demo_command = commands.add_parser("demo", help=about, description=about)
    demo_command.add_argument(
        "--epochs", type=positive, default=60, help="passes over the digits (default: %(default)s)"
    )
    demo_command.add_argument(
        "--seed", type=natural, default=0, help="of the split and the start (default: %(default)s)"
    )
    demo_command.add_argument(
        "--output",
        type=Path,
        default=Path("demo.png"),
        metavar="PNG",
        help="where to draw the curves (default: %(default)s)",
    )
    demo_command.add_argument("--no-plot", action="store_true", help="draw no curves")
    demo_command.set_defaults(command=demo)
    return top


def info(_options: argparse.Namespace) -> int:
    """Print what is installed and in force."""
    rows = {
        "fastoptim": fo.__version__,
        "instruction set": f"{_core.tier()} (this machine has {', '.join(_core.tiers())})",
        "threads": str(fo.get_num_threads()),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}",
    }
    for name in COMPANIONS:
        try:
            rows[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows[name] = "not installed"
    for name, value in rows.items():
        print(f"{name:16} {value}")
    return 0


def demo(options: argparse.Namespace) -> int:
    """Run the demonstration, unless something that it needs is missing."""
    output = None if options.no_plot else options.output
    if output is not None and not output.absolute().parent.is_dir():
        return refuse(f"--output: there is no directory {output.parent}")
    if output is not None and output.is_dir():
        return refuse(f"--output: {output} is a directory")
    needed = {"sklearn": "scikit-learn"} | ({} if output is None else {"matplotlib": "matplotlib"})
    missing = [name for module, name in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        return refuse(f"needs {' and '.join(missing)}: pip install 'fastoptim[demo]'")
    from fastoptim import _demo

    _demo.run(options.epochs, options.seed, output)
    return 0


def refuse(reason: str) -> int:
    """Say on standard error why the demo cannot run."""
    print(f"python -m fastoptim demo: {reason}", file=sys.stderr)
    return 2


def natural(text: str) -> int:
    """Read a whole number of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return number


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
