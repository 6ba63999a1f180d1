"""Tensors that lie, move, come and go in every way, and those that are refused."""

from __future__ import annotations

import copy
import gc
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastoptim.torch as ft  # noqa: E402
from tensors import CLASSES, alike, give_grads, numbers, parameters, shapes_of, snapshot, train  # noqa: E402

ELEMENTWISE = [cls for cls in CLASSES if cls.__name__ not in {"LARS", "LAMB", "Prodigy"}]


def laid(how: str, shape: tuple[int, ...] = (2, 3, 4, 5), seed: int = 0) -> Any:
    """Give a parameter that lies otherwise than in C order."""
    plain = numbers(shape, seed)
    if how == "channels_last":
        made = plain.to(memory_format=torch.channels_last)
    elif how == "transposed":
        made = plain.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
    elif how == "strided":
        made = torch.zeros((2, 3, 4, 10), dtype=torch.float64)[..., ::2]
        made.copy_(plain)
    else:
        whole = torch.zeros((4, 3, 6, 5), dtype=torch.float64)
        made = whole[1:3, :, 1:5]
        made.copy_(plain)
    assert torch.equal(made, plain)
    return torch.nn.Parameter(made)


LAYOUTS = ["channels_last", "transposed", "strided", "slice"]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("of_param", ["plain", *LAYOUTS])
@pytest.mark.parametrize("of_grad", ["plain", "own", "strided", "expanded"])
def test_strides_do_not_matter(cls: Any, of_param: str, of_grad: str) -> None:
    found = []
    for form in ["plain", of_param]:
        shape = (2, 3, 4, 5)
        p = torch.nn.Parameter(numbers(shape, 0)) if form == "plain" else laid(form)
        if cls.__name__ == "Muon":
            p = torch.nn.Parameter(p.detach()[0, :, :, 0])
        opt = cls([p])
        for step in range(3):
            grad = numbers(p.shape, step)
            if of_grad == "expanded":
                grad = numbers((1,), step).expand(p.shape)
            elif of_grad == "own":
                grad = torch.empty_like(p).copy_(grad)
            elif of_grad == "strided":
                grad = torch.stack([grad, grad], -1)[..., 0]
            p.grad = grad
            opt.step(max_norm=5.0, zero_grad=of_grad != "expanded")
            if of_grad != "expanded":
                assert not p.grad.any()
        found.append(p.detach().contiguous())
    # Sums over elements in another order are rounded otherwise.
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cls", ELEMENTWISE)
def test_state_is_laid_out_as_its_parameter_is(cls: Any) -> None:
    shape = shapes_of(cls)[0]
    p = torch.nn.Parameter(numbers(shape[::-1], 0).t() if len(shape) == 2 else numbers(shape, 0))
    opt = cls([p])
    train(opt, [p], 1)
    if cls.__name__ in {"Adafactor", "Muon"}:
        return
    for value in opt.state[p].values():
        assert value.ndim == 0 or value.stride() == p.stride()


@pytest.mark.parametrize("cls", CLASSES)
def test_gradients_come_and_go_and_parameters_are_frozen(cls: Any) -> None:
    a, b = parameters(shapes_of(cls)), parameters(shapes_of(cls))
    ours, other = cls(a), cls(b)
    for step in range(4):
        give_grads(a, step)
        give_grads(b, step)
        a[1].grad = None if step == 0 else a[1].grad
        b[1].grad = None if step == 0 else b[1].grad
        if step == 2:
            a[0].grad = None
            a[0].requires_grad_(False)
            # As many tensors as there are, made anew.
            b[0].grad = None
        ours.step()
        other.step()
    assert alike(a, b)
    steps = [int(ours.state[p]["step"]) for p in a if "step" in ours.state[p]]
    assert steps == ([3 if i < 2 else 4 for i in range(len(a))] if steps else [])


@pytest.mark.parametrize("cls", CLASSES)
def test_memory_may_move_between_steps(cls: Any) -> None:
    shapes = shapes_of(cls)
    a, b = parameters(shapes, torch.float32), parameters(shapes, torch.float32)
    ours, still = cls(a), cls(b)
    for step in range(6):
        give_grads(a, step)
        give_grads(b, step)
        if step == 1:
            for p in a:
                p.data = p.data.clone()
        if step == 2:
            for p in a:
                p.grad.data = p.grad.data.clone()
        if step == 3:
            for p in a:
                for key, value in ours.state[p].items():
                    value.data = value.data.clone()
                    assert ours.state[p][key] is value
        if step == 4:
            for p in a:
                p.data.share_memory_()
                ours.state[p] = dict(reversed(ours.state[p].items()))
        if step == 5:
            for p in a:
                other = torch.empty_like(p)
                other.copy_(p.detach())
                with torch.no_grad():
                    p.set_(other.untyped_storage(), 0, p.shape, p.stride())
            gc.collect()
        ours.step()
        still.step()
        assert alike(a, b)


def test_parameters_are_replaced_and_regrouped_as_anybody_likes() -> None:
    a, b, c = parameters([(3,), (4,), (5,)])
    opt = ft.AdamW([{"params": [a]}, {"params": [b], "lr": 0.1}])
    train(opt, [a, b], 2)
    opt.param_groups[0]["params"][0] = c
    train(opt, [c, b], 1)
    assert opt.state[c]["step"].item() == 1
    assert opt.state[a]["step"].item() == 2
    opt.param_groups.append({"params": [a], "lr": 0.0})
    before = a.detach().clone()
    train(opt, [a, b, c], 1)
    assert opt.state[a]["step"].item() == 3
    assert torch.equal(a.detach(), before)
    del opt.param_groups[0]
    train(opt, [a, b], 1)
    opt.param_groups.reverse()
    train(opt, [a, b], 1)
    assert [opt.state[p]["step"].item() for p in (a, b, c)] == [5, 6, 2]
    # A framework's groups may lack what only the class here has.
    del opt.param_groups[0]["cautious"], opt.param_groups[0]["foreach"]
    train(opt, [a, b], 1)
    assert opt.param_groups[0]["cautious"] is False


def test_empty_groups_and_shared_modules_work() -> None:
    layer = torch.nn.Linear(3, 3)
    model = torch.nn.Sequential(layer, torch.nn.ReLU(), layer)
    opt = ft.SGD([{"params": []}, {"params": model.parameters()}], lr=0.1)
    model(torch.ones(2, 3)).sum().backward()
    before = layer.weight.detach().clone()
    opt.step()
    assert torch.allclose(before - 0.1 * layer.weight.grad, layer.weight.detach())


def test_a_step_without_gradients_does_nothing() -> None:
    params = parameters()
    opt: Any = ft.AdamW(params)
    before = snapshot(opt, params)
    opt.step()
    assert opt.last_info.applied
    assert opt.last_info.grad_norm is None
    assert snapshot(opt, params) == before
    assert not opt.state


def sparse() -> Any:
    return torch.sparse_coo_tensor([[0, 2]], [1.0, 2.0], (3,), check_invariants=False)


class Subclass(torch.Tensor):  # type: ignore[misc, name-defined]
    pass


def quantized() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def of_inference() -> Any:
    with torch.inference_mode():
        return torch.ones(3)


def freed() -> Any:
    made = torch.ones(3)
    made.untyped_storage().resize_(0)
    return made


def shrunk() -> Any:
    made = torch.ones(3)
    made.untyped_storage().resize_(4)
    return made


REFUSED = {
    "complex": (lambda: torch.ones(3, dtype=torch.complex64), TypeError, "complex64"),
    "meta": (lambda: torch.ones(3, device="meta"), TypeError, "meta"),
    "sparse": (sparse, TypeError, "sparse"),
    "quantized": (quantized, TypeError, "qint8"),
    "integer": (lambda: torch.ones(3, dtype=torch.int64), TypeError, "int64"),
    "int8": (lambda: torch.ones(3, dtype=torch.int8), TypeError, "int8"),
    "subclass": (lambda: torch.ones(3).as_subclass(Subclass), TypeError, "Subclass"),
    "zero": (lambda: torch._efficientzerotensor((3,)), ValueError, "no memory"),
    "freed": (freed, ValueError, "no memory"),
    "shrunk": (shrunk, ValueError, "no memory for all"),
    "inference": (of_inference, ValueError, "inference_mode"),
    "negative": (lambda: torch._neg_view(torch.ones(3)), ValueError, "resolve_neg"),
    "expanded": (lambda: torch.ones(1).expand(3), ValueError, "share memory"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("exchange", [True, False])
def test_what_cannot_be_computed_on_is_refused_by_name(
    kind: str, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, error, words = REFUSED[kind]
    if not exchange:
        monkeypatch.setattr(ft.optim._tensors, "EXCHANGE", None)
    good, bad = parameters([(4,)])[0], make()
    opt = ft.AdamW([("good", good)])
    train(opt, [good], 1)
    opt.param_groups[0]["params"].append(bad)
    opt.param_groups[0]["param_names"].append("bad")
    train(opt, [good], 1)
    give_grads([good], 1)
    # PyTorch gives some of them no gradient; averages follow those without.
    targets = [torch.zeros(4, dtype=torch.float64), torch.zeros(3)]
    average = types.SimpleNamespace(_begin_for=lambda _: ((targets, 0.5), []))
    before = snapshot(opt, [good])
    with pytest.raises(error, match=words) as found:
        opt.step(ema=average)
    assert 'params["bad"]' in str(found.value)
    assert snapshot(opt, [good]) == before
    assert not any(target.any() for target in targets)


def test_what_is_no_tensor_is_refused() -> None:
    good = parameters([(4,)])[0]
    opt = ft.AdamW([good])
    opt.param_groups[0]["params"].append(types.SimpleNamespace(grad=1))
    give_grads([good], 1)
    with pytest.raises(TypeError, match=r'params\["1"\] must be .*, got SimpleNamespace'):
        opt.step()


@pytest.mark.parametrize(
    ("grad", "error", "words"),
    [
        (sparse().double(), TypeError, "sparse"),
        (torch.ones(3, dtype=torch.float64).as_subclass(Subclass), TypeError, "Subclass"),
        (torch._efficientzerotensor((3,), dtype=torch.float64), ValueError, "no memory"),
    ],
)
def test_gradients_that_cannot_be_read_are_refused_by_name(
    grad: Any, error: Any, words: str
) -> None:
    a, b = parameters([(3,), (3,)])
    opt = ft.AdamW([("a", a), ("b", b)])
    train(opt, [a, b], 1)
    give_grads([a], 1)
    b.grad = grad
    before = snapshot(opt, [a, b])
    with pytest.raises(error, match=words) as found:
        opt.step()
    assert 'grads["b"]' in str(found.value)
    assert snapshot(opt, [a, b]) == before


def test_a_negative_gradient_is_refused() -> None:
    p = parameters([(1,)])[0]
    opt = ft.SGD([p])
    p.grad = torch._neg_view(torch.ones(1, dtype=torch.float64))
    with pytest.raises(ValueError, match="resolve_neg"):
        opt.step()


@pytest.mark.parametrize("cls", CLASSES)
def test_a_tensor_twice_warns_at_first_and_is_refused_by_the_step(cls: Any) -> None:
    p = parameters([(3, 2)])[0]
    with pytest.warns(UserWarning, match="duplicate"):
        opt = cls([p, p])
    give_grads([p], 0)
    before = snapshot(opt, [p])
    with pytest.raises(ValueError, match="share memory"):
        opt.step()
    assert snapshot(opt, [p]) == before


def test_shared_memory_is_refused_however_hidden() -> None:
    whole = numbers((10,), 0)
    a, b = torch.nn.Parameter(whole[:6]), torch.nn.Parameter(whole[5:])
    opt = ft.SGD([a, b], lr=0.1)
    give_grads([a, b], 0)
    with pytest.raises(ValueError, match=r'params\["0"\] and params\["1"\].* share memory'):
        opt.step()
    b.data = b.data.clone()
    opt.step()
    a.grad = a.data
    with pytest.raises(ValueError, match="share memory"):
        opt.step()
    give_grads([a, b], 0)
    opt.state[b]["other"] = a
    opt.step()
    adam = ft.AdamW([b])
    give_grads([b], 0)
    adam.step()
    adam.state[b]["exp_avg"] = adam.state[b]["exp_avg_sq"]
    with pytest.raises(ValueError, match="share memory"):
        adam.step()


def test_columns_of_one_matrix_do_not_overlap() -> None:
    whole = numbers((6, 2), 0)
    expected = whole.clone()
    a, b = torch.nn.Parameter(whole[:, 0]), torch.nn.Parameter(whole[:, 1])
    opt = ft.SGD([a, b], lr=0.5)
    give_grads([a, b], 0)
    opt.step()
    expected -= 0.5 * torch.stack([a.grad, b.grad], 1)
    assert torch.equal(whole, expected)
    b.data = whole[:, 0]
    with pytest.raises(ValueError, match="share memory"):
        opt.step()


def test_a_stale_graph_is_noticed() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    opt = ft.AdamW([w])
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    version = w._version
    opt.step()
    assert w._version == version + 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    skipped = w._version
    w.grad = torch.full((3,), float("inf"))
    opt.step(nonfinite="skip")
    assert w._version == skipped


def test_a_tensor_of_another_dtype_than_before_is_taken() -> None:
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    opt = ft.AdamW([p], lr=0.1)
    train(opt, [p], 2)
    state = copy.deepcopy(opt.state[p])
    p.data = p.data.float()
    p.grad = None
    train(opt, [p], 1)
    assert opt.state[p]["step"].item() == 3
    assert state["exp_avg"].dtype == torch.float32
    p.data = p.data.double()
    p.grad = None
    train(opt, [p], 1)
    assert opt.state[p]["exp_avg"].dtype == torch.float64
    # Back would lose half of the digits of the state.
    p.data = p.data.float()
    p.grad = None
    with pytest.raises(TypeError, match='exp_avg of "0" must be float32'):
        train(opt, [p], 1)


def test_a_gradient_of_another_dtype_or_shape_is_refused() -> None:
    a, b = parameters([(3,), (2, 2)])
    opt = ft.SGD([a, b])
    b.grad = torch.ones(2, 2, dtype=torch.float64)
    a.grad = torch.ones(3, dtype=torch.float64)
    a.data = torch.ones(4, dtype=torch.float64)
    before = snapshot(opt, [a, b])
    with pytest.raises(ValueError, match=r'grads\["0"\] must have the shape \[4\]'):
        opt.step()
    a.data = torch.ones(3)
    with pytest.raises(TypeError, match=r'grads\["0"\] must be float32'):
        opt.step()
    assert snapshot(opt, [b]) == before[1:2]


def test_dead_objects_are_not_held() -> None:
    import weakref

    p = parameters([(4,)])[0]
    opt = ft.AdamW([p])
    train(opt, [p], 2)
    moments = weakref.ref(opt.state[p]["exp_avg"])
    opt.state.clear()
    gc.collect()
    assert moments() is None
    engine, param = weakref.ref(opt), weakref.ref(p)
    opt.param_groups[0]["own"] = opt
    del opt, p
    gc.collect()
    assert engine() is None
    assert param() is None


@pytest.mark.parametrize("change", ["transpose", "grow", "shift"])
def test_a_parameter_of_another_layout_at_the_same_address_is_noticed(change: str) -> None:
    memory = [torch.arange(32.0), torch.arange(32.0)]
    pair = [torch.nn.Parameter(whole[:16].view(4, 4)) for whole in memory]
    ours, theirs = ft.AdamW(pair[:1], lr=0.1), torch.optim.AdamW(pair[1:], lr=0.1)
    for turn in range(6):
        for p, whole in zip(pair, memory, strict=True):
            if turn == 3:
                p.data = {
                    "transpose": p.data.t(),
                    "grow": whole.view(4, 8)[:, :4],
                    "shift": whole[16:].view(4, 4),
                }[change]
            p.grad = torch.full((4, 4), 0.5).triu() * (turn + 1)
        ours.step()
        theirs.step()
    assert torch.allclose(*memory)


def advice_of(tensor: Any) -> set[str]:
    """Return the kernel's flags of the mapping that holds the middle of a tensor."""
    address = tensor.data_ptr() + tensor.nbytes // 2
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            start, end = (int(bound, 16) for bound in words[0].split("-"))
            inside = start <= address < end
        elif inside and words[0] == "VmFlags:":
            return set(words[1:])
    return set()


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no transparent huge pages"
)
def test_large_new_tensors_are_in_huge_pages() -> None:
    scores = torch.zeros((1, 9 << 20), requires_grad=True)
    (grad,) = torch.autograd.grad(ft.CrossEntropyLoss()(scores, torch.tensor([0])), scores)
    p = torch.nn.Parameter(torch.zeros(2 << 20))
    p.grad = torch.ones(2 << 20)
    opt = ft.AdamW([p])
    opt.step()
    for tensor in [grad, *(opt.state[p][name] for name in ("exp_avg", "exp_avg_sq"))]:
        assert "hg" in advice_of(tensor)
