"""What surrounds a step over tensors: options, closures, hooks, schedulers, scalers, threads."""

from __future__ import annotations

import copy
import struct
import subprocess
import sys
import threading
import types
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastoptim.torch as ft  # noqa: E402
from tensors import (  # noqa: E402
    CLASSES,
    alike,
    array,
    give_grads,
    numbers,
    parameters,
    shapes_of,
    snapshot,
    train,
    twin,
)


def average(targets: Any, weight: float, counted: list[int] | None = None) -> Any:
    """Give what a moving average gives a step: targets, the weight, and calls for the end."""
    calls = [] if counted is None else [(counted.append, 1)]
    return types.SimpleNamespace(_begin_for=lambda _: ((targets, weight), calls))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_option_does_what_it_does_over_arrays(cls: Any, dtype: Any) -> None:
    params = parameters(shapes_of(cls), dtype)
    arrays = [array(p).copy() for p in params]
    ours, theirs = cls(params), twin(cls)(arrays, rounding="nearest")
    means = [p.detach().clone() for p in params]
    copies = [torch.empty(p.shape, dtype=torch.float16) for p in params]
    ema = fo.EMA({str(i): a for i, a in enumerate(arrays)}, decay=0.9)
    halves = [np.empty(a.shape, "f2") for a in arrays]
    counted: list[int] = []
    for step in range(3):
        give_grads(params, step)
        params[-1].grad = None if step == 1 else params[-1].grad
        grads = [None if p.grad is None else array(p.grad).copy() for p in params]
        options: dict[str, Any] = {
            "loss_scale": 2.0,
            "max_norm": 0.5,
            "clip_value": 0.3,
            "nonfinite": "skip",
            "regularizer": fo.regularizers.ElasticNet(0.01, 0.02),
            "zero_grad": True,
        }
        ours.step(**options, ema=average(means, 0.1, counted), copy_to=copies)
        info = theirs.step(grads, **options, copy_to=halves)
        ema.update({str(i): a for i, a in enumerate(arrays)})
        assert ours.last_info == info
        assert info.grad_norm is not None
        assert not any(p.grad.any() for p in params if p.grad is not None)
    assert counted == [1, 1, 1]
    for p, a, mean, half, other in zip(params, arrays, copies, halves, means, strict=True):
        assert array(p).tobytes() == a.tobytes()
        assert array(mean).tobytes() == half.tobytes()
        assert torch.isfinite(other).all()
    if not cls.__name__.startswith("ScheduleFree"):
        for mean, shadow in zip(means, ema.shadow.values(), strict=True):
            np.testing.assert_allclose(array(mean), shadow, rtol=1e-5)


def test_groups_may_have_regularizers_of_their_own() -> None:
    params = parameters([(3,), (4,), (5,)])
    arrays = [array(p).copy() for p in params]
    own = [fo.regularizers.L1(0.1, proximal=True), None]
    groups = [{"params": [p], "regularizer": r} for p, r in zip(params, own, strict=False)]
    others = [{"params": [a], "regularizer": r} for a, r in zip(arrays, own, strict=False)]
    ours = ft.SGD([*groups, {"params": params[2:]}], lr=0.1)
    theirs = fo.SGD([*others, {"params": arrays[2:]}], lr=0.1)
    for step in range(3):
        give_grads(params, step)
        ours.step(regularizer=fo.regularizers.L2(0.3))
        theirs.step([array(p.grad) for p in params], regularizer=fo.regularizers.L2(0.3))
    assert all(np.array_equal(array(p), a) for p, a in zip(params, arrays, strict=True))
    saved = ours.state_dict()
    assert saved["param_groups"][0]["regularizer"]["class"] == "L1"
    ours.load_state_dict(saved)
    assert ours.param_groups[0]["regularizer"] is own[0]
    with pytest.raises(ValueError, match="proximal"):
        ft.ScheduleFreeSGD([{"params": parameters([(2,)]), "regularizer": own[0]}])


def test_the_value_in_force_is_found_by_name() -> None:
    params = parameters([(3,), (4,)])
    opt = ft.Prodigy([{"params": params[:1]}, {"params": params[1:], "lr": lambda step: 0.5**step}])
    assert (opt.current("lr"), opt.current("lr", 1), opt.current("d")) == (1.0, 1.0, 1e-6)
    train(opt, params, 2)
    assert opt.current("lr", 1) == 0.25
    assert opt.current("d") == opt.state[params[0]]["d"].item() > 1e-6
    with pytest.raises(ValueError, match="name must be one of"):
        opt.current("rate")
    with pytest.raises(IndexError, match="group"):
        opt.current("lr", 2)


def test_outputs_may_lie_in_any_way_and_are_checked() -> None:
    p = torch.nn.Parameter(numbers((3, 4), 0))
    opt = ft.SGD([("w", p)], lr=0.1)
    give_grads([p], 0)
    mean = torch.zeros((4, 3), dtype=torch.float64).t()
    half = torch.zeros((3, 8), dtype=torch.bfloat16)[:, ::2]
    opt.step(ema=average([mean], 0.5), copy_to={"w": half})
    assert torch.equal(mean, 0.5 * p.detach())
    assert torch.equal(half, p.detach().to(torch.bfloat16))
    assert mean._version == 1
    before = snapshot(opt, [p])
    for options, error, words in [
        ({"ema": average([mean, mean], 0.5)}, ValueError, "ema has 2 tensors for 1"),
        ({"ema": average([mean.float()], 0.5)}, TypeError, r'ema\["w"\] must be float64'),
        ({"ema": average([p.grad], 0.5)}, ValueError, "share memory"),
        ({"copy_to": [mean]}, TypeError, r'copy_to\["w"\] must be bfloat16'),
        ({"copy_to": [half[:2]]}, ValueError, r'copy_to\["w"\] must have the shape'),
        ({"copy_to": {"v": half}}, ValueError, "names"),
        ({"max_norm": 0.0}, ValueError, "max_norm"),
        ({"max_norm": "1"}, TypeError, "max_norm"),
        ({"loss_scale": 0.0}, ValueError, "loss_scale"),
        ({"nonfinite": "no"}, ValueError, "nonfinite"),
        ({"regularizer": 1.0}, TypeError, "regularizer"),
        ({"ema": fo.EMA(np.zeros((3, 4)))}, TypeError, "fastoptim.torch.EMA"),
    ]:
        with pytest.raises(error, match=words):
            opt.step(**options)
        assert snapshot(opt, [p]) == before


@pytest.mark.parametrize("cls", CLASSES)
def test_a_closure_is_called_with_gradients_and_its_loss_returned(cls: Any) -> None:
    params = parameters(shapes_of(cls))
    opt = cls(params)

    def closure() -> Any:
        opt.zero_grad()
        loss = sum((p * p).sum() for p in params)
        loss.backward()
        return loss

    with torch.no_grad():
        first = opt.step(closure)
    assert first.requires_grad
    losses = [opt.step(closure).item() for _ in range(3)]
    assert len({first.item(), *losses}) > 1


def test_hooks_of_every_kind_are_called() -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    params = parameters([(3,)])
    opt: Any = ft.AdamW(params)
    calls: list[str] = []

    def before(_: Any, args: Any, kwargs: Any) -> Any:
        calls.append("before")
        return args, {**kwargs, "max_norm": 1e-3}

    opt.register_step_pre_hook(before)
    opt.register_step_post_hook(lambda *_: calls.append("after"))
    opt.register_state_dict_pre_hook(lambda _: calls.append("saving"))
    opt.register_state_dict_post_hook(lambda _, saved: {**saved, "more": 1})
    opt.register_load_state_dict_pre_hook(
        lambda _, saved: {key: value for key, value in saved.items() if key != "more"}
    )
    opt.register_load_state_dict_post_hook(lambda _: calls.append("loaded"))
    handle = register_optimizer_step_post_hook(lambda *_: calls.append("anywhere"))
    train(opt, params, 1)
    handle.remove()
    saved = opt.state_dict()
    assert saved["more"] == 1
    opt.load_state_dict(saved)
    assert calls == ["before", "after", "anywhere", "saving", "loaded"]
    assert opt.last_info.grad_norm is not None


SCHEDULERS = [
    lambda m, opt: m.StepLR(opt, 2, 0.5),
    lambda m, opt: m.CosineAnnealingLR(opt, 5),
    lambda m, opt: m.OneCycleLR(opt, 0.1, total_steps=20),
    lambda m, opt: m.CyclicLR(opt, 0.01, 0.1, step_size_up=3, cycle_momentum=False),
    lambda m, opt: m.LambdaLR(opt, lambda epoch: 0.9**epoch),
    lambda m, opt: m.SequentialLR(
        opt, [m.ConstantLR(opt, 0.1, 2), m.ExponentialLR(opt, 0.9)], milestones=[2]
    ),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("index", range(len(SCHEDULERS)))
@pytest.mark.parametrize("tensor", [False, True])
def test_schedulers_of_either_kind_set_the_rate(index: int, tensor: bool) -> None:
    if tensor and index == len(SCHEDULERS) - 1 and torch.__version__ < (2, 6):
        pytest.skip("PyTorch's SequentialLR starts from another rate if it is a tensor")
    found = []
    for cls, module in [
        (torch.optim.AdamW, torch.optim.lr_scheduler),
        (ft.AdamW, torch.optim.lr_scheduler),
        (ft.AdamW, fo.lr_scheduler),
    ]:
        params = parameters()
        params = params[:5]
        rate = (
            torch.tensor(0.1, dtype=torch.float64)
            if tensor and module is not fo.lr_scheduler
            else 0.1
        )
        opt = cls(params, lr=rate)
        scheduler = SCHEDULERS[index](module, opt)
        for step in range(8):
            give_grads(params, step)
            opt.step()
            scheduler.step()
        found.append(params)
    for other in found[1:]:
        for p, q in zip(found[0], other, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def test_tensors_are_taken_as_rates_and_betas() -> None:
    a, b = parameters(), parameters()
    rate = torch.tensor(0.1, dtype=torch.float64)
    betas = (torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.99, dtype=torch.float64))
    ours, plain = ft.Adam(a, lr=rate, betas=betas), ft.Adam(b, lr=0.1, betas=(0.9, 0.99))
    train(ours, a, 2)
    train(plain, b, 2)
    assert ours.param_groups[0]["lr"] is rate
    rate.fill_(0.01)
    plain.param_groups[0]["lr"] = 0.01
    train(ours, a, 2)
    train(plain, b, 2)
    assert alike(a, b)
    for bad in (torch.ones(2), float("nan"), -1.0, "0.1"):
        with pytest.raises((TypeError, ValueError), match="lr must be"):
            ft.Adam(a, lr=bad)
    ours.param_groups[0]["lr"] = torch.ones(2)
    with pytest.raises(TypeError, match="lr must be a number"):
        ours.step()


def test_hyperparameters_may_change_between_steps() -> None:
    params = parameters()
    opt = ft.SGD(params, lr=0.1)
    train(opt, params, 1)
    assert not opt.state
    opt.param_groups[0]["momentum"] = 0.9
    train(opt, params, 1)
    assert set(opt.state[params[0]]) == {"momentum_buffer"}
    adam = ft.Adam(params)
    train(adam, params, 1)
    adam.param_groups[0]["amsgrad"] = True
    with pytest.raises(ValueError, match="cannot start after its first step"):
        train(adam, params, 1)
    adam.param_groups[0]["amsgrad"] = False
    train(adam, params, 1)


@pytest.mark.parametrize("flag", ["capturable", "differentiable"])
def test_flags_that_no_cpu_tensor_can_have_are_refused(flag: str) -> None:
    asked: dict[str, Any] = {flag: True}
    with pytest.raises(ValueError, match=flag):
        ft.Adam(parameters(), **asked)
    refused: dict[str, Any] = {flag: False}
    opt = ft.Adam(parameters(), **refused)
    with pytest.raises(ValueError, match=flag):
        opt.add_param_group({"params": parameters([(2,)]), **asked})
    assert len(opt.param_groups) == 1
    with pytest.raises(RuntimeError, match="cannot be `True` together"):
        ft.Adam(parameters(), foreach=True, fused=True)


@pytest.mark.parametrize("unscale", [False, True])
def test_a_grad_scaler_works_as_with_pytorchs(unscale: bool) -> None:
    found = []
    for cls in (torch.optim.AdamW, ft.AdamW):
        params = parameters()[:5]
        arguments: dict[str, Any] = {"fused": True} if cls is torch.optim.AdamW else {}
        opt = cls(params, **arguments)
        scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2)
        for step in range(5):
            give_grads(params, step)
            for p in params:
                p.grad *= 16.0
                if step == 2:
                    p.grad.view(-1)[0] = float("inf")
            scaler.scale(torch.ones(()))
            if unscale:
                scaler.unscale_(opt)
            scaler.step(opt)
            scaler.update()
        assert not hasattr(opt, "grad_scale")
        assert opt.state[params[0]]["step"].item() == 4
        found.append(params)
    for p, q in zip(*found, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


def test_a_skipped_step_of_a_scaler_says_so() -> None:
    params = parameters()
    opt = ft.SGD(params, lr=0.1)
    give_grads(params, 0)
    before = [p.detach().clone() for p in params]
    opt.found_inf = torch.tensor(1.0)
    opt.step()
    assert opt.last_info == fo.StepInfo(False, None)
    assert alike(params, before)
    opt.found_inf, opt.grad_scale = torch.tensor(0.0), torch.tensor(2.0)
    opt.step()
    expected = [p - 0.1 * q.grad / 2.0 for p, q in zip(before, params, strict=True)]
    for p, q in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), q)


def test_zero_grad_is_pytorchs() -> None:
    params = parameters()
    opt = ft.SGD(params, foreach=True)
    give_grads(params, 0)
    opt.zero_grad(set_to_none=False)
    assert not any(p.grad.any() for p in params)
    opt.zero_grad()
    assert all(p.grad is None for p in params)


@pytest.mark.parametrize("cls", [ft.ScheduleFreeAdamW, ft.ScheduleFreeSGD])
def test_schedule_free_parameters_have_two_points(cls: Any) -> None:
    params = parameters()
    arrays = [array(p).copy() for p in params]
    ours, theirs = cls(params), twin(cls)(arrays)
    params[0].data = params[0].data.t().contiguous().t()
    for step in range(3):
        give_grads(params, step)
        params[1].grad = None
        ours.step()
        theirs.step([None if p.grad is None else array(p.grad.contiguous()) for p in params])
    ours.eval()
    theirs.eval()
    assert all(np.array_equal(array(p), a) for p, a in zip(params, arrays, strict=True))
    assert ours.param_groups[0]["train_mode"] is False
    give_grads(params, 3)
    with pytest.raises(RuntimeError, match=r"train\(\)"):
        ours.step()
    others, other = copy.deepcopy((params, ours))
    with pytest.raises(RuntimeError, match=r"train\(\)"):
        other.step()
    version = others[0]._version
    other.train()
    assert others[0]._version == version + 1
    ours.eval()
    ours.train()
    theirs.train()
    assert alike(params, others)
    assert all(np.allclose(array(p), a) for p, a in zip(params, arrays, strict=True))
    ours.step()


def test_prodigy_has_one_estimate_for_all_parameters() -> None:
    params = parameters([(4,), (5,), (6,)])
    arrays = [array(p).copy() for p in params]
    ours, theirs = ft.Prodigy(params), fo.Prodigy(arrays)
    for step in range(8):
        give_grads(params, step)
        # One comes late, another stays away for a while.
        if step < 3:
            params[2].grad = None
        if step in (4, 5):
            params[0].grad = None
        ours.step()
        theirs.step([None if p.grad is None else array(p.grad) for p in params])
        if step >= 3:
            assert len({ours.state[p]["d"].item() for p in params}) == 1
    assert all(np.array_equal(array(p), a) for p, a in zip(params, arrays, strict=True))


def test_two_threads_in_one_step_are_refused_and_nothing_is_lost() -> None:
    params = parameters([(400_000,)], torch.float32)
    opt = ft.AdamW(params)
    give_grads(params, 0)
    counts, errors = [0, 0], []

    def work(index: int) -> None:
        for _ in range(30):
            try:
                opt.step()
                counts[index] += 1
            except RuntimeError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opt.state[params[0]]["step"].item() == sum(counts)
    assert all("another thread" in error for error in errors)


def test_a_call_from_within_a_call_is_refused() -> None:
    params = parameters()

    def rate(step: int) -> float:
        if step == 1:
            opt.step()
        return 0.1

    opt = ft.SGD(params, lr=rate)
    give_grads(params, 0)
    opt.step()
    before = snapshot(opt, params)
    with pytest.raises(RuntimeError, match="from within one of its own calls"):
        opt.step()
    assert snapshot(opt, params) == before


def test_modes_that_make_tensors_their_way_do_no_harm() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    params = parameters([(3,), (4,)])
    opt = ft.AdamW(params)
    twin_params = parameters([(3,), (4,)])
    other = ft.AdamW(twin_params)

    class Meddler(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            params[0].data = params[0].data.clone() if "empty" not in str(func) else params[0].data
            return func(*args, **(kwargs or {}))

    give_grads(params, 0)
    with Meddler():
        opt.step()
    train(other, twin_params, 1)
    assert alike(params, twin_params)


def test_a_step_under_inference_mode_makes_state_for_good() -> None:
    params = parameters()
    opt = ft.AdamW(params)
    give_grads(params, 0)
    with torch.inference_mode():
        opt.step()
    assert not any(v.is_inference() for entry in opt.state.values() for v in entry.values())
    opt.state[params[0]]["exp_avg"].add_(1.0)
    opt.step()


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, fastoptim; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch_the_extra_is_named() -> None:
    code = (
        "import sys\nsys.modules['torch'] = None\n"
        "try:\n    import fastoptim.torch\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "fastoptim[torch]" in done.stdout


def test_a_rate_that_changes_the_state_is_followed() -> None:
    params, twins = parameters([(3,)]), parameters([(3,)])

    def rate(step: int) -> float:
        if step == 4:
            opt.state[params[0]]["exp_avg"] = torch.zeros(3, dtype=torch.float64)
        return 0.1

    opt, other = ft.AdamW(params, lr=rate), ft.AdamW(twins, lr=0.1)
    train(opt, params, 4)
    train(other, twins, 4)
    other.state[twins[0]]["exp_avg"].zero_()
    train(opt, params, 2, 4)
    train(other, twins, 2, 4)
    assert alike(params, twins)


def test_a_mode_that_moves_memory_while_it_is_asked_does_no_harm() -> None:
    from torch.overrides import TorchFunctionMode

    # PyTorch is asked about gradients of one element.
    params, twins = parameters([(4,), (1,)]), parameters([(4,), (1,)])
    opt, other = ft.AdamW(params), ft.AdamW(twins)
    train(opt, params, 2)
    train(other, twins, 2)

    moved: list[int] = []

    class Mover(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            with torch._C.DisableTorchFunction():
                if "is_neg" in str(func) and not moved:
                    moved.append(1)
                    params[0].data = params[0].data.clone()
                    opt.state[params[0]]["exp_avg"].data = opt.state[params[0]]["exp_avg"].clone()
            return func(*args, **(kwargs or {}))

    give_grads(params, 2)
    with Mover():
        opt.step()
    assert moved
    train(other, twins, 1, 2)
    assert alike(params, twins)
    assert snapshot(opt, params) == snapshot(other, twins)


def test_gradients_and_targets_without_versions_are_written() -> None:
    p = parameters([(3,)])[0]
    opt = ft.SGD([p], lr=0.5)
    with torch.inference_mode():
        p.grad = torch.ones(3, dtype=torch.float64)
        mean = torch.zeros(3, dtype=torch.float64)
    version = p._version
    opt.step(zero_grad=True, ema=average([mean], 0.5))
    assert not p.grad.any()
    assert torch.equal(mean, 0.5 * p.detach())
    assert p._version == version + 1


def test_bits_do_not_depend_on_how_the_caller_treats_subnormal_numbers() -> None:
    rng = np.random.default_rng(0)
    start = (1e-38 * rng.standard_normal(300_000)).astype("f4")
    grad = (1e-30 * rng.standard_normal(300_000)).astype("f4")
    target = 0.5 * start

    def work(threads: int) -> tuple[bytes, ...]:
        p, still, tiny = start.copy(), np.ones(5, "f4"), np.zeros(5, "f4")
        small = np.full(5, 1e-160)
        with fo.num_threads(threads):
            fo.SGD([p], lr=1e-9).step([grad])
            _, gradient = fo.losses.MSELoss(reduction="sum").value_and_grad(p, target)
            # Constants, and what is computed from the results of kernels.
            fo.Adam(still, eps=1e-40).step(np.zeros(5, "f4"))
            fo.SGD(tiny, lr=1e-40).step(np.full(5, 1e5, "f4"))
            value, _ = fo.losses.MSELoss().value_and_grad(small, np.zeros(5))
            nadam = fo.NAdam(np.ones(1))
            nadam.load_state_dict(almost)
            nadam.step(np.ones(1))
        arrays = p, gradient, still, tiny
        numbers = value, nadam.state["0"]["mu_product"]
        return *(a.tobytes() for a in arrays), struct.pack("2d", *numbers)

    trained = fo.NAdam(np.ones(1))
    trained.step(np.ones(1))
    almost = trained.state_dict()
    almost["state"][0]["mu_product"] = 1e-310
    expected = work(1)
    assert np.frombuffer(expected[2], "f4").min() == 1.0
    assert np.frombuffer(expected[3], "f4").max() < 0.0
    assert min(struct.unpack("2d", expected[4])) > 0.0
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush subnormal numbers")
    try:
        # Threads that start now inherit the setting.
        found = [work(threads) for threads in (1, 2, 5)]
        assert not (torch.full((1,), 1e-38) * 0.5).any()
    finally:
        torch.set_flush_denormal(False)
    assert {expected} == {*found, work(5)}
