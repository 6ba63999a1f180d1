"""Gradient norms and clipping over tensors, under PyTorch's names."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch

from fastoptim import _core
from fastoptim.torch import _arrays

Tensors: TypeAlias = torch.Tensor | Iterable[torch.Tensor]


def get_total_norm(
    tensors: Tensors,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> torch.Tensor:
    """Return the norm of all tensors taken as one vector.

    Parameters
    ----------
    tensors : tensor or iterable of tensors
        Usually gradients: dense CPU tensors of float32, float64, bfloat16 or float16, also mixed.
    norm_type : float, default 2.0
        The p of the p-norm, > 0; ``math.inf`` or ``"inf"`` for the largest absolute value.
    error_if_nonfinite : bool, default False
        Whether a NaN or infinite norm is a RuntimeError.
    foreach : bool, optional
        Accepted for compatibility; the norm does not depend on it.

    Returns
    -------
    tensor
        A 0-d tensor of float64 if one of the tensors is float64, and of float32 otherwise. The sum
        is accumulated in float64, so it is finite for all finite float32 and 16-bit gradients.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> fastoptim.torch.get_total_norm([torch.tensor([3.0]), torch.tensor([-4.0])])
    tensor(5.)
    """
    grads = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
    arrays, _ = _as_arrays("tensors", grads, written=False)
    norm = _core.clip_to_norm(arrays, math.inf, float(norm_type), error_if_nonfinite)
    return _as_tensor(norm, grads)


def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> torch.Tensor:
    """Limit the norm of all gradients taken as one vector.

    They are scaled in place by ``min(1, max_norm / (norm + 1e-6))``. Nothing is written if the
    factor is 1 or the norm is not finite. If an optimizer of this package follows,
    ``step(max_norm=)`` does the same within the step and is faster.

    Parameters
    ----------
    parameters : tensor or iterable of tensors
        The parameters whose gradients are clipped; those without a gradient are skipped.
    max_norm : float
        > 0; infinity only computes the norm.
    norm_type : float, default 2.0
        The p of the p-norm, > 0; ``math.inf`` or ``"inf"`` for the largest absolute value.
    error_if_nonfinite : bool, default False
        Whether a NaN or infinite norm is a RuntimeError; nothing is written then.
    foreach : bool, optional
        Accepted for compatibility; the result does not depend on it.

    Returns
    -------
    tensor
        The norm before clipping, as `get_total_norm` returns it.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        A gradient is not a dense CPU tensor, two gradients share memory, an argument is out of
        range, or the norm is not finite. Nothing has been written then.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.zeros(2))
    >>> w.grad = torch.tensor([30.0, 40.0])
    >>> fastoptim.torch.clip_grad_norm_(w, max_norm=5.0), w.grad
    (tensor(50.), tensor([3., 4.]))
    """
    grads = _gradients(parameters)
    max_norm = float(max_norm)

    def clip(arrays: list[Any]) -> float:
        return _core.clip_to_norm(arrays, max_norm, float(norm_type), error_if_nonfinite)

    return _as_tensor(_in_place(grads, clip, math.isfinite(max_norm)), grads)


def clip_grads_with_norm_(
    parameters: Tensors,
    max_norm: float,
    total_norm: torch.Tensor | float,
    foreach: bool | None = None,
) -> None:
    """Scale the gradients of parameters by ``min(1, max_norm / (total_norm + 1e-6))``.

    Parameters
    ----------
    parameters : tensor or iterable of tensors
        The parameters whose gradients are scaled in place.
    max_norm : float
        > 0; infinity leaves the gradients unchanged.
    total_norm : tensor or float
        What `get_total_norm` returned.
    foreach : bool, optional
        Accepted for compatibility; the result does not depend on it.
    """
    max_norm, norm = float(max_norm), float(total_norm)
    if norm < 0:
        raise ValueError(f"total_norm must be >= 0, got {norm}")
    _in_place(
        _gradients(parameters), lambda arrays: _core.scale_to_norm(arrays, None, max_norm, norm)
    )


def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Limit every element of the gradients to ``-clip_value..clip_value``; NaN stays NaN.

    Parameters
    ----------
    parameters : tensor or iterable of tensors
        The parameters whose gradients are clipped in place.
    clip_value : float
        >= 0; rounded to the nearest number of a 16-bit dtype.
    foreach : bool, optional
        Accepted for compatibility; the result does not depend on it.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.zeros(2))
    >>> w.grad = torch.tensor([-3.0, 0.5])
    >>> fastoptim.torch.clip_grad_value_([w], 1.0)
    >>> w.grad
    tensor([-1.0000,  0.5000])
    """
    value = float(clip_value)
    _in_place(_gradients(parameters), lambda arrays: _core.clamp(arrays, None, value))


def _gradients(parameters: Tensors) -> list[torch.Tensor]:
    """Return the gradients that are not None."""
    if isinstance(parameters, torch.Tensor):
        parameters = [parameters]
    is_generator = isinstance(parameters, types.GeneratorType)
    found = list(parameters)
    if is_generator and not found:
        warnings.warn(
            "`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3
        )
    return [p.grad for p in found if p.grad is not None]


def _in_place(
    grads: list[torch.Tensor], change: Callable[[list[Any]], Any], written: bool = True
) -> Any:
    """Call the core on gradients, and on copies of those that are not dense."""
    arrays, copies = _as_arrays("grads", grads, written)
    result = change(arrays)
    if written:
        for grad, copy in copies:
            grad.detach().copy_(copy)
        _arrays.changed(grads)
    return result


def _as_arrays(
    name: str, tensors: list[torch.Tensor], written: bool
) -> tuple[list[Any], list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return tensors as arrays, and pairs of each tensor that is not dense and its copy."""
    arrays: list[Any] = _arrays.dense(tensors)
    copies = []
    for index, (tensor, array) in enumerate(zip(tensors, arrays, strict=True)):
        if array is not None:
            continue
        _arrays.require(f"{name}[{index}]", tensor)
        if written and any(
            stride == 0 and length > 1
            for stride, length in zip(tensor.stride(), tensor.shape, strict=True)
        ):
            raise ValueError(
                f"{name}[{index}] has elements that share memory; its clone() does not"
            )
        copy = _arrays.contiguous(tensor)
        arrays[index] = _arrays.array(copy)
        copies.append((tensor, copy))
    return arrays, copies


def _as_tensor(norm: float, grads: list[torch.Tensor]) -> torch.Tensor:
    is_wide = any(grad.dtype is torch.float64 for grad in grads)
    dtype = torch.float64 if is_wide else torch.float32
    return _arrays.scalar(norm, dtype)
