"""What users' functions return, checked."""

from __future__ import annotations

import math
from typing import Any


def number(name: str, found: Any) -> float:
    """Return the value of the function ``name`` as a float.

    Raises
    ------
    TypeError
        It is no single real number.
    """
    if math.prod(getattr(found, "shape", ())) != 1:
        raise TypeError(f"{name} must return a number, got an array of shape {found.shape}")
    try:
        return float(found.item() if hasattr(found, "item") else found)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must return a number, got {found!r}") from None


def loss_and_grads(name: str, found: Any) -> tuple[float, Any]:
    """Return the loss and the gradients that the function ``name`` returned.

    Raises
    ------
    TypeError
        They are no pair, or the loss is no number.
    """
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(f"{name} must return (loss, gradients), got {type(found).__name__}")
    return number(name, found[0]), found[1]
