"""Checks of the results of users' functions."""

from __future__ import annotations

from typing import Any

from fastoptim._checks import scalar


def loss_and_grads(name: str, found: Any) -> tuple[float, Any]:
    """Return the loss and the gradients that the function ``name`` returned.

    Raises
    ------
    TypeError
        The result is not a pair, or the loss is not a number.
    """
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(f"{name} must return (loss, gradients), got {type(found).__name__}")
    return scalar(f"the loss of {name}", found[0]), found[1]
