"""Tab completion shows only the public names of modules and objects, and `help` explains them."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import pydoc
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
import fastoptim.checkpoint


def public(module: ModuleType) -> Iterator[ModuleType]:
    """Yield a module and its public submodules."""
    yield module
    for name in module.__all__:
        if isinstance(inner := getattr(module, name), ModuleType):
            yield from public(inner)


MODULES = [*public(fo), fastoptim.checkpoint]
if importlib.util.find_spec("mpi4py") is not None:
    MODULES.append(importlib.import_module("fastoptim.distributed"))
if importlib.util.find_spec("torch") is not None:
    MODULES += [
        importlib.import_module(f"fastoptim.torch{name}") for name in ("", ".losses", ".optim")
    ]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_only_public_names_are_shown(module: ModuleType) -> None:
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in dir(module))


def test_every_package_with_public_names_is_tested() -> None:
    names = {module.__name__ for module in MODULES}
    assert names >= {f"fastoptim.{name}" for name in ("amp", "losses", "presets", "regularizers")}
    for found in pkgutil.walk_packages(fo.__path__, "fastoptim."):
        of_extra = found.name.startswith(("fastoptim.distributed", "fastoptim.torch"))
        if found.ispkg and found.name not in names and not of_extra:
            # Its modules are imported by those above.
            assert not hasattr(importlib.import_module(found.name), "__all__"), found.name


def test_all_public_names_are_public() -> None:
    for module in MODULES:
        names = [name for name in module.__all__ if name != "__version__"]
        assert not [name for name in names if name.startswith("_")]
        assert len(names) == len(set(names))


def test_the_average_shows_what_a_user_calls() -> None:
    methods = {name for name in dir(fo.EMA) if not name.startswith("_")}
    assert methods == {"load_state_dict", "state_dict", "swap", "swapped", "update"}


def test_an_optimizer_shows_what_a_user_calls() -> None:
    names = {name for name in dir(fo.AdamW(np.ones(2))) if not name.startswith("_")}
    methods = {"add_param_group", "current", "load_state_dict", "state_dict", "step", "zero_grad"}
    assert names == methods | {"param_groups", "params", "state"}


@pytest.mark.parametrize("cls", [fo.AdamW, fo.SAM])
@pytest.mark.parametrize("name", ["param_groups", "state"])
def test_help_explains_the_attributes_of_optimizers(cls: Any, name: str) -> None:
    text = pydoc.plain(pydoc.render_doc(cls))
    line = next(line for line in text.splitlines() if line.strip(" |") == name)
    explained = text.split(line)[1].splitlines()[1]
    assert len(explained.strip(" |").split()) > 3


def test_groups_are_an_attribute_like_any_other() -> None:
    opt = fo.AdamW(np.ones(2))
    assert opt.param_groups[0]["lr"] == 1e-3
    assert "param_groups" in dir(opt)
