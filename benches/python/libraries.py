"""Steps of AdamW in PyTorch's other ways and in other libraries, where these are installed."""

from __future__ import annotations

import itertools
import math
import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

import harness
from fastoptim._extras import has, require
from fastoptim.commands.bench.contestants import LR, WEIGHT_DECAY
from harness import Array, Contestant

HAS_COMPILER = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++"))

Make = Callable[[list[Array], list[Array]], Contestant]


def torch_foreach(params: list[Array], grads: list[Array]) -> Contestant:
    torch = require("torch", "this contestant")
    parameters = harness.torch_parameters(params, grads)
    opt = torch.optim.AdamW(parameters, lr=LR, weight_decay=WEIGHT_DECAY, foreach=True)
    return Contestant(opt.step, lambda: harness.torch_answer(parameters))


def torch_compiled(params: list[Array], grads: list[Array]) -> Contestant:
    torch = require("torch", "this contestant")
    parameters = harness.torch_parameters(params, grads)
    opt = torch.optim.AdamW(parameters, lr=LR, weight_decay=WEIGHT_DECAY)
    torch._dynamo.reset()
    return Contestant(torch.compile(opt.step), lambda: harness.torch_answer(parameters))


def thinc_adam(params: list[Array], grads: list[Array]) -> Contestant:
    """Step thinc's Adam, which zeroes the gradients: each run first copies them.

    It adds epsilon before the bias correction, so epsilon follows that.
    """
    optimizers: Any = require("thinc.optimizers", "this contestant")
    schedules: Any = require("thinc.schedules", "this contestant")
    opt = optimizers.Adam(
        LR, L2=WEIGHT_DECAY, L2_is_weight_decay=True, beta1=0.9, beta2=0.999, eps=1e-8,
        grad_clip=0.0, use_averages=False,
    )  # fmt: skip
    held, copies = [p.copy() for p in params], [np.empty_like(g) for g in grads]

    steps = itertools.count(1)

    def run() -> None:
        opt.eps = schedules.constant(1e-8 * math.sqrt(1 - 0.999 ** next(steps)))
        for i, (g, copy) in enumerate(zip(grads, copies, strict=True)):
            np.copyto(copy, g)
            held[i], _ = opt((i, "p"), held[i], copy)

    return Contestant(run, lambda: held)


def bitsandbytes_adamw(params: list[Array], grads: list[Array]) -> Contestant:
    library: Any = require("bitsandbytes", "this contestant")
    parameters = harness.torch_parameters(params, grads)
    opt = library.optim.AdamW(parameters, lr=LR, weight_decay=WEIGHT_DECAY)
    return Contestant(opt.step, lambda: harness.torch_answer(parameters))


def deepspeed_adam(params: list[Array], grads: list[Array]) -> Contestant:
    """Step DeepSpeed's Adam for CPUs, which decays weights as AdamW by default."""
    library: Any = require("deepspeed.ops.adam", "this contestant")
    parameters = harness.torch_parameters(params, grads)
    opt = library.DeepSpeedCPUAdam(parameters, lr=LR, weight_decay=WEIGHT_DECAY)
    return Contestant(opt.step, lambda: harness.torch_answer(parameters))


LIBRARIES: dict[str, tuple[str, Make]] = {
    "thinc": ("thinc", thinc_adam),
    "bitsandbytes": ("bitsandbytes", bitsandbytes_adamw),
    "DeepSpeed": ("deepspeed", deepspeed_adam),
}


def usable() -> tuple[dict[str, Make], dict[str, str]]:
    """Return the contestants that run here, and the reasons why others do not."""
    found: dict[str, Make] = {}
    missing: dict[str, str] = {}
    if harness.HAS_TORCH:
        found["torch foreach"] = torch_foreach
        if HAS_COMPILER:
            found["torch compiled"] = torch_compiled
        else:
            missing["torch compiled"] = "there is no C++ compiler"
    for label, (module, make) in LIBRARIES.items():
        if not has(module):
            missing[label] = f"{module} is not installed"
            continue
        try:
            make(*(harness.arrays(1, 64, seed) for seed in (0, 1))).run()
        # Whatever another library raises where it does not support this machine.
        except Exception as error:
            missing[label] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        else:
            found[label] = make
    return found, missing
