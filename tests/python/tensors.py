"""Parameters and gradients for the optimizers over tensors; only imported where torch is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import fastoptim as fo
import fastoptim.torch as ft

SHAPES: list[tuple[int, ...]] = [(3, 4), (5,), (), (2, 3, 4, 5), (300,), (0, 3)]
MATRICES: list[tuple[int, ...]] = [(3, 4), (7, 2), (1, 5)]

# Every optimizer over tensors; each has one of its name over arrays.
CLASSES = [
    cls
    for name in ft.optim.__all__
    if issubclass(cls := getattr(ft, name), ft.Optimizer) and cls is not ft.Optimizer
]
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def shapes_of(cls: Any) -> list[tuple[int, ...]]:
    return MATRICES if cls.__name__ == "Muon" else SHAPES


def numbers(shape: Sequence[int], seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.asarray(rng.standard_normal(tuple(shape))))


def parameters(
    shapes: Sequence[tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[torch.nn.Parameter]:
    return [
        torch.nn.Parameter(numbers(shape, 1000 * seed + index).to(dtype))
        for index, shape in enumerate(shapes)
    ]


def give_grads(params: Sequence[torch.Tensor], step: int) -> None:
    for index, parameter in enumerate(params):
        grad = numbers(parameter.shape, 7919 * (step + 1) + index)
        parameter.grad = torch.empty_like(parameter).copy_(grad)


def train(optimizer: Any, params: Sequence[torch.Tensor], steps: int = 5, start: int = 0) -> None:
    for step in range(start, start + steps):
        give_grads(params, step)
        optimizer.step()


def array(tensor: torch.Tensor) -> Any:
    """Give a tensor as an array of the same bits."""
    tensor = tensor.detach()
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    import ml_dtypes

    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def snapshot(optimizer: Any, params: Sequence[torch.Tensor]) -> list[bytes]:
    """Give everything that a step may change, as bytes."""
    found = [array(parameter.contiguous()).tobytes() for parameter in params]
    for entry in optimizer.state.values():
        for key, value in entry.items():
            found.append(key.encode())
            if isinstance(value, torch.Tensor):
                found.append(array(value.contiguous()).tobytes())
    return found


def alike(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(x.detach(), y.detach()) for x, y in zip(a, b, strict=True))


def twin(cls: Any) -> Any:
    return getattr(fo, cls.__name__)
