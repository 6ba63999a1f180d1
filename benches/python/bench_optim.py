"""One step of AdamW, compared with PyTorch, NumPy, optax and, if installed, other libraries.

NumPy uses one thread, with operations in place and as commonly written. thinc zeroes the gradients,
so its time has a copy of these.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

import fastoptim as fo
import harness
import libraries
from fastoptim.commands.bench.contestants import (
    LR,
    WEIGHT_DECAY,
    numpy_adamw,
    optax_adamw,
    our_adamw,
    torch_adamw,
)
from harness import Array, Contestant

# Below this number of bytes moved, the overhead of the call dominates.
LEAST_MOVED = 1 << 20
# The sizes for which a step is compiled.
COMPILED = (1 << 16, 1 << 24)
# The memory that all contestants together need at their peak, per parameter.
BYTES = 256


class AllocatingAdamW:
    """AdamW as commonly written in NumPy, by the formula."""

    def __init__(self, params: list[Array]) -> None:
        self.params = list(params)
        self.m = [np.zeros_like(p) for p in params]
        self.v = [np.zeros_like(p) for p in params]
        self.t = 0

    def step(self, grads: list[Array]) -> None:
        b1, b2, eps = 0.9, 0.999, 1e-8
        self.t += 1
        for i, g in enumerate(grads):
            self.m[i] = b1 * self.m[i] + (1 - b1) * g
            self.v[i] = b2 * self.v[i] + (1 - b2) * g**2
            m_hat = self.m[i] / (1 - b1**self.t)
            v_hat = self.v[i] / (1 - b2**self.t)
            p = self.params[i]
            self.params[i] = p - LR * (m_hat / (np.sqrt(v_hat) + eps) + WEIGHT_DECAY * p)


def numpy_allocating(params: list[Array], grads: list[Array]) -> Contestant:
    opt = AllocatingAdamW(params)
    return Contestant(lambda: opt.step(grads), lambda: opt.params)


def contestants(
    params: list[Array], grads: list[Array], others: Mapping[str, libraries.Make]
) -> dict[str, Contestant]:
    found = {"fastoptim": our_adamw(params, grads)}
    if harness.HAS_TORCH:
        found["torch fused"] = torch_adamw(params, grads, fused=True)
        found["torch default"] = torch_adamw(params, grads, fused=None)
    if harness.HAS_OPTAX:
        found["optax jit"] = optax_adamw(params, grads)
    found["NumPy out="] = numpy_adamw(params, grads)
    found["NumPy"] = numpy_allocating(params, grads)
    found |= {label: make(params, grads) for label, make in others.items()}
    if 28 * params[0].size * len(params) >= LEAST_MOVED:
        size = params[0].size * len(params)
        opt = fo.AdamW(np.ones(1, np.float32), lr=LR, weight_decay=WEIGHT_DECAY)
        found |= harness.ceilings(harness.Stream(3, size), opt, size)
    wide = [[x.astype("f8") for x in held] for held in (params, grads)]
    return found | {"float64": harness.Exact(partial(our_adamw, *wide))}


def physical_memory() -> float:
    """Return the bytes of memory of this machine, or infinity if they are unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def cases(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    others, missing = libraries.usable()
    for label, reason in missing.items():
        print(f"  without {label}: {reason}")
    if asked.quick or asked.brief:
        others.pop("torch compiled", None)
    for name, count, size in (
        ("1 Ki", 1, 1 << 10),
        ("4 Ki", 1, 1 << 12),
        ("64 Ki", 1, 1 << 16),
        ("1 Mi", 1, 1 << 20),
        ("16 Mi", 1, 1 << 24),
        ("64 Mi", 1, 1 << 26),
        ("1000 arrays of 1 Ki", 1000, 1 << 10),
    ):
        if (asked.brief and size == 1 << 26) or (asked.cold and count * size > 1 << 20):
            continue
        count, size = asked.size(count, 20), asked.size(size, 1 << 12)
        if count * size * BYTES > physical_memory():
            print(f"  without {name}: all contestants need {count * size * BYTES >> 30} GiB")
            continue
        params, grads = harness.arrays(count, size), harness.arrays(count, size, seed=1)
        # It is compiled for each size, and code for many tensors takes minutes to compile, of which
        # bench_torch.py has 200.
        few = {k: v for k, v in others.items() if size in COMPILED or k != "torch compiled"}
        yield name, contestants(params, grads, few)


def main() -> None:
    asked = harness.options(__doc__ or "")
    harness.compare("AdamW, one step on float32 parameters", cases(asked), asked)


if __name__ == "__main__":
    main()
