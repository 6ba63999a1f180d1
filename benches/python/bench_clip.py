"""Clipping by the global norm, alone and followed by a step of AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

import fastoptim as fo
import harness
from fastoptim.commands.bench.contestants import LR, WEIGHT_DECAY
from fastoptim.commands.demo.training import NumPyAdamW
from harness import Array, Contestant

MAX_NORM = 1.0


def our_step(params: list[npt.NDArray[Any]], grads: list[npt.NDArray[Any]]) -> Contestant:
    params = [p.copy() for p in params]
    opt = fo.AdamW(params, lr=LR, weight_decay=WEIGHT_DECAY)
    return Contestant(lambda: opt.step(grads, max_norm=MAX_NORM), lambda: params)


def torch_step(params: list[Array], grads: list[Array], *, fused: bool | None) -> Contestant:
    import torch

    parameters = harness.torch_parameters(params, grads)
    opt = torch.optim.AdamW(parameters, lr=LR, weight_decay=WEIGHT_DECAY, fused=fused)

    def run() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        opt.step()

    return Contestant(run, lambda: harness.torch_answer(parameters))


def numpy_step(params: list[Array], grads: list[Array]) -> Contestant:
    (p,), (g,) = params, grads
    p, g = p.copy(), g.copy()
    opt = NumPyAdamW(p.size, LR, WEIGHT_DECAY)
    return Contestant(lambda: opt.step(p, g, max_norm=MAX_NORM), lambda: [p])


def limits(grads: list[Array], *, clipped: bool) -> Callable[[], float]:
    """Yield the limit of each call: either always above the norm or always slightly below."""
    limit = math.sqrt(sum(float(np.dot(g, g)) for g in grads))
    if not clipped:
        return lambda: 2 * limit

    def shrinking() -> float:
        nonlocal limit
        limit *= 0.99999
        return limit

    return shrinking


def our_clip(grads: list[Array], *, clipped: bool) -> Contestant:
    grads = [g.copy() for g in grads]
    limit = limits(grads, clipped=clipped)
    return Contestant(lambda: fo.clip_grad_norm_(grads, limit()), lambda: grads)


def torch_clip(grads: list[Array], *, clipped: bool) -> Contestant:
    import torch

    parameters = harness.torch_parameters(grads, grads)
    limit = limits(grads, clipped=clipped)
    return Contestant(
        lambda: torch.nn.utils.clip_grad_norm_(parameters, limit()),
        lambda: [parameter.grad.numpy() for parameter in parameters],
    )


def numpy_clip(grads: list[Array], *, clipped: bool) -> Contestant:
    grads = [g.copy() for g in grads]
    limit = limits(grads, clipped=clipped)

    def run() -> None:
        most = limit()
        norm = math.sqrt(sum(float(np.dot(g, g)) for g in grads))
        if norm + 1e-6 > most:
            for g in grads:
                g *= most / (norm + 1e-6)

    return Contestant(run, lambda: grads)


def steps(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    for name, size in (("64 Ki", 1 << 16), ("1 Mi", 1 << 20), ("16 Mi", 1 << 24)):
        size = asked.size(size, 1 << 12)
        params, grads = harness.arrays(1, size), harness.arrays(1, size, seed=1)
        found = {"fastoptim": our_step(params, grads)}
        if harness.HAS_TORCH:
            found["torch fused"] = torch_step(params, grads, fused=True)
            found["torch default"] = torch_step(params, grads, fused=None)
        found["NumPy out="] = numpy_step(params, grads)
        # The norm reads the gradients before the step does. Its arithmetic is in no ceiling.
        opt = fo.AdamW(np.ones(1, np.float32), lr=LR, weight_decay=WEIGHT_DECAY)
        found |= harness.ceilings(harness.Stream(3, size, reads=1), opt, size)
        wide = [params[0].astype("f8")], [grads[0].astype("f8")]
        yield name, {**found, "float64": harness.Exact(partial(our_step, *wide))}


def clips(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    for name, count, size in (
        ("16 Mi", 1, 1 << 24),
        ("100 arrays of 64 Ki", 100, 1 << 16),
    ):
        grads = harness.arrays(asked.size(count, 10), asked.size(size, 1 << 12))
        for what, clipped in (("nothing to clip", False), ("clipped", True)):
            found = {"fastoptim": our_clip(grads, clipped=clipped)}
            if harness.HAS_TORCH:
                found["torch"] = torch_clip(grads, clipped=clipped)
            found["NumPy"] = numpy_clip(grads, clipped=clipped)
            yield f"{name}, {what}", found


def main() -> None:
    asked = harness.options(__doc__ or "")
    harness.compare("clip by norm, then AdamW, on float32 parameters", steps(asked), asked)
    harness.compare("clip_grad_norm_ alone", clips(asked), asked)


if __name__ == "__main__":
    main()
