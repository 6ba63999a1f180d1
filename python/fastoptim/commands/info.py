"""Versions and settings."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform

import fastoptim as fo
from fastoptim import _core, _extras, threads
from fastoptim.commands.machine import caches, processor

ABOUT = "print the versions, the processor, the threads, and optional packages"

# Packages that fastoptim uses, or is compared with.
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
    """Add no options."""


def run(_options: argparse.Namespace) -> int:
    """Print one line per setting, on the first rank of a job of several processes."""
    if _join_job() > 0:
        return 0
    share = f" ({threads.share})" if threads.share else ""
    rows = {
        "fastoptim": fo.__version__,
        "instruction set": f"{_core.tier()} (this machine has {', '.join(_core.tiers())})",
        "threads": f"{fo.get_num_threads()} of {os.cpu_count()} processors{share}",
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


# Variables in which launchers say how many processes there are.
SIZES = ("PMI_SIZE", "PMIX_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")


def _join_job() -> int:
    """Divide the processors as a training does, if there are several ranks; return the rank."""
    if any(os.environ.get(name, "1") != "1" for name in SIZES) and _extras.has("mpi4py"):
        from fastoptim.distributed.team import team_of

        return team_of(_extras.require("mpi4py.MPI", "a job of several ranks").COMM_WORLD).rank
    return 0
