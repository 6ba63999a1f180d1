"""Type checks of calls of the package: valid calls pass, and invalid ones are errors."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastoptim as fo

ROOT = Path(__file__).parents[3]

PREAMBLE = """\
from collections.abc import Iterator

import numpy as np
import fastoptim as fo

w = np.ones((2, 2))
params = fo.FlatBuffer({"w": (2, 2)})
opt = fo.AdamW(params)
ema = fo.EMA(params)


def fraction(step: int) -> float:
    return 1 / (1 + step)


def pair(step: int) -> tuple[float, float]:
    return 0.9, 0.99


def word(step: int) -> str:
    return "fast"


def arrays() -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    yield w
"""

GOOD = """\
fo.AdamW(params, lr=1, betas=(0.9, 0.99), eps=1e-8, state_dtype="int8", rounding="nearest")
fo.AdamW(w, lr=fo.schedules.cosine(0.1, 100), betas=pair)
fo.AdamW([w], lr=fo.schedules.warmup(fraction, 10), maximize=True)
fo.AdamW({"w": w}, lr=fraction, state_dtype=None)
fo.AdamW([{"params": w, "lr": 0.1}, {"params": [w]}])
fo.AdamW(arrays())
fo.SGD(w, momentum=lambda step: 0.9, momentum_form="inside")
fo.Adafactor(w, eps=(None, 1e-3))
fo.AdEMAMix(w, betas=(0.9, 0.999, 0.9999), t_alpha=None)
fo.Muon(w, adjust_lr_fn="original", ns_steps=5)
fo.Prodigy(w, beta3=None, lr=fo.schedules.constant(1.0))
rate: fo.optim.Hyperparameter[float] = fo.schedules.constant(0.1)
opt.step(w, max_norm=1, clip_value=None, nonfinite="skip", ema=ema)
fo.lr_scheduler.OneCycleLR(opt, 0.1, 100, anneal_strategy="linear")
fo.lr_scheduler.CyclicLR(opt, 0.1, [0.5], mode="exp_range", scale_mode="cycle")
fo.lr_scheduler.ReduceLROnPlateau(fo.SAM(opt), "max", threshold_mode="abs")
fo.lr_scheduler.SequentialLR(opt, [fo.lr_scheduler.StepLR(opt, 3)], [])
fo.lr_scheduler.WarmupStableDecayLR(opt, 1, 2, 3, decay="sqrt")
fo.presets.image_classification(100, "adamw")
fo.landscape.random_direction(params, normalize=None)
"""

BAD = """\
fo.AdamW(params, lr="0.1")
fo.AdamW(params, lr=word)
fo.AdamW(params, lr=None)
fo.AdamW(params, betas=0.9)
fo.AdamW(params, betas=(0.9, 0.99, 0.999))
fo.AdamW(params, betas=fraction)
fo.AdamW(params, rounding="up")
fo.AdamW(params, state_dtype=np.int8)
fo.AdamW(params, state_dtype="float16")
fo.AdamW(params, amsgrad="yes")
fo.AdamW("w")
fo.AdamW(3.0)
fo.SGD(w, momentum_form="sideways")
fo.Muon(w, adjust_lr_fn="sideways")
fo.SAM(w)
opt.step(w, max_norm="1")
opt.step(w, nonfinite="ignore")
opt.step(w, ema=w)
ema.decay = "0.9"
fo.lr_scheduler.StepLR(w, 3)
fo.lr_scheduler.StepLR(opt, "3")
fo.lr_scheduler.OneCycleLR(opt, 0.1, 100, anneal_strategy="cosine")
fo.lr_scheduler.CyclicLR(opt, 0.1, 0.5, mode="square")
fo.lr_scheduler.ReduceLROnPlateau(opt, "least")
fo.lr_scheduler.SequentialLR(opt, [opt], [3])
fo.lr_scheduler.WarmupStableDecayLR(opt, 1, 2, 3, decay="cubic")
fo.schedules.one_cycle(0.1, 100, anneal_strategy="cosine")
fo.schedules.cosine("0.1", 100)
fo.presets.image_classification(100, "lion")
fo.landscape.random_direction(params, normalize="layers")
"""


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_wrong_calls_and_no_others_are_errors(tmp_path: Path) -> None:
    before = PREAMBLE + GOOD
    script = tmp_path / "calls.py"
    script.write_text(before + BAD)
    typical = tmp_path / "typical.py"
    typical.write_text(TYPICAL)
    # A separate cache, since mypy discards a cache of another configuration.
    cache = ROOT / ".mypy_cache" / "calls"
    options = [f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={cache}"]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(script), str(typical)],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "typical.py" not in checked.stdout, checked.stdout
    errors = re.findall(r"^calls\.py:(\d+): error", checked.stdout, re.MULTILINE)
    lines = (before + BAD).splitlines()
    assert errors, checked.stdout + checked.stderr
    assert {lines[int(number) - 1] for number in errors} == {*BAD.splitlines()}, checked.stdout


PYRIGHT = next(
    (
        found
        for name in ("basedpyright", "pyright")
        if (found := shutil.which(name, path=str(Path(sys.executable).parent)))
    ),
    None,
)

# A typical program, with its own annotations of what it gets.
TYPICAL = (
    PREAMBLE
    + """\
import numpy.typing as npt

x: npt.NDArray[np.float32] = np.ones((4, 3), np.float32)
y: npt.NDArray[np.int64] = np.zeros(4, np.int64)
loss_fn = fo.losses.CrossEntropyLoss(label_smoothing=0.1)
scaler = fo.amp.GradScaler()
history = fo.History()


def train(model: fo.FlatBuffer, rate: fo.optim.Hyperparameter[float], steps: int) -> float:
    opt = fo.AdamW(model, lr=rate)
    scheduler = fo.lr_scheduler.CosineAnnealingLR(opt, T_max=steps)
    grads = model.zeros_like()
    value = 0.0
    for batch in fo.minibatches(len(x), 2):
        logits = x[batch] @ model["w"] + model["b"]
        value, slope = loss_fn.value_and_grad(logits, y[batch])
        grads["w"] = x[batch].T @ slope
        grads["b"] = slope.sum(0)
        info: fo.StepInfo = opt.step(grads, max_norm=1.0)
        applied: bool = info.applied
        norm: float | None = info.grad_norm
        history.record(loss=value, norm=norm or 0.0, applied=float(applied))
        scheduler.step()
    fo.save("checkpoint.safetensors", model=model, opt=opt, scheduler=scheduler, step=steps)
    return value


with fo.num_threads(1):
    model = fo.FlatBuffer.from_arrays({"w": x.T.copy(), "b": np.zeros(4, np.float32)})
    final: float = train(model, fo.schedules.cosine(0.1, 10), 10)
"""
)


@pytest.mark.skipif(PYRIGHT is None, reason="neither basedpyright nor pyright is installed")
def test_pyright_agrees_in_strict_mode(tmp_path: Path) -> None:
    assert PYRIGHT is not None
    (tmp_path / "calls.py").write_text(PREAMBLE + GOOD + BAD)
    (tmp_path / "typical.py").write_text(TYPICAL)
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(Path(fo.__file__).parents[1])]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    checked = subprocess.run(
        [PYRIGHT, "--pythonpath", sys.executable, "--outputjson"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = json.loads(checked.stdout)["generalDiagnostics"]
    lines = (PREAMBLE + GOOD + BAD).splitlines()
    wrong = set()
    for item in found:
        file, number = Path(item["file"]).name, item["range"]["start"]["line"]
        assert file == "calls.py", item
        wrong.add(lines[number])
    assert wrong == {*BAD.splitlines()}
