"""What schedulers read from groups and states and write to groups, checked."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from numbers import Real
from typing import Any

from fastoptim.errors import CheckpointError


def check_optimizer(optimizer: Any) -> None:
    """Refuse what has no rates that can be written."""
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(f"optimizer must have param_groups, got {type(optimizer).__name__}")
    for index, group in enumerate(optimizer.param_groups):
        base_rate(group, index)


def base_rate(group: Mapping[str, Any], index: int) -> float:
    """Read the rate at which a group started."""
    if callable(group["lr"]):
        raise TypeError(f"lr of param_groups[{index}] is a function of the step already")
    return float(group.get("initial_lr", group["lr"]))


def checked_list(name: str, value: Any, groups: list[dict[str, Any]]) -> Any:
    """Copy an argument with one value for each group; leave one for all as it is."""
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) != len(groups):
        raise ValueError(f"{name} has {len(value)} values, the optimizer {len(groups)} groups")
    return list(value)


def of_group(name: str, value: Any, index: int) -> Any:
    """Give the value of an argument for one group: the same for all unless it is a list."""
    if not isinstance(value, (list, tuple)):
        return value
    if index >= len(value):
        raise ValueError(f"{name} has {len(value)} values, the optimizer more groups")
    return value[index]


def write_rate(group: dict[str, Any], rate: float) -> None:
    """Write the rate of a group; a rate kept in a tensor, as PyTorch allows, stays that tensor."""
    held = group["lr"]
    if type(held) is not float and hasattr(held, "fill_"):
        held.fill_(rate)
    else:
        group["lr"] = rate


def checked_mapping(scheduler: Any, state: Any) -> dict[str, Any]:
    if not isinstance(state, Mapping):
        kind = type(scheduler).__name__
        raise CheckpointError(f"the state of a {kind} is a mapping, got {type(state).__name__}")
    return dict(state)


def checked_epoch(name: str, value: Any, *, low: int) -> int:
    try:
        epoch = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if epoch < low:
        raise ValueError(f"{name} must be >= {low}, got {epoch}")
    return epoch


def checked_rates(name: str, values: Any, groups: list[dict[str, Any]]) -> list[float]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, Real) for v in values):
        raise TypeError(f"{name} must be a list of numbers, got {values!r}")
    if not all(0 <= v < math.inf for v in values):
        raise ValueError(f"{name} must be finite and >= 0, got {values!r}")
    return [float(v) for v in checked_list(name, values, groups)]
