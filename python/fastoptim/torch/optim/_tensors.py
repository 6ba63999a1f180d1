"""The functions of PyTorch that the core calls, and the tensors that it accepts."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch

from fastoptim._core import ForeignArray, use_huge_pages

# The classes whose elements are stored in memory as they are; a subclass may convert them.
CLASSES = [torch.Tensor, torch.nn.Parameter]

# The C functions by which tensors are described without a call of Python: PyTorch 2.10 and later.
EXCHANGE = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)

# Getters that the core calls without a search for their names.
GRAD = inspect.getattr_static(torch.Tensor, "grad")
REQUIRES_GRAD = inspect.getattr_static(torch.Tensor, "requires_grad")

# The core makes the gradients of losses with it from inputs, and values from one of `SCALARS`.
EMPTY_LIKE = torch.empty_like
with torch.inference_mode(False):
    SCALARS = [torch.empty((), dtype=d, device="cpu") for d in (torch.float32, torch.float64)]

# The dtypes that kernels know, by their names in the core.
DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.int16: "int16",
    torch.int8: "int8",
    torch.uint8: "uint8",
}
_BY_NAME = {name: dtype for dtype, name in DTYPES.items()}


def described(
    tensor: torch.Tensor,
) -> tuple[int, str, tuple[int, ...], tuple[int, ...]] | None:
    """Return the address, dtype, shape and strides of a dense CPU tensor, or None."""
    if tensor.layout is not torch.strided or not tensor.is_cpu:
        return None
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        return None
    return tensor.data_ptr(), dtype, tuple(tensor.shape), tensor.stride()


def refusal(name: str, tensor: Any) -> Exception:
    """Return the error for an object that kernels do not take, with the reason."""
    kinds = "a dense CPU tensor of float32, float64, bfloat16 or float16"
    if not isinstance(tensor, torch.Tensor):
        return TypeError(f"{name} must be {kinds}, got {type(tensor).__name__}")
    if type(tensor) not in CLASSES:
        return TypeError(
            f"{name} must be a plain torch.Tensor or Parameter, got the subclass "
            f"{type(tensor).__name__}, whose elements may mean something else"
        )
    if tensor.device.type != "cpu":
        return TypeError(f"{name} must be {kinds}, got one on the device {tensor.device}")
    if tensor.layout is not torch.strided:
        return TypeError(f"{name} must be {kinds}, got the layout {tensor.layout}")
    if tensor.dtype not in DTYPES or not tensor.is_floating_point():
        return TypeError(f"{name} must be {kinds}, got {tensor.dtype}")
    return ValueError(f"{name} has {tensor.numel()} elements and no memory for them")


def check_written(name: str, tensor: torch.Tensor) -> None:
    """Check that a tensor may be written in place."""
    if tensor.is_inference():
        raise ValueError(
            f"{name} was created under torch.inference_mode() and has no version, so that autograd "
            "could not detect a change; clone() it outside of the mode"
        )
    if tensor.is_neg():
        raise ValueError(f"{name} stands for the negative of its memory; use its resolve_neg()")
    last = sum(
        (dim - 1) * stride for dim, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    end = (tensor.storage_offset() + last + 1) * tensor.element_size()
    if tensor.numel() and end > tensor.untyped_storage().nbytes():
        raise ValueError(f"{name} has {tensor.numel()} elements and no memory for all of them")


def unwritten(
    wanted: Sequence[tuple[torch.Tensor, str, Sequence[int], bool]],
) -> list[torch.Tensor]:
    """Return uninitialized tensors for pairs of a parameter with a dtype, shape and memory order.

    They are not filled here, because PyTorch would use threads that a forked child does not have.
    """
    with torch.inference_mode(False):
        return [
            _empty(parameter, _BY_NAME[dtype], tuple(shape), alike)
            for parameter, dtype, shape, alike in wanted
        ]


def _empty(
    parameter: torch.Tensor, dtype: torch.dtype, dims: tuple[int, ...], alike: bool
) -> torch.Tensor:
    """Return an uninitialized tensor, in the memory order of a parameter if ``alike``."""
    if alike:
        like, order = parameter.detach(), torch.preserve_format
        new = torch.empty_like(like, dtype=dtype, device="cpu", memory_format=order)
    else:
        new = torch.empty(dims, dtype=dtype, device="cpu")
    # Every step uses it.
    use_huge_pages(ForeignArray(new, flat=True))
    return new


def numbers(values: Sequence[float]) -> list[torch.Tensor]:
    """Return numbers as 0-d tensors, which share one allocation."""
    with torch.inference_mode(False):
        return list(torch.tensor(values, dtype=torch.float64, device="cpu").unbind())


def fitting(name: str, value: Any, dtype: str, shape: Sequence[int]) -> torch.Tensor:
    """Return an entry of the state converted to a wider dtype."""
    wanted, dims = _BY_NAME[dtype], tuple(shape)
    with torch.inference_mode(False):
        if not dims and wanted is torch.float64:
            try:
                return torch.tensor(float(value), dtype=wanted, device="cpu")
            except (TypeError, ValueError, RuntimeError):
                raise TypeError(f"{name} must be a number, got {value!r}") from None
        if type(value) not in CLASSES or described(value) is None:
            raise refusal(name, value)
        if tuple(value.shape) != dims:
            raise ValueError(f"{name} must have the shape {dims}, got {tuple(value.shape)}")
        if torch.promote_types(value.dtype, wanted) is not wanted:
            raise TypeError(f"{name} must be {dtype}, got {value.dtype}")
        return value.detach().to(wanted)


def _takes_lists() -> bool:
    """Return whether `INCREMENT_VERSION` takes lists, which older versions of PyTorch do not."""
    try:
        INCREMENT_VERSION([torch.zeros(())])
    except Exception:
        return False
    return True


# Increments the versions of tensors, so that autograd detects stale graphs. It is written in C and
# therefore not interrupted.
INCREMENT_VERSION = torch._C._increment_version
TAKES_LISTS = _takes_lists()

# Returns the number of active modes, which run Python code in the methods of tensors.
MODES = torch._C._len_torch_function_stack


def name_of(tensor: torch.Tensor) -> str:
    """Return the name of a dtype."""
    return DTYPES.get(tensor.dtype, str(tensor.dtype))


def number(name: str, value: Any) -> torch.Tensor:
    """Return a number of a saved state as a 0-d tensor."""
    return fitting(name, value, "float64", ())


def loaded(
    name: str,
    value: torch.Tensor,
    parameter: torch.Tensor,
    dtype: str,
    shape: Sequence[int],
    sliced: bool,
) -> torch.Tensor:
    """Return a copy of an array of a saved state in the memory order of the parameter.

    If ``sliced``, an array of the package prodigyopt may be flat, or a single 0 for zeros.
    """
    dims = tuple(shape)
    if not value.is_floating_point() and name_of(value) != dtype:
        raise TypeError(f"{name} must be {dtype}, got {value.dtype}")
    if sliced and value.ndim == 0:
        value = value.expand(dims)
    elif sliced and value.numel() == math.prod(dims):
        value = value.reshape(dims)
    if tuple(value.shape) != dims:
        raise ValueError(f"{name} must have the shape {dims}, got {tuple(value.shape)}")
    alike = tuple(parameter.shape) == dims
    return _empty(parameter, _BY_NAME[dtype], dims, alike).copy_(value.detach())


def decoded(engine: Any, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return decoded 8-bit codes."""
    out = torch.empty_like(codes, dtype=torch.float32, memory_format=torch.preserve_format)
    engine.decode(codes, scales, out)
    return out


def encoded(
    engine: Any, name: str, value: torch.Tensor, parameter: torch.Tensor, dtype: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return numbers as 8-bit codes and scales."""
    numbers = loaded(name, value, parameter, "float32", parameter.shape, False)
    codes = torch.empty_like(numbers, dtype=_BY_NAME[dtype], memory_format=torch.preserve_format)
    scales = torch.empty(-(-numbers.numel() // 256), dtype=torch.float32, device="cpu")
    engine.encode(numbers, codes, scales)
    return codes, scales
