"""What schedulers read from groups and write to them, and arguments with one value for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from fastoptim.lr_scheduler._states import plain
from fastoptim.schedules._base import non_negative

T = TypeVar("T")


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
    rate = float(group.get("initial_lr", group["lr"]))
    return non_negative(f"base_lr of param_groups[{index}]", rate)


def note_base_rate(group: dict[str, Any], rate: float) -> None:
    """Note the rate at which a group starts, as PyTorch does: in a tensor where it is in one."""
    held = group["lr"]
    group.setdefault("initial_lr", held.clone() if hasattr(held, "fill_") else rate)


def write_rate(group: dict[str, Any], rate: float) -> None:
    """Write the rate of a group; a rate kept in a tensor, as PyTorch allows, stays that tensor."""
    held = group["lr"]
    if type(held) is not float and hasattr(held, "fill_"):
        held.fill_(rate)
    else:
        group["lr"] = rate


def listed(name: str, values: Any) -> list[Any]:
    """Read a sequence once, into a list: an iterator has nothing the second time."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence, got {values!r}")
    return [plain(value) for value in values]


def one_or_listed(name: str, value: Any) -> Any:
    """Read an argument of one value for all groups, or of a sequence with one for each."""
    several = isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0
    return listed(name, value) if several else plain(value)


def for_groups(name: str, value: Any, groups: list[Any], check: Callable[[str, Any], T]) -> list[T]:
    """Give the checked value of each group: the same for all unless it is a list."""
    values = value if isinstance(value, (list, tuple)) else [value] * len(groups)
    if len(values) != len(groups):
        raise ValueError(f"{name} has {len(values)} values, the optimizer {len(groups)} groups")
    return [check(name, value) for value in values]


def rates_of(
    name: str, rates: Any, groups: list[Any], check: Callable[[str, Any], float]
) -> list[float]:
    """Check the rates in a state."""
    if not isinstance(rates, list):
        raise TypeError(f"{name} must be a list of numbers, got {rates!r}")
    return for_groups(name, rates, groups, check)
