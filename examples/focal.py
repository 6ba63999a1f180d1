"""Focal loss on rare positives: does it find more of them than cross-entropy?

The task is to detect the digit 8, which is one in a hundred of the training digits. A network
(64-32-2) learns with cross-entropy, with and without class weights, and with focal losses, each at
the best of its rates, over several splits. Precision and recall are weighted to one 8 in a hundred,
at the threshold 1/2 and at the threshold with the best F1 on other digits.

    python examples/focal.py
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve
from tqdm import tqdm

import fastoptim as fo
import report
from images import all_digits
from networks import Dense, Network, ReLU

DIGIT, SHARE = 8, 0.01
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
BATCH = 64


def per_class(*factors: float) -> Any:
    """Return a factor for the others and one for the 8s."""
    return np.array(factors, np.float32)


LOSSES = {
    "cross-entropy": fo.losses.CrossEntropyLoss(),
    "cross-entropy, 8s x 99": fo.losses.CrossEntropyLoss(weight=per_class(1, 99)),
    "focal, gamma 2": fo.losses.FocalLoss(gamma=2.0),
    "focal, gamma 2, alpha 0.25": fo.losses.FocalLoss(gamma=2.0, alpha=per_class(0.75, 0.25)),
    "focal, gamma 2, 8s x 99": fo.losses.FocalLoss(gamma=2.0, alpha=per_class(0.01, 0.99)),
    "focal, gamma 5": fo.losses.FocalLoss(gamma=5.0),
}


@dataclass
class Part:
    """Digits and whether they are an 8, with weights that make 8s one in a hundred."""

    x: Any
    y: Any

    @property
    def weights(self) -> Any:
        share = self.y.mean()
        return np.where(self.y == 1, SHARE / share, (1 - SHARE) / (1 - share))

    def precision_recall(self, margins: Any, threshold: float) -> tuple[float, float]:
        found = self.weights * (margins > threshold)
        right = float(found @ self.y)
        return right / (float(found.sum()) or 1.0), right / SHARE / len(self.y)


@cache
def split(seed: int) -> tuple[Part, Part, Part]:
    """Return the digits for training, tuning and test."""
    x, labels = all_digits()
    order = np.random.default_rng(seed).permutation(len(labels))
    positives, negatives = (order[(labels[order] == DIGIT) == is_it] for is_it in (True, False))
    few = round(SHARE / (1 - SHARE) * 900)
    parts = zip(np.split(positives, [few, 90]), np.split(negatives, [900, 1250]), strict=True)
    rows = [np.concatenate(part) for part in parts]
    learn, tune, test = (Part(x[r], (labels[r] == DIGIT).astype(np.int64)) for r in rows)
    return learn, tune, test


def margins(network: Network, x: Any) -> Any:
    """Return the logit of being an 8, which is above 0 if the probability is above 1/2."""
    scores = network.forward(x).astype(np.float64)
    return scores[:, 1] - scores[:, 0]


def train(loss: fo.losses.Loss, learn: Part, lr: float, steps: int, seed: int) -> Network:
    rng = np.random.default_rng(seed)
    network = Network([Dense(32), ReLU(), Dense(2)], (64,), seed)
    opt = fo.Adam(network.params, lr=fo.schedules.cosine(lr, steps))
    for _ in range(steps):
        rows = rng.integers(0, len(learn.y), BATCH)
        scores = network.forward(learn.x[rows])
        network.backward(loss.grad(scores, learn.y[rows], out=scores))
        opt.step(network.grads)
    return network


def area(part: Part, margins: Any) -> float:
    """Return the area under the curve of precision over recall."""
    return float(average_precision_score(part.y, margins, sample_weight=part.weights))


def measured(tune: Part, test: Part, known: Any, new: Any) -> list[float]:
    """Return precision, recall and F1 at 1/2, the same at the tuned threshold, and the area."""
    precision, recall, thresholds = precision_recall_curve(
        tune.y, known, sample_weight=tune.weights
    )
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    # The threshold is halfway to the next lower margin, so that it does not equal a margin.
    best = thresholds[np.argmax(f1[:-1])]
    best = (best + max(known[known < best], default=best)) / 2
    row: list[float] = []
    for threshold in (0.0, best):
        p, r = test.precision_recall(new, threshold)
        row += [p, r, 2 * p * r / max(p + r, 1e-12)]
    return [*row, area(test, new)]


def compare(seeds: int, steps: int) -> dict[str, tuple[float, Any, Any]]:
    """Return each loss's best rate, its measures (splits, 7), and all its margins with labels."""
    result = {}
    for name, loss in tqdm(LOSSES.items(), unit="loss"):
        tried = {}
        for lr in RATES:
            rows, areas, pooled = [], [], []
            for seed in range(seeds):
                learn, tune, test = split(seed)
                network = train(loss, learn, lr, steps, seed)
                known, new = margins(network, tune.x), margins(network, test.x)
                rows.append(measured(tune, test, known, new))
                areas.append(area(tune, known))
                pooled.append((new, test.y, test.weights))
            joined = [np.concatenate(column) for column in zip(*pooled, strict=True)]
            tried[lr] = np.mean(areas), np.array(rows), joined
        best = max(tried, key=lambda lr: tried[lr][0])
        result[name] = best, *tried[best][1:]
    return result


def draw(results: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    shape, curves, scores = figure.subplots(1, 3)
    fo.plot.focal(ax=shape).set_title("focal loss")
    for name, (_, _, (new, y, weights)) in results.items():
        precision, recall, _ = precision_recall_curve(y, new, sample_weight=weights)
        curves.plot(recall, precision, label=name)
        probabilities = 1 / (1 + np.exp(-new[y == 1]))
        scores.hist(probabilities, np.linspace(0, 1, 21), histtype="step", label=name)
    curves.set(xlabel="recall", ylabel="precision", title="all splits, one 8 in a hundred")
    scores.set(xlabel="probability given to 8s", title="how sure of the 8s")
    for axes in (curves, scores):
        axes.legend(fontsize="small")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    results = compare(*((2, 60) if asked.quick else (20, 600)))
    table = []
    for name, (lr, rows, _) in results.items():
        cells = [f"{value:.1%}" for value in rows.mean(0)]
        cells[-1] += f" +- {rows[:, 6].std() / np.sqrt(len(rows)):.1%}"
        table.append([name, f"{lr:g}", *cells])
    measures = ["precision", "recall", "F1"]
    heads = ["", "rate", *measures, *(f"tuned {measure}" for measure in measures), "area"]
    report.table("At the threshold of 1/2 and at a tuned one", heads, table)
    report.picture(draw(results), asked.output, "focal")


if __name__ == "__main__":
    main()
