"""Effects of schedules, weight decay and warm-up on handwritten digits, over several seeds.

A perceptron is trained with every schedule, at a tuned rate and at one that is too large; with Adam
and L2 and with AdamW over a grid of rates and decays, on few digits; and with and without warm-up,
shallow and deep. The experiments show which differences are statistically significant.

    python examples/schedules_and_decay.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from tqdm import tqdm

import fastoptim as fo
import report
from fastoptim import schedules as fs
from images import Images, digits
from networks import Array, Dense, Network, ReLU

BATCH, EPOCHS, FEW_EPOCHS = 64, 20, 60
PLATEAU = "on a plateau"
# Schedules as functions of the highest rate and the number of steps.
SCHEDULES: dict[str, Callable[[float, int], Any]] = {
    "constant": lambda lr, n: lr,
    "exponential": lambda lr, n: fs.exponential(lr, 0.01 ** (1 / n)),
    "step": lambda lr, n: fs.step(lr, n // 3),
    "multistep": lambda lr, n: fs.multistep(lr, [n // 2, n * 3 // 4]),
    "linear": lambda lr, n: fs.linear(lr, 1.0, 0.0, n),
    "polynomial, power 2": lambda lr, n: fs.polynomial(lr, n, power=2),
    "inverse square root": lambda lr, n: fs.inverse_sqrt(lr, max(1, n // 20)),
    "cosine": lambda lr, n: fs.cosine(lr, n),
    "cosine, 2 restarts": lambda lr, n: fs.cosine_restarts(lr, n // 7 + 1, T_mult=2),
    "warm-up, cosine": lambda lr, n: warm_cosine(lr, n),
    "one cycle": lambda lr, n: fs.one_cycle(lr, n),
    "cyclic": lambda lr, n: fs.cyclic(lr / 10, lr, max(1, n // 10)),
    "wsd": lambda lr, n: fs.wsd(lr, n // 10, n - n // 10 - n // 4, n // 4),
    PLATEAU: lambda lr, n: lr,
}
TRIED = [("SGD", 0.3), ("SGD", 1.0), ("Adam", 0.03), ("Adam", 0.1)]
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
DECAYS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
RULES: dict[str, Callable[[fo.FlatBuffer, Any], Any]] = {
    "SGD": lambda p, lr: fo.SGD(p, lr=lr, momentum=0.9),
    "Adam": lambda p, lr: fo.Adam(p, lr=lr),
}
# Hidden layers, and rates up to those at which training fails.
WARMED = {
    ("SGD", 1): (0.1, 0.3, 1.0, 3.0),
    ("Adam", 1): (0.03, 0.1, 0.3, 1.0),
    ("SGD", 10): (0.01, 0.03, 0.1, 0.3),
    ("Adam", 10): (0.003, 0.01, 0.03, 0.1),
}


def warm_cosine(lr: float, steps: int) -> Any:
    warm_up = max(1, steps // 10)
    return fs.warmup(fs.cosine(lr, steps - warm_up), warm_up)


def train(
    make: Callable[[fo.FlatBuffer, int], Any],
    data: Images,
    seed: int,
    epochs: int,
    hidden: int = 1,
    plateau: bool = False,
) -> Array:
    """Return the accuracy on the test after every epoch."""
    layers = [layer for _ in range(hidden) for layer in (Dense(64), ReLU())]
    network = Network([*layers, Dense(10)], (64,), seed)
    batches = len(data.x) // BATCH
    opt = make(network.params, epochs * batches)
    watch = fo.lr_scheduler.ReduceLROnPlateau(opt, factor=0.3, patience=1) if plateau else None
    rng = np.random.default_rng(seed)
    accuracies = []
    with np.errstate(over="ignore", invalid="ignore"):  # Divergence is a valid result.
        for _ in range(epochs):
            losses = []
            for rows in np.array_split(rng.permutation(len(data.x)), batches):
                losses.append(network.loss_and_gradients(data.x[rows], data.y[rows]))
                opt.step(network.grads)
            if watch is not None:
                watch.step(float(np.mean(losses)))
            accuracies.append(network.evaluate(data.x_test, data.y_test)[1])
    return np.array(accuracies)


def scheduled(rule: str, name: str, lr: float, params: fo.FlatBuffer, steps: int) -> Any:
    return RULES[rule](params, SCHEDULES[name](lr, steps))


def decayed(kind: type, lr: float, decay: float, params: fo.FlatBuffer, steps: int) -> Any:
    return kind(params, lr=fs.cosine(lr, steps), weight_decay=decay)


def with_error(runs: Array) -> str:
    """Return the mean of the last accuracies of several seeds, and its standard error."""
    last = runs[:, -1]
    return f"{last.mean():.1%} ± {100 * last.std(ddof=1) / np.sqrt(len(last)):.1f}"


def draw(curves: Any, maps: dict[str, Array], warmed: Any) -> Figure:
    figure = Figure(figsize=(13, 8), layout="constrained")
    top, bottom = figure.subplots(2, 3)
    for axes in top:
        axes.set_prop_cycle(color=colormaps["tab20"](range(20)))
    shown = {name: make(1.0, 440) for name, make in SCHEDULES.items() if name != PLATEAU}
    shown["constant"] = fs.constant(1.0)
    fo.plot.schedule(shown, 440, ax=top[0])
    top[0].set(title="the rate, relative to the highest")
    top[0].legend(fontsize="xx-small", ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    for axes, tried in zip(top[1:], TRIED[:2], strict=True):
        for name in SCHEDULES:
            line = curves[tried, name].mean(axis=0)
            axes.plot(range(1, len(line) + 1), line, "k--" if name == PLATEAU else "-")
        axes.set(title=f"{tried[0]} at {tried[1]}", xlabel="epoch", ylim=(0.4, 1))
    top[1].set_ylabel("test accuracy")
    for axes, (name, grid) in zip(bottom, maps.items(), strict=False):
        image = axes.imshow(grid, vmin=0.9, vmax=grid.max(), origin="lower", aspect="auto")
        for (row, column), value in np.ndenumerate(grid):
            ink = "k" if value > 0.93 else "w"
            axes.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=ink)
        axes.set(title=f"{name}: test accuracy", xlabel="weight decay", ylabel="rate")
        axes.set_xticks(range(len(DECAYS)), [f"{decay:g}" for decay in DECAYS])
        axes.set_yticks(range(len(grid)), [f"{lr:g}" for lr in RATES[: len(grid)]])
    figure.colorbar(image, ax=bottom[1])
    for color, ((rule, hidden), by_rate) in enumerate(warmed.items()):
        for style, runs in zip(("o:", "o-"), zip(*by_rate.values(), strict=True), strict=True):
            means = [each[:, -1].mean() for each in runs]
            label = f"{rule}, {hidden} hidden" if style == "o-" else None
            bottom[2].semilogx(list(by_rate), means, style, color=f"C{color}", label=label)
    bottom[2].set(title="with warm-up, and without (dotted)", xlabel="rate", ylim=(0, 1.02))
    bottom[2].legend(fontsize="small", loc="lower left")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    part = 10 if asked.quick else 1
    seeds, epochs = range(2 if asked.quick else 8), EPOCHS // part
    rates = RATES[2:4] if asked.quick else RATES
    data = [digits(seed) for seed in seeds]
    few = [digits(seed, test=0.8) for seed in seeds[:4]]
    grid = 2 * len(rates) * len(DECAYS)
    bar = tqdm(total=len(SCHEDULES) * len(TRIED) + grid + 8 * len(WARMED), unit="setting")

    def runs(make: Any, sets: list[Images], epochs: int, **options: Any) -> Array:
        bar.update()
        return np.stack([train(make, one, s, epochs, **options) for s, one in enumerate(sets)])

    curves, taken = {}, {}
    for name in SCHEDULES:
        start = time.perf_counter()
        for tried in TRIED:
            make = partial(scheduled, tried[0], name, tried[1])
            curves[tried, name] = runs(make, data, epochs, plateau=name == PLATEAU)
        taken[name] = (time.perf_counter() - start) / len(TRIED) / len(data)
    maps = {}
    for title, kind in (("Adam with L2", fo.Adam), ("AdamW", fo.AdamW)):
        cells = [
            runs(partial(decayed, kind, lr, decay), few, FEW_EPOCHS // part)[:, -1].mean()
            for lr in rates
            for decay in DECAYS
        ]
        maps[title] = np.reshape(cells, (len(rates), len(DECAYS)))
    warmed: dict[tuple[str, int], dict[float, list[Array]]] = {}
    for (rule, hidden), tries in WARMED.items():
        for lr in tries:
            warmed.setdefault((rule, hidden), {})[lr] = [
                runs(partial(scheduled, rule, name, lr), data[:5], epochs, hidden=hidden)
                for name in ("cosine", "warm-up, cosine")
            ]
    bar.close()

    report.table(
        f"Test accuracy, mean of {len(data)} seeds ± its standard error, and time per training",
        ["", *(f"{rule} {lr:g}" for rule, lr in TRIED), "time"],
        [
            [name, *(with_error(curves[tried, name]) for tried in TRIED), f"{1000 * time:.0f} ms"]
            for name, time in taken.items()
        ],
    )
    for title, values in maps.items():
        report.table(
            f"{title}: test accuracy from {len(few[0].x)} digits, by rate and decay",
            ["", *(f"{decay:g}" for decay in DECAYS)],
            [
                [f"{lr:g}", *(f"{a:.1%}" for a in line)]
                for lr, line in zip(rates, values, strict=True)
            ],
        )
    report.table(
        "A cosine, without and with warm-up over a tenth",
        ["", "rate", "without", "with"],
        [
            [f"{rule}, {hidden} hidden", f"{lr:g}", *map(with_error, pair)]
            for (rule, hidden), by_rate in warmed.items()
            for lr, pair in by_rate.items()
        ],
    )
    report.picture(draw(curves, maps, warmed), asked.output, "schedules_and_decay")


if __name__ == "__main__":
    main()
