"""Every optimizer against its paper and, where they have it, against other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import OPTIMIZERS
from papers import PAPERS

STEPS = 100

# Every configuration has its own path through the formulas. The empty one is the defaults.
CONFIGURATIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {},
        {"momentum": 0.9, "weight_decay": 0.01},
        {"momentum": 0.9, "dampening": 0.3, "maximize": True},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "momentum_form": "inside"},
        {"momentum": 0.9, "momentum_form": "inside", "nesterov": True, "weight_decay": 0.1},
    ],
    "Adagrad": [
        {},
        {"lr": 0.1, "weight_decay": 0.1, "lr_decay": 0.01},
        {"initial_accumulator_value": 0.1, "eps": 1e-3, "maximize": True},
    ],
    "RMSprop": [
        {},
        {"centered": True, "weight_decay": 0.1},
        {"momentum": 0.9, "eps_inside_sqrt": True},
        {"momentum": 0.9, "centered": True, "alpha": 0.9, "maximize": True},
    ],
    "Adadelta": [{}, {"rho": 0.95, "weight_decay": 0.1, "lr": 0.5, "maximize": True}],
    "Adam": [
        {},
        {"weight_decay": 0.1, "amsgrad": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "lr": 0.1},
        {"betas": (0.0, 0.0), "maximize": True},
        {"cautious": True},
        {"cautious": True, "amsgrad": True, "weight_decay": 0.1, "maximize": True},
    ],
    "AdamW": [
        {},
        {"betas": (0.8, 0.95), "amsgrad": True, "maximize": True},
        {"cautious": True, "lr": 0.1},
    ],
    "Adamax": [{}, {"weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 0.1, "maximize": True}],
    "NAdam": [
        {},
        {"weight_decay": 0.1, "momentum_decay": 0.1, "maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ],
    "RAdam": [
        {},
        {"weight_decay": 0.1, "betas": (0.9, 0.9), "maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "eps": 1e-3},
    ],
    "Rprop": [{}, {"lr": 0.1, "etas": (0.8, 1.5), "step_sizes": (1e-3, 0.2), "maximize": True}],
    "ASGD": [
        {},
        {"t0": 20, "lambd": 0.1, "alpha": 0.5, "weight_decay": 0.1, "maximize": True},
    ],
    "Lion": [{}, {"weight_decay": 0.5, "lr": 0.1, "maximize": True}, {"cautious": True}],
    "AdEMAMix": [
        {},
        {"t_alpha": 50, "t_beta3": 70, "weight_decay": 0.1, "maximize": True},
    ],
    "ScheduleFreeSGD": [
        {"lr": 0.1},
        {"lr": 0.1, "warmup_steps": 10, "r": 1.0, "weight_decay": 0.1, "maximize": True},
    ],
    "ScheduleFreeAdamW": [
        {},
        {"warmup_steps": 10, "r": 1.0, "weight_lr_power": 1.0, "weight_decay": 0.1},
    ],
    "LARS": [
        {},
        {"momentum": 0, "weight_decay": 0.1, "trust_coefficient": 0.1},
        {"nesterov": True, "weight_decay": 0.1, "maximize": True},
        {"dampening": 0.3, "layer_adaptation": False, "lr": 0.1},
    ],
    "LAMB": [
        {},
        {"bias_correction": False, "max_trust": 0.5, "maximize": True},
        {"layer_adaptation": False},
    ],
    "Prodigy": [
        {},
        {"weight_decay": 0.1, "use_bias_correction": True, "beta3": 0.9},
        {"weight_decay": 0.1, "decouple": False, "safeguard_warmup": True, "d_coef": 2.0},
        {"growth_rate": 1.1, "d0": 1e-3},
    ],
    "Adafactor": [
        {},
        {"weight_decay": 0.1, "d": 0.1, "eps": (1e-3, 0.1), "maximize": True},
    ],
    "Muon": [
        {},
        {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
        {"momentum": 0.5, "weight_decay": 0, "maximize": True},
    ],
}
SHAPES = {"matrix": (7, 5), "flat": (3, 40), "vector": (11,), "number": (), "stack": (2, 3, 4)}
CASES = [
    pytest.param(name, arguments, shape, id=f"{name}-{index}-{label}")
    for name, configurations in CONFIGURATIONS.items()
    for index, arguments in enumerate(configurations)
    for label, shape in SHAPES.items()
    if name != "Muon" or len(shape) == 2
]


def test_every_optimizer_has_a_paper_and_cases() -> None:
    names = {cls.__name__ for cls in OPTIMIZERS}
    assert names == set(PAPERS) == set(CONFIGURATIONS)


def gradient(step: int, p: Any) -> Any:
    """A pull to 1 with noise, as training has it."""
    rng = np.random.default_rng(step)
    return np.asarray(p - 1 + rng.standard_normal(p.shape))


def close(found: Any, expected: Any, scale: float = 1.0) -> None:
    size = scale * max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=scale * 1e-12, atol=1e-12 * size)


@pytest.mark.parametrize(("name", "arguments", "shape"), CASES)
def test_a_hundred_steps_follow_the_paper(name: str, arguments: Any, shape: Any) -> None:
    p = np.asarray(np.random.default_rng(99).standard_normal(shape))
    mine = p.copy()
    opt = getattr(fo, name)([mine], **arguments)
    hyper = dict(opt.param_groups[0])
    sign = -1 if hyper.pop("maximize") else 1
    state: dict[str, Any] = {}
    # Prodigy's d comes from p0 - p, a millionth of p at first: there the rounding of p counts.
    scale = 1000 if name == "Prodigy" else 1
    for t in range(1, STEPS + 1):
        g = gradient(t, p)
        p = PAPERS[name](p, sign * g, state, t, **hyper)
        opt.step([g])
        close(mine, p, scale)
    for key, value in opt.state["0"].items():
        if key != "step":
            close(value, state[key], scale)
    assert opt.state["0"]["step"] == STEPS


def test_prodigy_sums_over_all_arrays_and_groups() -> None:
    rng = np.random.default_rng(5)
    whole = rng.standard_normal(60)
    parts = [whole[:10].copy(), whole[10:25].copy(), whole[25:].copy()]
    one = fo.Prodigy([whole], weight_decay=0.1)
    two = fo.Prodigy([{"params": parts[:2]}, {"params": parts[2:]}], weight_decay=0.1)
    for t in range(STEPS):
        g = gradient(t, whole)
        one.step([g])
        two.step([g[:10].copy(), g[10:25].copy(), g[25:].copy()])
    close(np.concatenate(parts), whole)
    assert {two.state[name]["d"] for name in "012"} == {two.state["0"]["d"]}


@pytest.mark.parametrize("name", ["ScheduleFreeSGD", "ScheduleFreeAdamW"])
def test_schedule_free_goes_to_its_average_and_back(name: str) -> None:
    p = np.random.default_rng(1).standard_normal((4, 3))
    mine = p.copy()
    opt = getattr(fo, name)([mine], lr=0.1)
    hyper = dict(opt.param_groups[0])
    state: dict[str, Any] = {}
    opt.eval()
    opt.train()
    for t in range(1, 20):
        g = gradient(t, p)
        p = PAPERS[name](p, g, state, t, **hyper)
        opt.step([g])
    opt.eval()
    opt.eval()
    close(mine, state["x"], 10)
    with pytest.raises(RuntimeError, match="train"):
        opt.step([g])
    opt.train()
    close(mine, p, 10)
    assert opt.step([g]).applied


@pytest.mark.parametrize("nesterov", [False, True])
def test_look_ahead_is_the_shifted_form(nesterov: bool) -> None:
    """Nesterov's own form, gradients taken at w + mu v, gives the stored iterates less mu v."""
    lr, mu = 0.1, 0.9
    w = np.array([3.0, -1.0])
    v = np.zeros(2)
    p = w.copy()
    opt = fo.SGD(p, lr=lr, momentum=mu, nesterov=nesterov)
    for _ in range(50):
        v = mu * v - lr * (2 * (w + mu * v if nesterov else w))
        w = w + v
        opt.step(2 * p)
        close(p, w + mu * v if nesterov else w)


def test_prodigyopt_agrees() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    prodigyopt = pytest.importorskip("prodigyopt", reason="prodigyopt is not installed")
    p = np.random.default_rng(3).standard_normal((6, 4))
    tensor = torch.tensor(p.copy(), requires_grad=True)
    theirs = prodigyopt.Prodigy([tensor], weight_decay=0.1, use_bias_correction=True)
    mine = fo.Prodigy([p], weight_decay=0.1, use_bias_correction=True)
    for t in range(STEPS):
        g = gradient(t, p)
        tensor.grad = torch.tensor(g)
        theirs.step()
        mine.step([g])
    np.testing.assert_allclose(p, tensor.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_the_schedulefree_package_agrees(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    schedulefree = pytest.importorskip("schedulefree", reason="schedulefree is not installed")
    p = np.random.default_rng(3).standard_normal((6, 4))
    tensor = torch.tensor(p.copy(), requires_grad=True)
    arguments = {"lr": 0.05, "weight_decay": 0.1, "warmup_steps": 7}
    theirs = getattr(schedulefree, name + "ScheduleFree")([tensor], foreach=False, **arguments)
    theirs.train()
    mine = getattr(fo, "ScheduleFree" + name)([p], **arguments)
    for t in range(STEPS):
        g = gradient(t, p)
        tensor.grad = torch.tensor(g)
        theirs.step()
        mine.step([g])
    close(p, tensor.detach().numpy(), 10)
    theirs.eval()
    mine.eval()
    close(p, tensor.detach().numpy(), 10)


@pytest.mark.parametrize("name", ["lion", "lamb", "lars"])
def test_optax_agrees(name: str) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    optax = pytest.importorskip("optax", reason="optax is not installed")
    theirs, mine_cls, arguments = {
        "lion": (optax.lion(0.01, weight_decay=0.1), fo.Lion, {"weight_decay": 0.1}),
        "lamb": (optax.lamb(0.01, eps=1e-6, weight_decay=0.1), fo.LAMB, {"weight_decay": 0.1}),
        "lars": (
            optax.lars(0.01, weight_decay=0.1, trust_coefficient=0.1, eps=0.0, momentum=0.9),
            fo.LARS,
            {"weight_decay": 0.1, "trust_coefficient": 0.1, "eps": 0.0},
        ),
    }[name]
    with jax.enable_x64():
        p = np.random.default_rng(3).standard_normal((6, 4))
        mine: Any = mine_cls([p], lr=0.01, **arguments)
        held = jax.numpy.asarray(p.copy())
        state = theirs.init(held)
        for t in range(30):
            g = gradient(t, p)
            updates, state = theirs.update(jax.numpy.asarray(g), state, held)
            held = optax.apply_updates(held, updates)
            mine.step([g])
        np.testing.assert_allclose(p, np.asarray(held), rtol=1e-10)
