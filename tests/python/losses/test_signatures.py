"""The signatures and types of the losses, for editors and type checkers."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import numpy as np
import pytest

from cases import subclasses
from fastoptim import losses
from fastoptim.losses import Loss
from fastoptim.losses._base import BuiltinLoss, ClassLoss

ALL = subclasses(losses, BuiltinLoss)
every = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)

# PyTorch's forward names the vectors of CosineEmbeddingLoss input1 and input2, and the input of
# PoissonNLLLoss log_input, regardless of its argument of this name.
OTHER_NAMES = {"CosineEmbeddingLoss", "PoissonNLLLoss"}
NAMES = {
    "ContrastiveLoss": ["x1", "x2", "same"],
    "CosineEmbeddingLoss": ["x1", "x2", "target"],
    "GaussianNLLLoss": ["input", "target", "var"],
    "TripletMarginLoss": ["anchor", "positive", "negative"],
}


def arrays(cls: Any) -> list[str]:
    return NAMES.get(cls.__name__, ["input", "target"])


def given(cls: Any) -> dict[str, Any]:
    x = np.random.default_rng(0).uniform(0.1, 0.9, (3, 4, 5))
    values = dict(zip(arrays(cls), x, strict=False))
    if issubclass(cls, ClassLoss):
        values["target"] = np.array([0, 1, 2, 0])
    if "x1" in values:
        values[arrays(cls)[-1]] = np.ones(4)
    return values


@every
def test_arrays_have_names(cls: Any) -> None:
    for method in cls.value_and_grad, cls.grad:
        found = inspect.signature(method).parameters
        assert list(found) == ["self", *arrays(cls), "out", "loss_scale"]
        for name in "out", "loss_scale":
            assert found[name].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(inspect.signature(cls.__call__).parameters) == ["self", *arrays(cls)]
    hints = get_type_hints(cls.value_and_grad)
    assert Any not in [hints[name] for name in (*arrays(cls), "out", "return")]


@every
def test_arrays_are_given_by_name_or_by_place(cls: Any) -> None:
    loss, values = cls(), given(cls)
    assert loss(**values) == loss(*values.values())
    np.testing.assert_array_equal(loss.grad(**values), loss.grad(*values.values()))
    assert loss.value_and_grad(**values)[0] == loss(**values)
    with pytest.raises(TypeError, match=f"missing 1 required .*'{arrays(cls)[-1]}'"):
        loss(*list(values.values())[:-1])


def test_the_names_of_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for cls in ALL:
        theirs = getattr(torch.nn, cls.__name__, None)
        if theirs is not None and cls.__name__ not in OTHER_NAMES:
            assert list(inspect.signature(theirs.forward).parameters)[1:] == arrays(cls)


class Named(Loss):
    """A user's loss with other argument names."""

    def value_and_grad(
        self, scores: Any, *, out: Any = None, loss_scale: float = 1.0
    ) -> tuple[float, Any]:
        gradient = np.full_like(scores, loss_scale) if out is None else out
        return float(scores.sum()), gradient


def test_a_loss_of_a_user_may_have_names() -> None:
    x = np.ones(3)
    assert Named()(scores=x) == Named()(x) == 3
    assert Named().grad(scores=x, loss_scale=2.0).tolist() == [2, 2, 2]


def test_words_and_arrays_have_types() -> None:
    # `make types` reports an unused comment if the checker does not find the mistake.
    x = np.ones(3)
    with pytest.raises(ValueError, match="reduction"):
        losses.MSELoss(reduction="average")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction"):
        losses.L1Loss(reduction="batchmean")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="delta"):
        losses.HuberLoss(delta="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="target"):
        losses.MSELoss()(x)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="target"):
        losses.MSELoss()(x, "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="out"):
        losses.MSELoss().grad(x, x, out="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weight"):
        losses.NLLLoss(weight="x")  # type: ignore[arg-type]
    value: float = losses.MSELoss()(x, x)
    gradient = losses.MSELoss().grad(x, x)
    assert value == gradient.sum() == 0
