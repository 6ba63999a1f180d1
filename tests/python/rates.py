"""Optimizers with two groups, of PyTorch and of this package, for tests of schedulers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

LRS = (0.1, 0.03)


def pytorch(cls: str = "SGD", lrs: Any = LRS) -> tuple[Any, Any, Any]:
    """Return PyTorch's schedulers and two of its optimizers with their own rates."""
    torch = pytest.importorskip("torch")

    def optimizer() -> Any:
        groups = [{"params": [torch.zeros(2)], "lr": copy.deepcopy(lr)} for lr in lrs]
        if cls == "SGD":
            return torch.optim.SGD(groups, lr=1.0, momentum=0.9)
        return torch.optim.AdamW(groups)

    return torch.optim.lr_scheduler, optimizer(), optimizer()


def in_tensors(dtype: str = "float64") -> list[Any]:
    """Return the rates in tensors."""
    torch = pytest.importorskip("torch")
    return [torch.tensor(lr, dtype=getattr(torch, dtype)) for lr in LRS]


def mine() -> fo.SGD:
    """Return an optimizer of this package."""
    return fo.SGD([{"params": [np.zeros(2)], "lr": lr} for lr in LRS], momentum=0.9)


def same(theirs: Any, ours: Any, rtol: float = 1e-9) -> None:
    """Compare the rates and the momenta of two optimizers, and whether tensors hold them."""
    for a, b in zip(theirs.param_groups, ours.param_groups, strict=True):
        for key in ("lr", "initial_lr", "momentum", "betas"):
            if key in a:
                assert hasattr(a[key], "fill_") == hasattr(b[key], "fill_")
                # PyTorch's recursion loses digits near the minimum of a cosine.
                x, y = np.asarray(a[key]), np.asarray(b[key])
                np.testing.assert_allclose(y, x, rtol=rtol, atol=1e-3 * rtol)


def written(opt: Any) -> list[dict[str, Any]]:
    """Return everything that a scheduler may have written."""
    return [{**group, "params": None} for group in opt.param_groups]
