"""Losses with their gradient in a reused buffer, compared with other libraries and with a stream.

The stream is a pass over as many bytes as the loss moves, by plain loops on the same threads, which
read two arrays and write one of these. A gradient counts twice, because a store reads the line
first. The ratio of the stream is the share of this upper bound that the loss reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

import fastoptim as fo
import harness
from fastoptim.commands.bench.contestants import (
    numpy_loss_of_classes,
    optax_cross_entropy,
    our_loss,
    torch_loss,
)
from harness import Array, Contestant

Labels = npt.NDArray[np.int64]

# The numbers of classes for which rows are processed in groups.
FEW = (2, 3, 5, 10, 16, 26, 100)


def our_gradients(loss: Any, *inputs: npt.NDArray[Any], count: int) -> Contestant:
    """A loss with gradients with respect to its first inputs."""
    out = tuple(np.empty_like(x) for x in inputs[:count])
    return Contestant(
        lambda: loss.value_and_grad(*inputs, out=out),
        lambda: [loss.value_and_grad(*inputs, out=out)[0], *out],
    )


def torch_gradients(loss: Any, *inputs: Array | Labels, count: int) -> Contestant:
    import torch

    tensors = [torch.tensor(x, requires_grad=i < count) for i, x in enumerate(inputs)]
    found: list[Array | float] = []

    def run() -> None:
        value = loss(*tensors)
        gradients = torch.autograd.grad(value, tensors[:count])
        found[:] = [value.item(), *(gradient.numpy() for gradient in gradients)]

    return Contestant(run, lambda: found)


def ceiling(moved: int, size: int) -> dict[str, Contestant]:
    """Return a stream over so many bytes for each of the elements."""
    return {f"stream of {moved} B": harness.Stream(1, size * moved // 12)}


def exact(loss: Any, *inputs: Array | Labels, count: int = 1) -> dict[str, Contestant]:
    """Return the loss and its gradients in float64."""
    wide: list[Any] = [x.astype("f8") if x.dtype == np.float32 else x for x in inputs]
    make = partial(our_loss if count == 1 else partial(our_gradients, count=count), loss, *wide)
    return {"float64": harness.Exact(make)}


def torch_focal(logits: Any, target: Any) -> Any:
    """Focal loss in PyTorch operations, as commonly written."""
    import torch

    log_p = torch.log_softmax(logits, 1).gather(1, target[:, None])[:, 0]
    return (-((1 - log_p.exp()) ** 2) * log_p).mean()


def torchvision_focal(x: Any, y: Any) -> Any:
    """Return the mean of torchvision's `sigmoid_focal_loss`, by the same operations."""
    import torch

    p = x.sigmoid()
    cost = torch.nn.functional.binary_cross_entropy_with_logits(x, y, reduction="none")
    loss = cost * (1 - (p * y + (1 - p) * (1 - y))) ** 2.0
    return ((0.25 * y + 0.75 * (1 - y)) * loss).mean()


def torch_log_cosh(x: Any, y: Any) -> Any:
    """Return the mean of log-cosh, composed of operations that do not overflow."""
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
        *((65536, classes, 0.0) for classes in FEW),
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
        found |= ceiling(12, x.size) | exact(loss, x, target)
        smoothed = f", label smoothing {smoothing}" if smoothing else ""
        yield f"{rows} x {classes}{smoothed}", found


def of_rows(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    rng = np.random.default_rng(0)
    for rows, classes in (128, 10), (65536, 10), (8192, 1000):
        rows = asked.size(rows, 32)
        # Integer steps, so that all libraries have the same scores exactly at the kink.
        x = (np.rint(64 * rng.standard_normal((rows, classes))) / 64).astype(np.float32)
        target = rng.integers(0, classes, rows)
        for name, loss, theirs in (
            ("multi-margin", fo.losses.MultiMarginLoss(), "multi_margin_loss"),
            ("squared multi-margin", fo.losses.MultiMarginLoss(p=2), "multi_margin_loss"),
            ("NLL", fo.losses.NLLLoss(), "nll_loss"),
        ):
            found = {"fastoptim": our_loss(loss, x, target)}
            if harness.HAS_TORCH:
                arguments = {"p": 2} if name.startswith("squared") else {}
                found["torch"] = torch_loss(theirs, x, target, **arguments)
            found |= exact(loss, x, target)
            yield f"{name}, {rows} x {classes}", found
        found = {"fastoptim": our_loss(fo.losses.FocalLoss(), x, target)}
        if harness.HAS_TORCH:
            found["torch composed"] = torch_gradients(torch_focal, x, target, count=1)
        found |= exact(fo.losses.FocalLoss(), x, target)
        yield f"focal, {rows} x {classes}", found


def of_vectors(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    rows, length = asked.size(65536, 32), 128
    a, b, c = (x.reshape(rows, length) for x in harness.arrays(3, rows * length))
    signs = np.random.default_rng(1).choice([-1, 1], rows)
    losses = fo.losses
    for name, loss, theirs, inputs, count in (
        ("triplet", losses.TripletMarginLoss(), "triplet_margin_loss", (a, b, c), 3),
        (
            "cosine embedding",
            losses.CosineEmbeddingLoss(),
            "cosine_embedding_loss",
            (a, b, signs),
            2,
        ),
    ):
        found = {"fastoptim": our_gradients(loss, *inputs, count=count)}
        if harness.HAS_TORCH:
            import torch

            function = getattr(torch.nn.functional, theirs)
            found["torch"] = torch_gradients(function, *inputs, count=count)
        # An array per input and gradient; gradients count twice.
        found |= ceiling(36 if count == 3 else 24, rows * length)
        found |= exact(loss, *inputs, count=count)
        yield f"{name}, {rows} x {length}", found


def elementwise(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    size = asked.size(1 << 23, 1 << 12)
    x, target = harness.arrays(2, size)
    found = {"fastoptim": our_loss(fo.losses.MSELoss(), x, target)}
    if harness.HAS_TORCH:
        found["torch"] = torch_loss("mse_loss", x, target)
    found["NumPy out="] = numpy_mse(x, target)
    yield "MSE", found | ceiling(16, size) | exact(fo.losses.MSELoss(), x, target)
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
        yield name, found | ceiling(16, size) | exact(loss, x, y)


def our_penalty(regularizer: Any, w: Array, g: Array) -> Contestant:
    g = g.copy()
    return Contestant(lambda: regularizer.add_grad([w], [g]), lambda: [g])


def numpy_penalty(regularizer: Any, w: Array, g: Array) -> Contestant:
    g, scratch = g.copy(), np.empty_like(w)

    def run() -> None:
        if regularizer.l1 != 0:
            np.sign(w, out=scratch)
            np.multiply(scratch, np.float32(regularizer.l1), out=scratch)
            np.add(g, scratch, out=g)
        if regularizer.l2 != 0:
            np.multiply(w, np.float32(2 * regularizer.l2), out=scratch)
            np.add(g, scratch, out=g)

    return Contestant(run, lambda: [g])


def penalties(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    size = asked.size(1 << 23, 1 << 12)
    w, g = harness.arrays(2, size)
    kinds = fo.regularizers
    for regularizer in kinds.L1(1e-3), kinds.L2(1e-3), kinds.ElasticNet(1e-3, 1e-3):
        found = {
            "fastoptim": our_penalty(regularizer, w, g),
            "NumPy out=": numpy_penalty(regularizer, w, g),
        }
        yield type(regularizer).__name__, found | ceiling(12, size)


def product(function: Callable[..., Any], *inputs: Any) -> Contestant:
    return Contestant(lambda: function(*inputs), lambda: [np.asarray(function(*inputs))])


def products(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    rng = np.random.default_rng(0)
    for rows, classes, length in (256, 10, 3072), (8192, 10, 784), (1024, 1000, 512):
        rows = asked.size(rows, 32)
        x = rng.standard_normal((rows, length), dtype=np.float32)
        W = rng.standard_normal((classes, length), dtype=np.float32)
        found = {"fastoptim": product(fo.linear_scores, W, x)}
        if harness.HAS_TORCH:
            import torch

            linear = torch.nn.functional.linear
            found["torch"] = product(linear, torch.tensor(x), torch.tensor(W))
        yield f"{rows} x {length} times {length} x {classes}", found


def main() -> None:
    asked = harness.options(__doc__ or "")
    harness.compare(
        "cross-entropy and its gradient",
        cross_entropies(asked),
        asked,
        goals={f"65536 x {classes}/torch": 4 for classes in FEW},
    )
    harness.compare("losses of rows and their gradients", of_rows(asked), asked)
    harness.compare(
        "losses of vectors and their gradients",
        of_vectors(asked),
        asked,
        goals={"triplet, 65536 x 128/torch": 20},
    )
    harness.compare(
        "elementwise losses and their gradients on 8 Mi",
        elementwise(asked),
        asked,
        goals={"stream of 16 B": 0.9},
    )
    harness.compare(
        "gradients of penalties on 8 Mi", penalties(asked), asked, goals={"stream of 12 B": 0.9}
    )
    harness.compare("scores of a linear classifier, by NumPy's BLAS", products(asked), asked)


if __name__ == "__main__":
    main()
