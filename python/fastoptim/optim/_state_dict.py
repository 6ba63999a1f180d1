"""State dicts: the groups in PyTorch's layout, and saved states matched with an optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastoptim.errors import CheckpointError
from fastoptim.optim._checkpoint import (
    check_codes,
    checked_state,
    count,
    entry_of,
    is_averaged,
    keys_by_name,
    steps_of,
)
from fastoptim.optim._torch import as_number
from fastoptim.params.regularizers import described, restored
from fastoptim.params.structure import Array

if TYPE_CHECKING:
    from fastoptim.optim._base import Optimizer


def saved_groups(param_groups: Sequence[Mapping[str, Any]], steps: int) -> list[dict[str, Any]]:
    """Return the groups in PyTorch's layout, with functions evaluated at a step."""
    groups, start = [], 0
    for group in param_groups:
        end = start + len(group["params"])
        saved = {
            key: value(steps) if callable(value) else value
            for key, value in group.items()
            if key != "params"
        }
        saved["param_names"] = list(saved["param_names"])
        if "regularizer" in saved:
            saved["regularizer"] = described(saved["regularizer"])
        groups.append({"params": list(range(start, end)), **saved})
        start = end
    return groups


def checked(
    opt: Optimizer, state_dict: Mapping[str, Any], *, any_values: bool
) -> tuple[list[dict[str, Any]], list[tuple[int, list[float], dict[str, Array]]], int, bool]:
    """Check a state, and return its groups, parameter states, step count and averaged flag."""
    opt._engine.check_groups(opt.param_groups)
    matched = _matched(opt.param_groups, state_dict)
    groups = [_merged(opt, mine, theirs) for mine, theirs, _ in matched]
    state = state_dict["state"]
    if not isinstance(state, Mapping):
        raise CheckpointError("state must be a mapping")
    keys = [(key, theirs) for _, theirs, keys in matched for key in keys]
    unknown = set(state) - {key for key, _ in keys}
    if unknown:
        raise CheckpointError(f"state of unknown parameters {sorted(map(str, unknown))}")
    entries = [
        entry_of(name, state.get(key, {}), theirs)
        for name, (key, theirs) in zip(opt._names, keys, strict=True)
    ]
    if opt._storage.state_dtype == "int8":
        check_codes(state_dict.get("int8_codes"), entries)
    counts = [steps_of(name, entry, opt._counted) for name, entry in entries]
    steps = count("steps", state_dict.get("steps", max(counts, default=0)))
    try:
        expected = opt._engine.expected(groups, steps)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"param_groups: {error}") from None
    loaded = [
        (count, *checked_state(name, entry, count > 0, *known, theirs, any_values))
        for (name, entry), (_, theirs), count, known in zip(
            entries, keys, counts, expected, strict=True
        )
    ]
    averaged = state_dict.get("averaged", bool(state) and any(map(is_averaged, keys)))
    return groups, loaded, steps, bool(averaged)


def _matched(
    param_groups: Sequence[dict[str, Any]], state_dict: Mapping[str, Any]
) -> list[tuple[dict[str, Any], Mapping[str, Any], list[Any]]]:
    """Return each group with the saved group and the saved keys of its parameters."""
    try:
        saved = list(state_dict["param_groups"])
        sizes = [len(group["params"]) for group in saved]
        keys = [key for group in saved for key in group["params"]]
        repeated = len(set(keys)) < len(keys)
        state_dict["state"]
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"not a state_dict of an optimizer: {error}") from None
    if sorted(sizes) != sorted(len(group["params"]) for group in param_groups):
        raise CheckpointError(f"param_groups have {sizes} parameters, not those of this object")
    if repeated:
        raise CheckpointError(f"param_groups have the same parameter twice: {keys}")
    for group in saved:
        if not isinstance(group, Mapping):
            raise CheckpointError(f"param_groups must be mappings, got {group!r}")
    if all(group.get("param_names") is not None for group in saved):
        return [(mine, *keys_by_name(mine["param_names"], saved)) for mine in param_groups]
    if sizes != [len(group["params"]) for group in param_groups]:
        raise CheckpointError(f"param_groups have {sizes} parameters, not those of this object")
    pairs = zip(param_groups, saved, strict=True)
    return [(mine, theirs, list(theirs["params"])) for mine, theirs in pairs]


def _merged(opt: Optimizer, mine: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group with the hyperparameters of a saved one."""
    group = dict(mine)
    for key, value in theirs.items():
        if key == "regularizer":
            group[key] = restored(value, mine.get(key))
        known = (key in opt._defaults and key not in opt._fixed) or key == "initial_lr"
        if known and not callable(mine.get(key)):
            group[key] = as_number(value)
    return group
