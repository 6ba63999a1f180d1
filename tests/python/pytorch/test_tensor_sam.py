"""Sharpness-aware minimization over tensors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastoptim.torch as ft  # noqa: E402
from tensors import FLOATS, alike, array, give_grads, numbers, parameters, snapshot  # noqa: E402


def loss_of(params: Any) -> Any:
    return sum(((p * p) * (p + 1)).sum() for p in params)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("adaptive", [False, True])
def test_it_steps_as_that_over_arrays_to_the_bit(dtype: Any, adaptive: bool) -> None:
    params = parameters(dtype=dtype)
    arrays = [array(p).copy() for p in params]
    ours: Any = ft.SAM(params, ft.SGD, rho=0.1, adaptive=adaptive, lr=0.1, momentum=0.9)
    base = fo.SGD(arrays, lr=0.1, momentum=0.9, rounding="nearest")
    theirs = fo.SAM(base, rho=0.1, adaptive=adaptive)
    for step in range(3):
        for at, call in enumerate(("first_step", "second_step")):
            give_grads(params, 2 * step + at)
            grads = [array(p.grad) for p in params]
            getattr(ours, call)()
            getattr(theirs, call)(grads)
            assert all(
                array(p).tobytes() == a.tobytes() for p, a in zip(params, arrays, strict=True)
            )
    assert ours.last_info.applied


def by_hand(params: Any, rho: float, lr: float) -> None:
    grads = [p.grad.clone() for p in params]
    norm = torch.stack([g.norm() for g in grads]).norm()
    with torch.no_grad():
        for p, g in zip(params, grads, strict=True):
            p += rho * g / (norm + 1e-12)
            p.grad = None
    loss_of(params).backward()
    with torch.no_grad():
        for p, g in zip(params, grads, strict=True):
            p -= rho * g / (norm + 1e-12)
            p -= lr * p.grad
            p.grad = None


@pytest.mark.parametrize("base", [ft.SGD, torch.optim.SGD])
@pytest.mark.parametrize("how", ["two steps", "backward first", "closure"])
def test_it_is_called_as_everyones_copy_of_it(base: Any, how: str) -> None:
    ours, theirs = parameters(), parameters()
    opt = ft.SAM(ours, base, rho=0.05, lr=0.1)

    def closure() -> Any:
        if how == "closure":
            opt.zero_grad()
        loss = loss_of(ours)
        loss.backward()
        return loss

    for _ in range(3):
        first = loss_of(ours)
        if how == "two steps":
            first.backward()
            opt.first_step(zero_grad=True)
            loss_of(ours).backward()
            opt.second_step(zero_grad=True)
        elif how == "backward first":
            first.backward()
            opt.step(closure)
            opt.zero_grad()
        else:
            assert torch.equal(opt.step(closure), first)
        loss_of(theirs).backward()
        by_hand(theirs, 0.05, 0.1)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q)


def test_groups_and_state_are_the_bases() -> None:
    params = parameters([(3,), (4,)])
    opt: Any = ft.SAM([{"params": params[:1], "rho": 0.5}], ft.AdamW, lr=0.1)
    opt.add_param_group({"params": params[1:], "weight_decay": 0.0})
    assert [group["rho"] for group in opt.param_groups] == [0.5, 0.05]
    give_grads(params, 0)
    opt.first_step()
    opt.second_step(max_norm=1.0, zero_grad=True)
    assert opt.state is opt.base_optimizer.state
    assert opt.last_info.grad_norm is not None
    assert all(p.grad is None for p in params)
    torch.optim.lr_scheduler.StepLR(opt, 1)
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = ft.SAM([{"params": others[:1]}, {"params": others[1:]}], ft.AdamW)
    other.load_state_dict(opt.state_dict())
    thirds, third = pickle.loads(pickle.dumps((params, opt)))
    fourths, fourth = copy.deepcopy((params, opt))
    for mine, it in [(params, opt), (others, other), (thirds, third), (fourths, fourth)]:
        give_grads(mine, 1)
        it.first_step()
        it.second_step()
    assert alike(params, others)
    assert alike(params, thirds)
    assert alike(params, fourths)


def test_parameters_of_any_strides_are_moved_and_brought_back() -> None:
    whole = torch.zeros((3, 8), dtype=torch.float64)
    p = torch.nn.Parameter(whole[:, ::2])
    q = torch.nn.Parameter(numbers((4, 3), 0).t())
    with torch.no_grad():
        p.copy_(q)
    opt = ft.SAM([p, q], ft.SGD, lr=0.1)
    for parameter in (p, q):
        parameter.grad = numbers((3, 4), 1)
    before = p.detach().clone()
    version = p._version
    opt.first_step()
    assert torch.equal(p, q)
    assert not torch.equal(p, before)
    assert p._version > version
    opt.second_step()
    assert torch.equal(p, q)
    assert torch.equal(p.detach(), before - 0.1 * p.grad)


def test_what_raises_leaves_the_parameters_as_they_were() -> None:
    params = parameters()
    opt = ft.SAM(params, ft.SGD, lr=0.1)
    before = snapshot(opt, params)
    calls: list[int] = []

    def closure() -> Any:
        calls.append(1)
        give_grads(params, len(calls))
        if len(calls) == 2:
            raise KeyError("closure")
        return 1.0

    with pytest.raises(KeyError):
        opt.step(closure)
    assert snapshot(opt, params) == before
    give_grads(params, 0)
    opt.first_step()
    moved = snapshot(opt, params)
    give_grads(params, 1)
    params[0].grad.view(-1)[0] = float("nan")
    with pytest.raises(FloatingPointError):
        opt.second_step(nonfinite="raise")
    assert snapshot(opt, params) == moved
    with pytest.raises(RuntimeError, match="call second_step before"):
        opt.first_step()
    opt.second_step(nonfinite="skip")
    assert snapshot(opt, params) == before
    with pytest.raises(RuntimeError, match="call first_step before"):
        opt.second_step()
    with pytest.raises(TypeError, match="closure"):
        opt.step()


def test_gradients_that_are_not_finite_at_first_count_too() -> None:
    params = parameters([(3,), (2,)])
    before = [p.detach().clone() for p in params]
    opt: Any = ft.SAM(params, ft.SGD, lr=0.1)
    for policy in ("skip", "raise"):
        give_grads(params, 0)
        params[0].grad[0] = float("nan")
        opt.first_step()
        give_grads(params, 1)
        if policy == "raise":
            with pytest.raises(FloatingPointError, match="first_step"):
                opt.second_step(nonfinite=policy)
        opt.second_step(nonfinite="skip")
        assert opt.last_info == fo.StepInfo(False, None)
        assert alike(params, before)
    give_grads(params, 0)
    opt.first_step(loss_scale=8.0)
    opt.second_step(nonfinite="skip")
    assert opt.last_info.applied


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"rho": -1.0}, ValueError), ({"rho": "a"}, TypeError), ({"adaptive": 1}, TypeError)],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: Any) -> None:
    with pytest.raises(error):
        ft.SAM(parameters(), ft.SGD, **arguments)
    assert np.isfinite(0.0)
