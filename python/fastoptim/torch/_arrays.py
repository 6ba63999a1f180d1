"""Tensors as arrays of the core, which reads their memory in each call."""

from __future__ import annotations

from typing import Any

import torch

from fastoptim._core import ForeignArray, dense_tensors
from fastoptim.torch.optim._tensors import CLASSES, DTYPES, INCREMENT_VERSION, TAKES_LISTS

FLOATS = {dtype: name for dtype, name in DTYPES.items() if dtype.is_floating_point}

# A number that is not larger in any of them fits, whatever it is rounded to.
_LARGEST = {dtype: torch.finfo(dtype).max for dtype in FLOATS}

# The dtypes of targets; bool tensors are converted.
NUMBERS = DTYPES | {torch.bool: "bool"}

_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_is_batched = torch._C._functorch.is_legacy_batchedtensor


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is a wrapper of a function transform, such as that of `vmap`."""
    return _is_wrapped(tensor) or _is_batched(tensor)


def is_memory(tensor: Any) -> bool:
    """Return whether an object is a tensor that stands for CPU memory with strides."""
    return (
        type(tensor) in CLASSES
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not is_wrapped(tensor)
    )


def is_plain(tensor: Any) -> bool:
    """Return whether an object is a dense CPU tensor of a floating-point dtype of the kernels."""
    return is_memory(tensor) and tensor.dtype in FLOATS and not tensor.is_neg()


def require(name: str, tensor: Any, dtypes: dict[torch.dtype, str] = FLOATS) -> None:
    """Check that a tensor can be an argument; the error names the reason and the remedy."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if is_wrapped(tensor):
        raise RuntimeError(
            f"{name} is inside a transform of torch.func, which cannot trace kernels of fastoptim"
        )
    if type(tensor) not in CLASSES:
        raise TypeError(
            f"{name} must be a plain torch.Tensor, got the subclass {type(tensor).__name__}, whose "
            f"elements may mean something else: {name}.as_subclass(torch.Tensor) converts it"
        )
    if not tensor.is_cpu:
        raise TypeError(
            f"{name} must be on the CPU, got one on the device {tensor.device}: {name}.cpu() "
            "copies it, and the functions of torch take other devices"
        )
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be dense, got {tensor.layout}: {name}.to_dense() is")
    if tensor.dtype not in dtypes:
        kinds = ", ".join(dtypes.values())
        raise TypeError(f"{name} must be one of {kinds}, got {tensor.dtype}")


def array(tensor: torch.Tensor) -> ForeignArray:
    """Return a contiguous tensor as an array, which holds a reference to it."""
    return ForeignArray(tensor, flat=False)


def contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous, aligned tensor of the same elements; the tensor itself if it is one."""
    if not tensor.is_contiguous() or tensor.is_neg():
        tensor = tensor.detach().resolve_neg().contiguous()
    return tensor.detach().clone() if tensor.data_ptr() % tensor.element_size() else tensor


def flat(tensor: torch.Tensor) -> ForeignArray:
    """Return a dense tensor as a 1-D array in the order of its memory."""
    return ForeignArray(tensor, flat=True)


def dense(tensors: list[torch.Tensor]) -> list[ForeignArray | None]:
    """Return the results of `flat`; None for tensors that are not dense, and for negative views."""
    return dense_tensors(tensors)


def scalar(value: float, dtype: torch.dtype) -> torch.Tensor:
    """Return a number as a 0-d tensor, which is infinite if the number exceeds the dtype."""
    if abs(value) <= _LARGEST[dtype]:
        return torch.scalar_tensor(value, dtype=dtype, device="cpu")
    return torch.scalar_tensor(value, dtype=torch.float64, device="cpu").to(dtype)


def changed(tensors: list[torch.Tensor]) -> None:
    """Increment the versions of tensors, so that autograd detects stale graphs."""
    if TAKES_LISTS and not any(map(torch.Tensor.is_inference, tensors)):
        INCREMENT_VERSION(tensors)
        return
    for tensor in tensors:
        # Tensors created under inference_mode have no version.
        if not tensor.is_inference():
            INCREMENT_VERSION(tensor)
