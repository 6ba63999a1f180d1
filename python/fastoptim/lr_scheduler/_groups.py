"""What schedulers read from groups and write to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastoptim.schedules._base import non_negative


def check_optimizer(optimizer: Any) -> None:
    """Refuse what has no rates that can be written."""
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(f"optimizer must have param_groups, got {type(optimizer).__name__}")
    for index, group in enumerate(optimizer.param_groups):
        base_rate(group, index)


def check_number(name: str, value: Any, index: int) -> None:
    """Refuse a function of the step: a scheduler would overwrite it with a number."""
    if callable(value):
        raise TypeError(
            f"{name} of param_groups[{index}] is a function of the step already, which the "
            f"optimizer follows without a scheduler: use one of the two. For a scheduler, give the "
            f"optimizer a number as {name}"
        )


def check_rates(held: Iterable[Any]) -> None:
    """Refuse groups of which one has got a function as its rate since the last step."""
    for index, rate in enumerate(held):
        check_number("lr", rate, index)


def base_rate(group: Mapping[str, Any], index: int) -> float:
    """Read the rate at which a group started."""
    check_number("lr", group["lr"], index)
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


@contextmanager
def all_or_nothing(groups: list[dict[str, Any]], parts: Iterable[object] = ()) -> Iterator[None]:
    """Give groups and schedulers back what they had, if what is done to them fails."""
    check_rates([group["lr"] for group in groups])
    items = [(dict(group), float(group["lr"])) for group in groups]
    attributes = [(part, dict(vars(part))) for part in parts]
    try:
        yield
    except BaseException:
        for part, before in attributes:
            vars(part).update(before)
        for group, (before, rate) in zip(groups, items, strict=True):
            group.clear()
            group.update(before)
            if hasattr(before["lr"], "fill_"):
                before["lr"].fill_(rate)
        raise
