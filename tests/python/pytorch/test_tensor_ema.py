"""Moving averages of modules and of parameters."""

import copy
import gc
import io
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastoptim.torch as ft  # noqa: E402
from tensor_losses import normal  # noqa: E402

swa = torch.optim.swa_utils


def network(dtype: Any = torch.float64) -> Any:
    """Return a network with buffers of floats and of integers, and a parameter of other strides."""
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    return torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(3)).to(dtype)


def trained(model: Any, seed: int) -> None:
    """Change parameters and buffers."""
    with torch.no_grad():
        for index, p in enumerate(model.parameters()):
            p.add_(normal(seed * 100 + index, *p.shape, dtype=p.dtype))
    model(normal(seed, 4, 2, 5, 5, dtype=next(model.parameters()).dtype))


@pytest.mark.parametrize("use_buffers", [True, False])
def test_it_stands_where_an_averaged_model_does(use_buffers: bool) -> None:
    model = network()
    ours = ft.EMA(model, 0.9, use_buffers)
    theirs = swa.AveragedModel(
        model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9), use_buffers=use_buffers
    )
    for seed in range(4):
        trained(model, seed)
        ours.update_parameters(model)
        theirs.update_parameters(model)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-12)
    x = normal(9, 4, 2, 5, 5)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
    swa.update_bn([x], ours)
    again = ft.EMA(network(), 0.9)
    again.load_state_dict(theirs.state_dict())
    assert again.updates == 4
    theirs.load_state_dict(ours.state_dict())


def test_updates_are_those_of_the_average_over_arrays() -> None:
    w = normal(0, 5, 3, dtype=torch.float32)
    array = w.numpy().copy()
    ours, theirs = ft.EMA({"w": w}, 0.9, warmup=True), fo.EMA({"w": array}, 0.9, warmup=True)
    for seed in range(5):
        w += normal(seed, 5, 3, dtype=torch.float32)
        array[...] = w.numpy()
        ours.update()
        theirs.update({"w": array})
    np.testing.assert_array_equal(ours.shadow["w"].numpy(), theirs.shadow["w"])
    assert ours.updates == 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_parameters_have_wide_averages(dtype: Any) -> None:
    model = torch.nn.Linear(3, 2).to(dtype)
    ema = ft.EMA(model, decay=0.999)
    wide = {name: p.detach().float().clone() for name, p in model.named_parameters()}
    for seed in range(20):
        with torch.no_grad():
            model.weight += normal(seed, 2, 3, dtype=dtype)
        ema.update()
        for name, p in model.named_parameters():
            wide[name].lerp_(p.detach().float(), 0.001)
    torch.testing.assert_close(ema.shadow, wide, rtol=1e-6, atol=1e-7)
    assert ema.module is not None
    assert torch.equal(ema.module.weight, ema.shadow["weight"].to(dtype))
    again = ft.EMA(model)
    again.load_state_dict(ema.state_dict())
    torch.testing.assert_close(again.shadow, ema.shadow, rtol=0, atol=0)
    theirs = swa.AveragedModel(model)
    again.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(again.shadow["weight"], model.weight.detach().float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("use_buffers", [True, False])
def test_swapping_twice_brings_everything_back(dtype: Any, use_buffers: bool) -> None:
    model = network(dtype)
    ema = ft.EMA(model, 0.5, use_buffers)
    trained(model, 0)
    ema.update(model)
    trained(model, 1)
    before, average = copy.deepcopy(model.state_dict()), copy.deepcopy(ema.state_dict())
    ema.swap()
    assert ema.swapped
    for name, p in model.named_parameters():
        assert torch.equal(p, average[f"module.{name}"])
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, average[f"module.{name}"] if use_buffers else before[name])
    for call in (ema.update, ema.copy_to, lambda: ema._begin_for([])):
        with pytest.raises(RuntimeError, match="while the average is swapped in"):
            call()
    ema.swap()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(ema.state_dict(), average, rtol=0, atol=0)
    ema.copy_to()
    for name, p in model.named_parameters():
        assert torch.equal(p, average[f"module.{name}"])


def test_layouts_may_change() -> None:
    w = torch.nn.Parameter(normal(0, 4, 6))
    ema = ft.EMA([("w", w)], 0.5)
    first = w.detach().clone()
    w.data = normal(1, 6, 4).t()
    ema.update()
    average = (first + w.detach()) / 2
    torch.testing.assert_close(ema.shadow["w"], average, rtol=1e-12, atol=0)
    old = w.detach().clone()
    ema.swap()
    torch.testing.assert_close(w.detach(), average, rtol=1e-12, atol=0)
    assert torch.equal(ema.shadow["w"], old)


def test_a_step_finds_its_averages_by_its_parameters() -> None:
    model = network()
    ema = ft.EMA(model, 0.75)
    params = list(model.parameters())
    (averages, weight), calls = ema._begin_for(params[::-1][:2])
    assert weight == 0.25
    assert ema.module is not None
    expected = list(ema.module.parameters())[::-1]
    assert all(a is b for a, b in zip(averages, expected[:2], strict=True))
    trained(model, 0)
    for function, *arguments in calls:
        function(*arguments)
    assert ema.updates == 1
    for buffer, source in zip(ema.module.buffers(), model.buffers(), strict=True):
        assert torch.equal(buffer, source)
    with pytest.raises(ValueError, match="no average of parameter 1 of the step"):
        ema._begin_for([params[0], torch.zeros(3)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_step_makes_the_update(dtype: Any) -> None:
    model = network(dtype)
    params = list(model.parameters())
    groups = [{"params": params[::2]}, {"params": params[1::2], "lr": 0.01}]
    opt = ft.AdamW(groups, lr=0.1)
    ema, other = ft.EMA(model, 0.9, warmup=True), ft.EMA(model, 0.9, warmup=True)
    for seed in range(4):
        model(normal(seed, 4, 2, 5, 5, dtype=dtype)).square().sum().backward()
        opt.step(ema=ema, zero_grad=True)
        other.update()
    torch.testing.assert_close(ema.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert ema.updates == 4
    ema.swap()
    with pytest.raises(RuntimeError, match="while the average is swapped in"):
        opt.step(ema=ema)


def test_a_change_of_the_average_is_counted() -> None:
    model = torch.nn.Linear(2, 2)
    ema = ft.EMA(model)
    assert ema.module is not None
    saved = ema.module(torch.ones(1, 2, requires_grad=True)).square().sum()
    ema.update()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved.backward()


def test_copies_take_parameters_by_their_order() -> None:
    model = network()
    ema = ft.EMA(model, 0.5)
    file = io.BytesIO()
    torch.save(ema, file)
    file.seek(0)
    trained(model, 0)
    ema.update()
    for other in (torch.load(file, weights_only=False), copy.deepcopy(ft.EMA(network(), 0.5))):
        with pytest.raises(ValueError, match="no longer exist: pass params"):
            other.update()
        other.update(model)
        torch.testing.assert_close(other.state_dict(), ema.state_dict(), rtol=0, atol=0)
    del model
    gc.collect()
    with pytest.raises(ValueError, match="no longer exist: pass params"):
        ema.update()


def test_what_cannot_be_averaged_is_refused() -> None:
    w = torch.zeros(3)
    ema = ft.EMA([w])
    for params, error, message in [
        ([w, w], ValueError, "params has 2 tensors, but the average 1"),
        ([torch.zeros(2)], ValueError, r"params\['0'\] must have the shape \(3,\)"),
        ([torch.zeros(3).double()], TypeError, r"params\[.0.\] must be float32"),
        ([torch.zeros(3).to_sparse()], TypeError, "must be dense"),
        ([torch.zeros(3, device="meta")], TypeError, "must be on the CPU"),
    ]:
        with pytest.raises(error, match=message):
            ema.update(params)
    assert ema.updates == 0
    with pytest.raises(RuntimeError, match="without a module cannot be called"):
        ema(w)
    for decay in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
            ft.EMA([w], decay)
    with pytest.raises(TypeError, match="must be one of float32"):
        ft.EMA([torch.zeros(3, dtype=torch.int64)])
