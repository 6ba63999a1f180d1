"""A tab after a module shows its public names and nothing else."""

from types import ModuleType

import pytest

import fastoptim as fo

MODULES = [fo.landscape, fo.lr_scheduler, fo.plot, fo.presets, fo.schedules]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_only_public_names_are_shown(module: ModuleType) -> None:
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in dir(module))
