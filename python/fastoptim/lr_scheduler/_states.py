"""Checks of the states of schedulers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastoptim.errors import CheckpointError
from fastoptim.lr_scheduler._arguments import for_groups, plain

# Additional keys of PyTorch's state dicts; a load ignores them.
PYTORCH_ONLY = frozenset({"_get_lr_called_within_step", "_is_initial", "_step_count"})


def checked_state(scheduler: Any, state: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return a copy of a state, which must have exactly these names."""
    kind = type(scheduler).__name__
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"the state of a {kind} must be a mapping, got {type(state).__name__}"
        )
    given = scheduler._translated({k: v for k, v in state.items() if k not in PYTORCH_ONLY})
    expected = set(names)
    if set(given) != expected:
        found = sorted(map(str, given))
        raise CheckpointError(f"the state of a {kind} must have {sorted(expected)}, got {found}")
    return {name: plain(value) for name, value in given.items()}


def rates_of(
    name: str, rates: Any, groups: list[Any], check: Callable[[str, Any], float]
) -> list[float]:
    """Check one rate for each group."""
    if not isinstance(rates, list):
        raise TypeError(f"{name} must be a list of numbers, got {rates!r}")
    return for_groups(name, rates, groups, check)
