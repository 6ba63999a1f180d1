"""Every elementwise loss against PyTorch in float64, and its edges."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import losses
from fastoptim.losses._base import Elementwise

SIGNS, COUNTS, CHANCES, NUMBERS = "signs", "counts", "chances", "numbers"
# Our arguments (PyTorch's are the same where it has the class), and what the targets are.
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("MSELoss", {}, NUMBERS),
    ("L1Loss", {}, NUMBERS),
    ("HuberLoss", {}, NUMBERS),
    ("HuberLoss", {"delta": 0.3}, NUMBERS),
    ("SmoothL1Loss", {}, NUMBERS),
    ("SmoothL1Loss", {"beta": 0.3}, NUMBERS),
    ("SmoothL1Loss", {"beta": 0.0}, NUMBERS),
    ("PoissonNLLLoss", {}, COUNTS),
    ("PoissonNLLLoss", {"full": True}, COUNTS),
    ("PoissonNLLLoss", {"log_input": False, "full": True, "eps": 0.1}, COUNTS),
    ("KLDivLoss", {}, CHANCES),
    ("KLDivLoss", {"log_target": True}, NUMBERS),
    ("HingeLoss", {}, SIGNS),
    ("HingeLoss", {"margin": 0.5, "squared": True}, SIGNS),
    ("SoftMarginLoss", {}, SIGNS),
    ("HingeEmbeddingLoss", {}, SIGNS),
    ("HingeEmbeddingLoss", {"margin": 0.2}, SIGNS),
]
each = pytest.mark.parametrize(("name", "arguments", "kind"), CASES)
# PyTorch has no hinge of labels -1 and 1 by itself.
each_of_pytorchs = pytest.mark.parametrize(
    ("name", "arguments", "kind"), [case for case in CASES if case[0] != "HingeLoss"]
)


def inputs(name: str, arguments: Any, kind: str, n: int, dtype: str = "f8") -> tuple[Any, Any]:
    rng = np.random.default_rng(n)
    x = 2 * rng.standard_normal(n)
    if not arguments.get("log_input", True):
        x = np.abs(x)
    y = {
        NUMBERS: rng.standard_normal(n),
        SIGNS: rng.choice([-1.0, 1.0], n),
        COUNTS: rng.poisson(2.0, n).astype("f8"),
        CHANCES: rng.random(n) * (rng.random(n) > 0.2),
    }[kind]
    return x.astype(dtype), y.astype(dtype)


def test_every_elementwise_loss_has_a_case() -> None:
    found = {
        name
        for name in losses.__all__
        if isinstance(getattr(losses, name), type)
        and issubclass(getattr(losses, name), Elementwise)
    }
    assert found == {name for name, *_ in CASES}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@each_of_pytorchs
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_against_pytorch(name: str, arguments: Any, kind: str, reduction: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    loss_fn = getattr(losses, name)(**arguments, reduction=reduction)
    theirs = getattr(torch.nn, name)(**arguments, reduction=reduction)
    for n in (1, 31, 32, 33, 5000):
        x, y = inputs(name, arguments, kind, n)
        tensor = torch.tensor(x, requires_grad=True)
        expected = theirs(tensor, torch.tensor(y))
        expected.sum().backward()
        value, gradient = loss_fn.value_and_grad(x, y)
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-12, atol=1e-15)


@each
def test_calls_precision_and_bits(name: str, arguments: Any, kind: str) -> None:
    loss_fn = getattr(losses, name)(**arguments)
    x, y = inputs(name, arguments, kind, 300_001, "f4")
    value, gradient = loss_fn.value_and_grad(x, y)
    assert loss_fn(x, y) == value
    exact, slope = loss_fn.value_and_grad(x.astype("f8"), y.astype("f8"))
    assert value == pytest.approx(exact, rel=2e-7)
    np.testing.assert_allclose(gradient, slope, rtol=2e-6, atol=1e-12)
    for threads in (1, 2, 3):
        with fo.num_threads(threads):
            again = loss_fn.value_and_grad(x, y)
        assert again[0] == value
        assert np.array_equal(again[1], gradient)
    in_place = x.copy()
    assert loss_fn.value_and_grad(in_place, y, out=in_place)[1] is in_place
    assert np.array_equal(in_place, gradient)
    np.testing.assert_allclose(loss_fn.grad(x, y, loss_scale=64.0), 64 * gradient)


@each
def test_gradients_by_central_differences(name: str, arguments: Any, kind: str) -> None:
    loss_fn = getattr(losses, name)(**arguments, reduction="none")
    x, y = inputs(name, arguments, kind, 200)
    h = 1e-6
    slope = (loss_fn(x + h, y) - loss_fn(x - h, y)) / (2 * h)
    # A kink between the two points has no slope.
    smooth = np.abs(loss_fn.grad(x + h, y) - loss_fn.grad(x - h, y)) < 1e-3
    assert smooth.mean() > 0.95
    np.testing.assert_allclose(loss_fn.grad(x, y)[smooth], slope[smooth], rtol=1e-6, atol=1e-7)


@each
def test_nan_is_never_dropped_and_copies_agree(name: str, arguments: Any, kind: str) -> None:
    loss_fn = getattr(losses, name)(**arguments)
    x, y = inputs(name, arguments, kind, 40)
    y[3] = {NUMBERS: 0.5, SIGNS: 1.0, COUNTS: 2.0, CHANCES: 0.5}[kind]
    twins = [pickle.loads(pickle.dumps(loss_fn)), copy.deepcopy(loss_fn)]
    assert all(twin(x, y) == loss_fn(x, y) for twin in twins)
    x[3] = math.nan
    assert math.isnan(loss_fn(x, y))


def test_batchmean_is_the_divergence_of_a_row() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = np.log(np.random.default_rng(0).dirichlet(np.ones(5), 7))
    y = np.random.default_rng(1).dirichlet(np.ones(5), 7)
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch.nn.KLDivLoss(reduction="batchmean")(tensor, torch.tensor(y))
    expected.backward()
    loss_fn = losses.KLDivLoss(reduction="batchmean")
    value, gradient = loss_fn.value_and_grad(x, y)
    assert value == loss_fn(x, y) == pytest.approx(float(expected.detach()), rel=1e-12)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-12)


def test_edges() -> None:
    inf = math.inf
    assert losses.L1Loss().grad(np.zeros(1), np.zeros(1)).tolist() == [0.0]
    assert losses.HingeLoss().grad(np.ones(1), np.ones(1)).tolist() == [0.0]
    assert losses.HuberLoss(delta=2.0).value_and_grad(np.array([2.0]), np.zeros(1))[0] == 2.0
    x, y = np.array([-inf, -1.0]), np.array([0.0, 1.0])
    assert losses.KLDivLoss(reduction="sum").value_and_grad(x, y)[0] == 1.0
    log_y = np.array([-inf, 0.0])
    assert losses.KLDivLoss(log_target=True, reduction="sum")(x, log_y) == 1.0
    # A confident right answer: the gradient is small, and right.
    confident = losses.SoftMarginLoss(reduction="sum").grad(
        np.array([80.0], "f4"), np.ones(1, "f4")
    )
    assert confident[0] == pytest.approx(-math.exp(-80), rel=1e-6)
    far = losses.SoftMarginLoss(reduction="sum").value_and_grad(np.array([-1e30]), np.ones(1))
    assert far[0] == 1e30
    assert far[1].tolist() == [-1.0]


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("HuberLoss", {"delta": 0.0}, ValueError),
        ("HuberLoss", {"delta": math.nan}, ValueError),
        ("HuberLoss", {"delta": "1"}, TypeError),
        ("SmoothL1Loss", {"beta": -0.1}, ValueError),
        ("HingeLoss", {"margin": -1.0}, ValueError),
        ("HingeLoss", {"margin": math.inf}, ValueError),
        ("HingeLoss", {"squared": 1}, TypeError),
        ("HingeEmbeddingLoss", {"margin": -1.0}, ValueError),
        ("PoissonNLLLoss", {"eps": 0.0}, ValueError),
        ("PoissonNLLLoss", {"full": "yes"}, TypeError),
        ("KLDivLoss", {"reduction": "rows"}, ValueError),
        ("L1Loss", {"reduction": "batchmean"}, ValueError),
    ],
)
def test_bad_arguments(name: str, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        getattr(losses, name)(**arguments)


def test_nothing_is_broadcast() -> None:
    for name, arguments, _ in CASES:
        with pytest.raises(ValueError, match="shape"):
            getattr(losses, name)(**arguments)(np.ones((4, 1)), np.ones(4))
