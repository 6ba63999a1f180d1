"""Optional packages: they are imported only here, so that an error names a missing one."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, NamedTuple


class Extra(NamedTuple):
    """The extra and the package to install for a module."""

    extra: str
    package: str


EXTRAS = {
    "jax": Extra("bench", "jax"),
    "matplotlib": Extra("plot", "matplotlib"),
    "ml_dtypes": Extra("bfloat16", "ml_dtypes"),
    "mpi4py": Extra("mpi", "mpi4py"),
    "optax": Extra("bench", "optax"),
    "sklearn": Extra("demo", "scikit-learn"),
    "threadpoolctl": Extra("demo", "threadpoolctl"),
    "torch": Extra("torch", "torch"),
    "tqdm": Extra("progress", "tqdm"),
}
"""The extra of each optional module in ``pyproject.toml``, and its package on the index."""


def has(module: str) -> bool:
    """Return whether a module's package is installed, without importing it."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def find(module: str) -> Any:
    """Import a module, or return None where its package is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # The package is installed but one of its dependencies is missing: raise that error.
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        return None


def require(module: str, what: str) -> Any:
    """Import a module that ``what`` requires.

    Raises
    ------
    ModuleNotFoundError
        Its package is not installed; the message says what to install.
    """
    found = find(module)
    if found is None:
        raise ModuleNotFoundError(missing(what, module), name=module)
    return found


def missing(what: str, *modules: str) -> str:
    """Return the error message that says what to install for ``what``."""
    found = [EXTRAS[module.partition(".")[0]] for module in modules]
    packages = [extra.package for extra in found]
    extras = sorted({extra.extra for extra in found})
    return (
        f"{what} needs {' and '.join(packages)}: pip install 'fastoptim[{','.join(extras)}]', "
        f"or pip install {' '.join(packages)}"
    )


def bfloat16() -> Any:
    """Return the bfloat16 of ml_dtypes, which NumPy accepts as a dtype."""
    return require("ml_dtypes", "an array of bfloat16").bfloat16
