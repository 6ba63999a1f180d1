"""Vanishing and exploding gradients, in depth and in time.

A network with ten hidden layers of 64 learns digits. The experiment shows how the norm of the
gradient changes from layer to layer for sigmoid, tanh and ReLU, and separates the effects of the
activation and of the initial weights. Then a recurrent network learns text letter by letter,
through 100 steps of time, with and without clipping (``step(max_norm=)``).

    python examples/gradients.py
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import fastoptim as fo
import report
from images import Images, digits
from networks import Array, Dense, Layer, Network, Recurrent, ReLU, Sigmoid, Tanh

DEPTH = 10
# The activation, and the variance of the initial weights times the number of inputs of a layer.
DEEP: dict[str, tuple[type[Layer], float]] = {
    "sigmoid, gain 1": (Sigmoid, 1.0),
    "sigmoid, gain 16": (Sigmoid, 16.0),
    "tanh, gain 1": (Tanh, 1.0),
    "ReLU, gain 1": (ReLU, 1.0),
    "ReLU, gain 2": (ReLU, 2.0),
    "ReLU, gain 8": (ReLU, 8.0),
}
SHOWN = ("sigmoid, gain 1", "tanh, gain 1", "ReLU, gain 2")
OPTIMIZERS: dict[str, Callable[[fo.FlatBuffer], Any]] = {
    "SGD 0.01": lambda p: fo.SGD(p, lr=0.01, momentum=0.9),
    "SGD 0.1": lambda p: fo.SGD(p, lr=0.1, momentum=0.9),
    "Adam 0.003": lambda p: fo.Adam(p, lr=0.003),
}
TIME, BATCH, MAX_NORM = 100, 32, 0.25
# The optimizer, and the radius of the initial recurrent weights: 1 preserves lengths.
RECURRENT: dict[str, tuple[Callable[[fo.FlatBuffer], Any], float]] = {
    "SGD 0.1, radius 1": (lambda p: fo.SGD(p, lr=0.1, momentum=0.9), 1.0),
    "SGD 0.3, radius 1": (lambda p: fo.SGD(p, lr=0.3, momentum=0.9), 1.0),
    "SGD 1, radius 1": (lambda p: fo.SGD(p, lr=1.0, momentum=0.9), 1.0),
    "SGD 0.3, radius 1.5": (lambda p: fo.SGD(p, lr=0.3, momentum=0.9), 1.5),
    "Adam 0.01, radius 1": (lambda p: fo.Adam(p, lr=0.01), 1.0),
    "Adam 0.01, radius 1.5": (lambda p: fo.Adam(p, lr=0.01), 1.5),
}


def learn_digits(
    name: str, make: Callable[[fo.FlatBuffer], Any], data: Images, epochs: int
) -> tuple[float, Array]:
    """Return the accuracy, and the norm of each layer's gradient at the start of each epoch."""
    activation, gain = DEEP[name]
    hidden = [layer for _ in range(DEPTH) for layer in (Dense(64, gain), activation())]
    network = Network([*hidden, Dense(10, 1.0)], (64,))
    weights = [array for key, array in network.grads.items() if key.startswith("w")]
    opt = make(network.params)
    rng = np.random.default_rng(0)
    norms = []
    for _ in range(epochs):
        for i, rows in enumerate(np.array_split(rng.permutation(len(data.x)), len(data.x) // 64)):
            network.loss_and_gradients(data.x[rows], data.y[rows])
            if i == 0:
                norms.append([fo.get_total_norm(w) for w in weights])
            opt.step(network.grads)
    return network.evaluate(data.x_test, data.y_test)[1], np.array(norms)


class Text:
    """The descriptions of scikit-learn's datasets, the last tenth of each for the test."""

    def __init__(self) -> None:
        pages = [
            page.read_text(encoding="utf-8")
            for page in sorted((files("sklearn.datasets") / "descr").iterdir(), key=str)
            if page.name.endswith(".rst")
        ]
        self.letters = sorted(set("".join(pages)))
        codes = [np.array([self.letters.index(c) for c in page]) for page in pages]
        self.train = np.concatenate([page[: len(page) * 9 // 10] for page in codes])
        self.test = np.concatenate([page[len(page) * 9 // 10 :] for page in codes])

    def pieces(self, text: Array, starts: Array) -> tuple[Array, Array]:
        """Return one-hot letters of (pieces, time, letters), and the letters that follow."""
        at = starts[:, None] + np.arange(TIME)
        return np.eye(len(self.letters), dtype=np.float32)[text[at]], text[at + 1]


def learn_text(name: str, clipped: bool, text: Text, steps: int) -> tuple[float, Array, Array]:
    """Return the loss on the test, the losses and the norms before clipping."""
    make, radius = RECURRENT[name]
    kinds = len(text.letters)
    network = Network([Recurrent(128, radius), Dense(kinds, 1.0)], (TIME, kinds))
    opt = make(network.params)
    limit = MAX_NORM if clipped else np.inf  # With infinity the step only measures the norm.
    rng = np.random.default_rng(0)
    losses, norms = [], []
    for _ in range(steps):
        starts = rng.integers(0, len(text.train) - TIME, BATCH)
        losses.append(network.loss_and_gradients(*text.pieces(text.train, starts)))
        norms.append(opt.step(network.grads, max_norm=limit).grad_norm)
    x, y = text.pieces(text.test, np.arange(0, len(text.test) - TIME, TIME))
    return network.evaluate(x, y)[0], np.array(losses), np.array(norms)


def draw(norms: dict[tuple[str, str], Array], runs: dict[tuple[str, bool], Any]) -> Figure:
    figure = Figure(figsize=(12, 7), layout="constrained")
    top, bottom = figure.subplots(2, 3)
    for axes, name in zip(top, SHOWN, strict=True):
        for layer, line in enumerate(norms[name, "SGD 0.01"].T):
            last = layer == DEPTH
            label = f"layer {layer + 1}" if last or layer % 5 == 0 else None
            axes.semilogy(line, color=("C3" if last else f"{0.9 * layer / DEPTH}"), label=label)
        axes.set(title=f"{name}, SGD 0.01", xlabel="epoch", ylim=(1e-8, 1e2))
    top[0].set_ylabel("norm of the gradient")
    top[0].legend(fontsize="small", loc="center right")
    for name in DEEP:
        bottom[0].semilogy(range(1, DEPTH + 2), norms[name, "SGD 0.01"][0], ".-", label=name)
    bottom[0].set(title="before the first step", xlabel="layer", ylim=(1e-10, 1e4))
    bottom[0].set_ylabel("norm of the gradient")
    bottom[0].legend(fontsize="small", ncols=2, loc="lower right")
    name = "SGD 0.3, radius 1"
    for clipped, label in ((False, "not clipped"), (True, f"clipped at {MAX_NORM}")):
        _, losses, lengths = runs[name, clipped]
        bottom[1].semilogy(losses, linewidth=0.8, label=label)
        bottom[2].semilogy(lengths, linewidth=0.8, label=label)
    bottom[1].set(title=f"text, {name}", xlabel="step", ylabel="cross-entropy")
    bottom[2].set(title=f"text, {name}", xlabel="step", ylabel="norm before clipping")
    bottom[1].legend(fontsize="small")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    epochs, steps = (2, 5) if asked.quick else (40, 300)
    data, text = digits(), Text()
    accuracies, norms, runs = {}, {}, {}
    bar = tqdm(total=len(DEEP) * len(OPTIMIZERS) + 2 * len(RECURRENT), unit="training")
    with np.errstate(over="ignore", invalid="ignore"):  # Divergence is a valid result.
        for name in DEEP:
            for rule, make in OPTIMIZERS.items():
                accuracies[name, rule], norms[name, rule] = learn_digits(name, make, data, epochs)
                bar.update()
        for name in RECURRENT:
            for clipped in (False, True):
                runs[name, clipped] = learn_text(name, clipped, text, steps)
                bar.update()
    bar.close()
    rows = []
    for name in DEEP:
        start = norms[name, "SGD 0.01"][0]
        measured = [f"{start[0]:.0e}", f"{start[DEPTH // 2]:.0e}", f"{start[-1]:.0e}"]
        rows.append([name, *measured, *(f"{accuracies[name, rule]:.1%}" for rule in OPTIMIZERS)])
    report.table(
        f"Digits, {DEPTH} hidden layers: norms before the first step, and test accuracy",
        ["", "layer 1", f"layer {DEPTH // 2 + 1}", f"layer {DEPTH + 1}", *OPTIMIZERS],
        rows,
    )
    report.table(
        f"{len(text.train):,} letters of text, {TIME} steps of time, {steps} steps of training",
        ["", "clipped", "largest norm", "largest loss", "final loss", "test loss"],
        [
            [name, str(MAX_NORM) if clipped else "no", f"{lengths.max():.1e}"]
            + [f"{loss:.2f}" for loss in (losses.max(), losses[-20:].mean(), test)]
            for (name, clipped), (test, losses, lengths) in runs.items()
        ],
    )
    report.picture(draw(norms, runs), asked.output, "gradients")


if __name__ == "__main__":
    main()
