"""Paths of optimizers on surfaces of two parameters, and the suggestions of a rate finder.

Gradient descent, momentum, Nesterov, AdaGrad, RMSprop and Adam minimize an ellipse, a saddle, a
function with a local minimum and the Rosenbrock function, each at the best of its rates. Then
gradient descent minimizes the ellipse at rates below, near and above the limit of convergence.
Last, the rate finder suggests rates for a network on handwritten digits, which are compared with
others.

    python examples/surfaces.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import fastoptim as fo
import report
from images import digits
from networks import Dense, Network, ReLU

RATES = 10 ** np.arange(-4, 1.01, 1 / 8)
TOLERANCE = 1e-3
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "gradient descent": fo.SGD,
    "momentum": lambda p, lr: fo.SGD(p, lr=lr, momentum=0.9),
    "Nesterov": lambda p, lr: fo.SGD(p, lr=lr, momentum=0.9, nesterov=True),
    "AdaGrad": fo.Adagrad,
    "RMSprop": fo.RMSprop,
    "Adam": fo.Adam,
}


@dataclass
class Surface:
    value: Callable[[Any, Any], Any]
    slope: Callable[[Any, Any], tuple[Any, Any]]
    start: tuple[float, float]
    least: float  # The minimum value.
    x: tuple[float, float]  # The plotted range.
    y: tuple[float, float]


SURFACES = {
    "ellipse, 20 : 1": Surface(
        lambda x, y: (x**2 + 20 * y**2) / 2, lambda x, y: (x, 20 * y), (-4, 1), 0, (-5, 5), (-2, 2)
    ),
    "the ellipse, turned": Surface(
        lambda x, y: (10.5 * (x**2 + y**2) - 19 * x * y) / 2,
        lambda x, y: (10.5 * x - 9.5 * y, 10.5 * y - 9.5 * x),
        (-3.5355, -2.1213),
        0,
        (-5, 5),
        (-5, 5),
    ),
    "saddle": Surface(
        lambda x, y: (x**2 - y**2) / 2 + y**4 / 4,
        lambda x, y: (x, y**3 - y),
        (-1.5, 1e-4),
        -0.25,
        (-2, 2),
        (-1.5, 1.5),
    ),
    "local minimum": Surface(
        lambda x, y: (x**2 - 1) ** 2 + 0.3 * x + y**2 / 2,
        lambda x, y: (4 * x * (x**2 - 1) + 0.3, y),
        (1.8, 1.2),
        -0.3054,
        (-2.2, 2.2),
        (-1.5, 1.5),
    ),
    "Rosenbrock": Surface(
        lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
        lambda x, y: (2 * (x - 1) - 400 * x * (y - x**2), 200 * (y - x**2)),
        (-1.2, 1),
        0,
        (-1.8, 1.8),
        (-0.7, 2.2),
    ),
}


def walk(surface: Surface, make: Callable[..., Any], lr: float, steps: int) -> Any:
    """Return the path from the start, which ends early if it diverges."""
    place, slope = np.array(surface.start, float), np.empty(2)
    opt = make(place, lr=lr)
    path = [place.copy()]
    for _ in range(steps):
        slope[:] = surface.slope(*place)
        opt.step(slope)
        path.append(place.copy())
        if np.abs(place).max() > 1e3:
            break
    return np.array(path)


def arrival(surface: Surface, path: Any) -> float:
    """Return the step from which the value stays within the tolerance of the minimum."""
    far = np.flatnonzero(surface.value(*path.T) - surface.least > TOLERANCE)
    last = far[-1] if len(far) else -1
    return float(last + 1) if last + 1 < len(path) else np.inf


def best_walks(surface: Surface, steps: int) -> dict[str, tuple[float, float, int, Any]]:
    """Return the best rate of each optimizer, its steps, how many rates converge, and the path."""
    result = {}
    for name, make in OPTIMIZERS.items():
        paths = [walk(surface, make, lr, steps) for lr in RATES]
        arrivals = np.array([arrival(surface, path) for path in paths])
        ends = [surface.value(*path[-1]) for path in paths]
        best = int(np.lexsort((ends, arrivals))[0])
        reached = int(np.isfinite(arrivals).sum())
        result[name] = RATES[best], arrivals[best], reached, paths[best]
    return result


class Digits:
    """A network (64-64-10) and an endless stream of batches of 64 handwritten digits."""

    def __init__(self, seed: int) -> None:
        self.data = digits()
        self.rng = np.random.default_rng(seed)
        self.network = Network([Dense(64), ReLU(), Dense(10)], (64,), seed)

    def batch(self, _: Any = None) -> tuple[float, Any]:
        """Return the loss and the gradients of the next batch at the current parameters."""
        rows = self.rng.integers(0, len(self.data.y), 64)
        loss = self.network.loss_and_gradients(self.data.x[rows], self.data.y[rows])
        return loss, self.network.grads

    def loss(self) -> float:
        return self.network.evaluate(self.data.x, self.data.y)[0]


FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
FOUND = ("gradient descent", "momentum", "Adam")


def suggested(name: str, seeds: int, steps: int) -> tuple[Any, float, list[float]]:
    """Return the first sweep, the median suggestion, and mean losses trained at factors of it."""
    sweeps = []
    for seed in range(seeds):
        problem = Digits(seed)
        finder = fo.LRFinder(OPTIMIZERS[name](problem.network.params, lr=1e-3), problem.batch)
        sweeps.append(finder.run(start_lr=1e-5, end_lr=10))
    rate = float(np.median([sweep.suggestion for sweep in sweeps]))
    ends = []
    for factor in FACTORS:
        losses = []
        for seed in range(seeds):
            problem = Digits(seed)
            opt = OPTIMIZERS[name](problem.network.params, lr=factor * rate)
            for _ in range(steps):
                opt.step(problem.batch()[1])
            losses.append(problem.loss())
        ends.append(float(np.mean(losses)))
    return sweeps[0], rate, ends


def draw(walks: dict[str, Any], slow_to_fast: dict[str, Any], sweeps: Any) -> Figure:
    figure = Figure(figsize=(18, 8), layout="constrained")
    panels = figure.subplots(2, 4)
    x, y = np.eye(2)

    def contours(surface: Surface, paths: dict[str, Any], ax: Any) -> None:
        # Slightly above the minimum, where the logarithm is finite.
        plane = fo.landscape.plane(
            lambda p: float(surface.value(*p)) - surface.least + 0.02,
            np.zeros(2),
            x,
            y,
            np.linspace(*surface.x, 60),
            np.linspace(*surface.y, 60),
        )
        fo.plot.landscape(plane, paths, ax=ax).set(xlim=surface.x, ylim=surface.y)
        ax.set(xlabel="", ylabel="")

    for (name, by_optimizer), ax in zip(walks.items(), panels.flat, strict=False):
        # Later steps would only cover the earlier ones in the plot.
        contours(SURFACES[name], {n: found[3][:40] for n, found in by_optimizer.items()}, ax)
        ax.set_title(name)
        if ax is not panels[0, 1]:
            ax.get_legend().remove()
    contours(SURFACES["ellipse, 20 : 1"], slow_to_fast, panels[1, 1])
    panels[1, 1].set_title("gradient descent, 30 steps, three rates")
    sweep, _, _ = sweeps["Adam"]
    fo.plot.lr_finder(sweep, ax=panels[1, 2]).set_title("the rate finder, Adam on digits")
    for name, (_, _, ends) in sweeps.items():
        panels[1, 3].loglog(FACTORS, ends, "o-", label=name)
    panels[1, 3].set(title="trained at factors of the suggestion", xlabel="factor", ylabel="loss")
    panels[1, 3].legend()
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    steps, seeds = (100, 1) if asked.quick else (1000, 5)
    walks = {
        name: best_walks(surface, steps) for name, surface in tqdm(SURFACES.items(), unit="surface")
    }
    ellipse = SURFACES["ellipse, 20 : 1"]
    slow_to_fast = {f"rate {lr}": walk(ellipse, fo.SGD, lr, 30) for lr in (0.005, 0.09, 0.101)}
    found = {name: suggested(name, seeds, steps // 2) for name in tqdm(FOUND, unit="optimizer")}
    report.table(
        f"Steps to the lowest value, rate, and at how many of {len(RATES)} rates it is reached",
        ["", *SURFACES],
        [
            [name, *(f"{w[name][1]:g} at {w[name][0]:.2g} ({w[name][2]})" for w in walks.values())]
            for name in OPTIMIZERS
        ],
    )
    report.table(
        "Gradient descent on the ellipse, which converges at rates below 2 / 20",
        ["", "value after 30 steps"],
        [[name, f"{ellipse.value(*path[-1]):.3g}"] for name, path in slow_to_fast.items()],
    )
    report.table(
        f"Loss over all digits after {steps // 2} batches",
        ["", "suggestion", *(f"{factor:g} of it" for factor in FACTORS)],
        [
            [name, f"{rate:.2g}", *(f"{e:.3f}" for e in ends)]
            for name, (_, rate, ends) in found.items()
        ],
    )
    report.picture(draw(walks, slow_to_fast, found), asked.output, "surfaces")


if __name__ == "__main__":
    main()
