"""Lists for parametrized tests: every public optimizer, and every loss of two equal shapes."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import numpy as np

import fastoptim as fo


def subclasses(module: ModuleType, base: type) -> list[Any]:
    exported = [getattr(module, name) for name in module.__all__]
    classes = [x for x in exported if inspect.isclass(x) and issubclass(x, base)]
    return [cls for cls in classes if cls is not base]


def takes_two_alike(cls: Any) -> bool:
    try:
        cls()(np.full((2, 2), 0.5), np.full((2, 2), 0.5))
    except (TypeError, ValueError):
        return False
    return True


OPTIMIZERS = subclasses(fo.optim, fo.optim.Optimizer)
LOSSES = [cls() for cls in subclasses(fo.losses, fo.losses.Loss) if takes_two_alike(cls)]
