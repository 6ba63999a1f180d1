"""What a step keeps for the next one changes no bit of it, whatever changes between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from configurations import configurations
from snapshot import snapshot

Change = Callable[[int, list[Any]], dict[str, Any]]

SHAPES = [(3, 5), (2, 2), (0, 2), (1, 1030), (6, 1)]
DTYPES = ["f4", "f8", "f4", "f4", "f8"]
STEPS = 9


def arrays(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    pairs = zip(SHAPES, DTYPES, strict=True)
    return [rng.normal(size=shape).astype(dtype) for shape, dtype in pairs]


def same_arrays(_: int, grads: list[Any]) -> dict[str, Any]:
    """Give the same arrays with other numbers, as a training loop does."""
    for g, new in zip(grads, arrays(2), strict=True):
        g[...] = new
    return {}


def without_some(step: int, grads: list[Any]) -> dict[str, Any]:
    for index in ([], [4], [1], [0, 3], [3])[step % 5]:
        grads[index] = None
    return {}


def in_16_bits(step: int, grads: list[Any]) -> dict[str, Any]:
    if step % 3 == 1:
        grads[3] = grads[3].astype("f2")
    return {}


def with_options(step: int, _: list[Any]) -> dict[str, Any]:
    choices: list[dict[str, Any]] = [{}, {"max_norm": 0.5}, {"clip_value": 0.1}, {}]
    return choices[step % 4]


def without_numbers(step: int, grads: list[Any]) -> dict[str, Any]:
    """Skip every third step."""
    if step % 3 == 2:
        grads[0][...] = np.nan
    return {"nonfinite": "skip"}


@pytest.mark.parametrize(
    "change", [same_arrays, without_some, in_16_bits, with_options, without_numbers]
)
def test_steps_in_a_row_are_steps_of_new_optimizers(optimizer: Any, change: Change) -> None:
    for extra in configurations(optimizer):
        own, others = arrays(1), arrays(1)
        opt = optimizer(own, **extra)
        state, grads = opt.state_dict(), arrays(2)
        for step in range(STEPS):
            if change is not same_arrays:
                grads = arrays(2 + step)
            options = change(step, grads)
            new = optimizer(others, **extra)
            new.load_state_dict(state)
            for which in (opt, new):
                which.param_groups[0]["weight_decay"] = 0.1 / (1 + step)
                which.step(grads, **options)
            state = new.state_dict()
            assert snapshot(own) == snapshot(others), (extra, step)
            assert snapshot(opt.state_dict()) == snapshot(state), (extra, step)


def test_other_state_arrays_of_the_same_number() -> None:
    choices = [
        {"momentum": 0.9, "centered": True},
        {"momentum": 0.9, "centered": False},
        {"momentum": 0.0, "centered": True},
        {"momentum": 0.9, "centered": False},
        {"momentum": 0.0, "centered": False},
    ]
    own, others = arrays(1), arrays(1)
    opt = fo.RMSprop(own, momentum=0.9, centered=True)
    state = opt.state_dict()
    for step, choice in enumerate(itertools.islice(itertools.cycle(choices), 11)):
        new = fo.RMSprop(others, momentum=0.9, centered=True)
        new.load_state_dict(state)
        # Most choices are for one step, so that none of them can have been kept from the last.
        for which in (opt, new):
            which.param_groups[0].update(choice)
            which.step(arrays(2 + step))
        state = new.state_dict()
        assert snapshot(own) == snapshot(others), step
        assert snapshot(opt.state_dict()) == snapshot(state), step


def test_proximal_steps_between_others() -> None:
    own, others = arrays(1), arrays(1)
    opt = fo.AdamW(own, lr=0.1)
    state = opt.state_dict()
    for step in range(STEPS):
        shrinks = fo.regularizers.L1(0.5, proximal=True) if step % 3 == 1 else None
        new = fo.AdamW(others, lr=0.1)
        new.load_state_dict(state)
        for which in (opt, new):
            which.step(arrays(2 + step), regularizer=shrinks)
        state = new.state_dict()
        assert snapshot(own) == snapshot(others), step


def test_a_loaded_state_and_a_new_group_between_steps(optimizer: Any) -> None:
    own, others = arrays(1), arrays(1)
    opt, new = optimizer(own), optimizer(others)
    first = opt.state_dict()
    for step in range(3):
        opt.step(arrays(2 + step))
    for p, old in zip(own, arrays(1), strict=True):
        p[...] = old
    opt.load_state_dict(first)
    for step in range(3):
        for which in (opt, new):
            which.step(arrays(5 + step))
    assert snapshot(own) == snapshot(others)
    more = np.ones((4, 4)), np.ones((4, 4))
    for which, added in zip((opt, new), more, strict=True):
        which.add_param_group({"params": {"more": added}})
    state = new.state_dict()
    new = optimizer([{"params": others}, {"params": {"more": more[1]}}])
    new.load_state_dict(state)
    for step in range(3):
        for which in (opt, new):
            which.step([*arrays(8 + step), np.full((4, 4), 0.5)])
    assert snapshot([own, more[0]]) == snapshot([others, more[1]])
