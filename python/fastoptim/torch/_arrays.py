"""Tensors as arrays of the core, which reads their memory in each call."""

from __future__ import annotations

from typing import Any

import torch

from fastoptim._core import ForeignArray
from fastoptim.torch.optim._tensors import CLASSES, DTYPES

FLOATS = {dtype: name for dtype, name in DTYPES.items() if dtype.is_floating_point}

# The dtypes of targets; bool tensors are converted.
NUMBERS = DTYPES | {torch.bool: "bool"}

_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_is_batched = torch._C._functorch.is_legacy_batchedtensor


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Tell whether a transform of PyTorch sees other tensors through this one, such as a batch."""
    return bool(_is_wrapped(tensor) or _is_batched(tensor))


def is_plain(tensor: Any) -> bool:
    """Tell whether an object is a dense tensor of the processor, of floats that kernels know."""
    return (
        type(tensor) in CLASSES
        and tensor.is_cpu
        and tensor.dtype in FLOATS
        and tensor.layout is torch.strided
        and not tensor.is_neg()
        and not is_wrapped(tensor)
    )


def require(name: str, tensor: Any, dtypes: dict[torch.dtype, str] = FLOATS) -> None:
    """Refuse what cannot be computed on, with the reason and the remedy."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if is_wrapped(tensor):
        raise RuntimeError(
            f"{name} is a tensor of a transform of torch.func, which sees no further than PyTorch"
        )
    if type(tensor) not in CLASSES:
        raise TypeError(
            f"{name} must be a plain torch.Tensor, got the subclass {type(tensor).__name__}, whose "
            f"elements may mean something else: {name}.as_subclass(torch.Tensor) is one"
        )
    if not tensor.is_cpu:
        raise TypeError(
            f"{name} must be on the CPU, got one on the device {tensor.device}: {name}.cpu() "
            "copies it; torch has the same for other devices"
        )
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be dense, got {tensor.layout}: {name}.to_dense() is")
    if tensor.dtype not in dtypes:
        kinds = ", ".join(dtypes.values())
        raise TypeError(f"{name} must be one of {kinds}, got {tensor.dtype}")


def array(tensor: torch.Tensor) -> ForeignArray:
    """Return a contiguous tensor as an array, which holds it."""
    return ForeignArray(tensor, flat=False)


def contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same elements, contiguous and aligned, without gradient: a view where they are."""
    tensor = tensor.detach().resolve_neg().contiguous()
    return tensor.clone() if tensor.data_ptr() % tensor.element_size() else tensor


def is_dense(tensor: torch.Tensor) -> bool:
    """Tell whether the elements fill a stretch of memory, each place once, in whatever order."""
    if tensor.is_contiguous():
        return True
    filled = 1
    dims = zip(tensor.stride(), tensor.shape, strict=True)
    for stride, length in sorted(dim for dim in dims if dim[1] != 1):
        if stride != filled:
            return False
        filled *= length
    return True


def flat(tensor: torch.Tensor) -> ForeignArray:
    """Return a dense tensor as a 1-D array in the order of its memory."""
    return ForeignArray(tensor, flat=True)


def scalar(value: float, dtype: torch.dtype) -> torch.Tensor:
    """Return a number as a tensor without dimensions, infinite where the dtype cannot have it."""
    return torch.scalar_tensor(value, dtype=torch.float64, device="cpu").to(dtype)


def changed(tensors: list[torch.Tensor]) -> None:
    """Count a change of tensors, so that autograd notices if it has saved one of them."""
    for tensor in tensors:
        # Those of the inference mode have no count.
        if not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)
