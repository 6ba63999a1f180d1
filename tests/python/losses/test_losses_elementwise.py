"""Every elementwise loss compared with PyTorch in float64, and edge cases."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import subclasses
from fastoptim import losses
from fastoptim.losses._base import BuiltinLoss

SIGNS, COUNTS, CHANCES, NUMBERS, LABELS = "signs", "counts", "chances", "numbers", "labels"
# A placeholder for an array of the shape of the input.
WEIGHTS = "weights"
# The arguments, the same in PyTorch if it has the class, and the kind of targets.
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
    ("LogCoshLoss", {}, NUMBERS),
    ("BCELoss", {}, LABELS),
    ("BCELoss", {"weight": WEIGHTS}, CHANCES),
    ("BCEWithLogitsLoss", {}, LABELS),
    ("BCEWithLogitsLoss", {}, CHANCES),
    ("BCEWithLogitsLoss", {"weight": WEIGHTS}, CHANCES),
    ("BCEWithLogitsLoss", {"pos_weight": WEIGHTS}, LABELS),
    ("BCEWithLogitsLoss", {"weight": WEIGHTS, "pos_weight": WEIGHTS}, CHANCES),
    ("SigmoidFocalLoss", {}, LABELS),
    ("SigmoidFocalLoss", {}, CHANCES),
    ("SigmoidFocalLoss", {"gamma": 0.0, "alpha": None}, LABELS),
    ("SigmoidFocalLoss", {"gamma": 0.5}, LABELS),
    ("SigmoidFocalLoss", {"gamma": 3.7, "alpha": 0.9}, CHANCES),
]
each = pytest.mark.parametrize(("name", "arguments", "kind"), CASES)


def inputs(name: str, arguments: Any, kind: str, n: int, dtype: str = "f8") -> tuple[Any, Any]:
    rng = np.random.default_rng(n)
    x = 2 * rng.standard_normal(n)
    if not arguments.get("log_input", True):
        x = np.abs(x)
    if name == "BCELoss":
        x = 0.01 + 0.98 * rng.random(n)
    y = {
        NUMBERS: rng.standard_normal(n),
        SIGNS: rng.choice([-1.0, 1.0], n),
        COUNTS: rng.poisson(2.0, n).astype("f8"),
        CHANCES: rng.random(n) * (rng.random(n) > 0.2),
        LABELS: rng.choice([0.0, 1.0], n),
    }[kind]
    return x.astype(dtype), y.astype(dtype)


def given(arguments: dict[str, Any], x: Any) -> dict[str, Any]:
    """Replace placeholders by arrays."""
    weights = np.random.default_rng(7).random(x.shape).astype(x.dtype)
    return {name: weights if value is WEIGHTS else value for name, value in arguments.items()}


def ours(name: str, arguments: dict[str, Any], x: Any, **more: Any) -> Any:
    return getattr(losses, name)(**given(arguments, x), **more)


def hinge_of_pytorch(x: Any, y: Any, margin: float = 1.0, squared: bool = False) -> Any:
    lacking = (margin - y * x).clamp(min=0)
    return lacking**2 if squared else lacking


def log_cosh_of_pytorch(x: Any, y: Any) -> Any:
    return (x - y).cosh().log()


def focal_of_torchvision(x: Any, y: Any, gamma: float = 2.0, alpha: float | None = 0.25) -> Any:
    import torch

    p = x.sigmoid()
    cost = torch.nn.functional.binary_cross_entropy_with_logits(x, y, reduction="none")
    loss = cost * (1 - (p * y + (1 - p) * (1 - y))) ** gamma
    return loss if alpha is None else (alpha * y + (1 - alpha) * (1 - y)) * loss


# Losses without a class in PyTorch.
COMPOSED = {
    "HingeLoss": hinge_of_pytorch,
    "LogCoshLoss": log_cosh_of_pytorch,
    "SigmoidFocalLoss": focal_of_torchvision,
}


def of_pytorch(name: str, arguments: dict[str, Any], x: Any, y: Any, reduction: str) -> Any:
    import torch

    tensors = {
        name: torch.tensor(value) if isinstance(value, np.ndarray) else value
        for name, value in given(arguments, x.detach().numpy()).items()
    }
    if name not in COMPOSED:
        return getattr(torch.nn, name)(**tensors, reduction=reduction)(x, y)
    values = COMPOSED[name](x, y, **tensors)
    return values if reduction == "none" else getattr(values, reduction)()


def test_every_elementwise_loss_has_a_case() -> None:
    vector = np.full(3, 0.5)

    def is_elementwise(cls: type[BuiltinLoss]) -> bool:
        try:
            return bool(cls(reduction="none")(vector, vector).shape == vector.shape)
        except (TypeError, ValueError):
            return False

    found = {cls.__name__ for cls in subclasses(losses, BuiltinLoss) if is_elementwise(cls)}
    assert found == {name for name, *_ in CASES}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@each
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_against_pytorch(name: str, arguments: Any, kind: str, reduction: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for n in (1, 31, 32, 33, 5000):
        x, y = inputs(name, arguments, kind, n)
        tensor = torch.tensor(x, requires_grad=True)
        expected = of_pytorch(name, arguments, tensor, torch.tensor(y), reduction)
        expected.sum().backward()
        value, gradient = ours(name, arguments, x, reduction=reduction).value_and_grad(x, y)
        np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-12, atol=1e-15)


@each
def test_calls_precision_and_bits(name: str, arguments: Any, kind: str) -> None:
    x, y = inputs(name, arguments, kind, 1_000_003, "f4")
    loss_fn = ours(name, arguments, x)
    value, gradient = loss_fn.value_and_grad(x, y)
    assert loss_fn(x, y) == value
    wide = copy.copy(loss_fn)
    for name in set(arguments) & {"weight", "pos_weight"}:
        setattr(wide, name, vars(loss_fn)[name].astype("f8"))
    exact, slope = wide.value_and_grad(x.astype("f8"), y.astype("f8"))
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
    x, y = inputs(name, arguments, kind, 200)
    loss_fn = ours(name, arguments, x, reduction="none")
    h = 1e-6
    slope = (loss_fn(x + h, y) - loss_fn(x - h, y)) / (2 * h)
    # There is no derivative at a kink between the two points.
    smooth = np.abs(loss_fn.grad(x + h, y) - loss_fn.grad(x - h, y)) < 1e-3
    assert smooth.mean() > 0.95
    np.testing.assert_allclose(loss_fn.grad(x, y)[smooth], slope[smooth], rtol=1e-6, atol=1e-7)


@each
def test_nan_is_never_dropped_and_copies_agree(name: str, arguments: Any, kind: str) -> None:
    x, y = inputs(name, arguments, kind, 40)
    loss_fn = ours(name, arguments, x)
    y[3] = {NUMBERS: 0.5, SIGNS: 1.0, COUNTS: 2.0, CHANCES: 0.5, LABELS: 1.0}[kind]
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
    assert loss_fn.reduction == "batchmean"
    assert repr(loss_fn) == "KLDivLoss(reduction='batchmean', log_target=False)"
    value, gradient = loss_fn.value_and_grad(np.zeros((0, 5)), np.zeros((0, 5)))
    assert math.isnan(value)
    assert gradient.shape == (0, 5)
    wrong: list[tuple[Any, type[Exception]]] = [(np.zeros(()), ValueError), (None, TypeError)]
    for bad, error in wrong:
        with pytest.raises(error, match="input"):
            loss_fn(bad, bad)
    text: Any = "1"
    with pytest.raises(TypeError, match="loss_scale"):
        loss_fn.grad(x, y, loss_scale=text)


def test_edges() -> None:
    inf = math.inf
    assert losses.L1Loss().grad(np.zeros(1), np.zeros(1)).tolist() == [0.0]
    assert losses.HingeLoss().grad(np.ones(1), np.ones(1)).tolist() == [0.0]
    assert losses.HuberLoss(delta=2.0).value_and_grad(np.array([2.0]), np.zeros(1))[0] == 2.0
    x, y = np.array([-inf, -1.0]), np.array([0.0, 1.0])
    assert losses.KLDivLoss(reduction="sum").value_and_grad(x, y)[0] == 1.0
    assert math.isnan(losses.KLDivLoss()(np.array([math.nan, -1.0]), y))
    log_y = np.array([-inf, 0.0])
    assert losses.KLDivLoss(log_target=True, reduction="sum")(x, log_y) == 1.0
    # A confident correct prediction: the gradient is small, and accurate.
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
        ("SigmoidFocalLoss", {"gamma": -0.1}, ValueError),
        ("SigmoidFocalLoss", {"gamma": math.nan}, ValueError),
        ("SigmoidFocalLoss", {"gamma": math.inf}, ValueError),
        ("SigmoidFocalLoss", {"gamma": None}, TypeError),
        ("SigmoidFocalLoss", {"alpha": -1.0}, ValueError),
        ("SigmoidFocalLoss", {"alpha": 1.1}, ValueError),
        ("SigmoidFocalLoss", {"alpha": math.nan}, ValueError),
        ("BCELoss", {"weight": [object()]}, TypeError),
        ("BCELoss", {"weight": [[1.0], [1.0, 2.0]]}, TypeError),
        ("BCELoss", {"weight": {1.0}}, TypeError),
        ("BCEWithLogitsLoss", {"weight": 2.0}, TypeError),
        ("BCEWithLogitsLoss", {"pos_weight": 3.0}, TypeError),
        ("L1Loss", {"reduction": "batchmean"}, ValueError),
        ("HuberLoss", {"delta": np.ones(())}, TypeError),
        ("HuberLoss", {"delta": 10**400}, ValueError),
    ],
)
def test_bad_arguments(name: str, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        getattr(losses, name)(**arguments)


def test_nothing_is_broadcast() -> None:
    for name, arguments, _ in CASES:
        with pytest.raises(ValueError, match="shape"):
            ours(name, arguments, np.ones((4, 1)))(np.ones((4, 1)), np.ones(4))
