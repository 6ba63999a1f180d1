"""PyTorch's optimizers live: the configurations of its own tests, state, precision, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

torch = pytest.importorskip("torch", reason="torch is not installed")

# The arguments in PyTorch's own table of cases (torch/testing/_internal/common_optimizers.py), as
# far as they mean anything here: without tensors as rates and flags for devices.
DECAYS: list[dict[str, Any]] = [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "maximize": True}]
DECOUPLED = [{"weight_decay": 0.1, "decoupled_weight_decay": True}]
ADAM: list[dict[str, Any]] = [
    *DECAYS,
    {"lr": 0.01},
    {"weight_decay": 0.1, "amsgrad": True},
    {"weight_decay": 0.1, "amsgrad": True, "betas": (0.0, 0.0)},
    {"eps": 0.1},
]
CONFIGURATIONS: dict[str, list[dict[str, Any]]] = {
    "Adadelta": [*DECAYS, {"rho": 0.95, "weight_decay": 0.9}, {"lr": 0.01}],
    "Adafactor": [*DECAYS, {"lr": 0.01}, {"d": 1.5}, {"eps": (1e-5, 1e-2)}, {"beta2_decay": -1.0}],
    "Adagrad": [
        *DECAYS,
        {"lr": 0.1},
        {"initial_accumulator_value": 0.1, "weight_decay": 0.1},
        {"lr": 0.1, "lr_decay": 0.5, "weight_decay": 0.1},
    ],
    "Adam": ADAM,
    "AdamW": ADAM,
    "Adamax": [*DECAYS, {"lr": 0.1}, {"betas": (0.8, 0.9)}],
    "ASGD": [
        *DECAYS,
        {"lr": 0.02, "lambd": 0.1},
        {"t0": 100, "weight_decay": 0.1},
        {"t0": 20, "alpha": 0.5},
    ],
    "NAdam": [
        *DECAYS,
        *DECOUPLED,
        {"lr": 1e-3, "momentum_decay": 6e-3},
        {"momentum_decay": 0.1, "weight_decay": 0.1},
    ],
    "RAdam": [*DECAYS, *DECOUPLED, {"lr": 2e-3}, {"eps": 1e-6, "betas": (0.5, 0.9)}],
    "RMSprop": [
        *DECAYS,
        {"lr": 1e-3},
        {"momentum": 0.1, "weight_decay": 0.1},
        {"momentum": 0.1, "centered": True, "weight_decay": 0.1},
        {"centered": True, "alpha": 0.9},
    ],
    "Rprop": [{}, {"lr": 2e-4}, {"etas": (0.2, 1.5), "lr": 2e-4}, {"step_sizes": (2e-6, 1e-3)}],
    "SGD": [
        *DECAYS,
        {"lr": 1e-2},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    ],
}
CASES = [
    pytest.param(name, arguments, id=f"{name}-{index}")
    for name, configurations in CONFIGURATIONS.items()
    for index, arguments in enumerate(configurations)
]
SHAPES = [(6, 5), (7,), (2, 3, 4)]


@pytest.fixture
def float64_scalars() -> Iterator[None]:
    """PyTorch keeps rates and counts in its default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def start(dtype: str = "f8") -> list[Any]:
    rng = np.random.default_rng(7)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def gradients(step: int, dtype: str = "f8") -> list[Any]:
    rng = np.random.default_rng(1000 + step)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def pair(name: str, arguments: Any, dtype: str = "f8") -> tuple[list[Any], Any, list[Any], Any]:
    arrays = start(dtype)
    tensors = [torch.tensor(a) for a in arrays]
    mine = getattr(fo, name)(arrays, **arguments)
    theirs = getattr(torch.optim, name)(tensors, foreach=False, **arguments)
    return arrays, mine, tensors, theirs


def step(tensors: Any, theirs: Any, grads: list[Any]) -> None:
    for tensor, g in zip(tensors, grads, strict=True):
        tensor.grad = torch.tensor(g)
    theirs.step()


def plain(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value


@pytest.mark.usefixtures("float64_scalars")
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_hundred_steps(name: str, arguments: Any) -> None:
    arrays, mine, tensors, theirs = pair(name, arguments)
    for t in range(100):
        step(tensors, theirs, gradients(t))
        mine.step(gradients(t))
    for index, (array, tensor) in enumerate(zip(arrays, tensors, strict=True)):
        scale = max(1.0, np.abs(array).max())
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-12, atol=1e-12 * scale)
        for key, value in theirs.state[tensor].items():
            if value is not None and not (key == "step" and name == "SGD"):
                found = mine.state[str(index)][key]
                np.testing.assert_allclose(found, plain(value), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_single_precision_errs_no_more_than_twice_as_much(name: str, arguments: Any) -> None:
    arrays, mine, tensors, theirs = pair(name, arguments, "f4")
    exact = [a.astype("f8") for a in start("f4")]
    exactly = getattr(fo, name)(exact, **arguments)
    for t in range(50):
        grads = gradients(t, "f4")
        step(tensors, theirs, grads)
        mine.step(grads)
        exactly.step([g.astype("f8") for g in grads])
    together = np.concatenate([x.ravel() for x in exact])
    ours = np.concatenate([x.ravel() for x in arrays]) - together
    torchs = np.concatenate([x.numpy().ravel() for x in tensors]) - together
    ulp = np.finfo("f4").eps * np.abs(together).max()
    assert np.sqrt(np.mean(ours**2)) <= 2 * np.sqrt(np.mean(torchs**2)) + ulp


@pytest.mark.usefixtures("float64_scalars")
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_checkpoints_go_both_ways(name: str, arguments: Any) -> None:
    arrays, mine, tensors, theirs = pair(name, arguments)
    for t in range(5):
        step(tensors, theirs, gradients(t))
        mine.step(gradients(t))
    from_torch = theirs.state_dict()
    state = {
        index: {key: plain(value) for key, value in entry.items()}
        for index, entry in from_torch["state"].items()
    }
    other = [tensor.numpy().copy() for tensor in tensors]
    continued = getattr(fo, name)(other)
    continued.load_state_dict({**from_torch, "state": state})

    ours = mine.state_dict()
    to_torch = {
        index: {
            key: torch.tensor(value, dtype=torch.float64)
            for key, value in entry.items()
            if key != "step" or name != "SGD"
        }
        for index, entry in ours["state"].items()
    }
    tensors_again = [torch.tensor(a) for a in arrays]
    theirs_again = getattr(torch.optim, name)(tensors_again, foreach=False)
    groups = theirs_again.state_dict()["param_groups"]
    known = {key: value for key, value in ours["param_groups"][0].items() if key in groups[0]}
    theirs_again.load_state_dict({"state": to_torch, "param_groups": [{**groups[0], **known}]})

    for t in range(5, 10):
        mine.step(gradients(t))
        continued.step(gradients(t))
        step(tensors_again, theirs_again, gradients(t))
    for a, b, c in zip(arrays, other, tensors_again, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(c.numpy(), a, rtol=1e-11, atol=1e-11)
