"""Batches of 64 to 16,384 with the same number of epochs: optimizers and scaling rules.

A perceptron learns letters for 20 epochs: 10,240 steps with batches of 64, and 40 with batches of
16,384. Each optimizer uses its best rate for a batch of 256. For other batch sizes, the rate is
constant, scaled by the square root, or scaled linearly. The experiment shows the range of each
rule.

    python examples/large_batches.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import fastoptim as fo
import report
from images import Images, letters
from networks import Dense, Flatten, Network, ReLU

BASE_BATCH = 256
RULES = {"constant": 0.0, "square root": 0.5, "linear": 1.0}


def warm(lr: float, steps: int) -> Any:
    """Warm up over a twentieth of the steps, then decay by a cosine."""
    warm_up = max(1, steps // 20)
    return fo.schedules.warmup(fo.schedules.cosine(lr, steps - warm_up), warm_up)


def groups(params: fo.FlatBuffer, biases: dict[str, Any]) -> list[dict[str, Any]]:
    """Separate the weights from the biases, which start at zero, so their norm is meaningless."""
    parts: list[dict[str, Any]] = [
        {name: array for name, array in params.items() if name.startswith(kind)} for kind in "wb"
    ]
    return [{"params": parts[0]}, {"params": parts[1], "layer_adaptation": False, **biases}]


def lars(lr: float, params: fo.FlatBuffer, steps: int) -> Any:
    # Biases are not scaled by the trust coefficient of 0.001, and would diverge at the full rate.
    parts = groups(params, {"lr": warm(lr / 100, steps)})
    return fo.LARS(parts, lr=warm(lr, steps), weight_decay=1e-4)


def preset(batch: int, params: fo.FlatBuffer, steps: int) -> Any:
    """Use the presets for large image datasets, whose rates are low for so short a training."""
    chosen = fo.presets.for_batch_size(batch, steps)
    adapts = chosen.optimizer in (fo.LARS, fo.LAMB)
    return chosen.optimizer(
        groups(params, {}) if adapts else params, **{**chosen.arguments, "lr": chosen.schedule}
    )


# The rates at batch 256 are the best of 0.005, 0.01, 0.02, ..., 8 by the loss on the test fonts.
OPTIMIZERS: dict[str, tuple[float, Callable[[float, fo.FlatBuffer, int], Any]]] = {
    "SGD, momentum": (0.8, lambda lr, p, n: fo.SGD(p, lr=warm(lr, n), momentum=0.9)),
    "AdamW": (0.04, lambda lr, p, n: fo.AdamW(p, lr=warm(lr, n))),
    "LARS": (8.0, lars),
    "LAMB": (0.02, lambda lr, p, n: fo.LAMB(groups(p, {}), lr=warm(lr, n))),
}


def train(
    make: Callable[[fo.FlatBuffer, int], Any], data: Images, batch: int, epochs: int
) -> float:
    network = Network([Flatten(), Dense(100), ReLU(), Dense(26)], data.x.shape[1:])
    batches = len(data.x) // batch
    opt = make(network.params, epochs * batches)
    rng = np.random.default_rng(0)
    with np.errstate(over="ignore", invalid="ignore"):  # Divergence is a valid result.
        for _ in range(epochs):
            for rows in rng.permutation(len(data.x))[: batches * batch].reshape(batches, batch):
                network.loss_and_gradients(data.x[rows], data.y[rows])
                opt.step(network.grads)
        return network.evaluate(data.x_test, data.y_test)[1]


def draw(found: dict[tuple[str, str], list[float]], sizes: list[int]) -> Figure:
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, len(OPTIMIZERS), sharey=True)
    for axes, name in zip(panels, OPTIMIZERS, strict=True):
        for rule in RULES:
            axes.semilogx(sizes, found[name, rule], "o-", base=2, label=f"rate: {rule}")
        axes.set(title=name, xlabel="batch", xticks=sizes, xticklabels=[f"{n:,}" for n in sizes])
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy")
    panels[0].legend(loc="lower left")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    count, epochs = (2_048, 10) if asked.quick else (32_768, 20)
    sizes = [64, 256, 1_024] if asked.quick else [64, 256, 1_024, 4_096, 16_384]
    data = letters(16, count)
    bar = tqdm(total=len(OPTIMIZERS) * (3 * len(sizes) - 2) + len(sizes), unit="training")
    found: dict[tuple[str, str], list[float]] = {}
    for name, (base, make) in OPTIMIZERS.items():
        known: dict[tuple[int, float], float] = {}  # All rules agree at the base.
        for rule, power in RULES.items():
            for batch in sizes:
                lr = base * (batch / BASE_BATCH) ** power
                if (batch, lr) not in known:
                    known[batch, lr] = train(partial(make, lr), data, batch, epochs)
                    bar.update()
                found.setdefault((name, rule), []).append(known[batch, lr])
    presets = []
    for batch in sizes:
        presets.append(train(partial(preset, batch), data, batch, epochs))
        bar.update()
    bar.close()
    rows = [[*key, *(f"{a:.1%}" for a in line)] for key, line in found.items()]
    report.table(
        f"Test accuracy after {epochs} epochs, by batch",
        ["", "rate", *(f"{batch:,}" for batch in sizes)],
        [*rows, ["for_batch_size", "linear", *(f"{a:.1%}" for a in presets)]],
    )
    steps = [f"{epochs * (count // batch):,}" for batch in sizes]
    report.table("Steps", ["", *(f"{batch:,}" for batch in sizes)], [["", *steps]])
    report.picture(draw(found, sizes), asked.output, "large_batches")


if __name__ == "__main__":
    main()
