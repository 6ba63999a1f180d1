"""Importing the package is fast, and imports modules when their names are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fastoptim as fo


def run(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", fo.__all__)
def test_every_public_name_is_there_without_another_import(name: str) -> None:
    assert hasattr(fo, name)


def test_an_import_loads_no_module_of_the_package() -> None:
    loaded = "sorted(name for name in sys.modules if name.startswith('fastoptim'))"
    assert run(f"import sys, fastoptim; print({loaded})") == "['fastoptim', 'fastoptim._core']"


def test_all_names_can_be_imported_at_once() -> None:
    assert run("from fastoptim import *; print(AdamW.__name__, losses.__name__)") == (
        "AdamW fastoptim.losses"
    )


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'fastoptim' has no attribute 'adamw'"):
        fo.adamw  # noqa: B018


@pytest.mark.alone
def test_an_import_takes_at_most_a_quarter_of_the_time_of_numpy() -> None:
    program = (
        "from time import perf_counter as now; a = now(); import numpy; b = now();"
        "import fastoptim; print((now() - b) / (b - a))"
    )
    assert min(float(run(program)) for _ in range(5)) < 0.25
