"""Options fused with a step, compared with separate calls of PyTorch, and steps with moments or
parameters in low precision, compared with float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

import fastoptim as fo
import harness
from fastoptim.commands.bench.contestants import LR, WEIGHT_DECAY
from harness import Array, Contestant

DECAY = 0.999
MAX_NORM = 1.0
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def off(copy: Array, p: Array) -> Array:
    """Return the rounded difference, which tolerates the rounding of the copy."""
    return (copy - p).round(1)


def our_everything(p: Array, g: Array) -> Contestant:
    """Clipping, AdamW, average, copy and zeroing in one call."""
    p, grads = p.copy(), g.copy()
    opt = fo.AdamW(p, lr=LR, weight_decay=WEIGHT_DECAY)
    average, copy = fo.EMA(p, DECAY), np.zeros(p.shape, BFLOAT16)

    def run() -> None:
        opt.step(grads, max_norm=MAX_NORM, ema=average, copy_to=[copy], zero_grad=True)

    return Contestant(run, lambda: [p, average.shadow.flat, grads, off(copy.astype("f4"), p)])


def torch_everything(p: Array, g: Array) -> Contestant:
    import torch

    (parameter,) = parameters = harness.torch_parameters([p], [g.copy()])
    opt = torch.optim.AdamW(parameters, lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    average = parameter.detach().clone()
    copy = torch.zeros_like(average, dtype=torch.bfloat16)

    def run() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        opt.step()
        average.lerp_(parameter.detach(), 1 - DECAY)
        copy.copy_(parameter.detach())
        opt.zero_grad(set_to_none=False)

    def answer() -> list[Any]:
        p = parameter.detach().numpy()
        return [p, average.numpy(), parameter.grad, off(copy.float().numpy(), p)]

    return Contestant(run, answer)


def ours(p: Array, g: Array, **arguments: Any) -> Contestant:
    p = p.copy()
    opt = fo.AdamW(p, lr=LR, weight_decay=WEIGHT_DECAY, **arguments)
    return Contestant(lambda: opt.step(g), None)


def ours_with(p: Array, g: Array, **options: Any) -> Contestant:
    p = p.copy()
    opt = fo.AdamW(p, lr=LR, weight_decay=WEIGHT_DECAY)
    return Contestant(lambda: opt.step(g, **options), None)


def cases(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    n = asked.size(1 << 24, 1 << 12)
    (p,), (g,) = harness.arrays(1, n), harness.arrays(1, n, seed=1)
    found = {"fastoptim": our_everything(p, g)}
    if harness.HAS_TORCH:
        found["torch calls"] = torch_everything(p, g)
    yield "clip, AdamW, EMA, bfloat16 copy, zero; 16 Mi", found
    yield (
        "AdamW alone and with one thing more; 16 Mi",
        {
            "alone": ours(p, g),
            "norm": ours_with(p, g, max_norm=math.inf),
            "clip by norm": ours_with(p, g, max_norm=MAX_NORM),
            "skip": ours_with(p, g, nonfinite="skip"),
            "clip by value": ours_with(p, g, clip_value=1.0),
            "L2": ours_with(p, g, regularizer=fo.regularizers.L2(1e-4)),
            "EMA": ours_with(p, g, ema=fo.EMA(p, DECAY)),
            "copy": ours_with(p, g, copy_to=[np.zeros(n, BFLOAT16)]),
        },
    )
    for name, size in (("64 Ki", 1 << 16), ("32 Mi", 1 << 25)):
        n = asked.size(size, 1 << 12)
        (p,), (g,) = harness.arrays(1, n), harness.arrays(1, n, seed=1)
        half_p, half_g = p.astype(BFLOAT16), g.astype(BFLOAT16)
        yield (
            f"storage of moments and parameters; {name}",
            {
                "float32": ours(p, g),
                "bfloat16 moments": ours(p, g, state_dtype="bfloat16"),
                "  nearest": ours(p, g, state_dtype="bfloat16", rounding="nearest"),
                "int8 moments": ours(p, g, state_dtype="int8"),
                "  nearest ": ours(p, g, state_dtype="int8", rounding="nearest"),
                "all bfloat16": ours(half_p, half_g, state_dtype="bfloat16"),
                "  nearest  ": ours(half_p, half_g, state_dtype="bfloat16", rounding="nearest"),
            },
        )


def main() -> None:
    asked = harness.options(__doc__ or "")
    harness.compare("One sweep", cases(asked), asked)


if __name__ == "__main__":
    main()
