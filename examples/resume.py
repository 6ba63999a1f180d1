"""A training that is killed repeatedly and resumes with identical results.

A perceptron (64-100-10) learns handwritten digits in a separate process, which saves its state
every 25 steps and is killed by SIGKILL at random times until all steps are done. A training without
interruption ends with bitwise identical weights.

    python examples/resume.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import fastoptim as fo
import report
from images import digits
from networks import Dense, Network, ReLU

BATCH, EVERY = 64, 25


class Training:
    """The complete state of a training, to be saved and loaded."""

    def __init__(self, steps: int) -> None:
        self.data = digits()
        self.network = Network([Dense(100), ReLU(), Dense(10)], (64,))
        self.opt = fo.AdamW(self.network.params, lr=3e-3, state_dtype="int8", seed=1)
        self.scheduler = fo.lr_scheduler.CosineAnnealingLR(self.opt, T_max=steps)
        self.ema = fo.EMA(self.network.params, decay=0.99, warmup=True)
        self.history = fo.History()
        self.rng = np.random.default_rng(0)
        self.done = 0

    def step(self) -> None:
        rows = self.rng.integers(0, len(self.data.x), BATCH)
        loss = self.network.loss_and_gradients(self.data.x[rows], self.data.y[rows])
        self.opt.step(self.network.grads, ema=self.ema)
        self.scheduler.step()
        self.history.record(loss=loss)
        self.done += 1

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "model": self.network.params,
            "optimizer": self.opt,
            "scheduler": self.scheduler,
            "ema": self.ema,
            "history": self.history,
        }

    def save(self, path: Path) -> None:
        fo.save(path, **self.parts, done=self.done, rng=self.rng.bit_generator.state)

    def load(self, path: Path) -> None:
        values = fo.load(path, **self.parts)
        self.done, self.rng.bit_generator.state = values["done"], values["rng"]


def train(steps: int, path: Path) -> None:
    """Resume from the last checkpoint, if there is one; runs in the process that is killed."""
    training = Training(steps)
    if path.exists():
        training.load(path)
    while training.done < steps:
        training.step()
        if training.done % EVERY == 0 or training.done == steps:
            training.save(path)


class Life(NamedTuple):
    """One process: the step at its start, and the step in the file at its end."""

    begun: int
    saved: int
    killed: bool


def saved_steps(path: Path) -> int:
    return int(fo.load(path)["done"]) if path.exists() else 0


def lives(steps: int, kills: int, path: Path) -> list[Life]:
    """Start the training as often as needed, and kill it some time after it has progressed."""
    rng = np.random.default_rng(5)
    found: list[Life] = []
    bar = tqdm(total=steps, unit="step")
    while saved_steps(path) < steps:
        begun = saved_steps(path)
        child = subprocess.Popen([sys.executable, __file__, "--train", str(steps), str(path)])
        if len(found) < kills:
            goal = steps * (len(found) + 1) / (kills + 1)
            while child.poll() is None and saved_steps(path) < goal:
                time.sleep(0.001)
            time.sleep(rng.random() / 50)
            child.kill()
        code = child.wait()
        if code and len(found) >= kills:
            raise RuntimeError(f"the training failed with {code}")
        found.append(Life(begun, saved_steps(path), code != 0))
        bar.update(found[-1].saved - begun)
    bar.close()
    return found


def draw(whole: Training, resumed: Training, found: list[Life]) -> Figure:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    loss = resumed.history["loss"]
    axes.semilogy(whole.history["loss"], color="0.8", linewidth=4, label="never killed")
    for number, life in enumerate(found):
        steps = np.arange(life.begun, life.saved)
        axes.semilogy(steps, loss[steps], linewidth=1, label=f"process {number + 1}")
        if life.killed:
            axes.axvline(life.saved, color="0.5", linestyle=":")
    axes.set(title="killed at the dotted lines", xlabel="step", ylabel="loss of the batch")
    axes.legend(fontsize="small")
    return figure


def main() -> None:
    if "--train" in sys.argv:
        train(int(sys.argv[2]), Path(sys.argv[3]))
        return
    asked = report.arguments(__doc__)
    steps, kills = (300, 1) if asked.quick else (3_000, 4)
    whole = Training(steps)
    while whole.done < steps:
        whole.step()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "last.safetensors")
        found = lives(steps, kills, path)
        resumed = Training(steps)
        resumed.load(path)
        size = path.stat().st_size
    rows = [
        [
            f"process {number + 1}",
            f"{life.begun:,}",
            f"{life.saved:,}",
            "killed" if life.killed else "",
        ]
        for number, life in enumerate(found)
    ]
    report.table("Steps of each process", ["", "from step", "saved last", ""], rows)
    same = resumed.network.params.flat.tobytes() == whole.network.params.flat.tobytes()
    rows = []
    for name, training in (("never killed", whole), ("resumed", resumed)):
        loss, accuracy = training.network.evaluate(training.data.x_test, training.data.y_test)
        rows.append([name, f"{training.history['loss'][-1]:.6f}", f"{loss:.6f}", f"{accuracy:.1%}"])
    report.table("Result", ["", "last batch", "test loss", "test"], rows)
    print(f"\nbitwise identical weights: {same}; a checkpoint has {size:,} bytes")
    if not same:
        raise SystemExit(1)
    report.picture(draw(whole, resumed, found), asked.output, "resume")


if __name__ == "__main__":
    main()
