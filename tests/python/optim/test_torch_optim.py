"""Comparison with PyTorch's optimizers: configurations, state, precision, checkpoints."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from configurations import CONFIGURATIONS, all_configurations

torch = pytest.importorskip("torch", reason="torch is not installed")

# Arguments that both have; the table includes the values of PyTorch's tests.
NAMES = [name for name in CONFIGURATIONS if hasattr(torch.optim, name)]


def common(name: str) -> list[dict[str, Any]]:
    """The configurations of a class that PyTorch's class takes as well."""
    theirs = set(inspect.signature(getattr(torch.optim, name)).parameters)
    return [
        arguments
        for arguments in all_configurations(name)
        # PyTorch refuses a clipping threshold below 1.
        if set(arguments) <= theirs and arguments.get("d", 1.0) >= 1.0
    ]


CASES = [
    pytest.param(name, arguments, id=f"{name}-{index}")
    for name in NAMES
    for index, arguments in enumerate(common(name))
]
SHAPES = [(6, 5), (7,), (2, 3, 4)]
MATRICES = [(6, 5), (4, 7), (3, 3)]


@pytest.fixture(autouse=True)
def newton_schulz_in_the_type_of_the_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's Muon rounds to bfloat16 first; without that the results can be compared exactly."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


@pytest.fixture
def float64_scalars() -> Iterator[None]:
    """PyTorch stores rates and counts in its default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def normal(seed: int, name: str, dtype: str) -> list[Any]:
    rng = np.random.default_rng(seed)
    shapes = MATRICES if name == "Muon" else SHAPES
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def start(name: str, dtype: str = "f8") -> list[Any]:
    return normal(7, name, dtype)


def gradients(step: int, name: str, dtype: str = "f8") -> list[Any]:
    return normal(1000 + step, name, dtype)


def in_loops(name: str) -> Any:
    """Return PyTorch's optimizer with `foreach=False`; Muon does not have the option."""
    flags = {} if name == "Muon" else {"foreach": False}
    return partial(getattr(torch.optim, name), **flags)


def pair(name: str, arguments: Any, dtype: str = "f8") -> tuple[list[Any], Any, list[Any], Any]:
    arrays = start(name, dtype)
    tensors = [torch.tensor(a) for a in arrays]
    mine = getattr(fo, name)(arrays, **arguments)
    theirs = in_loops(name)(tensors, **arguments)
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
        step(tensors, theirs, gradients(t, name))
        mine.step(gradients(t, name))
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
    exact = [a.astype("f8") for a in start(name, "f4")]
    exactly = getattr(fo, name)(exact, **arguments)
    for t in range(50):
        grads = gradients(t, name, "f4")
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
        step(tensors, theirs, gradients(t, name))
        mine.step(gradients(t, name))
    other = [tensor.numpy().copy() for tensor in tensors]
    continued = getattr(fo, name)(other)
    continued.load_state_dict(theirs.state_dict())

    tensors_again = [torch.tensor(a) for a in arrays]
    theirs_again = in_loops(name)(tensors_again)
    theirs_again.load_state_dict(mine.state_dict(tensors=True))

    for t in range(5, 10):
        mine.step(gradients(t, name))
        continued.step(gradients(t, name))
        step(tensors_again, theirs_again, gradients(t, name))
    for a, b, c in zip(arrays, other, tensors_again, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(c.numpy(), a, rtol=1e-11, atol=1e-11)


def test_tensors_in_bfloat16_go_both_ways() -> None:
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    opt = fo.SGD([np.ones(3, "f4")], momentum=0.9, state_dtype="bfloat16")
    opt.step([np.full(3, 0.5, "f4")])
    state = opt.state_dict(tensors=True)
    assert state["state"][0]["momentum_buffer"].dtype == torch.bfloat16
    other = fo.SGD([np.ones(3, "f4")], momentum=0.9, state_dtype="bfloat16")
    other.load_state_dict(state)
    assert other.state["0"]["momentum_buffer"].tolist() == [0.5] * 3


def test_a_rate_in_a_tensor_becomes_a_number() -> None:
    tensor = torch.ones(3)
    theirs = torch.optim.Adam([tensor], lr=torch.tensor(0.25), foreach=False)
    opt = fo.Adam([np.ones(3, "f4")])
    opt.load_state_dict(theirs.state_dict())
    assert type(opt.param_groups[0]["lr"]) is float


def test_int8_moments_cannot_be_tensors() -> None:
    opt = fo.SGD([np.ones(3, "f4")], momentum=0.9, state_dtype="int8")
    with pytest.raises(ValueError, match="int8"):
        opt.state_dict(tensors=True)


# Hyperparameters that need additional state later are errors, in PyTorch, too.
LATE = {"amsgrad", "centered"}
LATER = [
    pytest.param(name, arguments, id=f"{name}-{index}")
    for name in NAMES
    for index, arguments in enumerate(common(name))
    if not (LATE | ({"momentum"} if name == "RMSprop" else set())) & set(arguments)
]


@pytest.mark.usefixtures("float64_scalars")
@pytest.mark.parametrize(("name", "arguments"), LATER)
def test_hyperparameters_that_change_on_the_way(name: str, arguments: Any) -> None:
    arrays, mine, tensors, theirs = pair(name, {})
    for t in range(40):
        if t == 20:
            mine.param_groups[0].update(arguments)
            theirs.param_groups[0].update(arguments)
        step(tensors, theirs, gradients(t, name))
        mine.step(gradients(t, name))
    for array, tensor in zip(arrays, tensors, strict=True):
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("float64_scalars")
@pytest.mark.parametrize("factor", [np.nan, 0.0, 1e-50, 1e50])
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_one_extreme_gradient(name: str, arguments: Any, factor: float) -> None:
    if name == "Rprop" and np.isnan(factor):
        pytest.skip("PyTorch's Rprop drops a NaN; here it propagates")
    arrays, mine, tensors, theirs = pair(name, arguments)
    for t in range(4):
        grads = gradients(t, name)
        if t == 1:
            for g in grads:
                g[0] *= factor
        step(tensors, theirs, grads)
        mine.step(grads)
    for array, tensor in zip(arrays, tensors, strict=True):
        scale = np.abs(tensor.numpy()[np.isfinite(tensor.numpy())]).max(initial=1.0)
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-11, atol=1e-12 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_those_of_torch(name: str) -> None:
    """In this order, with these defaults, followed by the additional arguments."""
    devices = {"foreach", "capturable", "differentiable", "fused"}

    def arguments(cls: type) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(cls).parameters
        return {key: p for key, p in parameters.items() if key not in devices}

    def positions(cls: type) -> list[str]:
        found = arguments(cls).items()
        return [k for k, p in found if p.kind is not p.KEYWORD_ONLY and k != "maximize"]

    mine, theirs = getattr(fo, name), getattr(torch.optim, name)
    assert positions(mine)[: len(positions(theirs))] == positions(theirs)
    for key, parameter in arguments(theirs).items():
        assert arguments(mine)[key].default == parameter.default, key


def test_muon_is_as_close_to_torch_as_bfloat16_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    arrays, mine, tensors, theirs = pair("Muon", {"lr": 1.0, "weight_decay": 0.0})
    step(tensors, theirs, gradients(0, "Muon"))
    mine.step(gradients(0, "Muon"))
    for array, tensor, before in zip(arrays, tensors, start("Muon"), strict=True):
        error = np.linalg.norm(array - tensor.numpy()) / np.linalg.norm(array - before)
        # bfloat16 has 8 bits, and five iterations multiply what it rounds.
        assert 1e-6 < error < 0.05
