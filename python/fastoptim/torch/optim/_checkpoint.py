"""State dicts in PyTorch's layout: saving, checks, and conversion to the dtypes of a step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from fastoptim.errors import CheckpointError
from fastoptim.params.regularizers import described, restored
from fastoptim.torch.optim import _tensors

if TYPE_CHECKING:
    from fastoptim.torch.optim._base import Optimizer


def saved_groups(groups: Sequence[Mapping[str, Any]], steps: int) -> list[dict[str, Any]]:
    """Return the groups with numbers for parameters and values for functions of the step."""
    numbers: dict[int, int] = {}
    start, packed = 0, []
    for group in groups:
        for index, parameter in enumerate(group["params"], start):
            numbers.setdefault(id(parameter), index)
        start += len(group["params"])
        saved = {
            key: value(steps) if callable(value) else value
            for key, value in group.items()
            if key != "params"
        }
        if "regularizer" in saved:
            saved["regularizer"] = described(saved["regularizer"])
        packed.append({**saved, "params": [numbers[id(p)] for p in group["params"]]})
    return packed


def saved_state(optimizer: Optimizer) -> dict[Any, Any]:
    """Return the state with numbers for parameters."""
    parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    numbers: dict[int, int] = {}
    for index, parameter in enumerate(parameters):
        numbers.setdefault(id(parameter), index)
    return {
        numbers[id(key)] if isinstance(key, torch.Tensor) else key: _exported(optimizer, value)
        for key, value in optimizer.state.items()
    }


def _exported(optimizer: Optimizer, entry: Any) -> Any:
    """Return the state of a parameter with 8-bit codes decoded."""
    if not isinstance(entry, dict) or not any(str(key).endswith("_scale") for key in entry):
        return entry
    scaled = {key for key in entry if f"{key}_scale" in entry}
    scales = {f"{key}_scale" for key in scaled}
    return {
        key: _tensors.decoded(optimizer._engine, value, entry[f"{key}_scale"])
        if key in scaled
        else value
        for key, value in entry.items()
        if key not in scales
    }


def loaded_state(
    optimizer: Optimizer, saved: Mapping[str, Any]
) -> tuple[defaultdict[Any, Any], list[dict[str, Any]]]:
    """Check a saved state against an optimizer. Return the new state and groups."""
    try:
        state, theirs = saved["state"], deepcopy(saved["param_groups"])
        keys = [list(group["params"]) for group in theirs]
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"not a state_dict of an optimizer: {error}") from None
    if not isinstance(state, Mapping):
        raise CheckpointError("state must be a mapping")
    mine = optimizer.param_groups
    if len(mine) != len(theirs):
        raise CheckpointError("loaded state dict has a different number of parameter groups")
    if any(len(group["params"]) != len(own) for group, own in zip(mine, keys, strict=True)):
        raise CheckpointError(
            "loaded state dict contains a parameter group that doesn't match the size of "
            "optimizer's group"
        )
    groups = [_merged(optimizer, *pair) for pair in zip(mine, theirs, strict=True)]
    try:
        optimizer._new_engine(optimizer.defaults).check_groups(groups)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"param_groups: {error}") from None
    members = [
        (key, parameter, index)
        for index, (own, group) in enumerate(zip(keys, groups, strict=True))
        for key, parameter in zip(own, group["params"], strict=True)
    ]
    expected = optimizer._engine.expected(
        groups, [(index, _tensors.name_of(p), tuple(p.shape)) for _, p, index in members]
    )
    loaded: defaultdict[Any, Any] = defaultdict(dict)
    known = {
        key: (p, index, slots) for (key, p, index), slots in zip(members, expected, strict=True)
    }
    for key, entry in state.items():
        if key not in known:
            loaded[key] = entry
            continue
        parameter, index, slots = known[key]
        if not isinstance(entry, Mapping):
            raise CheckpointError(f"state of {key!r} must be a mapping")
        loaded[parameter] = _loaded(optimizer, key, entry, theirs[index], parameter, *slots)
    return loaded, groups


def _merged(
    optimizer: Optimizer, mine: Mapping[str, Any], theirs: dict[str, Any]
) -> dict[str, Any]:
    """Return a saved group with the parameters of a group of the optimizer."""
    group = {**theirs, "params": mine["params"]}
    if "param_names" in mine:
        group.setdefault("param_names", mine["param_names"])
    for key, value in optimizer.defaults.items():
        group.setdefault(key, value)
    group.update({key: value for key, value in mine.items() if callable(value)})
    if "regularizer" in theirs:
        group["regularizer"] = restored(theirs["regularizer"], mine.get("regularizer"))
    elif "regularizer" in mine:
        group["regularizer"] = mine["regularizer"]
    group.update(optimizer._fixed)
    return group


def _loaded(
    optimizer: Optimizer,
    key: Any,
    entry: Mapping[str, Any],
    group: Mapping[str, Any],
    parameter: torch.Tensor,
    numbers: Sequence[tuple[str, float]],
    slots: Sequence[tuple[str, str, list[int], bool, bool]],
) -> dict[str, Any]:
    """Return the state of a parameter with tensors of the dtypes of a step.

    The packages prodigyopt and schedulefree have numbers that all parameters share in the group.
    """
    found = dict(entry)
    if found and "step" not in found and "k" in group:
        found = {"step": group["k"], **found}
    for name, _ in numbers:
        if found and name not in found and name in group:
            found[name] = group[name]
    arrays = {name: (dtype, tuple(shape)) for name, dtype, shape, *_ in slots}
    scalars = {"step", *(name for name, _ in numbers)}
    new: dict[str, Any] = {}
    for name, value in found.items():
        label = f"{name} of {key!r}"
        try:
            if name in scalars and value is not None:
                new[name] = _tensors.number(label, value)
            elif name in arrays and isinstance(value, torch.Tensor):
                dtype, shape = arrays[name]
                if f"{name}_scale" in arrays and f"{name}_scale" not in found:
                    new[name], new[f"{name}_scale"] = _tensors.encoded(
                        optimizer._engine, label, value, parameter, dtype
                    )
                else:
                    new[name] = _tensors.loaded(
                        label, value, parameter, dtype, shape, "slice_p" in group
                    )
            else:
                new[name] = deepcopy(value)
        except (TypeError, ValueError) as error:
            raise CheckpointError(str(error)) from None
    step = float(new.get("step", 0.0))
    if not (step >= 0 and step.is_integer()):
        raise CheckpointError(f"step of {key!r} must be a whole number >= 0, got {step}")
    return new
