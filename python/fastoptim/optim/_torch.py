"""Conversion of PyTorch tensors to arrays and back; PyTorch is imported only for tensors."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from fastoptim import _extras
from fastoptim.params.structure import Array


def as_array(value: Any) -> Any:
    """Return a tensor as an array that shares its memory, and any other value unchanged."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return value
    value = value.detach().cpu()
    if value.dtype == torch.bfloat16:
        return value.view(torch.int16).numpy().view(_extras.bfloat16())
    return value.numpy()


def as_tensor(array: Array) -> Any:
    """Return an array as a tensor that shares its memory."""
    torch = _extras.require("torch", "a state of tensors")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_number(value: Any) -> Any:
    """Return a 0-dimensional tensor or array as a number, and any other value unchanged."""
    return value.item() if getattr(value, "ndim", None) == 0 else value
