"""The functions of PyTorch that the core calls, and the tensors that it accepts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

# The classes whose elements are stored in memory as they are; a subclass may convert them.
CLASSES = [torch.Tensor, torch.nn.Parameter]

# The C functions by which tensors are described without a call of Python: PyTorch 2.10 and later.
EXCHANGE = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)

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
    """Return address, dtype, shape and strides of a dense tensor of the processor, or None."""
    if tensor.layout is not torch.strided or not tensor.is_cpu:
        return None
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        return None
    return tensor.data_ptr(), dtype, tuple(tensor.shape), tensor.stride()


def refusal(name: str, tensor: Any) -> Exception:
    """Return the error of what cannot be computed on, with the reason."""
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
    """Refuse a tensor that must not be written in place."""
    if tensor.is_inference():
        raise ValueError(
            f"{name} was made under torch.inference_mode(), so that autograd could not notice "
            "that it changes; its clone() outside of it can be trained"
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
    """Return new tensors: for each a parameter, a dtype, a shape, and whether it is laid out alike.

    Nothing is written, which PyTorch does in threads that a forked child does not have.
    """
    with torch.inference_mode(False):
        return [
            torch.empty_like(
                parameter.detach(), dtype=_BY_NAME[dtype], memory_format=torch.preserve_format
            )
            if alike
            else torch.empty(tuple(shape), dtype=_BY_NAME[dtype], device="cpu")
            for parameter, dtype, shape, alike in wanted
        ]


def numbers(values: Sequence[float]) -> list[torch.Tensor]:
    """Return numbers as tensors without dimensions, which share one allocation."""
    with torch.inference_mode(False):
        return list(torch.tensor(values, dtype=torch.float64, device="cpu").unbind())


def fitting(name: str, value: Any, dtype: str, shape: Sequence[int]) -> torch.Tensor:
    """Return what stands for the same numbers in a wider dtype."""
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
    """Tell whether PyTorch counts a change of several tensors in one call; older ones do not."""
    try:
        INCREMENT_VERSION([torch.zeros(())])
    except Exception:
        return False
    return True


# Counts a change of tensors, so that autograd notices it: in C, so that no interrupt comes between.
INCREMENT_VERSION = torch._C._increment_version
TAKES_LISTS = _takes_lists()

# Counts the modes of PyTorch that run code of Python in every method of a tensor.
MODES = torch._C._len_torch_function_stack


def name_of(tensor: torch.Tensor) -> str:
    """Return the name of a dtype."""
    return DTYPES.get(tensor.dtype, str(tensor.dtype))


def number(name: str, value: Any) -> torch.Tensor:
    """Return a number of a saved state as a tensor without dimensions."""
    return fitting(name, value, "float64", ())


def loaded(
    name: str,
    value: torch.Tensor,
    parameter: torch.Tensor,
    dtype: str,
    shape: Sequence[int],
    sliced: bool,
) -> torch.Tensor:
    """Return a copy of an array of a saved state, laid out as the parameter is.

    Those of the package prodigyopt are flat where ``sliced``, or one 0 where all elements are 0.
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
    return _empty(parameter, _BY_NAME[dtype], dims).copy_(value.detach())


def _empty(parameter: torch.Tensor, dtype: torch.dtype, dims: tuple[int, ...]) -> torch.Tensor:
    """Return a tensor for the state of a parameter, laid out as that is where it has its shape."""
    if tuple(parameter.shape) != dims:
        return torch.empty(dims, dtype=dtype, device="cpu")
    like = parameter.detach()
    return torch.empty_like(like, dtype=dtype, device="cpu", memory_format=torch.preserve_format)


def decoded(engine: Any, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return the numbers that codes in 8 bits stand for."""
    out = torch.empty_like(codes, dtype=torch.float32, memory_format=torch.preserve_format)
    engine.decode(codes, scales, out)
    return out


def encoded(
    engine: Any, name: str, value: torch.Tensor, parameter: torch.Tensor, dtype: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes in 8 bits for numbers, and their scales."""
    numbers = loaded(name, value, parameter, "float32", parameter.shape, False)
    codes = torch.empty_like(numbers, dtype=_BY_NAME[dtype], memory_format=torch.preserve_format)
    scales = torch.empty(-(-numbers.numel() // 256), dtype=torch.float32, device="cpu")
    engine.encode(numbers, codes, scales)
    return codes, scales
