"""A convolutional network learns digits with the parts of PyTorch, and with those of this package.

The same network, batches and rates: only the loss, the optimizer and clipping are others. The
curves lie on top of each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

import fastoptim.torch
import report
from images import Images, digits


@dataclass
class Run:
    """What a training gave."""

    losses: list[float]
    accuracy: float
    # The seconds of the loss with its gradient, clipping and steps, and of all.
    parts: float
    total: float


def network() -> Any:
    """Return a small network of two convolutions, always the same."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 8, 8)),
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 16, 10),
    )


def torch_parts(model: Any) -> tuple[Any, Callable[[], None]]:
    """Return the loss and the step of PyTorch."""
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=False)

    return torch.nn.CrossEntropyLoss(label_smoothing=0.1), step


def fast_parts(model: Any) -> tuple[Any, Callable[[], None]]:
    """Return the loss of this package, and its step, which clips and zeroes on the way."""
    opt = fastoptim.torch.AdamW(model.parameters(), lr=2e-3)

    def step() -> None:
        opt.step(max_norm=1.0, zero_grad=True)

    return fastoptim.torch.CrossEntropyLoss(label_smoothing=0.1), step


def train(parts: Callable[[Any], Any], data: Images, epochs: int, batch: int = 64) -> Run:
    """Train the network and return the losses by step."""
    model = network()
    loss_fn, step = parts(model)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    rng, losses, spent = np.random.default_rng(0), [], 0.0
    began = time.perf_counter()
    for _ in range(epochs):
        for rows in np.split(rng.permutation(len(x)), range(batch, len(x), batch)):
            scores = model(x[rows])
            # The gradient by the scores, apart from that of the network.
            leaf = scores.detach().requires_grad_()
            start = time.perf_counter()
            loss = loss_fn(leaf, y[rows])
            loss.backward()
            spent += time.perf_counter() - start
            scores.backward(leaf.grad)
            start = time.perf_counter()
            step()
            spent += time.perf_counter() - start
            losses.append(loss.item())
    total = time.perf_counter() - began
    with torch.no_grad():
        predicted = model(torch.from_numpy(data.x_test)).argmax(-1).numpy()
    return Run(losses, float((predicted == data.y_test).mean()), spent, total)


PARTS = {"PyTorch": torch_parts, "fastoptim.torch": fast_parts}


def draw(runs: dict[str, Run]) -> Any:
    """Draw the losses by step, and the seconds beside."""
    figure, (curves, times) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for (name, run), style in zip(runs.items(), ("-", ":"), strict=True):
        curves.plot(run.losses, style, label=name)
    curves.set(xlabel="step", ylabel="loss", yscale="log")
    curves.legend()
    times.bar(list(runs), [run.parts for run in runs.values()])
    times.set(ylabel="seconds in loss, clipping and step")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    data, epochs = digits(), 2 if asked.quick else 20
    for parts in PARTS.values():
        train(parts, data, 1)
    runs = {name: train(parts, data, epochs) for name, parts in PARTS.items()}
    ours, theirs = (np.array(runs[name].losses) for name in ("fastoptim.torch", "PyTorch"))
    report.table(
        f"Digits, {epochs} epochs, {len(ours)} steps",
        ["", "last loss", "accuracy", "loss, clipping, step", "all"],
        [
            [
                name,
                f"{run.losses[-1]:.5f}",
                f"{run.accuracy:.1%}",
                f"{1000 * run.parts:.0f} ms",
                f"{1000 * run.total:.0f} ms",
            ]
            for name, run in runs.items()
        ],
    )
    print(f"\nThe largest difference of two losses is {np.abs(ours - theirs).max():.1e}.")
    report.picture(draw(runs), asked.output, "torch_convolution")


if __name__ == "__main__":
    main()
