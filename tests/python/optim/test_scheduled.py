"""Schedules as hyperparameters: any number of any optimizer."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import OPTIMIZERS
from fastoptim import schedules

# Hyperparameters that are not numbers or cannot change, and counts.
FIXED = {"params", "ns_steps", "warmup_steps", "seed"}


def numbers() -> list[tuple[Any, str, Any]]:
    return [
        (cls, name, parameter.default)
        for cls in OPTIMIZERS
        for name, parameter in inspect.signature(cls).parameters.items()
        if name not in FIXED and type(parameter.default) in (int, float, tuple)
    ]


def scheduled(name: str, value: Any) -> Any:
    """Return a schedule up to ``value``, or a function with as many values."""
    if name == "etas":  # The second is always above 1.
        return lambda step: (schedules.linear(0.5, 0.5, 1.0, 4)(step), 1.2)
    if isinstance(value, tuple):
        parts = [None if part is None else scheduled("", part) for part in value]
        return lambda step: tuple(None if part is None else part(step) for part in parts)
    if value < 0:  # Schedules are not negative.
        return lambda step: -scheduled("", -value)(step)
    return schedules.linear(min(value, 3.0) or 0.01, 0.5, 1.0, 4)


@pytest.mark.parametrize(("cls", "name", "value"), numbers())
def test_a_schedule_equals_setting_the_value_at_each_step(cls: Any, name: str, value: Any) -> None:
    at = scheduled(name, value)
    w, v = np.ones((3, 2)), np.ones((3, 2))
    opt, by_hand = cls([w], **{name: at}), cls([v], **{name: at(0)})
    for t in range(8):
        g = np.cos(np.arange(6.0).reshape(3, 2) + t)
        by_hand.param_groups[0][name] = at(t)
        by_hand.step([g])
        opt.step([g])
        assert np.array_equal(w, v)


def test_a_schedule_survives_a_restore() -> None:
    rate = schedules.warmup(schedules.cosine(0.1, 20), 5)
    w, v = np.ones(4), np.ones(4)
    opt, other = fo.AdamW(w, lr=rate), fo.AdamW(v, lr=rate)
    for t in range(12):
        opt.step(np.cos(np.arange(4) + t))
        if t == 6:
            other.load_state_dict(opt.state_dict())
            v[:] = w
        elif t > 6:
            other.step(np.cos(np.arange(4) + t))
            assert np.array_equal(w, v)
    assert opt.param_groups[0]["lr"] is rate


def test_a_schedule_may_be_any_hyperparameter() -> None:
    rate = schedules.warmup(schedules.cosine(0.1, 20), 5)
    decay = schedules.linear(0.1, 1.0, 0.0, 10)

    def betas(step: int) -> tuple[float, float]:
        return (0.9, 0.9 + 0.09 * min(step / 10, 1))

    w, v = np.ones(4), np.ones(4)
    scheduled = fo.AdamW(w, lr=rate, weight_decay=decay, betas=betas)
    by_hand = fo.AdamW(v)
    for t in range(25):
        g = np.cos(np.arange(4) + t)
        by_hand.param_groups[0].update(lr=rate(t), weight_decay=decay(t), betas=betas(t))
        by_hand.step(g)
        scheduled.step(g)
        assert np.array_equal(w, v)
