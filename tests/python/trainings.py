"""Trainings with all kinds of objects, to save and resume: one for each optimizer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

import fastoptim as fo
from cases import OPTIMIZERS
from fastoptim import lr_scheduler
from schedulers import ARGUMENTS, made

SHAPES = {"w": (130, 140), "b": (9, 300)}
SCHEDULERS = [*ARGUMENTS, "SequentialLR", "ChainedScheduler"]
# The storage in low precision, by the number of the training.
STORAGES: list[tuple[str, dict[str, Any]]] = [
    ("float32", {}),
    ("float32", {"state_dtype": "bfloat16"}),
    ("bfloat16", {"seed": 3}),
    ("float32", {"state_dtype": "int8", "seed": 2}),
    ("float64", {}),
    ("float16", {"rounding": "nearest"}),
]
KINDS = [*OPTIMIZERS, "SAM", fo.RandomSearch, fo.RandomLocalSearch]


def scheduled(opt: Any, name: str) -> Any:
    """Construct a scheduler, or another one if it requires momentum that the optimizer lacks."""
    if name == "SequentialLR":
        parts = [made(opt, "LinearLR"), made(opt, "StepLR")]
        return lr_scheduler.SequentialLR(opt, parts, [3])
    if name == "ChainedScheduler":
        return lr_scheduler.ChainedScheduler([made(opt, "ConstantLR"), made(opt, "ExponentialLR")])
    try:
        return made(opt, name)
    except (KeyError, ValueError):
        return made(opt, "CosineAnnealingLR")


class Training:
    """A training, whose number determines its objects."""

    def __init__(self, number: int) -> None:
        kind = KINDS[number]
        self.dtype, arguments = STORAGES[number % len(STORAGES)]
        is_search = kind in (fo.RandomSearch, fo.RandomLocalSearch)
        self.dtype = "float32" if is_search else self.dtype
        self.rng = np.random.default_rng(number)
        self.model = fo.FlatBuffer(SHAPES, self.dtype)
        self.model.flat[...] = self.rng.standard_normal(self.model.size)
        self.ema = fo.EMA(self.model, decay=0.9, warmup=True)
        self.scaler = fo.amp.GradScaler(init_scale=8.0, growth_interval=2)
        self.history = fo.History()
        self.scheduler: Any = None
        if is_search:
            self.opt = kind(self.model, scale=0.1, seed=number)
            return
        groups = [{"params": {name: array}} for name, array in self.model.items()]
        cls = fo.AdamW if kind == "SAM" else kind
        self.opt = cls(groups, lr=0.01, **arguments)
        self.scheduler = scheduled(self.opt, SCHEDULERS[number % len(SCHEDULERS)])
        if kind == "SAM":
            self.opt = fo.SAM(self.opt, rho=0.1)

    def grads(self) -> dict[str, Any]:
        return {
            name: self.rng.standard_normal(shape).astype(self.model.dtype)
            for name, shape in SHAPES.items()
        }

    def step(self) -> None:
        if self.scheduler is None:
            self.opt.step(lambda params: float(np.abs(params.flat).sum()))
            self.ema.update(self.model)
            return
        if isinstance(self.opt, fo.SAM):
            self.opt.step(lambda: (0.0, self.grads()))
            self.ema.update(self.model)
        else:
            grads = {name: self.scaler.scale(grad) for name, grad in self.grads().items()}
            if self.rng.random() < 0.2:
                grads["w"][0, 0] = np.inf
            self.scaler.step(self.opt, grads, ema=self.ema, max_norm=5.0)
            self.scaler.update()
        is_plateau = isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau)
        self.scheduler.step(*([self.rng.random()] if is_plateau else []))
        self.history.record(loss=self.rng.random(), optimizer=self.opt)

    def parts(self) -> dict[str, Any]:
        names = ("model", "opt", "ema", "scaler", "history", "scheduler")
        parts = {name: getattr(self, name) for name in names}
        return {name: part for name, part in parts.items() if part is not None}

    def save(self, path: Path) -> None:
        fo.save(path, rng=self.rng.bit_generator.state, **self.parts())

    def load(self, path: Path) -> None:
        values = fo.load(path, **self.parts())
        self.rng.bit_generator.state = values["rng"]

    def digest(self) -> str:
        """Return a hash of the results of the training."""
        base = getattr(self.opt, "base", self.opt)
        found = hashlib.sha256(self.model.flat.tobytes() + self.ema.shadow.flat.tobytes())
        if self.scheduler is None:
            found.update(repr((self.opt.best, self.opt.steps)).encode())
        else:
            for entry in base.state.values():
                for value in entry.values():
                    found.update(
                        value.tobytes() if hasattr(value, "tobytes") else repr(value).encode()
                    )
            found.update(repr(self.scheduler.state_dict()).encode())
        found.update(repr((self.scaler, self.ema.updates, dict(self.history))).encode())
        return found.hexdigest()


STEPS = 6


def resumed(directory: str) -> list[str]:
    """Resume all trainings from their files."""
    digests = []
    for number in range(len(KINDS)):
        training = Training(number)
        training.load(Path(directory, str(number)))
        for _ in range(first_half(number), STEPS):
            training.step()
        digests.append(training.digest())
    return digests


def first_half(number: int) -> int:
    """Return the number of steps after which a training is saved."""
    return number % 5
