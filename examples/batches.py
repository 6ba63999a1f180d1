"""The batch size: the cost and the progress of a step, and the noise of its gradient.

A network (64-64-10) learns scikit-learn's handwritten digits by gradient descent with batches of 1,
32, 128, 256 and all digits, each at its best rate for the same time. Then the angle between the
gradient of a batch and that of all digits is measured at the start and at lower losses, and
compared with the prediction from the noise of single gradients (McCandlish et al., 2018). Last, the
loss surface of one batch is compared with that of all digits.

    python examples/batches.py
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import fastoptim as fo
import report
from images import Images, digits
from networks import Dense, Network, ReLU

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SIZES = (1, 32, 64, 128, 256)
TARGET = 0.1  # The target of the loss over all digits.


def start() -> Network:
    return Network([Dense(64), ReLU(), Dense(10)], (64,))


def batches(n: int, size: int) -> Iterator[Any]:
    """Yield batches indefinitely, shuffled for each pass unless a batch has all rows."""
    for epoch in count():
        yield from [slice(None)] if size == n else fo.minibatches(n, size, epoch, drop_last=True)


@dataclass
class Run:
    lr: float
    step_seconds: float
    steps: Any
    losses: Any
    accuracy: float

    def reached(self) -> float:
        """Return the number of steps until the loss is first below the target."""
        below = np.flatnonzero(self.losses < TARGET)
        return float(self.steps[below[0]]) if len(below) else np.inf


def train(data: Images, size: int, lr: float, seconds: float) -> Run:
    """Train for this many seconds of steps, not counting the time of measurements."""
    x, y = data.x, data.y
    network = start()
    opt = fo.SGD(network.params, lr=lr)
    stream = batches(len(x), size)
    steps, losses, spent = [0], [network.evaluate(x, y)[0]], 0.0
    while spent < seconds:
        before = time.perf_counter()
        more = max(1, steps[-1] // 20)
        for _ in range(more):
            rows = next(stream)
            network.loss_and_gradients(x[rows], y[rows])
            opt.step(network.grads)
        spent += time.perf_counter() - before
        steps.append(steps[-1] + more)
        losses.append(network.evaluate(x, y)[0])
    accuracy = network.evaluate(data.x_test, data.y_test)[1]
    return Run(lr, spent / steps[-1], np.array(steps), np.array(losses), accuracy)


def gradient(network: Network, x: Any, y: Any) -> Any:
    """Return all gradients in one array."""
    network.loss_and_gradients(x, y)
    return network.grads.flat.astype(np.float64)


def angles(network: Network, x: Any, y: Any, draws: int) -> tuple[list[float], Any, float]:
    """Return the mean angles to the full gradient, their predictions, and the noise scale."""
    rng = np.random.default_rng(2)
    full = gradient(network, x, y)
    square = full @ full
    single = (gradient(network, x[i : i + 1], y[i : i + 1]) - full for i in range(len(x)))
    noise = float(np.mean([g @ g for g in single]) / square)
    measured = []
    for size in SIZES:
        found = []
        for _ in range(draws):
            rows = rng.choice(len(x), size, replace=False)
            g = gradient(network, x[rows], y[rows])
            found.append(np.arccos(g @ full / np.sqrt(g @ g * square)))
        measured.append(float(np.degrees(np.mean(found))))
    # A batch of all rows, drawn without replacement, has no noise.
    left = [noise / size * (len(x) - size) / (len(x) - 1) for size in SIZES]
    return measured, np.degrees(np.arctan(np.sqrt(left))), noise


def descent(x: Any, y: Any, targets: tuple[float, ...]) -> Iterator[tuple[float, Network]]:
    """Train on all rows; return the loss and the network when it is first below each target."""
    network = start()
    opt = fo.SGD(network.params, lr=0.3)
    for target in targets:
        while (loss := network.evaluate(x, y)[0]) > target:
            network.loss_and_gradients(x, y)
            opt.step(network.grads)
        yield loss, network


def overfit(params: fo.FlatBuffer, batch: Any, everything: Any) -> tuple[list[float], list[float]]:
    """Train on one batch; return its losses and those over all rows."""
    network = start()
    network.params.flat[:] = params.flat
    opt = fo.SGD(network.params, lr=0.3)
    own, whole = [], []
    for _ in range(200):
        whole.append(network.evaluate(*everything)[0])
        own.append(network.loss_and_gradients(*batch))
        opt.step(network.grads)
    return own, whole


def loss(part: Any, params: fo.FlatBuffer) -> float:
    network = start()
    network.params.flat[:] = params.flat
    return network.evaluate(*part)[0]


def draw(runs: dict[int, Run], turned: dict[str, Any], params: Any, parts: Any) -> Figure:
    figure = Figure(figsize=(14, 7.5), layout="constrained")
    (by_step, by_time, by_size), lower = figure.subplots(2, 3)
    for size, run in runs.items():
        label = f"{size}, rate {run.lr:g}"
        by_step.loglog(run.steps[1:], run.losses[1:], label=label)
        by_time.loglog(run.steps[1:] * run.step_seconds, run.losses[1:], label=label)
    by_step.set(xlabel="step", ylabel="loss over all digits", title="by steps")
    by_time.set(xlabel="seconds", title="by time")
    by_step.legend(title="batch")
    for i, (name, (measured, predicted, _)) in enumerate(turned.items()):
        by_size.semilogx(SIZES, measured, f"C{i}o", label=name)
        by_size.semilogx(SIZES, predicted, f"C{i}")
    by_size.set(xlabel="batch", title="degrees to the full gradient; lines: predicted")
    by_size.legend()
    first, second = (fo.landscape.random_direction(params, seed=seed) for seed in (1, 2))
    steps = np.linspace(-1, 1, 31)
    for axes, (name, part) in zip(lower, parts.items(), strict=True):
        plane = fo.landscape.plane(partial(loss, part), params, first, second, steps, steps)
        fo.plot.landscape(plane, ax=axes).set_title(f"landscape of {name}")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    seconds, draws = (0.05, 5) if asked.quick else (1.0, 200)
    data = digits()
    x, y = data.x, data.y
    runs = {}
    for size in tqdm((1, 32, 128, 256, len(x)), unit="size"):
        tried = [train(data, size, lr, seconds) for lr in RATES]
        runs[size] = min(tried, key=lambda run: (run.reached(), run.losses[-1]))
    report.table(
        f"To a loss of {TARGET}",
        ["batch", "rate", "a step", "steps", "digits", "seconds", "test accuracy at the end"],
        [
            [
                f"{size}",
                f"{run.lr:g}",
                f"{run.step_seconds * 1e6:.0f} us",
                f"{run.reached():.0f}",
                f"{run.reached() * size:.0f}",
                f"{run.reached() * run.step_seconds:.3f}",
                f"{run.accuracy:.1%}",
            ]
            for size, run in runs.items()
        ],
    )
    turned = {}
    for value, network in descent(x, y, (np.inf, 0.5, TARGET)):
        turned[f"loss {value:.2f}"] = angles(network, x, y, draws)
        params = network.params
    report.table(
        "Degrees to the full gradient, measured / predicted",
        ["", "noise scale", *(f"batch of {size}" for size in SIZES)],
        [
            [name, f"{noise:.0f}", *(f"{m:.0f} / {p:.0f}" for m, p in zip(*pair, strict=True))]
            for name, (*pair, noise) in turned.items()
        ],
    )
    parts = {
        "a batch of 32": (x[:32], y[:32]),
        "another batch of 32": (x[32:64], y[32:64]),
        "all digits": (x, y),
    }
    rows = []
    for name, part in parts.items():
        own, whole = overfit(params, part, parts["all digits"])
        rows.append([name, *(f"{a[0]:.3f} to {a[-1]:.4f}" for a in (own, whole))])
    report.table("200 steps on one batch alone", ["", "its loss", "over all digits"], rows)
    report.picture(draw(runs, turned, params, parts), asked.output, "batches")


if __name__ == "__main__":
    main()
