"""The state of the optimizers over tensors: authoritative, saved, loaded, copied."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest

import fastoptim as fo

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastoptim.torch as ft  # noqa: E402
from tensors import (  # noqa: E402
    CLASSES,
    FLOATS,
    alike,
    give_grads,
    parameters,
    shapes_of,
    snapshot,
    train,
)

OF_PYTORCH = [cls for cls in CLASSES if hasattr(torch.optim, cls.__name__)]


def made(cls: Any, params: Any) -> Any:
    # A state is there where there is momentum.
    return cls(params, momentum=0.9) if cls.__name__ in {"SGD", "RMSprop"} else cls(params)


def sized(cls: Any) -> list[tuple[int, ...]]:
    """Give shapes that PyTorch's takes, whose Adafactor divides by the size."""
    return [shape for shape in shapes_of(cls) if 0 not in shape]


@pytest.fixture
def double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("cls", OF_PYTORCH)
def test_checkpoints_move_both_ways(cls: Any) -> None:
    a, b = parameters(sized(cls)), parameters(sized(cls))
    ours, theirs = made(cls, a), made(getattr(torch.optim, cls.__name__), b)
    tolerance = 2e-2 if cls.__name__ == "Muon" else 1e-12
    train(ours, a, 3)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    for p, q in zip(a, b, strict=True):
        q.data.copy_(p.data)
    train(ours, a, 3, 3)
    train(theirs, b, 3, 3)
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)
        q.data.copy_(p.data)
    ours.load_state_dict(theirs.state_dict())
    train(theirs, b, 3, 6)
    train(ours, a, 3, 6)
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)
        assert list(ours.state[p]) == list(theirs.state[q])
        for key in ours.state[p]:
            assert ours.state[p][key].shape == theirs.state[q][key].shape
    assert set(theirs.param_groups[0]) <= set(ours.state_dict()["param_groups"][0])


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("how", ["state_dict", "saved", "pickle", "deepcopy"])
def test_training_continues_from_a_copy_to_the_bit(cls: Any, dtype: Any, how: str) -> None:
    params = parameters(shapes_of(cls), dtype)
    opt = made(cls, params)
    train(opt, params, 3)
    if how == "pickle":
        # What is pickled with its parameters has them still.
        others, other = pickle.loads(pickle.dumps((params, opt)))
    elif how == "deepcopy":
        others, other = copy.deepcopy((params, opt))
    else:
        others = [torch.nn.Parameter(p.detach().clone()) for p in params]
        other = made(cls, others)
        saved = opt.state_dict()
        if how == "saved":
            file = io.BytesIO()
            torch.save(saved, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
        other.load_state_dict(saved)
    assert type(other) is cls
    assert snapshot(other, others) == snapshot(opt, params)
    train(opt, params, 3, 3)
    train(other, others, 3, 3)
    assert snapshot(other, others) == snapshot(opt, params)


def test_a_load_copies() -> None:
    a, b = parameters(), parameters()
    one, other = ft.AdamW(a), ft.AdamW(b)
    train(one, a, 2)
    other.load_state_dict(one.state_dict())
    before = snapshot(one, a)
    train(other, b, 2)
    assert snapshot(one, a) == before


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_moments_are_wide_and_numbers_are_float64(dtype: Any) -> None:
    p = parameters([(4,)], dtype)[0]
    opt = ft.NAdam([p])
    train(opt, [p], 2)
    entry = opt.state[p]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert list(entry) == ["step", "mu_product", "exp_avg", "exp_avg_sq"]
    assert [entry[key].dtype for key in entry] == [torch.float64] * 2 + [wide] * 2
    assert entry["step"].shape == entry["mu_product"].shape == ()
    assert not any(value.requires_grad for value in entry.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loads_widen_what_pytorch_keeps_narrow(dtype: Any) -> None:
    a, b = parameters([(50,)], dtype), parameters([(50,)], dtype)
    theirs, ours = torch.optim.AdamW(a), ft.AdamW(b)
    train(theirs, a, 2)
    assert theirs.state[a[0]]["exp_avg"].dtype == dtype
    ours.load_state_dict(theirs.state_dict())
    entry = ours.state[b[0]]
    assert entry["exp_avg"].dtype == torch.float32
    assert torch.equal(entry["exp_avg"], theirs.state[a[0]]["exp_avg"].float())
    assert entry["step"].dtype == torch.float64
    # The way back keeps them narrow, as PyTorch does.
    train(ours, b, 1)
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    train(theirs, a, 1)


def test_a_large_step_does_not_stick() -> None:
    p = parameters([(2,)])[0]
    opt = ft.AdamW([p])
    train(opt, [p], 1)
    opt.state[p]["step"].fill_(2.0**24)
    train(opt, [p], 3)
    assert opt.state[p]["step"].item() == 2**24 + 3


@pytest.mark.parametrize("step", [7, 7.0, torch.tensor(7.0), torch.tensor([7]), fo])
def test_a_step_of_another_kind_is_widened(step: Any) -> None:
    a, b = parameters([(3,)])[0], parameters([(3,)])[0]
    ours, theirs = ft.AdamW([a]), ft.AdamW([b])
    train(ours, [a], 1)
    train(theirs, [b], 1)
    ours.state[a]["step"] = step
    if step is fo:
        with pytest.raises(TypeError, match='step of "0" must be a number'):
            train(ours, [a], 1)
        return
    theirs.state[b]["step"].fill_(7)
    train(ours, [a], 1)
    train(theirs, [b], 1)
    assert torch.equal(a, b)
    found = ours.state[a]["step"]
    assert (found.dtype, found.shape, found.item()) == (torch.float64, (), 8)


@pytest.mark.parametrize("step", [-1.0, 0.5, float("nan"), float("inf")])
def test_a_step_that_is_none_is_refused(step: float) -> None:
    p = parameters([(3,)])[0]
    opt = ft.AdamW([("w", p)])
    train(opt, [p], 1)
    opt.state[p]["step"].fill_(step)
    before = snapshot(opt, [p])
    with pytest.raises(ValueError, match='step of "w" must be a whole number'):
        train(opt, [p], 1)
    assert snapshot(opt, [p]) == before


def test_what_a_user_puts_into_the_state_is_used() -> None:
    p = parameters([(3,)])[0]
    opt = ft.Adam([p], lr=1.0, betas=(0.9, 0.0), eps=0.0)
    train(opt, [p], 1)
    own = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    opt.state[p]["exp_avg"] = own
    opt.state[p]["note"] = "kept"
    p.grad = torch.ones_like(p)
    opt.step()
    assert opt.state[p]["exp_avg"] is own
    assert torch.allclose(own, torch.tensor([1.0, 1.9, 2.8], dtype=torch.float64))
    assert opt.state[p]["note"] == "kept"
    # Of other strides, or shared with nobody: worked on all the same.
    strided = torch.zeros((3, 2), dtype=torch.float64)[:, 0]
    opt.state[p]["exp_avg"] = strided
    opt.step()
    assert torch.allclose(strided, torch.full((3,), 0.1, dtype=torch.float64))
    # A whole new state, and none.
    opt.state[p] = {key: value.clone() for key, value in opt.state[p].items() if key != "note"}
    opt.step()
    assert opt.state[p]["step"].item() == 4
    opt.state.clear()
    opt.step()
    assert opt.state[p]["step"].item() == 1
    opt.state = {}
    opt.step()
    assert opt.state[p]["step"].item() == 1


@pytest.mark.parametrize("held", ["dict", "entry", "tensor"])
@pytest.mark.parametrize("pause", [0, 3])
def test_what_somebody_still_holds_of_the_state_is_looked_at(held: str, pause: int) -> None:
    a, b = parameters([(3,), (2,)]), parameters([(3,), (2,)])
    ours, other = ft.AdamW(a), ft.AdamW(b)
    train(ours, a, 3)
    train(other, b, 3)
    # Taken now, changed later, and the optimizer is not asked again.
    state = ours.state
    entry = state[a[0]]
    tensor = entry["exp_avg"]
    if held != "dict":
        del state
    if held == "tensor":
        del entry
    train(ours, a, pause, 3)
    train(other, b, pause, 3)
    if held == "dict":
        state[a[0]] = {key: value * 0 for key, value in state[a[0]].items()}
        other.state[b[0]] = {key: value * 0 for key, value in other.state[b[0]].items()}
    elif held == "entry":
        entry["exp_avg"] = tensor * 0
        other.state[b[0]]["exp_avg"].zero_()
    else:
        tensor.data = tensor.data * 0
        other.state[b[0]]["exp_avg"].zero_()
    train(ours, a, 2, 6)
    train(other, b, 2, 6)
    assert alike(a, b)
    assert snapshot(ours, a) == snapshot(other, b)


@pytest.mark.parametrize(
    ("key", "value", "error", "words"),
    [
        ("exp_avg", torch.zeros(2), ValueError, r"exp_avg of \"w\" must have the shape \(3,\)"),
        ("exp_avg", torch.zeros(3, dtype=torch.float64), TypeError, "must be float32"),
        ("exp_avg", torch.zeros(3, dtype=torch.complex64), TypeError, "complex64"),
        ("exp_avg", "text", TypeError, "must be a dense CPU tensor"),
        ("exp_avg", None, ValueError, "cannot start after its first step"),
        ("step", None, ValueError, 'state of "w" lacks "step"'),
    ],
)
def test_state_that_cannot_be_used_is_refused(key: str, value: Any, error: Any, words: str) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    opt = ft.AdamW([("w", p)])
    train(opt, [p], 1)
    opt.state[p][key] = value
    before = p.detach().clone()
    with pytest.raises(error, match=words):
        train(opt, [p], 1)
    assert torch.equal(p.detach(), before)


@pytest.mark.parametrize("state", [[], {"a": 1}, None])
def test_an_entry_that_is_no_dict_is_refused(state: Any) -> None:
    p = parameters([(3,)])[0]
    opt = ft.AdamW([p])
    opt.state[p] = state
    if isinstance(state, dict):
        train(opt, [p], 1)
        assert opt.state[p]["a"] == 1
        return
    with pytest.raises(TypeError, match="must be a dict"):
        train(opt, [p], 1)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_step_that_is_not_applied_leaves_no_state_behind(cls: Any) -> None:
    params = parameters(shapes_of(cls))
    opt = made(cls, params)
    give_grads(params, 0)
    params[-1].grad = torch.full_like(params[-1], float("nan"))
    params[0].grad.view(-1)[0] = float("nan")
    before = snapshot(opt, params)
    keys = list(opt.state)
    opt.step(nonfinite="skip")
    assert not opt.last_info.applied
    assert snapshot(opt, params) == before
    assert [*map(id, opt.state)] == [*map(id, keys)]
    with pytest.raises(FloatingPointError, match='grads\\["0"\\]'):
        opt.step(nonfinite="raise")
    assert snapshot(opt, params) == before
    other = made(cls, others := parameters(shapes_of(cls)))
    train(opt, params, 2)
    train(other, others, 2)
    assert snapshot(opt, params) == snapshot(other, others)


@pytest.mark.parametrize("name", ["Adam", "Lion", "Prodigy"])
def test_int8_is_exported_as_float32(name: str) -> None:
    cls = getattr(ft, name)
    params = parameters([(700,), (3, 5)], torch.float32)
    opt = cls(params, state_dtype="int8", rounding="stochastic")
    train(opt, params, 3)
    assert opt.state[params[0]]["exp_avg"].dtype == torch.int8
    assert opt.state[params[0]]["exp_avg_scale"].shape == (3,)
    saved = opt.state_dict()
    assert not any(key.endswith("_scale") for key in saved["state"][0])
    assert saved["state"][0]["exp_avg"].dtype == torch.float32
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = cls(others, state_dtype="int8", rounding="stochastic")
    other.load_state_dict(saved)
    again = other.state_dict()["state"][0]["exp_avg"]
    torch.testing.assert_close(again, saved["state"][0]["exp_avg"], rtol=0.15, atol=1e-4)
    train(opt, params, 1, 3)
    train(other, others, 1, 3)
    wide = cls(others)
    wide.load_state_dict(saved)
    assert torch.equal(wide.state[others[0]]["exp_avg"], saved["state"][0]["exp_avg"])
    if hasattr(torch.optim, name):
        theirs = getattr(torch.optim, name)(others)
        theirs.load_state_dict(copy.deepcopy(saved))
        train(theirs, others, 1)


def broken() -> dict[str, Any]:
    def changed(change: Any) -> Any:
        def make(saved: Any) -> Any:
            saved = copy.deepcopy(saved)
            change(saved)
            return saved

        return make

    entry = lambda saved: saved["state"][0]  # noqa: E731
    return {
        "not a state": lambda saved: {},
        "no mapping": lambda saved: {**saved, "state": [1]},
        "groups": changed(lambda saved: saved["param_groups"].append(saved["param_groups"][0])),
        "members": changed(lambda saved: saved["param_groups"][0]["params"].pop()),
        "rate": changed(lambda saved: saved["param_groups"][0].update(lr=-1.0)),
        "shape": changed(lambda saved: entry(saved).update(exp_avg=torch.zeros(2))),
        "dtype": changed(
            lambda saved: entry(saved).update(exp_avg=entry(saved)["exp_avg"].to(torch.int32))
        ),
        "step": changed(lambda saved: entry(saved).update(step=0.5)),
        "no number": changed(lambda saved: entry(saved).update(step="many")),
        "entry": changed(lambda saved: saved["state"].update({0: 3})),
    }


@pytest.mark.parametrize("how", broken())
def test_a_state_that_does_not_fit_changes_nothing(how: str) -> None:
    params = parameters()
    opt = ft.AdamW(params)
    train(opt, params, 2)
    before, groups = snapshot(opt, params), repr(opt)
    with pytest.raises(fo.CheckpointError):
        opt.load_state_dict(broken()[how](opt.state_dict()))
    assert snapshot(opt, params) == before
    assert repr(opt) == groups


def test_what_a_class_fixes_no_state_changes() -> None:
    a, b = parameters(), parameters()
    adam, adamw = ft.Adam(a, weight_decay=0.1), ft.AdamW(b)
    train(adam, a, 1)
    adamw.load_state_dict(adam.state_dict())
    assert adamw.param_groups[0]["decoupled_weight_decay"] is True
    assert adamw.param_groups[0]["weight_decay"] == 0.1


def test_groups_keep_keys_of_others_and_names() -> None:
    named = list(torch.nn.Linear(2, 2).named_parameters())
    opt = ft.AdamW([{"params": named, "bias_correction": True, "note": [1]}])
    train(opt, [p for _, p in named], 2)
    saved = opt.state_dict()
    assert saved["param_groups"][0]["bias_correction"] is True
    assert saved["param_groups"][0]["param_names"] == ["weight", "bias"]
    other = ft.AdamW([p for _, p in named])
    other.load_state_dict(saved)
    assert other.param_groups[0]["note"] == [1]
    assert other.param_groups[0]["param_names"] == ["weight", "bias"]
    named[1][1].grad[0] = float("nan")
    with pytest.raises(FloatingPointError, match='grads\\["bias"\\]'):
        other.step(nonfinite="raise")


def test_functions_are_saved_as_values_and_stay_functions() -> None:
    params = parameters()
    opt = ft.SGD(params, lr=fo.schedules.cosine(0.5, 10))
    train(opt, params, 3)
    rate = fo.schedules.cosine(0.5, 10)(3)
    assert opt.current("lr") == rate
    assert opt.state_dict()["param_groups"][0]["lr"] == rate
    others, other = pickle.loads(pickle.dumps((params, opt)))
    train(opt, params, 2, 3)
    train(other, others, 2, 3)
    assert alike(params, others)
    adam = ft.Adam(params, lr=fo.schedules.cosine(0.5, 10))
    train(adam, params, 4)
    again = ft.Adam(params, lr=fo.schedules.cosine(0.5, 10))
    again.load_state_dict(adam.state_dict())
    assert callable(again.param_groups[0]["lr"])
    assert again.current("lr") == adam.current("lr")


def test_states_of_other_packages_are_taken() -> None:
    p = parameters([(4,)])[0]
    opt = ft.ScheduleFreeAdamW([p])
    train(opt, [p], 2)
    saved = copy.deepcopy(opt.state_dict())
    entry = saved["state"][0]
    group = saved["param_groups"][0]
    group["k"] = int(entry.pop("step"))
    for key in [key for key in entry if entry[key].ndim == 0]:
        group[key] = entry.pop(key).item()
    q = torch.nn.Parameter(p.detach().clone())
    other = ft.ScheduleFreeAdamW([q])
    other.load_state_dict(saved)
    train(opt, [p], 2, 2)
    train(other, [q], 2, 2)
    assert torch.equal(p, q)
