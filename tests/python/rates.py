"""Optimizers with two groups, for the tests of schedulers: PyTorch's and ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastoptim as fo

LRS = (0.1, 0.03)


def pytorch(cls: str = "SGD", *, tensors: bool = False) -> tuple[Any, Any, Any]:
    """Give PyTorch's schedulers and two of its optimizers, with rates in tensors if asked."""
    torch = pytest.importorskip("torch")

    def optimizer() -> Any:
        lrs = [torch.tensor(lr, dtype=torch.float64) if tensors else lr for lr in LRS]
        groups = [{"params": [torch.zeros(2)], "lr": lr} for lr in lrs]
        if cls == "SGD":
            return torch.optim.SGD(groups, lr=1.0, momentum=0.9)
        return torch.optim.AdamW(groups)

    return torch.optim.lr_scheduler, optimizer(), optimizer()


def mine() -> fo.SGD:
    """Give one of our optimizers."""
    return fo.SGD([{"params": [np.zeros(2)], "lr": lr} for lr in LRS], momentum=0.9)


def same(theirs: Any, ours: Any) -> None:
    """Compare the rates and the momenta of two optimizers."""
    for a, b in zip(theirs.param_groups, ours.param_groups, strict=True):
        np.testing.assert_allclose(float(b["lr"]), float(a["lr"]), rtol=1e-11, atol=1e-15)
        key = "betas" if "betas" in a else "momentum"
        np.testing.assert_allclose(b[key], a[key], rtol=1e-12)


def written(opt: Any) -> list[dict[str, Any]]:
    """Give all that a scheduler could have written."""
    return [{**group, "params": None} for group in opt.param_groups]
