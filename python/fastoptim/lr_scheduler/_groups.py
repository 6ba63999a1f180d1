"""Reading and writing the values of parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from fastoptim import _core
from fastoptim._checks import non_negative, scalar
from fastoptim._commit import Call


class HasGroups(Protocol):
    """An object with parameter groups: an optimizer of this package, of PyTorch, or another."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups, each with its rate as ``"lr"``."""
        ...


def check_optimizer(optimizer: Any) -> None:
    """Refuse an object without writable rates."""
    if not hasattr(optimizer, "param_groups"):
        raise TypeError(f"optimizer must have param_groups, got {type(optimizer).__name__}")
    for index, group in enumerate(optimizer.param_groups):
        base_rate(group, index)


def refuse_function(name: str, value: Any, index: int) -> None:
    """Refuse a function of the step: a scheduler would overwrite it with a number."""
    if callable(value):
        raise TypeError(
            f"{name} of param_groups[{index}] is a function of the step, which the optimizer "
            f"evaluates without a scheduler: use one of the two. For a scheduler, set the "
            f"optimizer's {name} to a number"
        )


def check_rates(held: Iterable[Any]) -> None:
    """Refuse groups of which a rate has become something else than a number."""
    for index, rate in enumerate(held):
        refuse_function("lr", rate, index)
        scalar(f"lr of param_groups[{index}]", rate)


def base_rate(group: Mapping[str, Any], index: int) -> float:
    """Read the initial rate of a group."""
    refuse_function("lr", group["lr"], index)
    key = "initial_lr" if "initial_lr" in group else "lr"
    name = f"{key} of param_groups[{index}]"
    return non_negative(name, scalar(name, group[key]))


def noting_base_rate(group: dict[str, Any], rate: float) -> Call:
    """Return the call that stores the initial rate of a group, in a tensor if the rate is one."""
    held = group["lr"]
    return group.setdefault, "initial_lr", held.clone() if hasattr(held, "fill_") else rate


def writing_rate(group: dict[str, Any], rate: float) -> Call:
    """Return the call that writes a rate, in place if it is a tensor, as PyTorch allows."""
    held = group["lr"]
    if type(held) is not float and hasattr(held, "fill_"):
        return held.fill_, rate
    return group.__setitem__, "lr", rate


def written_rate(group: dict[str, Any], rate: float) -> float:
    """Return a rate as the group will store it; a tensor may round it."""
    held = group["lr"]
    return float(held.clone().fill_(rate)) if hasattr(held, "fill_") else float(rate)


def all_or_nothing(
    action: Callable[[], None], groups: Iterable[dict[str, Any]], parts: Iterable[object]
) -> None:
    """Restore groups and schedulers if an action on them fails."""
    groups = list(groups)
    check_rates([group["lr"] for group in groups])
    kept = [(group, dict(group)) for group in groups]
    rates = [(group["lr"], float(group["lr"])) for group, _ in kept]
    attributes = [(vars(part), dict(vars(part))) for part in parts]

    def undo() -> None:
        for now, before in kept + attributes:
            now.clear()
            now.update(before)
        for held, rate in rates:
            if hasattr(held, "fill_"):
                held.fill_(rate)

    _core.attempt(action, undo)
