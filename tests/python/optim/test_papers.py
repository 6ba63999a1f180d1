"""Every optimizer compared with its paper and, if available, with other libraries."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import OPTIMIZERS
from configurations import CONFIGURATIONS, all_configurations
from papers import PAPERS

STEPS = 100

SHAPES = {"matrix": (7, 5), "flat": (3, 40), "vector": (11,), "number": (), "stack": (2, 3, 4)}
CASES = [
    pytest.param(name, arguments, shape, id=f"{name}-{index}-{label}")
    for name in CONFIGURATIONS
    for index, arguments in enumerate(all_configurations(name))
    for label, shape in SHAPES.items()
    if name != "Muon" or len(shape) == 2
]


def test_every_optimizer_has_a_paper_and_configurations() -> None:
    names = {cls.__name__ for cls in OPTIMIZERS}
    assert names == set(PAPERS) == set(CONFIGURATIONS)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_choice_of_a_rule_is_among_the_configurations(name: str) -> None:
    """A flag that is not the default, another string, or a value if the default is None."""
    of_every_class = set(inspect.signature(fo.optim.Optimizer).parameters)
    choices = {
        key: parameter.default
        for key, parameter in inspect.signature(getattr(fo, name)).parameters.items()
        if parameter.default is None or isinstance(parameter.default, bool | str)
        if key not in {*fo.optim.Storage._fields, *of_every_class}
    }
    tried = all_configurations(name)
    for key, default in choices.items():
        assert any(arguments.get(key, default) != default for arguments in tried), key


def gradient(step: int, p: Any) -> Any:
    """The gradient of a quadratic with minimum 1, with noise."""
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
    # Prodigy's d is computed from p0 - p, a millionth of p at first, so rounding of p matters.
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


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_rate_that_is_a_function_follows_the_paper(name: str) -> None:
    """With rates of 0, on the first step too."""

    def lr(t: int) -> float:
        return 0.02 * (t % 5)

    p = np.random.default_rng(98).standard_normal((4, 6))
    mine = p.copy()
    opt = getattr(fo, name)([mine], lr=lr)
    hyper = dict(opt.param_groups[0])
    state: dict[str, Any] = {}
    for t in range(1, 30):
        g = gradient(t, p)
        p = PAPERS[name](p, g, state, t, **{**hyper, "lr": lr(t - 1)})
        opt.step([g])
        close(mine, p, 1000 if name == "Prodigy" else 1)


@pytest.mark.parametrize("zero", ["array", "gradient"])
def test_a_layer_of_zeros_has_ratio_one(zero: str) -> None:
    for name in ("LARS", "LAMB"):
        p, g = np.ones(3), np.ones(3)
        (p if zero == "array" else g)[:] = 0
        adapted, plain = p.copy(), p.copy()
        opt = getattr(fo, name)(adapted, lr=0.1, weight_decay=0)
        other = getattr(fo, name)(plain, lr=0.1, weight_decay=0, layer_adaptation=False)
        opt.step(g)
        other.step(g)
        assert np.array_equal(adapted, plain)
        assert np.isfinite(adapted).all()


def test_adafactor_does_not_overflow() -> None:
    """The product of rows and columns would overflow for gradients from 1e9, as in PyTorch."""
    g = np.arange(1, 13, dtype="f4").reshape(3, 4)
    expected, w = np.ones((3, 4), "f4"), np.ones((3, 4), "f4")
    fo.Adafactor(expected).step(g)
    fo.Adafactor(w).step(g * np.float32(1e12))
    np.testing.assert_allclose(w, expected, rtol=1e-6)


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
    """Nesterov's original form, with gradients at w + mu v, gives the stored iterates minus mu
    v."""
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


def beside(theirs_cls: Any, mine_cls: Any, groups: list[Any], given: Any, **arguments: Any) -> Any:
    """Step an optimizer of torch and ours, with one group per dict of arguments.

    `given` takes the step, the index of an array and its gradient, and returns the gradient for
    both.
    """
    torch = pytest.importorskip("torch", reason="torch is not installed")
    arrays = [np.random.default_rng(i).standard_normal((6, 4)) for i in range(2 * len(groups))]
    tensors = [torch.tensor(array) for array in arrays]

    def grouped(params: list[Any]) -> list[Any]:
        return [{"params": params[2 * i : 2 * i + 2], **g} for i, g in enumerate(groups)]

    theirs = theirs_cls(grouped(tensors), **arguments)
    mine = mine_cls(grouped(arrays), **arguments)
    if hasattr(theirs, "train"):
        theirs.train()
    for t in range(STEPS):
        grads = [given(t, i, gradient(100 * i + t, array)) for i, array in enumerate(arrays)]
        for tensor, g in zip(tensors, grads, strict=True):
            tensor.grad = None if g is None else torch.tensor(g)
        theirs.step()
        mine.step(grads)
    for array, tensor in zip(arrays, tensors, strict=True):
        close(array, tensor.numpy(), 100)
    return arrays, mine, tensors, theirs


@pytest.mark.filterwarnings("ignore:Using decoupled")
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda t, i, g: g, id="all"),
        pytest.param(lambda t, i, g: g * (t > 2), id="late"),
        pytest.param(lambda t, i, g: None if i == 1 and t < 5 else g, id="one absent"),
        pytest.param(lambda t, i, g: None if t == 5 else g, id="all absent once"),
    ],
)
@pytest.mark.parametrize(
    ("groups", "arguments"),
    [
        ([{}], {}),
        ([{}], {"weight_decay": 0.1, "d0": 1e-3, "safeguard_warmup": True}),
        ([{}], {"weight_decay": 0.1, "d0": 1e-3, "decouple": False, "d_coef": 2.0}),
        ([{}, {"lr": 0.0}], {"d0": 0.01, "beta3": 0.9, "growth_rate": 1.02, "eps": 0.1}),
    ],
)
def test_prodigyopt_agrees(groups: Any, arguments: Any, given: Any) -> None:
    prodigyopt = pytest.importorskip("prodigyopt", reason="prodigyopt is not installed")
    _, mine, _, theirs = beside(prodigyopt.Prodigy, fo.Prodigy, groups, given, **arguments)
    close(mine.state["0"]["d"], theirs.param_groups[0]["d"], 100)


def test_prodigyopt_agrees_on_a_rate_that_becomes_0() -> None:
    """A group whose rate is 0 adds nothing to the sums, although it has a state."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    prodigyopt = pytest.importorskip("prodigyopt", reason="prodigyopt is not installed")
    arrays = [np.random.default_rng(i).standard_normal(9) for i in range(2)]
    tensors = [torch.tensor(array) for array in arrays]
    mine = fo.Prodigy([{"params": [array]} for array in arrays], d0=1e-3)
    theirs = prodigyopt.Prodigy([{"params": [tensor]} for tensor in tensors], d0=1e-3)
    for t in range(10):
        if t == 5:
            mine.param_groups[1]["lr"] = theirs.param_groups[1]["lr"] = 0.0
        for tensor in tensors:
            tensor.grad = tensor.clone()
        mine.step([array.copy() for array in arrays])
        theirs.step()
    close(mine.state["0"]["d"], theirs.param_groups[0]["d"], 100)
    assert mine.state["0"]["d"] > 1e-3


def test_prodigyopt_agrees_on_the_bias_correction() -> None:
    prodigyopt = pytest.importorskip("prodigyopt", reason="prodigyopt is not installed")
    arguments: dict[str, Any] = {"use_bias_correction": True, "d0": 1e-3}
    beside(prodigyopt.Prodigy, fo.Prodigy, [{}], lambda t, i, g: g, **arguments)


@pytest.mark.parametrize("name", ["Adam", "Lion"])
def test_caution_sees_the_sign_of_products_that_underflow(name: str) -> None:
    """Both passes must use the same mask, or the scale of the step is wrong."""
    steps = []
    for scale in (1e-12, 1e-24):
        w, g = np.zeros(4, "f4"), np.array([1, -1, 2, -2], "f4") * np.float32(scale)
        opt = getattr(fo, name)([w], lr=0.1, cautious=True)
        for signs in ([1, 1, 1, 1], [1, 1, -3, 1]):
            opt.step([g * np.array(signs, "f4")])
        # Adam's step is the gradient over eps here, Lion's has no scale.
        steps.append(w / np.float32(scale) if name == "Adam" else w)
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-2)


@pytest.mark.parametrize("name", ["Adam", "Lion"])
def test_caution_does_not_hide_a_moment_that_is_nan(name: str) -> None:
    w = np.ones(3, "f4")
    opt = getattr(fo, name)([w], cautious=True)
    opt.step([np.ones(3, "f4")])
    opt.state["0"]["exp_avg"][1] = np.nan
    opt.step([np.zeros(3, "f4")])
    assert np.isnan(w).tolist() == [False, True, False]


def test_prodigy_in_float32_is_no_worse_than_prodigyopt() -> None:
    """The first rates are so small that a factor 1 - rate * decay would be rounded to 1."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    prodigyopt = pytest.importorskip("prodigyopt", reason="prodigyopt is not installed")
    arguments: dict[str, Any] = {"weight_decay": 0.1, "d0": 1e-6}
    start = np.random.default_rng(3).standard_normal(2000)
    exact, single = start.copy(), start.astype("f4")
    tensor = torch.tensor(single)
    optimizers = [fo.Prodigy([exact], **arguments), fo.Prodigy([single], **arguments)]
    theirs = prodigyopt.Prodigy([tensor], **arguments)
    for t in range(100):
        g = exact + 0.1 * np.random.default_rng(t).standard_normal(2000)
        for opt, x in zip(optimizers, (exact, single), strict=True):
            opt.step([g.astype(x.dtype)])
        tensor.grad = torch.tensor(g.astype("f4"))
        theirs.step()
    errors = [np.abs(x - exact).mean() for x in (single, tensor.numpy())]
    assert errors[0] <= 2 * errors[1]


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"lr": 0.05, "weight_decay": 0.1, "warmup_steps": 7},
        {"lr": 0.05, "warmup_steps": 200, "r": 1.5, "weight_lr_power": 0.5},
        {"lr": 0.0},
    ],
)
def test_the_schedulefree_package_agrees(name: str, arguments: Any) -> None:
    schedulefree = pytest.importorskip("schedulefree", reason="schedulefree is not installed")
    arrays, mine, tensors, theirs = beside(
        partial(getattr(schedulefree, name + "ScheduleFree"), foreach=False),
        getattr(fo, "ScheduleFree" + name),
        [{}, {"weight_decay": 0.3}],
        lambda t, i, g: g,
        **arguments,
    )
    theirs.eval()
    mine.eval()
    for array, tensor in zip(arrays, tensors, strict=True):
        close(array, tensor.numpy(), 100)


@pytest.mark.parametrize("name", ["lion", "lamb", "lars", "ademamix", "rmsprop"])
def test_optax_agrees(name: str) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    optax = pytest.importorskip("optax", reason="optax is not installed")
    pairs: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "lion": (optax.lion(0.01, weight_decay=0.1), fo.Lion, {"weight_decay": 0.1}),
        "lamb": (optax.lamb(0.01, eps=1e-6, weight_decay=0.1), fo.LAMB, {"weight_decay": 0.1}),
        "lars": (
            optax.lars(0.01, weight_decay=0.1, trust_coefficient=0.1, eps=0.0, momentum=0.9),
            fo.LARS,
            {"weight_decay": 0.1, "trust_coefficient": 0.1, "eps": 0.0},
        ),
        "ademamix": (
            optax.contrib.ademamix(0.01, 0.8, 0.9, 0.99, alpha=2.0, weight_decay=0.1),
            fo.AdEMAMix,
            {"betas": (0.8, 0.9, 0.99), "alpha": 2.0, "weight_decay": 0.1},
        ),
        "rmsprop": (
            optax.rmsprop(0.01, decay=0.9, eps=0.1),
            fo.RMSprop,
            {"alpha": 0.9, "eps": 0.1, "eps_inside_sqrt": True},
        ),
    }
    theirs, mine_cls, arguments = pairs[name]
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
