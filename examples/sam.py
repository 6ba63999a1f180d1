"""Sharpness-aware minimization with SGD and Adam: flatness, test error and cost.

A perceptron learns 359 digits, with correct labels and with a fifth of the labels drawn at random,
and is tested on the other 1,438. The experiment shows the effect of rho on the test error, the cost
of a second gradient per step, and that measures of flatness depend on the distance.

    python examples/sam.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import fastoptim as fo
import report
from images import digits
from networks import Array, Dense, Network, ReLU

BATCH, EPOCHS = 64, 60
RHOS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
NEAR, FAR = 0.05, 0.5  # The distances at which the sharpness is measured.
NOISES = {"right labels": 0.0, "a fifth of the labels drawn at random": 0.2}
BASES: dict[str, Callable[[fo.FlatBuffer, int], Any]] = {
    "SGD": lambda p, n: fo.SGD(p, lr=fo.schedules.cosine(0.1, n), momentum=0.9),
    "Adam": lambda p, n: fo.Adam(p, lr=fo.schedules.cosine(0.01, n)),
}


class Result(NamedTuple):
    """The result of one training."""

    train_loss: float
    test_error: float
    near: float
    far: float
    curvature: float
    seconds: float


def sharpness(network: Network, x: Array, y: Array, rho: float) -> float:
    """Return the rise of the loss at rho g / |g|, the point of SAM; restores the parameters."""
    loss = network.loss_and_gradients(x, y)
    params, grads = network.params.flat, network.grads.flat
    kept = params.copy()
    params += rho / np.linalg.norm(grads) * grads
    rise = network.evaluate(x, y)[0] - loss
    params[:] = kept
    return rise


def curvature(network: Network, x: Array, y: Array, rounds: int = 20, eps: float = 0.01) -> float:
    """Return the largest second derivative of the loss along any direction (power iteration)."""
    params, grads = network.params.flat, network.grads.flat
    kept = params.copy()
    direction = np.random.default_rng(0).normal(size=params.size).astype(params.dtype)
    length = 1.0
    for _ in range(rounds):
        direction /= np.linalg.norm(direction)
        ahead = direction * np.float32(eps)
        params[:] = kept + ahead
        network.loss_and_gradients(x, y)
        slope = grads.copy()
        params[:] = kept - ahead
        network.loss_and_gradients(x, y)
        direction = (slope - grads) / (2 * eps)
        length = float(np.linalg.norm(direction))
    params[:] = kept
    return length


def train(base: str, rho: float, noise: float, seed: int, epochs: int) -> Result:
    data = digits(seed, test=0.8)
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(len(data.y)) < noise, rng.integers(0, 10, len(data.y)), data.y)
    network = Network([Dense(64), ReLU(), Dense(10)], (64,), seed)
    batches = len(data.x) // BATCH
    opt = BASES[base](network.params, epochs * batches)
    sam = fo.SAM(opt, rho)
    start = time.perf_counter()
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(data.x)), batches):

            def closure(rows: Array = rows) -> tuple[float, fo.FlatBuffer]:
                return network.loss_and_gradients(data.x[rows], y[rows]), network.grads

            if rho:
                sam.step(closure)
            else:
                opt.step(closure()[1])
    seconds = time.perf_counter() - start
    return Result(
        network.evaluate(data.x, y)[0],
        1 - network.evaluate(data.x_test, data.y_test)[1],
        sharpness(network, data.x, y, NEAR),
        sharpness(network, data.x, y, FAR),
        curvature(network, data.x, y),
        seconds,
    )


def draw(found: dict[tuple[str, str, str], Array]) -> Figure:
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, (title, value) in zip(
        panels,
        (
            ("test error", Result._fields.index("test_error")),
            (f"sharpness: rise of the loss at {FAR}", Result._fields.index("far")),
            ("largest curvature", Result._fields.index("curvature")),
        ),
        strict=True,
    ):
        for color, base in enumerate(BASES):
            for style, noise in zip(("o-", "o--"), NOISES, strict=True):
                runs = np.array([found[noise, base, f"{rho:g}"][:, value] for rho in RHOS])
                mean, error = runs.mean(axis=1), runs.std(axis=1) / np.sqrt(runs.shape[1])
                places = range(len(RHOS))
                axes.errorbar(
                    places, mean, error, fmt=style, color=f"C{color}", label=f"{base}, {noise}"
                )
        axes.set(title=title, xlabel="rho", yscale="log")
        axes.set_xticks(range(len(RHOS)), [f"{rho:g}" for rho in RHOS])
    panels[0].legend(fontsize="x-small")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    seeds, epochs = (2, 3) if asked.quick else (6, EPOCHS)
    settings = [(f"{rho:g}", rho, epochs) for rho in RHOS]
    settings[1:1] = [
        ("0, a third of the epochs", 0.0, epochs // 3),
        ("0, twice the epochs", 0.0, 2 * epochs),
    ]
    bar = tqdm(total=len(NOISES) * len(BASES) * len(settings), unit="setting")
    found: dict[tuple[str, str, str], Array] = {}
    for title, noise in NOISES.items():
        for base in BASES:
            for name, rho, passes in settings:
                results = [train(base, rho, noise, seed, passes) for seed in range(seeds)]
                found[title, base, name] = np.array(results)
                bar.update()
    bar.close()
    for title in NOISES:
        rows = []
        for base in BASES:
            for name, *_ in settings:
                runs = found[title, base, name]
                mean = Result(*runs.mean(axis=0))
                error = runs[:, 1].std(ddof=1) / np.sqrt(seeds)
                rows.append(
                    [
                        f"{base}, rho {name}",
                        f"{mean.test_error:.1%} ± {100 * error:.1f}",
                        f"{mean.train_loss:.3f}",
                        f"{mean.near:.4f}",
                        f"{mean.far:.3f}",
                        f"{mean.curvature:.2f}",
                        f"{1000 * mean.seconds:.0f} ms",
                    ]
                )
        heads = ["test error", "training loss", f"rise at {NEAR}", f"rise at {FAR}"]
        report.table(
            f"With {title}, mean of {seeds} seeds ± standard error",
            ["", *heads, "curvature", "time"],
            rows,
        )
    report.picture(draw(found), asked.output, "sam")


if __name__ == "__main__":
    main()
