"""Losses of rows of scores, with inputs for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastoptim.losses import FocalLoss, MultiMarginLoss, NLLLoss

CASES: list[tuple[Any, dict[str, Any]]] = [
    (NLLLoss, {}),
    (NLLLoss, {"weight": "each", "ignore_index": 0}),
    (MultiMarginLoss, {}),
    (MultiMarginLoss, {"p": 2, "margin": 0.3, "weight": "each"}),
    (MultiMarginLoss, {"average_classes": False, "weight": "each"}),
    (FocalLoss, {}),
    (FocalLoss, {"gamma": 0.0}),
    (FocalLoss, {"gamma": 0.5, "alpha": 0.25}),
    (FocalLoss, {"gamma": 1.0, "alpha": "each", "ignore_index": 0}),
    (FocalLoss, {"gamma": 5.0}),
]


def made(cls: Any, arguments: dict[str, Any], classes: int, dtype: Any, **more: Any) -> Any:
    """Construct the loss, with a weight per class if the case has one."""
    weight = (0.25 + np.arange(classes) % 5).astype(dtype)
    arguments = {key: weight if value == "each" else value for key, value in arguments.items()}
    return cls(**arguments, **more)


def inputs(cls: Any, shape: tuple[int, int], dtype: Any = np.float64) -> tuple[Any, Any]:
    rng = np.random.default_rng(shape)
    x = 2 * rng.standard_normal(shape)
    if cls is NLLLoss:
        x -= np.log(np.exp(x).sum(1, keepdims=True))
    return x.astype(dtype), rng.integers(0, shape[1], shape[0])
