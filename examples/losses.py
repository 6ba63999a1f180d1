"""Effects of the loss: speed, accuracy and calibration of a classifier; robustness of a regression.

One network (64-64-10) learns 360 handwritten digits with five losses, each at the best of its
rates, over several splits. The scores are interpreted as probabilities, directly and with a
temperature fitted on other digits (Guo et al., 2017). Then a linear regression on scikit-learn's
diabetes data is trained with outliers in the targets or in the inputs.

    python examples/losses.py
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes
from tqdm import tqdm

import fastoptim as fo
import report
from images import all_digits
from networks import Dense, Network, ReLU

RATES = (3e-3, 1e-2, 3e-2, 1e-1)
STEPS, BATCH, EVERY = 600, 36, 10  # Measured every ten steps.
TEMPERATURES = np.logspace(-2, 1, 100, dtype=np.float32)
ONE_HOT = np.eye(10, dtype=np.float32)
cross_entropy = fo.losses.CrossEntropyLoss()


def softmax(scores: Any) -> Any:
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def squared_probabilities(scores: Any, y: Any) -> tuple[float, Any]:
    p = softmax(scores)
    loss, slope = fo.losses.MSELoss().value_and_grad(p, ONE_HOT[y])
    return loss, p * (slope - (p * slope).sum(1, keepdims=True))


Loss = Callable[[Any, Any], tuple[float, Any]]
CLASSIFIERS: dict[str, Loss] = {
    "cross-entropy": cross_entropy.value_and_grad,
    "label smoothing 0.1": fo.losses.CrossEntropyLoss(label_smoothing=0.1).value_and_grad,
    "hinge, one against all": lambda s, y: fo.losses.HingeLoss().value_and_grad(
        s, 2 * ONE_HOT[y] - 1
    ),
    "squared, of the scores": lambda s, y: fo.losses.MSELoss().value_and_grad(s, ONE_HOT[y]),
    "squared, of the softmax": squared_probabilities,
}
REGRESSIONS: dict[str, fo.losses.Loss] = {
    "squared": fo.losses.MSELoss(),
    "absolute": fo.losses.L1Loss(),
    "Huber, delta 0.5": fo.losses.HuberLoss(delta=0.5),
}


@dataclass
class Run:
    """The result of one training; the scores and labels are those of the test."""

    tuned: float  # Accuracy on the digits used to choose the rate and the temperature.
    curve: list[float]  # Accuracy on the test during the training.
    scores: Any
    temperature: np.float32
    labels: Any


def train(loss: Loss, lr: float, steps: int, seed: int) -> Run:
    pixels, labels = all_digits()
    rng = np.random.default_rng(seed)
    learn, tune, test = np.split(rng.permutation(len(labels)), [360, 720])
    network = Network([Dense(64), ReLU(), Dense(10)], (64,), seed)
    opt = fo.Adam(network.params, lr=fo.schedules.cosine(lr, steps))
    curve = []
    for step in range(steps):
        rows = rng.choice(learn, BATCH, replace=False)
        _, slope = loss(network.forward(pixels[rows]), labels[rows])
        network.backward(slope)
        opt.step(network.grads)
        if (step + 1) % EVERY == 0:
            curve.append(network.evaluate(pixels[test], labels[test])[1])
    scores, tuned = network.forward(pixels[test]), network.forward(pixels[tune])
    fits = [cross_entropy(tuned / t, labels[tune]) for t in TEMPERATURES]
    accuracy = float(np.mean(tuned.argmax(1) == labels[tune]))
    return Run(accuracy, curve, scores, TEMPERATURES[np.argmin(fits)], labels[test])


def reliability(scores: Any, y: Any, bins: int = 10) -> tuple[Any, Any, float]:
    """Return mean confidence and accuracy per bin, and the expected calibration error."""
    p = softmax(scores)
    confidence, right = p.max(1), p.argmax(1) == y
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = count > 0
    mean = [np.bincount(index, v, bins)[filled] / count[filled] for v in (confidence, right)]
    return *mean, float(np.sum(count[filled] / len(y) * np.abs(mean[0] - mean[1])))


def classify(seeds: int, steps: int) -> dict[str, tuple[float, list[Run]]]:
    """Return the best rate of each loss, with the runs at this rate."""
    results = {}
    for name, loss in tqdm(CLASSIFIERS.items(), desc="digits", unit="loss"):
        tried = {lr: [train(loss, lr, steps, seed) for seed in range(seeds)] for lr in RATES}
        best = max(tried, key=lambda lr: np.mean([run.tuned for run in tried[lr]]))
        results[name] = best, tried[best]
    return results


def reliabilities(runs: list[Run]) -> list[tuple[Any, Any, float]]:
    """Return the reliability of all runs together, without and with the temperature."""
    y = np.concatenate([run.labels for run in runs])
    raw = np.concatenate([run.scores for run in runs])
    return [
        reliability(raw, y),
        reliability(np.concatenate([r.scores / r.temperature for r in runs]), y),
    ]


def microseconds(loss: Loss) -> float:
    scores = np.random.default_rng(0).standard_normal((BATCH, 10), np.float32)
    call = partial(loss, scores, np.arange(BATCH) % 10)
    return min(timeit.repeat(call, number=200)) / 200 * 1e6


def regress(loss: fo.losses.Loss, x: Any, y: Any, x_test: Any, y_test: Any) -> float:
    """Return the mean absolute error on the test after full-batch Adam on a linear model."""
    params = fo.FlatBuffer({"w": (x.shape[1],), "b": (1,)}, dtype="float64")
    grads = params.zeros_like()
    opt = fo.Adam(params, lr=fo.schedules.cosine(0.05, 400))
    for _ in range(400):
        slope = loss.grad(x @ params["w"] + params["b"], y)
        grads["w"], grads["b"] = x.T @ slope, slope.sum()
        opt.step(grads)
    return float(np.mean(np.abs(x_test @ params["w"] + params["b"] - y_test)))


def corrupt(splits: int, shares: list[float]) -> dict[str, dict[str, Any]]:
    """Return the mean errors if a fraction of the targets or inputs is ten times too large."""
    x, y = load_diabetes(return_X_y=True)
    x = x / x.std(0)
    errors = {kind: {name: [] for name in REGRESSIONS} for kind in ("targets", "inputs")}
    for seed in tqdm(range(splits), desc="diabetes", unit="split"):
        train, test = np.split(np.random.default_rng(seed).permutation(len(y)), [300])
        for kind, by_loss in errors.items():
            for name, loss in REGRESSIONS.items():
                row = []
                for share in shares:
                    a, b = x[train], y[train]
                    wrong = slice(round(share * len(train)))
                    (b if kind == "targets" else a)[wrong] *= 10
                    centre = np.median(b)
                    spread = 1.48 * np.median(np.abs(b - centre))  # Estimates a standard deviation.
                    scaled = ((b - centre) / spread, x[test], (y[test] - centre) / spread)
                    row.append(spread * regress(loss, a, *scaled))
                by_loss[name].append(row)
    return {k: {n: np.mean(rows, 0) for n, rows in v.items()} for k, v in errors.items()}


def draw(results: dict[str, Any], errors: dict[str, Any], shares: list[float]) -> Figure:
    figure = Figure(figsize=(11, 8), layout="constrained")
    (speed, calibration), (targets, inputs) = figure.subplots(2, 2)
    for name, (_, runs) in results.items():
        curve = np.mean([run.curve for run in runs], axis=0)
        speed.plot(EVERY * np.arange(1, len(curve) + 1), curve, label=name)
        confidence, accuracy, error = reliabilities(runs)[0]
        calibration.plot(confidence, accuracy, "o-", label=f"{name}: {error:.3f}")
    speed.set(xlabel="step", title="test accuracy", ylim=(0.5, 1))
    calibration.plot([0, 1], [0, 1], color="0.7", zorder=0)
    calibration.set(xlabel="confidence", title="accuracy by confidence, and calibration error")
    for axes, (kind, by_loss) in zip((targets, inputs), errors.items(), strict=True):
        for name, values in by_loss.items():
            axes.plot([f"{s:.0%}" for s in shares], values, "o-", label=name)
        axes.set(title=f"error with {kind} ten times too big", xlabel="share of rows")
    for axes in (speed, calibration, targets, inputs):
        axes.legend(fontsize="small")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    results = classify(*((1, 60) if asked.quick else (10, STEPS)))
    shares = [0, 0.02, 0.05, 0.1, 0.2]
    errors = corrupt(2 if asked.quick else 20, shares)
    rows = []
    for name, (lr, runs) in results.items():
        curve = np.mean([run.curve for run in runs], axis=0)
        reached = EVERY * (1 + int(np.argmax(curve >= 0.9))) if curve.max() >= 0.9 else "-"
        spread = np.std([run.curve[-1] for run in runs])
        errors_of = [f"{error:.3f}" for _, _, error in reliabilities(runs)]
        call = f"{microseconds(CLASSIFIERS[name]):.1f} us"
        accuracy = f"{curve[-1]:.1%} +- {spread:.1%}"
        rows.append([name, f"{lr:g}", f"{reached}", accuracy, *errors_of, call])
    report.table(
        "Digits",
        ["", "rate", "steps to 90%", "accuracy", "calibration error", "and tempered", "a call"],
        rows,
    )
    for kind, by_loss in errors.items():
        report.table(
            f"Mean absolute error with {kind} x 10",
            ["", *(f"{share:.0%}" for share in shares)],
            [[name, *(f"{value:.1f}" for value in values)] for name, values in by_loss.items()],
        )
    report.picture(draw(results, errors, shares), asked.output, "losses")


if __name__ == "__main__":
    main()
