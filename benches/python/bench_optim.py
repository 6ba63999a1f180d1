"""One step of AdamW, compared with PyTorch, NumPy and optax.

NumPy uses one thread, with operations in place and as commonly written.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import harness
from fastoptim.commands.bench.contestants import (
    LR,
    WEIGHT_DECAY,
    numpy_adamw,
    optax_adamw,
    our_adamw,
    torch_adamw,
)
from harness import Array, Contestant


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


def contestants(params: list[Array], grads: list[Array]) -> dict[str, Contestant]:
    found = {"fastoptim": our_adamw(params, grads)}
    if harness.HAS_TORCH:
        found["torch fused"] = torch_adamw(params, grads, fused=True)
        found["torch default"] = torch_adamw(params, grads, fused=None)
    if harness.HAS_OPTAX:
        found["optax jit"] = optax_adamw(params, grads)
    found["NumPy out="] = numpy_adamw(params, grads)
    found["NumPy"] = numpy_allocating(params, grads)
    return found


def cases(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    for name, count, size in (
        ("1 Ki", 1, 1 << 10),
        ("64 Ki", 1, 1 << 16),
        ("1 Mi", 1, 1 << 20),
        ("16 Mi", 1, 1 << 24),
        ("1000 arrays of 1 Ki", 1000, 1 << 10),
    ):
        count, size = asked.size(count, 20), asked.size(size, 1 << 12)
        params, grads = harness.arrays(count, size), harness.arrays(count, size, seed=1)
        yield name, contestants(params, grads)


def main() -> None:
    asked = harness.options(__doc__ or "")
    harness.compare("AdamW, one step on float32 parameters", cases(asked), asked)


if __name__ == "__main__":
    main()
