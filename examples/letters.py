"""Recognition of letters: shifts, unseen fonts, resolution and convolutions.

A multilayer perceptron (256-100-26) and small convolutional networks learn A to Z from images of
16 by 16 pixels. The experiments show how a test depends on its split, how far a shift of two pixels
moves an image, and the effects of padding, stride and pooling on sizes, time and accuracy.

    python examples/letters.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import fastoptim as fo
import report
from images import FAMILIES, FONTS, Images, letters, shifted
from networks import Conv, Dense, Flatten, Layer, MaxPool, Network, ReLU

BATCH, LR = 64, 2e-3
SHIFTS = range(-4, 5)
NEAR = 1000  # The number of images in the search for nearest neighbours.
FAMILY = FAMILIES["Computer Modern"]
ASKED = ["cmr10", "cmti10", "cmss10"]  # The fonts of the test of all three splits.
SPLITS = {
    "other images of these fonts": FONTS,
    "other fonts of their family": [font for font in FONTS if font not in ASKED],
    "other families": [font for font in FONTS if font not in FAMILY],
}


def perceptron() -> list[Layer]:
    return [Flatten(), Dense(100), ReLU(), Dense(26)]


def convolutional(padding: str = "same", stride: int = 1, pool: bool = True) -> list[Layer]:
    layers: list[Layer] = []
    for channels in (8, 16):
        layers += [Conv(channels, 3, padding, stride), ReLU(), *([MaxPool()] if pool else [])]
    return [*layers, Flatten(), Dense(26)]


CONVOLUTIONS: dict[str, Callable[[], list[Layer]]] = {
    "same, pooling": convolutional,
    "valid, pooling": lambda: convolutional("valid"),
    "same, stride 2": lambda: convolutional(stride=2, pool=False),
    "same, neither": lambda: convolutional(pool=False),
}


class Trained:
    """A network, its cost and its accuracy."""

    def __init__(self, layers: list[Layer], data: Images, epochs: int, bar: Any) -> None:
        self.network = Network(layers, data.x.shape[1:])
        rng = np.random.default_rng(0)
        batches = len(data.x) // BATCH
        lr = fo.schedules.cosine(LR, epochs * batches)
        opt = fo.AdamW(self.network.params, lr=lr)
        start = time.perf_counter()
        for _ in range(epochs):
            for rows in rng.permutation(len(data.x))[: batches * BATCH].reshape(batches, BATCH):
                self.network.loss_and_gradients(data.x[rows], data.y[rows])
                opt.step(self.network.grads)
        self.seconds = (time.perf_counter() - start) / epochs
        self.train = self.accuracy(data.x, data.y)
        self.test = self.accuracy(data.x_test, data.y_test)
        bar.update()

    def accuracy(self, x: Any, y: Any) -> float:
        return self.network.evaluate(x, y)[1]

    @property
    def size(self) -> str:
        return f"{self.network.params.size:,}"

    @property
    def sides(self) -> str:
        """The sides of the images after each layer."""
        sides = [str(shape[0]) for shape in self.network.shapes if len(shape) == 3]
        return " ".join(side for i, side in enumerate(sides) if [side] != sides[i - 1 : i])


def how_far(x: Any, y: Any) -> list[list[str]]:
    """Compare a shift with the distance to the nearest image of the same and another letter."""
    x, y = x[:NEAR], y[:NEAR]
    flat = x.reshape(len(x), -1)
    squares = (flat**2).sum(axis=1)
    between = np.sqrt(np.maximum(squares + squares[:, None] - 2 * flat @ flat.T, 0))
    same = y == y[:, None]
    np.fill_diagonal(between, np.inf)
    rows = []
    for right in (1, 2):
        moved = shifted(x, right).reshape(flat.shape)
        far = np.abs(moved - flat) > 0.1
        inked = np.maximum(moved, flat) > 0.1
        distance = np.linalg.norm(moved - flat, axis=1).mean()
        rows.append([f"itself, {right} to the right", f"{distance:.2f}"])
        rows[-1] += [f"{far.mean():.0%}", f"{far.sum() / inked.sum():.0%}"]
    for name, of in (("nearest of its letter", same), ("nearest of another letter", ~same)):
        nearest = np.where(of, between, np.inf).min(axis=1)
        rows.append([name, f"{nearest[np.isfinite(nearest)].mean():.2f}", "", ""])
    return rows


def draw(curves: dict[str, list[float]], resolutions: Any, data: Images) -> Figure:
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    lines = [np.concatenate([*data.x_test[i : i + 12, ..., 0]], axis=1) for i in range(0, 144, 12)]
    left.imshow(np.concatenate(lines), cmap="gray")
    left.set(title="letters of fonts for the test", xticks=[], yticks=[])
    for name, accuracies in curves.items():
        middle.plot(SHIFTS, accuracies, "o-", markersize=3, label=name)
    middle.axvspan(-2, 2, color="0.93")
    middle.set(title="accuracy after a shift", xlabel="pixels to the right", ylim=(0, 1.02))
    middle.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    for kind, points in resolutions.items():
        right.semilogx(*zip(*(point[:2] for point in points), strict=True), "o-", label=kind)
        for x, y, name in points:
            right.annotate(name, (x, y), (4, -12), textcoords="offset points", fontsize=8)
    right.set(title="resolution", xlabel="parameters", ylabel="test accuracy")
    right.legend(fontsize="small", loc="lower right")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    count, epochs = (1_300, 1) if asked.quick else (26_000, 8)
    bar = tqdm(total=14, unit="network")
    moved, middle = letters(16, count), letters(16, count, move=0)
    mlp, cnn = (Trained(make(), moved, epochs, bar) for make in (perceptron, convolutional))
    splits = {}
    for name, fonts in SPLITS.items():
        data = letters(16, count, fonts=fonts, test_fonts=ASKED)
        splits[name] = Trained(perceptron(), data, epochs, bar)
    shifts = {
        "perceptron, centred": Trained(perceptron(), middle, epochs, bar),
        "convolutional, centred": Trained(convolutional(), middle, epochs, bar),
        "perceptron, moved": mlp,
        "convolutional, moved": cnn,
    }
    convolutions = {
        name: cnn if make is convolutional else Trained(make(), moved, epochs, bar)
        for name, make in CONVOLUTIONS.items()
    }
    resolutions: dict[str, list[tuple[int, float, str]]] = {}
    sizes = []
    for kind, make, known in (
        ("perceptron", perceptron, mlp),
        ("convolutional", convolutional, cnn),
    ):
        for size in (8, 16, 32):
            one = known if size == 16 else Trained(make(), letters(size, count), epochs, bar)
            point = (one.network.params.size, one.test, f"{size} x {size}")
            resolutions.setdefault(kind, []).append(point)
            sizes.append(
                [f"{kind}, {point[2]}", one.size, f"{one.test:.1%}", f"{one.seconds:.2f} s"]
            )
    bar.close()

    report.table(
        "The perceptron, tested on the same three fonts, by training set",
        ["", "training", "test"],
        [[name, f"{one.train:.1%}", f"{one.test:.1%}"] for name, one in splits.items()],
    )
    report.table(
        "From a centred letter to",
        ["", "distance", "inputs changed", "of those with ink"],
        how_far(middle.x_test, middle.y_test),
    )
    curves = {
        name: [one.accuracy(shifted(middle.x_test, k), middle.y_test) for k in SHIFTS]
        for name, one in shifts.items()
    }
    report.table(
        "Accuracy on centred test letters after a shift, by what the training images were",
        ["", *(f"{k:+d} px" for k in SHIFTS)],
        [[name, *(f"{a:.0%}" for a in line)] for name, line in curves.items()],
    )
    report.table(
        "Convolutions of 3 x 3, 8 and 16 channels",
        ["", "sides", "parameters", "test", "centred, +3 px", "time per epoch"],
        [
            [
                name,
                one.sides,
                one.size,
                f"{one.test:.1%}",
                f"{one.accuracy(shifted(middle.x_test, 3), middle.y_test):.1%}",
                f"{one.seconds:.2f} s",
            ]
            for name, one in convolutions.items()
        ],
    )
    report.table("Resolution", ["", "parameters", "test", "time per epoch"], sizes)
    report.picture(draw(curves, resolutions, moved), asked.output, "letters")


if __name__ == "__main__":
    main()
