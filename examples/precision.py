"""Mixed precision with loss scaling; bfloat16 and int8 moments: memory and accuracy.

A perceptron (256-100-26) learns letters with AdamW. Its passes compute in float32, bfloat16 or
float16. Its weights are stored in float32 with 16-bit copies for the passes, or only in 16 bits,
and its moments in float32, bfloat16 or int8. The experiments show which gradients underflow in
float16, which loss scales work, and how rounding to nearest affects small updates.

    python examples/precision.py
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import fastoptim as fo
import report
from images import Images, letters
from networks import CROSS_ENTROPY, Array, Dense, Flatten, Layer, Network, ReLU

BATCH, LR = 64, 1e-2
RATES = (1e-4, 1e-3, LR)
LOOK = 50  # The number of steps between measurements of gradients and updates.


class Rounded(Dense):
    """Sums of products in float32, rounded to the type of the weights, as hardware does it."""

    def forward(self, x: Array) -> Array:
        w, b = self.params["w"], self.params["b"].astype(np.float32)
        self.x, self.w = x.astype(w.dtype).astype(np.float32), w.astype(np.float32)
        return (self.x @ self.w + b).astype(w.dtype)

    def backward(self, delta: Array) -> Array:
        wide = delta.astype(np.float32)
        self.grads["w"][...] = self.x.T @ wide
        self.grads["b"][...] = wide.sum(axis=0)
        return (wide @ self.w.T).astype(delta.dtype)


class Single(Layer):
    """Convert the input of the loss to float32, and its gradient back to 16 bits."""

    def forward(self, x: Array) -> Array:
        self.dtype = x.dtype
        return x.astype(np.float32)

    def backward(self, delta: Array) -> Array:
        return delta.astype(self.dtype)


class Setting(NamedTuple):
    """The types of computation and storage."""

    passes: str = "float32"
    masters: bool = False  # Whether float32 weights are updated, with copies for the passes.
    scale: float | None = 1.0  # The loss scale; None adapts it.
    state_dtype: str = "float32"
    rounding: str = "nearest"


SCALED = Setting("float16", masters=True, scale=None)
COPIES = {
    "float32": Setting(),
    "bfloat16": Setting("bfloat16", masters=True),
    "float16, unscaled loss": Setting("float16", masters=True),
    "float16, loss scaled": SCALED,
}
SCALES = {k: Setting("float16", masters=True, scale=2.0**k) for k in (-16, -12, -8, 0, 8, 16, 20)}
WEIGHTS = {
    "float32": Setting(),
    "bfloat16, nearest": Setting("bfloat16"),
    "bfloat16, stochastic": Setting("bfloat16", rounding="stochastic"),
    "float16, nearest": Setting("float16", scale=None),
    "float16, stochastic": Setting("float16", scale=None, rounding="stochastic"),
}
KEPT = {
    "float32": Setting(),
    "bfloat16 moments, nearest": Setting(state_dtype="bfloat16"),
    "bfloat16 moments, stochastic": Setting(state_dtype="bfloat16", rounding="stochastic"),
    "int8 moments, nearest": Setting(state_dtype="int8"),
    "int8 moments, stochastic": Setting(state_dtype="int8", rounding="stochastic"),
    "bfloat16 copies": Setting("bfloat16", masters=True),
    "bfloat16 copies, int8 moments": Setting("bfloat16", True, 1.0, "int8", "stochastic"),
    "bfloat16 weights and moments": Setting("bfloat16", False, 1.0, "bfloat16", "stochastic"),
    "bfloat16 weights, int8 moments": Setting("bfloat16", False, 1.0, "int8", "stochastic"),
}


class Trained:
    """A network, its accuracy, its memory, and the gradients and updates that were lost."""

    # The step detects overflow in the passes.
    @np.errstate(over="ignore", invalid="ignore")
    def __init__(self, data: Images, setting: Setting, lr: float, seed: int, epochs: int) -> None:
        self.network, self.exact = (
            Network([Flatten(), Rounded(100), ReLU(), Rounded(26), Single()], (16, 16, 1), seed, of)
            for of in (setting.passes, "float32")
        )
        self.weights = (self.exact if setting.masters else self.network).params
        self.grads = self.network.grads
        copy = self.network.params if setting.masters else None
        self.opt = fo.AdamW(
            self.weights,
            lr=fo.schedules.cosine(lr, epochs * (len(data.x) // BATCH)),
            state_dtype=setting.state_dtype,
            rounding=setting.rounding,
            seed=seed,
        )
        # A tenth of the usual interval, because the training is short.
        scaler = fo.amp.GradScaler(setting.scale or 65536.0, growth_interval=200)
        self.skipped = 0
        lost: list[float] = []
        unmoved: list[float] = []
        for epoch in range(epochs):
            batches = fo.minibatches(len(data.x), BATCH, seed * epochs + epoch, drop_last=True)
            for number, rows in enumerate(batches):
                x, y = data.x[rows], data.y[rows]
                scores = self.network.forward(x)
                scale = scaler.get_scale()
                delta = CROSS_ENTROPY.grad(scores, y, out=scores, loss_scale=scale)
                self.network.backward(delta)
                look = number % LOOK == 0
                if look and setting.masters:
                    self.exact.loss_and_gradients(x, y)
                    lost.append(share(self.grads.flat == 0, self.exact.grads.flat != 0))
                before = self.weights.flat.copy()
                applied = scaler.step(self.opt, self.grads, copy_to=copy).applied
                if look and applied:
                    unmoved.append(share(self.weights.flat == before, self.grads.flat != 0))
                scaler.update(setting.scale)
                self.skipped += not applied
        # Fractions of the gradients that are 0 only in 16 bits, and of the weights with a gradient
        # that a step does not change.
        self.lost, self.unmoved = (float(np.mean(shares or [0.0])) for shares in (lost, unmoved))
        self.scale = scaler.get_scale()
        self.loss = self.network.evaluate(data.x, data.y)[0]
        self.accuracy = self.network.evaluate(data.x_test, data.y_test)[1]

    @property
    def bytes(self) -> list[float]:
        """The bytes per parameter of weights with their copies, gradients and moments."""
        # Without copies both are the same buffer.
        weights = {id(buffer): buffer.flat for buffer in (self.weights, self.network.params)}
        moments = [
            array
            for arrays in self.opt.state.values()
            for name, array in arrays.items()
            if name != "step"
        ]
        parts = weights.values(), [self.grads.flat], moments
        return [sum(array.nbytes for array in part) / self.weights.size for part in parts]


def share(some: Array, of: Array) -> float:
    """Return the fraction of ``some`` among ``of``."""
    return float(some[of].mean()) if of.any() else 0.0


Runs = dict[tuple[Setting, float], list[Trained]]


def train(seeds: int, epochs: int, count: int) -> Runs:
    """Train every setting at its rates, and the constant scales with one seed."""
    data = letters(16, count)
    jobs = {(setting, LR): seeds for group in (KEPT, COPIES) for setting in group.values()}
    jobs |= {(setting, lr): seeds for setting in WEIGHTS.values() for lr in RATES}
    jobs = {(setting, LR): 1 for setting in SCALES.values()} | jobs
    runs: Runs = {job: [] for job in jobs}
    bar = tqdm(total=sum(jobs.values()), unit="training")
    for (setting, lr), repeats in jobs.items():
        for seed in range(repeats):
            runs[setting, lr].append(Trained(data, setting, lr, seed, epochs))
            bar.update()
    bar.close()
    return runs


def percent(values: list[float]) -> str:
    """Return the mean with its standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{np.mean(values):.1%} ± {100 * error:.1f}"


def mean(runs: list[Trained], name: str) -> float:
    return float(np.mean([getattr(run, name) for run in runs]))


def knows(runs: list[Trained]) -> list[str]:
    """Return the table cells of the loss and of the accuracy."""
    return [f"{mean(runs, 'loss'):.3f}", percent([run.accuracy for run in runs])]


def tables(runs: Runs) -> None:
    rows = []
    for name, setting in COPIES.items():
        found = runs[setting, LR]
        lost = f"{mean(found, 'lost'):.2%}" if setting.masters else ""
        last = f"{found[0].scale:,.0f}"
        rows.append([name, *knows(found), lost, f"{mean(found, 'skipped'):.0f}", last])
    heads = ["", "training loss", "test", "gradients lost", "skipped", "final scale"]
    report.table("Passes in 16 bits, weights and moments in float32", heads, rows)
    constant = [runs[setting, LR][0] for setting in SCALES.values()]
    report.table(
        "float16, the loss times a constant, one seed",
        ["", *(f"2^{k}" for k in SCALES)],
        [
            ["gradients lost", *(f"{run.lost:.1%}" for run in constant)],
            ["steps skipped", *(f"{run.skipped}" for run in constant)],
            ["training loss", *(f"{run.loss:.3f}" for run in constant)],
            ["test", *(f"{run.accuracy:.1%}" for run in constant)],
        ],
    )
    rows = []
    for name, setting in WEIGHTS.items():
        cells = [percent([run.accuracy for run in runs[setting, lr]]) for lr in RATES]
        stay = [f"{mean(runs[setting, lr], 'unmoved'):.0%}" for lr in RATES]
        rows.append([name, *cells, *stay])
    heads = ["", *(f"rate {lr:g}" for lr in RATES), *(f"unchanged at {lr:g}" for lr in RATES)]
    report.table("Weights in 16 bits alone, test accuracy", heads, rows)
    rows = []
    for name, setting in KEPT.items():
        found = runs[setting, LR]
        size = found[0].bytes
        rows.append([name, *(f"{x:.2f}" for x in (*size, sum(size))), *knows(found)])
    heads = ["bytes per parameter", "weights", "gradients", "moments", "all"]
    report.table("Storage", [*heads, "training loss", "test"], rows)


def draw(runs: Runs) -> Figure:
    figure = Figure(figsize=(18, 4.5), layout="constrained")
    sizes, scales, rates, memory = figure.subplots(1, 4)
    scaled = runs[SCALED, LR][0]
    found = np.abs(scaled.exact.grads.flat)
    exponents = np.log2(found[found > 0])
    for shift, label in ((0.0, "unscaled"), (np.log2(scaled.scale), "scaled")):
        sizes.hist(exponents + shift, np.arange(-40, 20), histtype="step", label=label)
    sizes.axvspan(-40, -25, color="C3", alpha=0.2, label="0 in float16")
    sizes.axvspan(-25, -14, color="C3", alpha=0.07, label="fewer digits")
    sizes.axvspan(16, 20, color="C1", alpha=0.2, label="infinite")
    sizes.set(title="gradients of the last measurement", xlabel="exponent of 2")
    sizes.legend(fontsize="small")

    scales.plot(
        list(SCALES), [runs[s, LR][0].loss for s in SCALES.values()], "o-", label="constant"
    )
    scales.axhline(scaled.loss, color="C2", label="adapted")
    scales.set(title="float16, constant scales", xlabel="exponent of 2", ylabel="training loss")
    scales.set(yscale="log")
    scales.legend(fontsize="small")

    for name, setting in WEIGHTS.items():
        ratios = [mean(runs[setting, r], "loss") / mean(runs[Setting(), r], "loss") for r in RATES]
        style = "o--" if setting.rounding == "nearest" else "o-"
        rates.semilogx(RATES, ratios, style, label=name)
    rates.set(title="weights in 16 bits alone", xlabel="rate", ylabel="loss / that of float32")
    rates.legend(fontsize="small")

    for name, setting in KEPT.items():
        found = runs[setting, LR]
        memory.semilogy(sum(found[0].bytes), mean(found, "loss"), "o", label=name)
    memory.set(
        title="storage of parameters and moments",
        xlabel="bytes per parameter",
        ylabel="training loss",
    )
    memory.legend(fontsize="x-small")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    runs = train(*((2, 1, 1_300) if asked.quick else (3, 4, 26_000)))
    tables(runs)
    report.picture(draw(runs), asked.output, "precision")


if __name__ == "__main__":
    main()
