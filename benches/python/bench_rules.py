"""Every optimizer, compared with PyTorch's default or optax, and with its upper bounds.

The stream is a pass over as many arrays with one addition per element, by plain loops on the
same threads. In a cache, the arithmetic is the other bound: the loop of the rule over one block in
the L1 cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import fastoptim as fo
import harness
from harness import Array, Contestant


class Traffic(NamedTuple):
    """The memory traffic of a rule, as that of a stream over arrays of the size of a parameter.

    The first pass of some rules only reads, which is slower per byte than updating.
    """

    updated: int
    passes: int = 1
    reads: int = 0


# The arguments here and in PyTorch, and the traffic.
RULES: dict[str, tuple[dict[str, Any], Traffic]] = {
    "SGD": ({"lr": 1e-3}, Traffic(1)),
    "SGD momentum": ({"lr": 1e-3, "momentum": 0.9}, Traffic(2)),
    "Adagrad": ({}, Traffic(2)),
    "RMSprop": ({}, Traffic(2)),
    "RMSprop centered": ({"centered": True}, Traffic(3)),
    "RMSprop momentum": ({"momentum": 0.9}, Traffic(3)),
    "Adadelta": ({}, Traffic(3)),
    "Adam": ({}, Traffic(3)),
    "AdamW": ({}, Traffic(3)),
    "AdamW amsgrad": ({"amsgrad": True}, Traffic(4)),
    "Adamax": ({}, Traffic(3)),
    "NAdam": ({}, Traffic(3)),
    "RAdam": ({}, Traffic(3)),
    "Rprop": ({}, Traffic(3)),
    "ASGD": ({}, Traffic(2)),
    "Lion": ({}, Traffic(2)),
    "AdEMAMix": ({}, Traffic(4)),
    "ScheduleFreeSGD": ({"lr": 0.1}, Traffic(2)),
    "ScheduleFreeAdamW": ({}, Traffic(3)),
    # First the norms of the parameter and the gradient.
    "LARS": ({}, Traffic(2, reads=2)),
    # First the moments and the norms, then the parameter from the moments.
    "LAMB": ({}, Traffic(2, passes=2)),
    # First three states from six arrays, then the parameter from the moments.
    "Prodigy": ({}, Traffic(3, reads=6)),
    # First the mask, from the gradient and the first moment.
    "AdamW cautious": ({"cautious": True}, Traffic(3, reads=2)),
    "Lion cautious": ({"cautious": True}, Traffic(2, reads=2)),
}
# The number of parameters that fit in the L2 caches.
IN_CACHE = 1 << 16
# Optimizers that are not bound by memory or not elementwise.
OTHERS: dict[str, dict[str, Any]] = {"Adafactor": {}, "Muon": {}}


def ours(
    name: str, arguments: dict[str, Any], p: npt.NDArray[Any], g: npt.NDArray[Any]
) -> Contestant:
    p = p.copy()
    opt = getattr(fo, name.split()[0])([p], **arguments)
    return Contestant(lambda: opt.step([g]), lambda: [p])


def torch_default(name: str, arguments: dict[str, Any], p: Array, g: Array) -> Contestant | None:
    import torch

    cls = getattr(torch.optim, name.split()[0], None)
    if cls is None or "cautious" in arguments:
        return None
    tensor = torch.tensor(p, requires_grad=True)
    tensor.grad = torch.tensor(g)
    opt = cls([tensor], **arguments)
    return Contestant(opt.step, lambda: [tensor.detach().numpy()])


def optax_rule(name: str, p: Array, g: Array) -> Contestant | None:
    import jax
    import optax

    rules: dict[str, Callable[[], Any]] = {
        "Lion": lambda: optax.lion(1e-4, weight_decay=0.0),
        "LAMB": lambda: optax.lamb(1e-3, eps=1e-6, weight_decay=0.01),
        "LARS": lambda: optax.lars(1.0, trust_coefficient=1e-3, eps=1e-8, momentum=0.9),
    }
    if name not in rules:
        return None
    rule = rules[name]()

    def update(held: Any, state: Any, gradient: Any) -> Any:
        updates, state = rule.update(gradient, state, held)
        return optax.apply_updates(held, updates), state

    step = jax.jit(update, donate_argnums=(0, 1))
    gradient, held = jax.numpy.array(g), jax.numpy.array(p)
    now = [held, rule.init(held)]

    def run() -> None:
        now[:] = step(*now, gradient)
        jax.block_until_ready(now)

    return Contestant(run, lambda: [now[0]])


def ceilings(name: str, size: int, double: bool = False) -> dict[str, Contestant]:
    arguments, (updated, passes, reads) = RULES[name]
    opt = getattr(fo, name.split()[0])(np.ones(1, np.float32), **arguments)
    stream = harness.Stream(updated, size * (1 + double), passes, reads=reads)
    return dict(harness.ceilings(stream, opt, size, double=double))


def cases(
    asked: harness.Options, size: int = 1 << 24
) -> Iterator[tuple[str, dict[str, Contestant]]]:
    n = asked.size(size, 1 << 12)
    p, g = harness.arrays(1, n)[0], harness.arrays(1, n, seed=1)[0]
    for name, (arguments, _) in RULES.items():
        found = {"fastoptim": ours(name, arguments, p, g)}
        if harness.HAS_TORCH and (contestant := torch_default(name, arguments, p, g)):
            found["torch default"] = contestant
        if harness.HAS_OPTAX and (contestant := optax_rule(name, p, g)):
            found["optax jit"] = contestant
        found |= ceilings(name, n)
        # The errors do not depend on the size, and take long to find for many parameters.
        if n <= IN_CACHE:
            wide = partial(ours, name, arguments, p.astype("f8"), g.astype("f8"))
            found["float64"] = harness.Exact(wide)
        yield name, found


def alone(
    asked: harness.Options, size: int, dtype: npt.DTypeLike
) -> Iterator[tuple[str, dict[str, Contestant]]]:
    """Yield the rules with nothing but their ceilings."""
    n = asked.size(size, 1 << 12)
    p, g = (harness.arrays(1, n, seed=seed)[0].astype(dtype) for seed in (0, 1))
    for name, (arguments, _) in RULES.items():
        found = ceilings(name, n, p.dtype == np.float64)
        yield name, {"fastoptim": ours(name, arguments, p, g), **found}


def others(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    side = asked.size(1024, 32)
    for name, arguments in OTHERS.items():
        p, g = (harness.arrays(1, side * side, seed=s)[0].reshape(side, side) for s in (0, 1))
        found = {"fastoptim": ours(name, arguments, p, g)}
        # PyTorch's Muon rounds to bfloat16, so its result differs.
        if harness.HAS_TORCH and name != "Muon":
            contestant = torch_default(name, arguments, p, g)
            assert contestant is not None
            found["torch default"] = contestant
        yield f"{name}, {side} x {side}", found
    yield "AdamW, moments decayed to nothing", decayed(asked.size(1 << 24, 1 << 12))


def decayed(n: int) -> dict[str, Contestant]:
    """Steps with zero gradients after the moments have become subnormal.

    Every 16th step sets subnormal moments to 0. Until then, such a step takes up to ten times as
    long, but moments become subnormal only by gradients that are nearly so themselves.
    """
    tiny = np.float32(1e-37)
    contestants = {}
    for name, gradient in (("decayed", 0.0), ("normal", 1e-3)):
        p, g = np.ones(n, "f4"), np.full(n, gradient, "f4")
        opt = fo.AdamW([p])
        opt.step([np.full(n, tiny, "f4")])
        for _ in range(16):
            opt.step([np.zeros(n, "f4")])
        contestants[name] = Contestant(partial(opt.step, [g]), None)
    return contestants


def main() -> None:
    asked = harness.options(__doc__ or "")
    for name, size in ("16 Mi", 1 << 24), ("64 Ki", IN_CACHE):
        title = f"one step on {name} float32 parameters in one array"
        harness.compare(title, cases(asked, size), asked)
    for name, size, dtype in (
        ("16 Ki", 1 << 14, "float32"),
        ("256 Ki", 1 << 18, "float32"),
        ("8 Mi", 1 << 23, "float64"),
        ("32 Ki", 1 << 15, "float64"),
    ):
        title = f"one step on {name} {dtype} parameters, and its ceilings"
        harness.compare(title, alone(asked, size, dtype), asked)
    harness.compare("steps on matrices, and of subnormal moments", others(asked), asked)


if __name__ == "__main__":
    main()
