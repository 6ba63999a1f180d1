"""States saved by another class, by another package or in another order."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import OPTIMIZERS
from snapshot import snapshot

SHAPES = {"w": (3, 2), "v": (4, 3)}


def numbers(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


def trained(cls: Any, steps: int = 5, **arguments: Any) -> tuple[dict[str, Any], Any]:
    params = numbers(0)
    opt = cls(params, **arguments)
    for step in range(steps):
        opt.step(numbers(step + 1))
    return params, opt


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_the_same_names_in_another_order_are_matched_by_name(cls: Any) -> None:
    params, opt = trained(cls)
    other = {name: params[name].copy() for name in reversed(params)}
    continued = cls(other)
    continued.load_state_dict(opt.state_dict())
    for step in range(5, 8):
        grads = numbers(step)
        opt.step(grads)
        continued.step(grads)
    for name in params:
        np.testing.assert_allclose(other[name], params[name], rtol=1e-9)


def test_groups_in_another_order_are_matched_by_name() -> None:
    def made(order: str) -> Any:
        arrays = numbers(0)
        rates = {"w": 0.1, "v": 0.2}
        return fo.SGD(
            [{"params": {name: arrays[name]}, "lr": rates[name]} for name in order], momentum=0.9
        )

    first, second = made("wv"), made("vw")
    first.step(numbers(1))
    first.param_groups[0]["lr"] = 0.5
    second.load_state_dict(first.state_dict())
    assert [group["lr"] for group in second.param_groups] == [0.2, 0.5]
    for name in SHAPES:
        assert snapshot(second.state[name]) == snapshot(first.state[name])


@pytest.mark.parametrize("ours", [True, False])
def test_a_state_of_adam_leaves_adamw_decoupled(ours: bool) -> None:
    if ours:
        state = trained(fo.Adam, weight_decay=0.1)[1].state_dict()
    else:
        torch = pytest.importorskip("torch", reason="torch is not installed")
        tensors = [torch.tensor(array, requires_grad=True) for array in numbers(0).values()]
        theirs = torch.optim.Adam(tensors, weight_decay=0.1)
        for tensor in tensors:
            tensor.grad = tensor.detach().clone()
        theirs.step()
        state = theirs.state_dict()
    opt = fo.AdamW(numbers(0))
    opt.load_state_dict(state)
    assert opt.param_groups[0]["decoupled_weight_decay"] is True
    assert opt.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_a_state_with_moments_must_be_complete(cls: Any) -> None:
    arguments: dict[str, Any] = {"momentum": 0.9} if cls is fo.SGD else {}
    opt = trained(cls, **arguments)[1]
    state = opt.state_dict()
    required = {
        key for key, value in state["state"][0].items() if not isinstance(value, np.ndarray)
    }
    if cls in (fo.SGD, fo.Muon):  # PyTorch does not count their steps.
        required -= {"step"}
    before = snapshot(opt)
    for key in required:
        lacking = {**state, "state": {k: dict(e) for k, e in state["state"].items()}}
        del lacking["state"][0][key]
        with pytest.raises(fo.CheckpointError, match=f"is missing .*{key!r}"):
            opt.load_state_dict(lacking)
        assert snapshot(opt) == before


@pytest.mark.filterwarnings("ignore:Using decoupled")
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", ["Prodigy", "SGDScheduleFree", "AdamWScheduleFree"])
def test_training_continues_from_states_of_other_packages(name: str, mode: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    package = "prodigyopt" if name == "Prodigy" else "schedulefree"
    module = pytest.importorskip(package, reason=f"{package} is not installed")
    tensors = [torch.tensor(array) for array in numbers(0).values()]
    arguments: dict[str, Any] = {"weight_decay": 0.1}
    if name != "Prodigy":
        arguments |= {"foreach": False, "lr": 0.05, "warmup_steps": 4}
    tensors[1].zero_()
    theirs = partial(getattr(module, name), **arguments)(tensors)
    ours = {"SGDScheduleFree": "ScheduleFreeSGD", "AdamWScheduleFree": "ScheduleFreeAdamW"}

    def step(number: int) -> list[Any]:
        grads = list(numbers(number).values())
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(grad)
        theirs.step()
        return grads

    if name != "Prodigy":
        theirs.train()
    for number in range(10):
        step(number)
    if name != "Prodigy":
        getattr(theirs, mode)()
    arrays = [tensor.numpy().copy() for tensor in tensors]
    opt = getattr(fo, ours.get(name, name))(arrays)
    opt.load_state_dict(theirs.state_dict())
    if name != "Prodigy":
        theirs.train()
        opt.train()
    for number in range(10, 20):
        opt.step(step(number))
    for array, tensor in zip(arrays, tensors, strict=True):
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-9)


def test_a_sliced_state_of_prodigyopt_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    prodigyopt = pytest.importorskip("prodigyopt", reason="prodigyopt is not installed")
    tensors = [torch.tensor(array) for array in numbers(0).values()]
    theirs = prodigyopt.Prodigy(tensors, slice_p=3)
    for tensor in tensors:
        tensor.grad = tensor.clone()
    theirs.step()
    with pytest.raises(fo.CheckpointError, match="s of '0' is float64 of shape"):
        fo.Prodigy(list(numbers(0).values())).load_state_dict(theirs.state_dict())
