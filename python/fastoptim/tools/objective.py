"""What users' functions return, checked."""

from __future__ import annotations

import math
from typing import Any

from fastoptim import _checks


def number(name: str, found: Any) -> float:
    """Return a number, or the one number of an array or tensor, as a float.

    Raises
    ------
    TypeError
        It is not a single real number.
    """
    if math.prod(getattr(found, "shape", ())) != 1:
        raise TypeError(f"{name} must be a number, got an array of shape {found.shape}")
    return _checks.number(name, found.item() if hasattr(found, "item") else found)


def loss_and_grads(name: str, found: Any) -> tuple[float, Any]:
    """Return the loss and the gradients that the function ``name`` returned.

    Raises
    ------
    TypeError
        They are not a pair, or the loss is not a number.
    """
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(f"{name} must return (loss, gradients), got {type(found).__name__}")
    return number(f"the loss of {name}", found[0]), found[1]
