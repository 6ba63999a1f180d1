"""The same work in fastoptim, NumPy, PyTorch and optax.

NumPy works in place and on one thread. PyTorch's default and fused steps are the ones that
``torch.optim.AdamW(...)`` and ``torch.optim.AdamW(..., fused=True)`` take on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import fastoptim as fo
from fastoptim._extras import require
from fastoptim.commands.bench.harness import Array, Contestant, torch_answer, torch_parameters
from fastoptim.commands.demo.training import NumPyAdamW, numpy_cross_entropy

Labels = npt.NDArray[np.int64]

LR, WEIGHT_DECAY = 1e-3, 1e-2


def our_adamw(params: list[Array], grads: list[Array]) -> Contestant:
    """Step fastoptim's AdamW."""
    params = [p.copy() for p in params]
    opt = fo.AdamW(params, lr=LR, weight_decay=WEIGHT_DECAY)
    return Contestant(lambda: opt.step(grads), lambda: params)


def numpy_adamw(params: list[Array], grads: list[Array]) -> Contestant:
    """Step AdamW written in NumPy, in place."""
    params = [p.copy() for p in params]
    optimizers = [NumPyAdamW(p.size, LR, WEIGHT_DECAY) for p in params]

    def run() -> None:
        for opt, p, g in zip(optimizers, params, grads, strict=True):
            opt.step(p, g)

    return Contestant(run, lambda: params)


def torch_adamw(params: list[Array], grads: list[Array], *, fused: bool | None) -> Contestant:
    """Step PyTorch's AdamW."""
    torch = require("torch", "this contestant")
    parameters = torch_parameters(params, grads)
    opt = torch.optim.AdamW(parameters, lr=LR, weight_decay=WEIGHT_DECAY, fused=fused)
    return Contestant(opt.step, lambda: torch_answer(parameters))


def optax_adamw(
    params: list[Array], grads: list[Array], *, max_norm: float | None = None
) -> Contestant:
    """Step optax's AdamW under jit, after clipping by the global norm if there is a limit."""
    jax, optax = require("jax", "this contestant"), require("optax", "this contestant")
    rule = optax.adamw(LR, weight_decay=WEIGHT_DECAY)
    if max_norm is not None:
        rule = optax.chain(optax.clip_by_global_norm(max_norm), rule)

    def update(p: object, state: object, g: object) -> tuple[object, object]:
        updates, state = rule.update(g, state, p)
        return optax.apply_updates(p, updates), state

    step = jax.jit(update, donate_argnums=(0, 1))
    gradients = [jax.numpy.array(g) for g in grads]
    held = [jax.numpy.array(p) for p in params]
    now = [held, rule.init(held)]

    def run() -> None:
        now[:] = step(*now, gradients)
        jax.block_until_ready(now)

    return Contestant(run, lambda: now[0])


def our_loss(loss: Any, x: Array, target: Array | Labels) -> Contestant:
    """Compute a loss of fastoptim with its gradient."""
    out = np.empty_like(x)
    return Contestant(
        lambda: loss.value_and_grad(x, target, out=out),
        lambda: [loss.value_and_grad(x, target, out=out)[0], out],
    )


def torch_loss(
    loss: str | Callable[..., Any], x: Array, target: Array | Labels, **arguments: float
) -> Contestant:
    """Compute a loss of PyTorch with its gradient."""
    torch = require("torch", "this contestant")
    function = getattr(torch.nn.functional, loss) if isinstance(loss, str) else loss
    inputs, wanted = torch.tensor(x, requires_grad=True), torch.tensor(target)
    found: list[Array | float] = []

    def run() -> None:
        value = function(inputs, wanted, **arguments)
        (gradient,) = torch.autograd.grad(value, inputs)
        found[:] = value.item(), gradient.numpy()

    return Contestant(run, lambda: found)


def optax_cross_entropy(x: Array, target: Labels) -> Contestant:
    """Compute optax's cross-entropy with its gradient under jit."""
    jax, optax = require("jax", "this contestant"), require("optax", "this contestant")
    inputs, wanted = jax.numpy.array(x), jax.numpy.array(target.astype(np.int32))
    both = jax.jit(
        jax.value_and_grad(
            lambda logits: optax.softmax_cross_entropy_with_integer_labels(logits, wanted).mean()
        )
    )
    return Contestant(lambda: jax.block_until_ready(both(inputs)), lambda: both(inputs))


def numpy_loss_of_classes(x: Array, target: Labels) -> Contestant:
    """Compute the cross-entropy with its gradient in NumPy."""
    out = np.empty_like(x)
    found: list[float] = []

    def run() -> None:
        found[:] = [numpy_cross_entropy(x, target, out)]

    return Contestant(run, lambda: [*found, out])
