"""The demonstration."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastoptim.commands.arguments import natural, obstacle, positive, refuse

ABOUT = "train a network on handwritten digits, and compare its speed with NumPy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--epochs",
        type=positive,
        default=60,
        help="passes over the training data (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=natural,
        default=0,
        help="random seed of split and weights (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo.png"),
        metavar="PNG",
        help="file for the plot of the curves (default: %(default)s)",
    )
    parser.add_argument("--no-plot", action="store_true", help="do not plot the curves")


def run(options: argparse.Namespace) -> int:
    """Run the command, unless a requirement is missing."""
    output = None if options.no_plot else options.output
    reason = obstacle(output, "sklearn", "threadpoolctl")
    if reason is not None:
        return refuse("demo", reason)
    from fastoptim.commands.demo import training

    training.run(options.epochs, options.seed, output)
    return 0
