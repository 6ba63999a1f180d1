"""What is installed and in force."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform

import fastoptim as fo
from fastoptim import _core
from fastoptim.commands.machine import caches, processor

ABOUT = "print the version, the processor, the threads in use, and the packages around"

# Packages that fastoptim works with, or is compared with.
COMPANIONS = (
    "numpy",
    "ml_dtypes",
    "torch",
    "jax",
    "optax",
    "scikit-learn",
    "threadpoolctl",
    "matplotlib",
    "tqdm",
    "mpi4py",
)


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Describe no options."""


def run(_options: argparse.Namespace) -> int:
    """Print one line for each."""
    rows = {
        "fastoptim": fo.__version__,
        "instruction set": f"{_core.tier()} (this machine has {', '.join(_core.tiers())})",
        "threads": f"{fo.get_num_threads()} of {os.cpu_count()} processors",
        "processor": processor(),
        "caches": caches(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
    }
    for name in COMPANIONS:
        try:
            rows[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            rows[name] = "not installed"
    for name, value in rows.items():
        print(f"{name:16} {value}")
    return 0
