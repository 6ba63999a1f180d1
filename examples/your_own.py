"""A custom loss and a custom schedule: quantile regression.

The quantile loss is not part of the package. A subclass of `fo.losses.Loss` with one method
provides all features of the other losses. `fo.check_grad` compares its gradient with finite
differences and detects an error in it. The schedule of Robbins and Monro is a plain function of the
step. The 10%, 50% and 90% quantiles of a disease's progress (scikit-learn's diabetes data) are
fitted, and a linear program computes the distance of each schedule from the optimum.

    python examples/your_own.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes
from sklearn.linear_model import QuantileRegressor
from tqdm import tqdm

import fastoptim as fo
import report

QUANTILES = (0.1, 0.5, 0.9)
BATCH, LR, EVERY = 30, 0.3, 50


class QuantileLoss(fo.losses.Loss):
    """The mean of max(q (y - f), (q - 1) (y - f)); one column of f per quantile q."""

    def __init__(self, quantiles: tuple[float, ...]) -> None:
        self.quantiles = quantiles

    def value_and_grad(self, *inputs: Any, out: Any = None, loss_scale: float = 1.0) -> Any:
        f, y = inputs
        q = np.array(self.quantiles, f.dtype)
        rest = y[:, None] - f
        value = float(np.mean(np.maximum(q * rest, (q - 1) * rest)))
        out = np.empty_like(f) if out is None else out
        out[...] = np.where(rest > 0, -q, np.where(rest < 0, 1 - q, 0)) * (loss_scale / f.size)
        return value, out


def robbins_monro(step: int) -> float:
    """Decay like 1 / t: the sum of all rates is infinite, and that of their squares finite."""
    return LR / (1 + step / 100)


def schedules(steps: int) -> dict[str, Callable[[int], float]]:
    return {
        "constant": fo.schedules.constant(LR),
        "Robbins and Monro": robbins_monro,
        "cosine": fo.schedules.cosine(LR, steps),
    }


def checked(loss: QuantileLoss) -> None:
    """Print the results of checking the gradient, and one with an error that would still train."""
    rng = np.random.default_rng(0)
    f, y = rng.standard_normal((20, len(QUANTILES))), rng.standard_normal(20)
    slip = QuantileLoss((*QUANTILES[:2], 0.8))
    for name, by in (("its gradient", loss), ("with 0.8 for 0.9 in the gradient", slip)):
        check = fo.check_grad(lambda f: loss(f, y), lambda f, by=by: by.grad(f, y), f)
        verdict = "right" if check else f"wrong at {check.worst_index}"
        print(f"{name}: {verdict}, relative error {check.relative_error:.1e}")


@dataclass
class Part:
    """The rows of the training or of the test."""

    x: Any
    y: Any

    def optimum(self) -> float:
        """Return the minimum loss of each quantile, found by a linear program."""
        fits = [QuantileRegressor(quantile=q, alpha=0).fit(self.x, self.y) for q in QUANTILES]
        f = np.column_stack([fit.predict(self.x) for fit in fits])
        return float(QuantileLoss(QUANTILES)(f, self.y))


def split(seed: int) -> tuple[Part, Part]:
    x, y = load_diabetes(return_X_y=True)
    x, y = x / x.std(0), (y - y.mean()) / y.std()
    learn, test = np.split(np.random.default_rng(seed).permutation(len(y)), [300])
    return Part(x[learn], y[learn]), Part(x[test], y[test])


def train(lr: Any, learn: Part, test: Part, steps: int, seed: int) -> tuple[list[float], Any]:
    """Return the losses over all rows, and the fraction of the test below each quantile."""
    loss = QuantileLoss(QUANTILES)
    shape = (len(QUANTILES), learn.x.shape[1])
    params = fo.FlatBuffer({"w": shape, "b": shape[:1]}, dtype="float64")
    grads = params.zeros_like()
    opt = fo.SGD(params, lr=lr, momentum=0.9)
    losses: list[float] = []
    epoch = seed * steps
    while len(losses) * EVERY < steps:
        for rows in fo.minibatches(len(learn.y), BATCH, epoch):
            scores = fo.linear_scores(params["w"], learn.x[rows], params["b"])
            slope = loss.grad(scores, learn.y[rows], out=scores)
            grads["w"], grads["b"] = slope.T @ learn.x[rows], slope.sum(0)
            opt.step(grads)
        epoch += 1
        if opt.state["w"]["step"] % EVERY == 0:
            losses.append(loss(fo.linear_scores(params["w"], learn.x, params["b"]), learn.y))
    below = test.y[:, None] < fo.linear_scores(params["w"], test.x, params["b"])
    return losses, below.mean(0)


def draw(rates: Any, gaps: dict[str, Any], below: dict[str, Any], steps: int) -> Figure:
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    fo.plot.schedule(rates, np.arange(0, steps, 10), ax=left).set(title="three schedules")
    for name, gap in gaps.items():
        middle.semilogy(EVERY * np.arange(1, gap.shape[1] + 1), gap.mean(0), label=name)
        right.errorbar(QUANTILES, (below[name] - QUANTILES).mean(0), below[name].std(0), capsize=4)
    middle.set(xlabel="step", title="loss above the optimum of the linear program")
    middle.legend()
    right.axhline(0, color="0.7", zorder=0)
    right.set(xlabel="quantile q", title="share of the test below it, less q")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    steps, seeds = (500, 2) if asked.quick else (5000, 20)
    checked(QuantileLoss(QUANTILES))
    rates = schedules(steps)
    found: dict[str, list[Any]] = {name: [] for name in rates}
    for seed in tqdm(range(seeds), unit="split"):
        learn, test = split(seed)
        least = learn.optimum()
        for name, lr in rates.items():
            losses, below = train(lr, learn, test, steps, seed)
            found[name].append((np.array(losses) - least, below))
    gaps = {name: np.array([gap for gap, _ in runs]) for name, runs in found.items()}
    below = {name: np.array([share for _, share in runs]) for name, runs in found.items()}
    rows = []
    for name in rates:
        last, shares = gaps[name][:, -1], below[name].mean(0)
        cells = [f"{share:.1%}" for share in (*shares, shares[2] - shares[0])]
        rows.append([name, f"{last.mean():.1e}", f"{last.max():.1e}", *cells])
    heads = ["", "above the optimum", "worst", *(f"below {q:.0%}" for q in QUANTILES), "between"]
    report.table("Loss, and the test below the quantiles", heads, rows)
    report.picture(draw(rates, gaps, below, steps), asked.output, "your_own")


if __name__ == "__main__":
    main()
