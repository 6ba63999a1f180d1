"""Every hyperparameter of every optimizer: invalid values are refused and change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cases import OPTIMIZERS

SHAPE = (4, 4)
NAN, INF = float("nan"), float("inf")


def each(good: tuple[float, ...], *bad: float) -> list[tuple[float, ...]]:
    """`good` with one place at a time replaced by each of `bad`."""
    return [(*good[:i], x, *good[i + 1 :]) for i in range(len(good)) for x in bad]


# Values out of range, in addition to NaN, infinities and negative numbers.
OUT_OF_RANGE: dict[str, list[Any]] = {
    "Adafactor eps": [*each((1e-8, 1e-3), NAN, INF, -1.0), (None, NAN)],
    "Prodigy d0": [NAN, INF, -INF, -1.0, 0.0],
    "Prodigy growth_rate": [NAN, -1.0],
    "RMSprop alpha": [NAN, INF, -0.1, 1.1],
    "ScheduleFreeAdamW betas": [(0.0, 0.9), *each((0.9, 0.99), NAN, INF, -0.1, 1.0)],
    "ScheduleFreeSGD momentum": [NAN, INF, -0.1, 0.0, 1.0],
    "adjust_lr_fn": ["sideways"],
    "beta2_decay": [NAN, INF, -INF, 0.5],
    "beta3": [NAN, INF, -0.1, 1.0],
    "etas": [*each((0.5, 1.2), NAN, INF, 1.0, -0.5), (0.0, 1.2)],
    "momentum_form": ["sideways"],
    "ns_coefficients": each((3.0, -4.0, 2.0), NAN, INF),
    "ns_steps": [-1, 100, 0.5, NAN, INF],
    # Exponents: any finite number.
    "r": [NAN, INF, -INF],
    "rho": [NAN, INF, -0.1, 1.0],
    "step_sizes": each((1e-6, 50.0), NAN, INF, -1.0),
    "warmup_steps": [-1, 0.5, NAN, INF],
    "weight_lr_power": [NAN, INF, -INF],
}
OPTIONAL = {"adjust_lr_fn", "beta3", "max_trust", "t_alpha", "t_beta3"}


def out_of_range(cls: type, name: str, default: Any) -> list[Any]:
    if isinstance(default, bool):
        return []
    in_general: list[Any] = [NAN, INF, -INF, -1.0]
    if name == "betas":
        in_general = list(each((0.9, 0.99, 0.999)[: len(default)], NAN, INF, -0.1, 1.0))
    return OUT_OF_RANGE.get(f"{cls.__name__} {name}") or OUT_OF_RANGE.get(name) or in_general


def wrong_type(name: str, default: Any) -> list[Any]:
    wrong: list[Any] = [1j, object(), [], {}]
    if isinstance(default, bool):
        return [*wrong, None, 1, 0.0, "yes"]
    if name not in OPTIONAL:
        wrong.append(None)
    if isinstance(default, str) or name == "adjust_lr_fn":
        return [*wrong, 1.0, True]
    if isinstance(default, tuple):
        return [*wrong, 0.5, "no", default[:1], (*default, 0.5), ("x", *default[1:])]
    return [*wrong, "big", True, [0.5]]


CASES = [
    pytest.param(cls, name, id=f"{cls.__name__}-{name}")
    for cls in OPTIMIZERS
    for name in cls(np.ones(SHAPE)).param_groups[0]
    if name not in ("params", "param_names")
]


@pytest.mark.parametrize(("cls", "name"), CASES)
def test_bad_hyperparameters_wherever_they_are_set(cls: Any, name: str) -> None:
    default = cls(np.ones(SHAPE)).param_groups[0][name]
    cases: list[tuple[Any, type[Exception]]]
    cases = [(value, ValueError) for value in out_of_range(cls, name, default)]
    cases += [(value, TypeError) for value in wrong_type(name, default)]
    opt = cls(np.ones(SHAPE))
    for value, error in cases:
        with pytest.raises(error, match=name):
            cls(np.ones(SHAPE), **{name: value})
        with pytest.raises(error, match=name):
            cls([{"params": np.ones(SHAPE), name: value}])
        for set_to in (value, lambda _step, value=value: value):
            opt.param_groups[0][name] = set_to
            with pytest.raises(error, match=name):
                opt.step(np.ones(SHAPE))
    assert np.array_equal(opt.param_groups[0]["params"][0], np.ones(SHAPE))
    assert opt.state["0"]["step"] == 0
    opt.param_groups[0][name] = default
    assert opt.step(np.ones(SHAPE)).applied


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_a_misspelt_hyperparameter(cls: Any) -> None:
    with pytest.raises(TypeError, match="learning_rate"):
        cls(np.ones(SHAPE), learning_rate=1.0)
    with pytest.raises(ValueError, match="learning_rate"):
        cls([{"params": np.ones(SHAPE), "learning_rate": 1.0}])


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_rates_of_any_kind_of_number(cls: Any) -> None:
    opt = cls(np.ones(SHAPE), lr=np.float32(0.5))
    for lr in (0, 1, np.int64(1), np.float64(0.5), np.array(0.5), lambda _step: 0.5):
        opt.param_groups[0]["lr"] = lr
        assert opt.step(np.ones(SHAPE)).applied
