"""A linear classifier of the size of CIFAR-10's: random search, gradients, and the loss surface.

The images have 32 x 32 pixels in three colours: scikit-learn's handwritten digits, enlarged four
times, as bright ink on backgrounds cut from its two photographs. The 10 x 3073 weights (the last
input is 1) are trained by random search, random local search and gradients. The gradients are
compared with numerical ones, and the loss is plotted along lines and over a plane.

    python examples/linear_classifier.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import fastoptim as fo
import report

LOSSES = {
    "softmax": fo.losses.CrossEntropyLoss(),
    "SVM": fo.losses.MultiMarginLoss(average_classes=False),
}
SIDE = 32


def images() -> tuple[Any, Any, Any, Any]:
    """Return rows of 3,073 numbers for training and test, and their labels."""
    rng = np.random.default_rng(0)
    pixels, labels = load_digits(return_X_y=True)
    photographs = load_sample_images().images
    ink = np.kron(pixels.reshape(-1, 8, 8) / 16, np.ones((4, 4)))[..., None] / 2
    rows = np.ones((len(ink), SIDE * SIDE * 3 + 1), np.float32)
    for row, shape in zip(rows, ink, strict=True):
        photograph = photographs[rng.integers(len(photographs))]
        top, left = rng.integers(0, np.array(photograph.shape[:2]) - SIDE)
        ground = photograph[top : top + SIDE, left : left + SIDE] / 255
        row[:-1] = (ground * (1 - shape) + shape).ravel()
    x, x_test, y, y_test = train_test_split(
        rows, labels, test_size=0.2, random_state=0, stratify=labels
    )
    mean = x[:, :-1].mean(0)
    for part in (x, x_test):
        part[:, :-1] -= mean
    return x, x_test, y, y_test


def accuracy(w: Any, x: Any, y: Any) -> float:
    return float(np.mean(fo.linear_scores(w, x).argmax(1) == y))


def value(loss: fo.losses.Loss, x: Any, y: Any, w: Any) -> float:
    return float(loss(fo.linear_scores(w, x), y))


def gradient(loss: fo.losses.Loss, x: Any, y: Any, w: Any) -> tuple[float, Any]:
    scores = fo.linear_scores(w, x)
    found, slope = loss.value_and_grad(scores, y, out=scores)
    return found, slope.T @ x


def search(kind: Any, loss: fo.losses.Loss, data: Any, tries: int, scale: float) -> Any:
    """Return the loss after each try, the seconds and the weights."""
    x, _, y, _ = data
    w = np.zeros((10, x.shape[1]), np.float32)
    found = kind(w, scale=scale)
    start = time.perf_counter()
    losses = [found.step(partial(value, loss, x, y)) for _ in range(tries)]
    return losses, time.perf_counter() - start, w


def descend(loss: fo.losses.Loss, data: Any, steps: int, lr: float) -> Any:
    """Return the same for gradient descent with momentum on all images."""
    x, _, y, _ = data
    w = np.zeros((10, x.shape[1]), np.float32)
    opt = fo.SGD(w, lr=fo.schedules.cosine(lr, steps), momentum=0.9)
    start = time.perf_counter()
    losses = []
    for _ in range(steps):
        found, slope = gradient(loss, x, y, w)
        opt.step(slope)
        losses.append(found)
    return losses, time.perf_counter() - start, w


KINDS: dict[str, tuple[Callable[..., Any], tuple[float, ...], float]] = {
    "random search": (partial(search, fo.RandomSearch), (1e-4, 1e-3, 1e-2, 1e-1), 1),
    "local search": (partial(search, fo.RandomLocalSearch), (1e-4, 1e-3, 1e-2, 1e-1), 1),
    # A step needs two products and a try one.
    "gradient descent": (descend, (1e-3, 1e-2, 1e-1), 0.5),
}


def methods(data: Any, tries: int) -> dict[str, Any]:
    """Return every method's best setting, and its losses, seconds and weights there."""
    best = {}
    for kind, (run, settings, part) in tqdm(KINDS.items(), unit="method"):
        for name, loss in LOSSES.items():
            found = {s: run(loss, data, round(part * tries), s) for s in settings}
            setting = min(found, key=lambda s: found[s][0][-1])
            best[f"{kind}, {name}"] = setting, *found[setting]
    return best


def compare_gradients(data: Any, size: int, every: int) -> list[tuple[str, float, float, float]]:
    """Return the relative error of each loss, and the seconds of both kinds of gradients."""
    x, _, y, _ = data
    x, y = np.ascontiguousarray(x[:size, ::every]), y[:size]
    wide = x.astype(np.float64)
    rows = []
    for name, loss in LOSSES.items():
        w = np.random.default_rng(1).normal(0, 0.01, (10, x.shape[1])).astype(np.float32)
        before = time.perf_counter()
        numerical = fo.numerical_gradient(partial(value, loss, wide, y), w)
        middle = time.perf_counter()
        _, analytic = gradient(loss, x, y, w)
        after = time.perf_counter()
        error = np.linalg.norm(analytic - numerical) / np.linalg.norm(numerical)
        rows.append((name, float(error), middle - before, after - middle))
    return rows


def bends(line: fo.landscape.Line) -> int:
    """Count the points where the slope changes by more than rounding."""
    return int(np.sum(np.abs(np.diff(line.values, 2)) > 1e-9 * np.abs(line.values).max()))


def landscapes(data: Any, w: Any) -> dict[str, Any]:
    """Return the lines of one image and of all, and the planes of three, around the weights."""
    x, _, y, _ = data
    w = w.astype(np.float64)  # Rounding errors of float32 would look like kinks.
    first, second = (fo.landscape.random_direction(w, seed=seed) for seed in (1, 2))
    reach = np.linspace(-5, 5, 401)
    coarse = reach[::8]
    result = {}
    for name, loss in LOSSES.items():
        for rows in (1, len(x)):
            seen = partial(value, loss, x[:rows].astype(np.float64), y[:rows])
            result[name, rows] = fo.landscape.line(seen, w, first, reach)
        seen = partial(value, loss, x[:3].astype(np.float64), y[:3])
        result[name, "plane"] = fo.landscape.plane(seen, w, first, second, coarse, coarse)
    return result


def draw(runs: dict[str, Any], seen: dict[str, Any], data: Any) -> Figure:
    figure = Figure(figsize=(15, 7.5), layout="constrained")
    panels = figure.subplots(2, 4)
    sample = np.concatenate([row[:-1].reshape(SIDE, SIDE, 3) for row in data[0][:4]], axis=1)
    low, high = sample.min(), sample.max()
    panels[0, 0].imshow((sample - low) / (high - low))
    panels[0, 0].set(title="four images, less the mean", xticks=[], yticks=[])
    w = runs["gradient descent, softmax"][-1]
    templates = w[:, :-1].reshape(2, 5, SIDE, SIDE, 3).swapaxes(1, 2).reshape(2 * SIDE, 5 * SIDE, 3)
    panels[1, 0].imshow(np.clip(0.5 + templates / (6 * templates.std()), 0, 1))
    panels[1, 0].set(title="the weights of 0 to 9, softmax", xticks=[], yticks=[])
    for name, (curves, lines, plane) in zip(LOSSES, panels[:, 1:], strict=True):
        for kind in KINDS:
            _, losses, seconds, _ = runs[f"{kind}, {name}"]
            curves.loglog(np.arange(1, len(losses) + 1) * seconds / len(losses), losses, label=kind)
        curves.set(title=f"{name} loss", xlabel="seconds")
        for rows, label in ((1, "one image"), (len(data[0]), "all images")):
            lines.plot(seen[name, rows].alphas, seen[name, rows].values, label=label)
        lines.set(title=f"{name} along a line", xlabel="alpha")
        fo.plot.landscape(seen[name, "plane"], ax=plane).set_title(f"{name}, three images")
        curves.legend()
        lines.legend()
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    data = images()
    runs = methods(data, 12 if asked.quick else 1000)
    report.table(
        "At the best setting",
        ["", "setting", "tries or steps", "seconds", "loss", "test accuracy"],
        [
            [
                name,
                f"{setting:g}",
                f"{len(losses)}",
                f"{seconds:.1f}",
                f"{losses[-1]:.3f}",
                f"{accuracy(w, data[1], data[3]):.1%}",
            ]
            for name, (setting, losses, seconds, w) in runs.items()
        ],
    )
    report.table(
        "Gradient",
        ["", "relative error", "numerical", "analytic"],
        [
            [name, f"{error:.1e}", f"{slow:.1f} s", f"{fast * 1e6:.0f} us"]
            for name, error, slow, fast in compare_gradients(data, 32, 50 if asked.quick else 1)
        ],
    )
    seen = landscapes(data, runs["gradient descent, SVM"][-1])
    report.table(
        "Along a line, for one image",
        ["", "points of 399 where the slope changes"],
        [[name, f"{bends(seen[name, 1])}"] for name in LOSSES],
    )
    report.picture(draw(runs, seen, data), asked.output, "linear_classifier")


if __name__ == "__main__":
    main()
