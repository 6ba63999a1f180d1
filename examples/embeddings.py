"""Metric learning: triplets, the choice of triplets, the form of FaceNet, and pairs.

A network (64-64-8) embeds handwritten digits on a sphere. For every digit of the test, the other
digits are ranked by distance. The measures are how often the nearest one has the same class, and
the mean average precision. The classes are those of the training, or new ones: trained on 0 to 6
and tested on 7, 8 and 9. Pixels and the features of a classifier are baselines.

    python examples/embeddings.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import fastoptim as fo
import report
from images import all_digits
from networks import Dense, Layer, Network, ReLU

BATCH, LR = 100, 3e-3
facenet = fo.losses.TripletMarginLoss(margin=0.2, squared=True)
plain = fo.losses.TripletMarginLoss(margin=0.2)
contrastive = fo.losses.ContrastiveLoss(margin=1.0)
# From embeddings, labels and a generator to the gradient with respect to the embeddings.
Slope = Callable[[Any, Any, Any], Any]


def gathered(e: Any, rows: Any, slopes: Any) -> Any:
    """Sum the gradients of rows that occur in several triplets or pairs."""
    total = np.zeros_like(e)
    for index, slope in zip(rows, slopes, strict=True):
        np.add.at(total, index, slope)
    return total


def of_triplets(loss: fo.losses.TripletMarginLoss, kind: str) -> Slope:
    def slope(e: Any, labels: Any, rng: Any) -> Any:
        if kind == "random":
            rows = random_triplets(labels, rng)
        else:
            rows = fo.losses.mine_triplets(e, labels, kind=kind, margin=0.2)
        if len(rows[0]) == 0:
            return np.zeros_like(e)
        return gathered(e, rows, loss.grad(*(e[index] for index in rows)))

    return slope


def random_triplets(labels: Any, rng: Any) -> tuple[Any, Any, Any]:
    """Draw as many triplets as rows."""
    order = rng.random((2, len(labels), len(labels)))
    same = labels[:, None] == labels
    np.fill_diagonal(same, False)
    anchors = np.flatnonzero(same.any(1))
    positives = np.where(same, order[0], -1).argmax(1)
    negatives = np.where(labels[:, None] != labels, order[1], -1).argmax(1)
    return anchors, positives[anchors], negatives[anchors]


def of_pairs(e: Any, labels: Any, rng: Any) -> Any:
    """Return the gradient of each row paired with one of its class and with one of another."""
    anchors, positives, negatives = random_triplets(labels, rng)
    rows = np.tile(anchors, 2), np.concatenate([positives, negatives])
    same = np.repeat(np.array([1, 0], e.dtype), len(anchors))
    return gathered(e, rows, contrastive.grad(e[rows[0]], e[rows[1]], same))


METHODS: dict[str, Slope | None] = {
    "pixels": None,
    "classifier": None,
    "contrastive, random pairs": of_pairs,
    "triplets, random": of_triplets(facenet, "random"),
    "triplets, semi-hard, not squared": of_triplets(plain, "semihard"),
    "triplets, semi-hard (FaceNet)": of_triplets(facenet, "semihard"),
    "triplets, hardest": of_triplets(facenet, "hard"),
}


class Normalize(Layer):
    """Project every row to the sphere; the gradient is its component orthogonal to the row."""

    def forward(self, x: Any) -> Any:
        self.length = np.linalg.norm(x, axis=1, keepdims=True) + np.float32(1e-6)
        self.y = x / self.length
        return self.y

    def backward(self, delta: Any) -> Any:
        return (delta - self.y * (self.y * delta).sum(1, keepdims=True)) / self.length


class Scale(Layer):
    """Scale cosines, which are too small as logits."""

    def forward(self, x: Any) -> Any:
        return 16 * x

    def backward(self, delta: Any) -> Any:
        return 16 * delta


def train(method: str, x: Any, labels: Any, steps: int, seed: int) -> Network:
    """Train the embeddings directly, or with a classifier that is removed afterwards."""
    rng = np.random.default_rng(seed)
    by_distance = METHODS[method]
    layers: list[Layer] = [Dense(64), ReLU(), Dense(8), Normalize()]
    network = Network(layers if by_distance else [*layers, Scale(), Dense(10)], (64,), seed)
    opt = fo.Adam(network.params, lr=fo.schedules.cosine(LR, steps))
    for _ in range(steps):
        rows = rng.choice(len(x), BATCH, replace=False)
        if by_distance:
            network.backward(by_distance(network.forward(x[rows]), labels[rows], rng))
        else:
            network.loss_and_gradients(x[rows], labels[rows])
        opt.step(network.grads)
    network.layers = layers
    return network


def retrieval(e: Any, labels: Any) -> tuple[float, float]:
    """Return how often the nearest other row has the same class, and the mean average precision."""
    distances = (e**2).sum(1) - 2 * e @ e.T  # The square of the anchor does not affect the order.
    np.fill_diagonal(distances, np.inf)
    order = distances.argsort(1)[:, :-1]
    right = labels[order] == labels[:, None]
    precision = right.cumsum(1) / np.arange(1, len(labels))
    average = (precision * right).sum(1) / right.sum(1)
    return float(right[:, 0].mean()), float(average.mean())


def ask(method: str, steps: int, seed: int, new: bool) -> tuple[float, float, Any, Any]:
    """Train and test; return both measures, the embeddings of the test, and their labels."""
    x, labels = all_digits()
    order = np.random.default_rng(seed).permutation(len(labels))
    if new:
        learn, test = order[labels[order] < 7], order[labels[order] >= 7]
    else:
        learn, test = order[:1000], order[1000:]
    if method == "pixels":
        e = x[test]
    else:
        e = train(method, x[learn], labels[learn], steps, seed).forward(x[test])
    return *retrieval(e, labels[test]), e, labels[test]


def draw(found: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(16, 8), layout="constrained")
    panels = figure.subplots(2, 4).ravel()
    for axes, (method, runs) in zip(panels, found.items(), strict=False):
        _, _, e, labels = runs["known"][0]
        centred = e - e.mean(0)
        flat = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
        points = axes.scatter(*flat.T, c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=6)
        score = np.mean([run[1] for run in runs["known"]])
        axes.set(title=f"{method}: {score:.1%}", xticks=[], yticks=[])
    panels[-1].axis("off")
    figure.colorbar(points, ax=panels[-1], ticks=range(10), location="left")
    figure.suptitle("digits of the test by the two widest directions; mean average precision")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    steps, seeds = (30, 1) if asked.quick else (1500, 5)
    found = {}
    for method in tqdm(METHODS, unit="method"):
        found[method] = {
            kinds: [ask(method, steps, seed, kinds == "new") for seed in range(seeds)]
            for kinds in ("known", "new")
        }
    rows = []
    for method, runs in found.items():
        row = [method]
        for several in runs.values():
            measures = np.array([run[:2] for run in several])
            pairs = zip(measures.mean(0), measures.std(0), strict=True)
            row += [f"{mean:.1%} +- {spread:.1%}" for mean, spread in pairs]
        rows.append(row)
    heads = ["", "known classes: first", "MAP", "new classes: first", "MAP"]
    report.table("Nearest digit of the same kind, and mean average precision", heads, rows)
    report.picture(draw(found), asked.output, "embeddings")


if __name__ == "__main__":
    main()
