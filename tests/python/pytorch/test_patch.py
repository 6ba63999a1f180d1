"""PyTorch's names with this package behind them."""

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastoptim.torch as ft  # noqa: E402
from fastoptim.torch import patching  # noqa: E402
from fastoptim.torch.losses import _base  # noqa: E402
from tensor_losses import CASES, Case, classes, evaluated, fitted, normal  # noqa: E402

functional = torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
OPTIMIZERS = [name for name in patching._OPTIMIZERS if hasattr(torch.optim, name)]


@pytest.fixture(autouse=True)
def _unpatched() -> Iterator[None]:
    yield
    ft.unpatch()


def model_of(dtype: Any = torch.float64, matrices: bool = False) -> Any:
    torch.manual_seed(0)
    layers = torch.nn.Linear(6, 8, bias=not matrices), torch.nn.Linear(8, 3, bias=not matrices)
    return torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1]).to(dtype)


def made(name: str, model: Any, **arguments: Any) -> Any:
    return getattr(torch.optim, name)(model.parameters(), **arguments)


def step(model: Any, opt: Any, seed: int) -> Any:
    """Make one step of training with what PyTorch's names are at the moment."""
    dtype = next(model.parameters()).dtype
    opt.zero_grad()
    x, y = normal(seed, 16, 6, dtype=dtype), classes(seed, 3, 16)
    loss = torch.nn.CrossEntropyLoss()(model(x), y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)
    opt.step()
    return loss.detach()


def alike(a: Any, b: Any, **tolerances: Any) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, **(tolerances or {"rtol": 1e-9, "atol": 1e-11}))


def is_ours(opt: Any) -> bool:
    twin = patching._twins.get(opt)
    return twin is not None and twin.last_info.applied


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_loop_gives_what_it_gave(name: str) -> None:
    ours, theirs = model_of(matrices=name == "Muon"), model_of(matrices=name == "Muon")
    opt, other = made(name, ours), made(name, theirs)
    for seed in range(5):
        with ft.patched():
            value = step(ours, opt, seed)
            assert is_ours(opt)
        # PyTorch has Newton-Schulz in bfloat16, and a product of momenta in float32.
        loose = {"Muon": {"rtol": 0.1, "atol": 1e-3}, "NAdam": {"rtol": 1e-6, "atol": 1e-9}}
        bounds = loose.get(name, {"rtol": 1e-9, "atol": 1e-11})
        torch.testing.assert_close(value, step(theirs, other, seed), **bounds)
        alike(ours, theirs, **bounds)
    assert opt.state_dict()["state"].keys() == other.state_dict()["state"].keys()


def test_everything_is_as_it_was_after_it() -> None:
    names = [(functional, n) for n, _ in patching._rules()]
    names += [(torch.nn.utils, "clip_grad_norm_"), (torch.nn.utils.clip_grad, "clip_grad_value_")]
    before = [getattr(module, name) for module, name in names]
    steps = [getattr(torch.optim, name).step for name in OPTIMIZERS]
    ft.patch()
    ft.patch()
    assert all(getattr(m, n) is not old for (m, n), old in zip(names, before, strict=True))
    with ft.patched():
        pass
    assert functional.cross_entropy is not before[0]
    ft.unpatch()
    ft.unpatch()
    assert all(getattr(m, n) is old for (m, n), old in zip(names, before, strict=True))
    for name, old in zip(OPTIMIZERS, steps, strict=True):
        assert getattr(torch.optim, name).step.__qualname__ == old.__qualname__
    model = model_of()
    opt = torch.optim.SGD(model.parameters())
    step(model, opt, 0)
    assert opt not in patching._twins


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_losses_of_pytorch_are_computed_here(case: Case, reduction: str, monkeypatch: Any) -> None:
    calls = []
    evaluate = _base.evaluate

    def counted(*args: Any) -> Any:
        calls.append(args)
        return evaluate(*args)

    monkeypatch.setattr(_base, "evaluate", counted)
    inputs, others = case.tensors(torch.float64)
    loss_fn = getattr(torch.nn, case.name)(
        **fitted(case.arguments, torch.float64), reduction=reduction
    )
    theirs = evaluated(loss_fn, [x.contiguous() for x in inputs], others)
    with ft.patched():
        ours = evaluated(loss_fn, inputs, others)
    assert len(calls) == 1
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


def test_what_is_not_taken_here_stays_with_pytorch() -> None:
    x, y = normal(0, 4, 3), normal(1, 4, 3)
    meta = torch.zeros(4, 3, device="meta")
    with ft.patched():
        assert functional.mse_loss(meta, meta).device.type == "meta"
        with pytest.warns(UserWarning, match="target size"):
            assert functional.mse_loss(x, y[0]).shape == ()
        weighted = functional.cross_entropy(x, y.softmax(-1), reduction="sum")
        with pytest.raises(IndexError):
            functional.cross_entropy(x, torch.full((4,), 7))
        with pytest.raises(RuntimeError):
            functional.binary_cross_entropy(x, y)
        target = y.softmax(-1).requires_grad_()
        functional.cross_entropy(x, target).backward()
        var = normal(2, 4, 1).square().requires_grad_()
        value = functional.gaussian_nll_loss(x, y, var, reduction="none")
        (value * x).sum().backward()
        w = torch.nn.Parameter(torch.ones(2, device="meta"))
        w.grad = torch.ones(2, device="meta")
        assert torch.nn.utils.clip_grad_norm_([w], 1.0).device.type == "meta"
        w = torch.nn.Parameter(torch.ones(2))
        w.grad = torch.ones(2)
        assert torch.nn.utils.clip_grad_norm_(parameters=iter([w]), max_norm=0) > 1
        assert w.grad.tolist() == [0, 0]
        torch.nn.utils.clip_grad_value_(parameters=[w], clip_value=1.0)
    other, by_var = y.softmax(-1).requires_grad_(), var.detach().requires_grad_()
    functional.cross_entropy(x, other).backward()
    (functional.gaussian_nll_loss(x, y, by_var, reduction="none") * x).sum().backward()
    torch.testing.assert_close(target.grad, other.grad)
    torch.testing.assert_close(var.grad, by_var.grad)
    torch.testing.assert_close(
        weighted, functional.cross_entropy(x, y.softmax(-1), reduction="sum")
    )


def test_each_step_is_made_where_its_tensors_are() -> None:
    model = model_of()
    opt = made("SGD", model, lr=0.1, momentum=0.9)
    other = copy.deepcopy(model)
    theirs = made("SGD", other, lr=0.1, momentum=0.9)
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    sparse = torch.optim.SGD(embedding.parameters(), lr=0.1)
    for seed in range(6):
        if seed % 2:
            ft.patch()
        else:
            ft.unpatch()
        step(model, opt, seed)
        assert is_ours(opt) == bool(seed % 2)
        embedding(torch.tensor([1, 3])).sum().backward()
        sparse.step()
        assert not is_ours(sparse)
        ft.unpatch()
        step(other, theirs, seed)
    alike(model, other)
    ft.patch()
    w = torch.nn.Parameter(torch.ones(2, device="meta"))
    w.grad = torch.ones(2, device="meta")
    meta = torch.optim.AdamW([w])
    meta.step()
    assert not is_ours(meta)


Adam: Any = torch.optim.Adam
AdamW: Any = torch.optim.AdamW


class Mine(Adam):  # type: ignore[misc]
    """An optimizer of a user."""

    def step(self, closure: Any = None) -> Any:
        """Step, and count."""
        self.count = getattr(self, "count", 0) + 1
        return super().step(closure)


class Inherited(AdamW):  # type: ignore[misc]
    """An optimizer of a user that steps as its base does."""


@pytest.mark.parametrize("cls", [Mine, Inherited])
@pytest.mark.parametrize("before", [True, False])
def test_subclasses_of_users_step_here(cls: Any, before: bool) -> None:
    model, other = model_of(), model_of()
    theirs = cls(other.parameters(), lr=0.01)
    for seed in range(3):
        step(other, theirs, seed)
    opt = cls(model.parameters(), lr=0.01) if before else None
    calls = []
    with ft.patched():
        opt = opt or cls(model.parameters(), lr=0.01)
        opt.register_step_post_hook(lambda *_: calls.append(1))
        for seed in range(3):
            step(model, opt, seed)
            assert is_ours(opt)
    assert len(calls) % 3 == 0
    assert getattr(opt, "count", 3) == 3
    assert isinstance(opt, cls)
    alike(model, other)


def test_schedulers_closures_hooks_and_copies_work() -> None:
    ft.patch()
    model = model_of()
    opt = torch.optim.AdamW(model.parameters(), lr=0.1)
    assert isinstance(opt, torch.optim.Optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.5)
    calls: list[str] = []
    opt.register_step_pre_hook(lambda *_: calls.append("pre"))
    opt.register_step_post_hook(lambda *_: calls.append("post"))

    def closure() -> Any:
        calls.append("closure")
        opt.zero_grad()
        loss = model(normal(0, 4, 6)).square().sum()
        loss.backward()
        return loss

    first = float(opt.step(closure).detach())
    scheduler.step()
    assert opt.param_groups[0]["lr"] == 0.05
    assert float(opt.step(closure).detach()) < first
    assert calls == ["pre", "closure", "post"] * 2
    file = io.BytesIO()
    torch.save((model, opt.state_dict(), opt), file)
    file.seek(0)
    again, state, whole = torch.load(file, weights_only=False)
    ft.unpatch()
    other = torch.optim.AdamW(again.parameters(), lr=0.05)
    other.load_state_dict(state)
    for p, q in zip(again.parameters(), model.parameters(), strict=True):
        p.grad = q.grad.clone()
    other.step()
    opt.step()
    alike(again, model)
    assert type(whole) is torch.optim.AdamW


@pytest.mark.parametrize("fused", [True, False])
def test_scaled_gradients_are_unscaled(fused: bool) -> None:
    found = []
    for here in (True, False):
        if here:
            ft.patch()
        model = model_of(torch.float32)
        opt = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for seed in range(4):
            opt.zero_grad()
            scaler.scale(model(normal(seed, 4, 6).float()).square().mean()).backward()
            if seed == 1:
                next(model.parameters()).grad.fill_(torch.inf)
            scaler.step(opt)
            scaler.update()
        found.append(model)
        ft.unpatch()
    alike(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["Adam", "SGD", "NAdam", "Adagrad"])
def test_optimizers_go_on_in_pytorch_with_narrow_parameters(name: str, dtype: Any) -> None:
    model = model_of(dtype)
    # PyTorch's usual eps is 0 in float16.
    opt = made(name, model, **({"eps": 1e-4} if "Ada" in name else {}))
    for here in (True, False, True, False):
        if here:
            ft.patch()
        step(model, opt, 0)
        assert is_ours(opt) == here
        ft.unpatch()
    for state in opt.state.values():
        assert all(x.dtype == dtype for x in state.values() if x is not None and x.ndim)
    assert all(p.isfinite().all() for p in model.parameters())


SCRIPT = """
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR
import torch.nn.functional as F
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
opt = AdamW(model.parameters(), lr=1e-2)
scheduler = CosineAnnealingLR(opt, 30)
x, y = torch.randn(64, 8), torch.randint(4, (64,))
for _ in range(30):
    opt.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    opt.step()
    scheduler.step()
"""


def test_a_script_runs_unchanged() -> None:
    found: list[dict[str, Any]] = [{}, {}]
    exec(SCRIPT, found[0])
    with ft.patched():
        exec(SCRIPT, found[1])
        assert is_ours(found[1]["opt"])
    assert found[1]["loss"].grad_fn.name() != found[0]["loss"].grad_fn.name()
    torch.testing.assert_close(found[1]["loss"], found[0]["loss"], rtol=1e-4, atol=0)
    alike(found[1]["model"], found[0]["model"], rtol=1e-3, atol=1e-5)


# Their warnings are theirs.
@pytest.mark.filterwarnings("ignore")
def test_a_loop_of_accelerate_runs_unchanged() -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    found = []
    for here in (True, False):
        if here:
            ft.patch()
        accelerator = accelerate.Accelerator(cpu=True)
        model = model_of(torch.float32)
        opt = torch.optim.AdamW(model.parameters())
        model, prepared = accelerator.prepare(model, opt)
        for seed in range(3):
            prepared.zero_grad()
            x, y = normal(seed, 16, 6).float(), classes(seed, 3, 16)
            accelerator.backward(functional.cross_entropy(model(x), y))
            accelerator.clip_grad_norm_(model.parameters(), 0.3)
            prepared.step()
        assert is_ours(opt) == here
        found.append(model)
        ft.unpatch()
    alike(*found, rtol=1e-4, atol=1e-6)


# Their warnings are theirs.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_fused"])
def test_the_trainer_of_transformers_runs_unchanged(name: str, tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    found = []
    for here in (True, False):
        if here:
            ft.patch()
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            n_layer=1, n_head=2, n_embd=16, vocab_size=32, n_positions=16
        )
        model = transformers.GPT2LMHeadModel(config)
        tokens = torch.randint(32, (16, 8), generator=torch.Generator().manual_seed(0))
        trainer = transformers.Trainer(
            model,
            transformers.TrainingArguments(
                str(tmp_path),
                optim=name,
                max_steps=4,
                use_cpu=True,
                report_to=[],
                per_device_train_batch_size=4,
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
        )
        trainer.train()
        opt = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
        assert is_ours(opt) == here
        found.append(model)
        ft.unpatch()
    alike(*found, rtol=1e-3, atol=1e-5)


# Their warnings are theirs.
@pytest.mark.filterwarnings("ignore")
def test_lightning_runs_unchanged(tmp_path: Any) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model_of(torch.float32)

        def training_step(self, batch: Any, _: int) -> Any:
            return functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    found = []
    data = torch.utils.data.TensorDataset(normal(0, 16, 6).float(), classes(0, 3, 16))
    for here in (True, False):
        if here:
            ft.patch()
        module = Module()
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=0.3,
            default_root_dir=tmp_path,
        )
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4))
        (opt,) = trainer.optimizers
        assert is_ours(opt) == here
        found.append(module)
        ft.unpatch()
    alike(*found, rtol=1e-4, atol=1e-6)
