"""History: the recorded values compared with NumPy."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import fastoptim as fo


def test_loss_rate_and_norms_of_a_training() -> None:
    params = fo.FlatBuffer({"w": (2, 3), "b": (3,)}, "float64")
    params.flat[:] = np.arange(9)
    opt = fo.AdamW(params, lr=fo.schedules.exponential(0.1, 0.5))
    history = fo.History()
    wanted: dict[str, list[float]] = {"loss": [], "lr": [], "grad_norm": []}
    for step in range(5):
        grads = copy.deepcopy(params)
        history.record(float(params.flat @ params.flat), optimizer=opt, grads=grads)
        wanted["loss"].append(float(params.flat @ params.flat))
        wanted["lr"].append(0.1 * 0.5**step)
        wanted["grad_norm"].append(float(np.linalg.norm(grads.flat)))
        opt.step(grads)
    assert isinstance(history, Mapping)
    assert list(history) == ["loss", "lr", "grad_norm", "grad_norm/w", "grad_norm/b"]
    for name, values in wanted.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-12)
    parts = np.hypot(history["grad_norm/w"], history["grad_norm/b"])
    np.testing.assert_allclose(parts, wanted["grad_norm"], rtol=1e-12)
    assert history.steps("loss").tolist() == [0, 1, 2, 3, 4]


def test_values_that_are_not_recorded_at_every_step() -> None:
    history = fo.History()
    for step in range(10):
        history.record(loss=1 / (step + 1), accuracy=step / 10)
        if step % 5 == 4:
            history.record(test_loss=step)
    assert len(history["loss"]) == 10
    assert history["test_loss"].tolist() == [4, 9]
    assert history.steps("test_loss").tolist() == [5, 11]
    assert history.steps("accuracy").tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert set(history) == {"loss", "accuracy", "test_loss"}
    assert len(history) == 3
    again = pickle.loads(pickle.dumps(history))
    assert {name: values.tolist() for name, values in again.items()} == {
        name: values.tolist() for name, values in history.items()
    }
    with pytest.raises(KeyError):
        history["lr"]


@pytest.mark.parametrize(
    ("grads", "norms"),
    [
        (np.array([3.0, -4.0]), {"": 5.0}),
        ([np.array([3.0]), None, np.array([[4.0]])], {"": 5.0, "/0": 3.0, "/1": 0.0, "/2": 4.0}),
        ({"a": np.array([3e38], "f4"), "b": np.array([4e38 / 2], "f4")}, {"": 13**0.5 * 1e38}),
        ({"a": np.array([3e300]), "b": np.array([4e300])}, {"": 5e300, "/a": 3e300, "/b": 4e300}),
        ({"a": np.array([math.nan]), "b": np.ones(1)}, {"": math.nan, "/b": 1.0}),
        ({}, {"": 0.0}),
    ],
)
def test_norms_of_any_form(grads: Any, norms: dict[str, float]) -> None:
    history = fo.History()
    history.record(grads=grads)
    for name, norm in norms.items():
        np.testing.assert_allclose(history["grad_norm" + name], [norm], rtol=1e-7)


def test_rates_of_groups_and_wrapped_optimizers() -> None:
    groups: list[dict[str, Any]] = [
        {"params": [np.ones(1)], "lr": 0.5},
        {"params": [np.ones(1)], "lr": lambda step: 1.0 + step},
    ]
    opt = fo.SGD(groups)
    history = fo.History()
    for each in (opt, fo.SAM(opt)):
        history.record(optimizer=each)
        opt.step([np.ones(1)] * 2)
    assert history["lr/0"].tolist() == [0.5, 0.5]
    assert history["lr/1"].tolist() == [1.0, 2.0]


def test_rates_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    opt = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.25)
    history = fo.History()
    history.record(loss=torch.tensor(2.0, requires_grad=True), optimizer=opt)
    assert (history["loss"].tolist(), history["lr"].tolist()) == ([2.0], [0.25])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"loss": "much"}, "loss"),
        ({"loss": np.ones(2)}, "loss"),
        ({"loss": 1.0, "accuracy": None}, "accuracy"),
        ({"loss": 1.0, "optimizer": 3}, "optimizer"),
        ({"loss": 1.0, "grads": [np.ones(1, int)]}, "int64"),
    ],
)
def test_bad_values_record_nothing(arguments: dict[str, Any], name: str) -> None:
    history = fo.History()
    with pytest.raises(TypeError, match=name):
        history.record(**arguments)
    assert len(history) == 0
    history.record(loss=1.0)
    assert history.steps("loss").tolist() == [0]
