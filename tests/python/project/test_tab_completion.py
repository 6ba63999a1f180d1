"""Tab completion shows only the public names of modules and objects, and `help` explains them."""

from __future__ import annotations

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


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_only_public_names_are_shown(module: ModuleType) -> None:
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in dir(module))


def test_every_module_is_tested() -> None:
    names = {module.__name__.removeprefix("fastoptim.") for module in MODULES}
    assert names >= {"fastoptim", "amp", "losses", "optim", "presets", "regularizers", "schedules"}


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
