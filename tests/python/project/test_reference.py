"""The reference has every public name, once, and nothing else."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import fastoptim as fo

PAGES = Path(__file__).parents[3] / "docs" / "reference"


def listed() -> Iterator[str]:
    """Yield the full names in the tables of the reference, and of the data that it describes."""
    for page in sorted(PAGES.glob("*.rst")):
        module, inside = "", False
        for line in page.read_text(encoding="utf-8").splitlines():
            if found := re.match(r"\.\. currentmodule:: (\S+)$", line):
                module = found[1]
            elif found := re.match(r"\.\. py:data:: (\S+)$", line):
                yield found[1]
            if line and not line.startswith(" "):
                inside = line.startswith(".. autosummary::")
            elif inside and (found := re.match(r"   (\w+)$", line)):
                yield f"{module}.{found[1]}"


def public(module: ModuleType) -> Iterator[str]:
    """Yield the names of the public submodules of a module, and its own."""
    yield module.__name__
    for name in module.__all__:
        if isinstance(inner := getattr(module, name), ModuleType):
            yield from public(inner)


MODULES = [
    *public(fo),
    "fastoptim.checkpoint",
    "fastoptim.distributed",
    "fastoptim.torch",
]


def imported(name: str) -> ModuleType:
    if name == "fastoptim.torch":
        pytest.importorskip("torch", reason="torch is not installed")
    return importlib.import_module(name)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    module, entries = imported(name), set(listed())
    # Those of `fastoptim.optim` and `fastoptim.checkpoint` that the package exports are there.
    missing = [
        entry
        for entry, thing in ((entry, getattr(module, entry)) for entry in module.__all__)
        if f"{name}.{entry}" not in entries
        and not (f"fastoptim.{entry}" in entries and getattr(fo, entry, None) is thing)
        and not isinstance(thing, ModuleType)
    ]
    assert missing == (["__version__"] if name == "fastoptim" else [])
    assert "fastoptim.__version__" in (PAGES / "commands.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", MODULES)
def test_every_entry_is_a_public_name(name: str) -> None:
    module = imported(name)
    ours = {entry.rpartition(".")[2] for entry in listed() if entry.rpartition(".")[0] == name}
    assert not ours - set(module.__all__)


def test_no_name_is_twice_in_the_reference() -> None:
    assert {entry.rpartition(".")[0] for entry in listed()} <= set(MODULES)
    assert not [name for name, times in Counter(listed()).items() if times > 1]
