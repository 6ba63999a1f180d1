"""Losses over tensors beside PyTorch's: what the tests of them go through."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Case:
    """A loss with arguments that PyTorch's takes as well, and tensors for it."""

    name: str
    arguments: dict[str, Any]
    # The inputs that have gradients, then the others.
    tensors: Callable[[torch.dtype], tuple[list[torch.Tensor], list[torch.Tensor]]]

    def __str__(self) -> str:
        return f"{self.name}-{'-'.join(map(str, self.arguments))}"


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return normal numbers, the same for any dtype up to rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def uniform(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return numbers between 0.05 and 0.95."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(shape, generator=generator, dtype=torch.float64)
    return (found * 0.9 + 0.05).to(dtype)


def classes(seed: int, count: int, *shape: int) -> torch.Tensor:
    """Return class indices."""
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(seed))


def _pair(dtype: torch.dtype) -> Any:
    return [normal(0, 7, 5, dtype=dtype)], [normal(1, 7, 5, dtype=dtype)]


def _signs(dtype: torch.dtype) -> Any:
    return [normal(0, 7, 5, dtype=dtype)], [normal(1, 7, 5).sign().to(dtype)]


def _unit(dtype: torch.dtype) -> Any:
    return [uniform(0, 7, 5, dtype=dtype)], [uniform(1, 7, 5, dtype=dtype)]


def _labels(dtype: torch.dtype) -> Any:
    return [normal(0, 7, 5, dtype=dtype)], [uniform(1, 7, 5, dtype=dtype)]


def _logs(dtype: torch.dtype) -> Any:
    return [normal(0, 7, 5).log_softmax(-1).to(dtype)], [normal(1, 7, 5).softmax(-1).to(dtype)]


def _scores(dtype: torch.dtype) -> Any:
    return [normal(0, 9, 5, dtype=dtype)], [classes(1, 5, 9)]


def _ignored(dtype: torch.dtype) -> Any:
    target = classes(1, 5, 9)
    target[::3] = -100
    return [normal(0, 9, 5, dtype=dtype)], [target]


def _single(dtype: torch.dtype) -> Any:
    return [normal(0, 5, dtype=dtype)], [torch.tensor(3)]


def _images(dtype: torch.dtype) -> Any:
    return [normal(0, 3, 5, 2, 4, dtype=dtype)], [classes(1, 5, 3, 2, 4)]


def _channels_last(dtype: torch.dtype) -> Any:
    (x,), target = _images(dtype)
    return [x.to(memory_format=torch.channels_last)], target


def _probabilities(dtype: torch.dtype) -> Any:
    return [normal(0, 9, 5, dtype=dtype)], [normal(1, 9, 5).softmax(-1).to(dtype)]


def _image_probabilities(dtype: torch.dtype) -> Any:
    x = normal(0, 3, 5, 2, 4, dtype=dtype).to(memory_format=torch.channels_last)
    return [x], [normal(1, 3, 5, 2, 4).softmax(1).to(dtype)]


def _embeddings(dtype: torch.dtype) -> Any:
    x = [normal(0, 7, 5, dtype=dtype), normal(1, 7, 5, dtype=dtype)]
    return x, [normal(2, 7).sign().to(dtype)]


def _triplets(dtype: torch.dtype) -> Any:
    return [normal(seed, 7, 5, dtype=dtype) for seed in range(3)], []


def _counts(dtype: torch.dtype) -> Any:
    return [normal(0, 7, 5, dtype=dtype)], [classes(1, 6, 7, 5).to(dtype)]


def _rates(dtype: torch.dtype) -> Any:
    return [uniform(0, 7, 5, dtype=dtype)], [classes(1, 6, 7, 5).to(dtype)]


# Of float32, which stands beside inputs of 16 bits, and is converted for those of float64.
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])

CASES = [
    Case("MSELoss", {}, _pair),
    Case("L1Loss", {}, _pair),
    Case("HuberLoss", {"delta": 0.7}, _pair),
    Case("SmoothL1Loss", {"beta": 0.7}, _pair),
    Case("BCELoss", {}, _unit),
    Case("BCELoss", {"weight": WEIGHT}, _unit),
    Case("BCEWithLogitsLoss", {}, _labels),
    Case("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT}, _labels),
    Case("KLDivLoss", {}, _logs),
    Case("KLDivLoss", {"log_target": True}, lambda t: ([_logs(t)[0][0]], [_logs(t)[1][0].log()])),
    Case("SoftMarginLoss", {}, _signs),
    Case("HingeEmbeddingLoss", {"margin": 0.5}, _signs),
    Case("CrossEntropyLoss", {}, _scores),
    Case("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, _ignored),
    Case("CrossEntropyLoss", {"label_smoothing": 0.2}, _single),
    Case("CrossEntropyLoss", {"weight": WEIGHT}, _images),
    Case("CrossEntropyLoss", {"ignore_index": 2}, _channels_last),
    Case("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, _probabilities),
    Case("CrossEntropyLoss", {"label_smoothing": 0.3}, _image_probabilities),
    Case("NLLLoss", {"weight": WEIGHT}, _ignored),
    Case("NLLLoss", {}, _channels_last),
    Case("MultiMarginLoss", {"p": 2, "margin": 0.5, "weight": WEIGHT}, _scores),
    Case("MultiMarginLoss", {}, _single),
    Case("TripletMarginLoss", {"margin": 1.5, "p": 3.0, "swap": True}, _triplets),
    Case("TripletMarginLoss", {}, lambda t: ([x.view(7, 1, 5) for x in _triplets(t)[0]], [])),
    Case("CosineEmbeddingLoss", {"margin": 0.2}, _embeddings),
    Case("PoissonNLLLoss", {"full": True}, _counts),
    Case("PoissonNLLLoss", {"log_input": False, "eps": 1e-3}, _rates),
]

# Losses that PyTorch does not have, with inputs for them.
OWN = [
    Case("LogCoshLoss", {}, _pair),
    Case("HingeLoss", {"squared": True}, _signs),
    Case("SigmoidFocalLoss", {"gamma": 1.5}, _labels),
    Case("FocalLoss", {"alpha": WEIGHT}, _scores),
    Case("FocalLoss", {"gamma": 0.5}, _images),
    Case("ContrastiveLoss", {"margin": 4.0}, lambda t: (_embeddings(t)[0], [classes(3, 2, 7)])),
    Case("TripletMarginLoss", {"squared": True}, _triplets),
    Case("MultiMarginLoss", {"average_classes": False, "p": 2}, _scores),
]


def fitted(arguments: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Return arguments with their tensors in a dtype."""
    return {
        name: x.to(dtype) if isinstance(x, torch.Tensor) else x for name, x in arguments.items()
    }


def evaluated(
    loss_fn: Callable[..., torch.Tensor],
    inputs: list[torch.Tensor],
    others: list[torch.Tensor],
    upstream: bool = True,
) -> list[torch.Tensor]:
    """Return the value, and the gradients from one above that is not one."""
    leaves = [x.detach().clone(memory_format=torch.preserve_format) for x in inputs]
    value = loss_fn(*(x.requires_grad_() for x in leaves), *others)
    factor = normal(9, *value.shape, dtype=value.dtype) if upstream else torch.ones_like(value)
    value.backward(factor)
    return [value.detach(), *(x.grad for x in leaves)]
