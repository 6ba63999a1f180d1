"""Every optimizer on the same real problem from the same start, with a plot of the losses.

A multilayer perceptron (64-64-10) learns scikit-learn's handwritten digits in mini-batches of 64.
Each optimizer uses the rate with the lowest final loss of five rates, spaced by a factor of about
3. Usage:

    python examples/optimizers.py --output optimizers.png
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastoptim as fo

SHAPES = {"w1": (64, 64), "b1": (1, 64), "w2": (64, 10), "b2": (1, 10)}
RULES: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: fo.SGD(p, lr=1.0),
    "SGD, momentum": lambda p: fo.SGD(p, lr=0.3, momentum=0.9),
    "SGD, Nesterov": lambda p: fo.SGD(p, lr=0.3, momentum=0.9, nesterov=True),
    "Adagrad": lambda p: fo.Adagrad(p, lr=0.1),
    "RMSprop": lambda p: fo.RMSprop(p, lr=0.01),
    "Adadelta": lambda p: fo.Adadelta(p, lr=10.0),
    "Adam": lambda p: fo.Adam(p, lr=0.03),
    "AdamW": lambda p: fo.AdamW(p, lr=0.03),
    "AdamW, cautious": lambda p: fo.AdamW(p, lr=0.03, cautious=True),
    "Adamax": lambda p: fo.Adamax(p, lr=0.1),
    "NAdam": lambda p: fo.NAdam(p, lr=0.03),
    "RAdam": lambda p: fo.RAdam(p, lr=0.03),
    "Rprop": lambda p: fo.Rprop(p, lr=0.001),
    "ASGD": lambda p: fo.ASGD(p, lr=1.0),
    "Lion": lambda p: fo.Lion(p, lr=0.003),
    "AdEMAMix": lambda p: fo.AdEMAMix(p, lr=0.03, t_alpha=1000, t_beta3=1000),
    "ScheduleFreeSGD": lambda p: fo.ScheduleFreeSGD(p, lr=3.0),
    "ScheduleFreeAdamW": lambda p: fo.ScheduleFreeAdamW(p, lr=0.1),
    "LARS": lambda p: fo.LARS(p, lr=3.0),
    "LAMB": lambda p: fo.LAMB(p, lr=0.01),
    "Prodigy": lambda p: fo.Prodigy(p),
    "Adafactor": lambda p: fo.Adafactor(p, lr=0.1),
    "Muon": lambda p: fo.Muon(p, lr=0.02),
    "SAM, momentum": lambda p: fo.SAM(fo.SGD(p, lr=0.3, momentum=0.9)),
}


def batches(n: int, size: int, epochs: int) -> Iterator[Any]:
    rng = np.random.default_rng(1)
    for _ in range(epochs):
        yield from np.array_split(rng.permutation(n), n // size)


def loss_and_gradients(params: fo.FlatBuffer, grads: fo.FlatBuffer, x: Any, y: Any) -> float:
    hidden = np.maximum(x @ params["w1"] + params["b1"], 0)
    scores = hidden @ params["w2"] + params["b2"]
    loss, slope = fo.losses.CrossEntropyLoss().value_and_grad(scores, y, out=scores)
    grads["w2"] = hidden.T @ slope
    grads["b2"] = slope.sum(0, keepdims=True)
    slope = (slope @ params["w2"].T) * (hidden > 0)
    grads["w1"] = x.T @ slope
    grads["b1"] = slope.sum(0, keepdims=True)
    assert isinstance(loss, float)
    return loss


def train(make: Callable[[Any], Any], data: Any, epochs: int) -> tuple[list[float], float]:
    x, x_test, y, y_test = data
    params = fo.FlatBuffer(SHAPES)
    grads = params.zeros_like()
    rng = np.random.default_rng(0)
    for name in ("w1", "w2"):
        params[name] = rng.normal(0, np.sqrt(2 / params[name].shape[0]), params[name].shape)
    opt = make(params)
    losses = []
    for rows in batches(len(x), 64, epochs):

        def closure(rows: Any = rows) -> tuple[float, fo.FlatBuffer]:
            return loss_and_gradients(params, grads, x[rows], y[rows]), grads

        if isinstance(opt, fo.SAM):
            losses.append(opt.step(closure))
        else:
            losses.append(closure()[0])
            opt.step(grads)
    if hasattr(opt, "eval"):
        opt.eval()
    hidden = np.maximum(x_test @ params["w1"] + params["b1"], 0)
    scores = hidden @ params["w2"] + params["b2"]
    return losses, float(np.mean(scores.argmax(1) == y_test))


def draw(curves: dict[str, list[float]], path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        2, 3, figsize=(11, 6.5), sharex=True, sharey=True, layout="constrained"
    )
    width = min(20, max(1, len(next(iter(curves.values()))) // 4))
    smooth = {
        name: np.convolve(losses, np.ones(width) / width, "valid")
        for name, losses in curves.items()
    }
    for start, axes in zip(range(0, len(smooth), 4), panels.flat, strict=True):
        for losses in smooth.values():
            axes.semilogy(losses, color="0.9", linewidth=0.7)
        for name in list(smooth)[start : start + 4]:
            axes.semilogy(smooth[name], label=name, linewidth=1.2)
        axes.legend(fontsize="small", loc="lower left")
    figure.supxlabel("step")
    figure.supylabel(f"cross-entropy of the batch, mean of {width}")
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", help="write the curves to this PNG")
    asked = parser.parse_args()
    pixels, labels = load_digits(return_X_y=True)
    data = train_test_split(
        (pixels / 16).astype(np.float32), labels, test_size=0.2, random_state=0, stratify=labels
    )
    try:
        from tqdm import tqdm
    except ImportError:
        rules: Any = RULES.items()
    else:
        rules = tqdm(RULES.items(), unit="optimizer")
    curves, accuracies = {}, {}
    for name, make in rules:
        curves[name], accuracies[name] = train(make, data, asked.epochs)
    print(f"{'':20} final loss  test accuracy")
    for name, losses in curves.items():
        print(f"{name:20} {np.mean(losses[-20:]):9.4f}  {accuracies[name]:12.1%}")
    if asked.output:
        draw(curves, asked.output)
        print(f"wrote {asked.output}")


if __name__ == "__main__":
    main()
