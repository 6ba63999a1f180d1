"""Losses with their gradient, into a buffer that is used again: fastoptim beside the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastoptim as fo
import harness
from fastoptim._contestants import (
    numpy_loss_of_classes,
    optax_cross_entropy,
    our_loss,
    torch_loss,
)
from harness import Array, Contestant


def torchvision_focal(x: Any, y: Any) -> Any:
    """Give the mean of torchvision's `sigmoid_focal_loss`, as it is composed there."""
    import torch

    p = x.sigmoid()
    cost = torch.nn.functional.binary_cross_entropy_with_logits(x, y, reduction="none")
    loss = cost * (1 - (p * y + (1 - p) * (1 - y))) ** 2.0
    return ((0.25 * y + 0.75 * (1 - y)) * loss).mean()


def torch_log_cosh(x: Any, y: Any) -> Any:
    """Give the mean of log-cosh as one composes it, safe from overflow."""
    import torch

    d = x - y
    return (d + torch.nn.functional.softplus(-2 * d) - math.log(2)).mean()


def numpy_mse(x: Array, target: Array) -> Contestant:
    out = np.empty_like(x)
    found: list[float] = []

    def run() -> None:
        np.subtract(x, target, out=out)
        found[:] = [float(np.dot(out, out)) / x.size]
        np.multiply(out, 2 / x.size, out=out)

    return Contestant(run, lambda: [*found, out])


def cross_entropies(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    rng = np.random.default_rng(0)
    for rows, classes, smoothing in (
        (128, 10, 0.0),
        (65536, 10, 0.0),
        (8192, 1000, 0.0),
        (8192, 1000, 0.1),
        (1024, 32000, 0.0),
    ):
        rows = asked.size(rows, 32)
        x = rng.standard_normal((rows, classes), dtype=np.float32)
        target = rng.integers(0, classes, rows)
        loss = fo.losses.CrossEntropyLoss(label_smoothing=smoothing)
        found = {"fastoptim": our_loss(loss, x, target)}
        if harness.HAS_TORCH:
            found["torch"] = torch_loss("cross_entropy", x, target, label_smoothing=smoothing)
        if smoothing == 0:
            if harness.HAS_OPTAX:
                found["optax jit"] = optax_cross_entropy(x, target)
            found["NumPy out="] = numpy_loss_of_classes(x, target)
        smoothed = f", label smoothing {smoothing}" if smoothing else ""
        yield f"{rows} x {classes}{smoothed}", found


def elementwise(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    size = asked.size(1 << 23, 1 << 12)
    x, target = harness.arrays(2, size)
    found = {"fastoptim": our_loss(fo.losses.MSELoss(), x, target)}
    if harness.HAS_TORCH:
        found["torch"] = torch_loss("mse_loss", x, target)
    found["NumPy out="] = numpy_mse(x, target)
    yield "MSE", found
    signs, labels = np.sign(target), (target > 0).astype(np.float32)
    cases: list[tuple[str, fo.losses.Loss, str | Callable[..., Any], Array]] = [
        ("L1", fo.losses.L1Loss(), "l1_loss", target),
        ("Huber", fo.losses.HuberLoss(), "huber_loss", target),
        ("smooth L1", fo.losses.SmoothL1Loss(), "smooth_l1_loss", target),
        ("soft margin", fo.losses.SoftMarginLoss(), "soft_margin_loss", signs),
        ("Poisson", fo.losses.PoissonNLLLoss(), "poisson_nll_loss", target),
        ("log-cosh", fo.losses.LogCoshLoss(), torch_log_cosh, target),
        (
            "BCE with logits",
            fo.losses.BCEWithLogitsLoss(),
            "binary_cross_entropy_with_logits",
            labels,
        ),
        ("sigmoid focal", fo.losses.SigmoidFocalLoss(), torchvision_focal, labels),
    ]
    for name, loss, theirs, y in cases:
        found = {"fastoptim": our_loss(loss, x, y)}
        if harness.HAS_TORCH:
            found["torch"] = torch_loss(theirs, x, y)
        yield name, found


def main() -> None:
    asked = harness.options(__doc__ or "")
    harness.compare("cross-entropy and its gradient", cross_entropies(asked), asked)
    harness.compare("elementwise losses and their gradients on 8 Mi", elementwise(asked), asked)


if __name__ == "__main__":
    main()
