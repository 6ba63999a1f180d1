"""Snapshots of all data of an object; equal snapshots mean that no byte has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastoptim.optim import Optimizer


def snapshot(thing: Any) -> Any:
    if isinstance(thing, Optimizer):
        return snapshot([thing.param_groups, thing.state, thing.state_dict()])
    if isinstance(thing, np.ndarray):
        return thing.dtype.str, thing.shape, thing.tobytes()
    if isinstance(thing, Mapping):
        return {key: snapshot(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [snapshot(item) for item in thing]
    # NaN is not equal to itself, but its repr is.
    return repr(thing)
