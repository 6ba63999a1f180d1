"""`current`: the value of a hyperparameter in the next step, by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastoptim as fo


def test_functions_are_evaluated_at_the_steps_applied() -> None:
    lr = fo.schedules.exponential(0.5, 0.5)
    w = {"a": np.ones(2), "b": np.ones(2)}
    groups: Any = [{"params": {"a": w["a"]}}, {"params": {"b": w["b"]}, "lr": 0.25}]
    opt = fo.Adam(groups, lr=lr, betas=lambda step: (0.5, 0.5 + step / 8))
    seen = []
    for _ in range(3):
        seen.append((opt.current("lr"), opt.current("lr", group=1), opt.current("betas")))
        opt.step({name: np.ones(2) for name in w})
        # A skipped step does not count.
        opt.step({"a": np.full(2, np.nan), "b": None}, nonfinite="skip")
    assert seen == [(0.5, 0.25, (0.5, 0.5)), (0.25, 0.25, (0.5, 0.625)), (0.125, 0.25, (0.5, 0.75))]
    assert opt.param_groups[0]["lr"] is lr
    assert opt.current("amsgrad") is False
    assert fo.SAM(opt).current("lr", 1) == 0.25


def test_the_rate_of_a_scheduler_is_that_of_the_next_step() -> None:
    w = np.ones(2)
    groups: Any = [{"params": [w]}, {"params": {"b": np.ones(1)}, "lr": 0.5}]
    opt = fo.SGD(groups, lr=1.0)
    scheduler = fo.lr_scheduler.ExponentialLR(opt, 0.5)
    for t in range(3):
        rates = [opt.current("lr", group) for group in range(2)]
        assert rates == scheduler.get_last_lr() == [0.5**t, 0.5 ** (t + 1)]
        opt.step([np.ones(2), np.ones(1)])
        scheduler.step()
    assert opt.current("initial_lr") == 1.0


def test_the_estimate_of_prodigy() -> None:
    w = np.array([1.0, -2.0])
    groups: Any = [{"params": [w]}, {"params": {"b": np.ones(1)}}]
    opt = fo.Prodigy(groups, d0=1e-3)
    assert opt.current("d") == 1e-3
    for _ in range(5):
        opt.step([np.ones(2), np.ones(1)])
    assert opt.current("d") == opt.current("d", 1) == opt.state["b"]["d"] > 1e-3
    # Adafactor has a hyperparameter of this name.
    assert fo.Adafactor(w, d=2.0).current("d") == 2.0


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (("rate",), ValueError, "name must be one of lr, momentum, .*maximize; got 'rate'"),
        (("d",), ValueError, "name must be one of"),
        (("params",), ValueError, "name must be one of"),
        (("param_names",), ValueError, "name must be one of"),
        ((0.5,), TypeError, 'such as "lr"'),
        ((fo.schedules.constant(1.0),), TypeError, 'such as "lr"'),
        (("lr", 1), IndexError, "group must be from 0 to 0, got 1"),
        (("lr", -1), IndexError, "group must be from 0 to 0, got -1"),
        (("lr", "w"), TypeError, "group must be an integer"),
    ],
)
def test_invalid_arguments_are_refused(arguments: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        fo.SGD(np.ones(2)).current(*arguments)
