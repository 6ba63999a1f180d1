"""The optimizers over tensors against those over arrays, and against PyTorch's."""

from __future__ import annotations

import sys
import types
import unittest
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from configurations import CONFIGURATIONS

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastoptim.torch as ft  # noqa: E402
from tensors import (  # noqa: E402
    CLASSES,
    FLOATS,
    alike,
    array,
    give_grads,
    numbers,
    parameters,
    shapes_of,
    twin,
)

CASES = [
    pytest.param(cls, arguments, id=f"{cls.__name__}-{index}")
    for cls in CLASSES
    for index, arguments in enumerate([{}, *CONFIGURATIONS[cls.__name__].rules])
]


def stepped_alike(cls: Any, dtype: Any, arguments: dict[str, Any], steps: int = 4) -> None:
    """Step tensors and arrays of the same bits, and compare all they have."""
    params = parameters(shapes_of(cls), dtype)
    arrays = [array(p).copy() for p in params]
    ours = cls(params, **arguments)
    theirs = twin(cls)(arrays, **{"rounding": "nearest", **arguments})
    for step in range(steps):
        give_grads(params, step)
        ours.step(max_norm=3.0)
        info = theirs.step([array(p.grad) for p in params], max_norm=3.0)
        assert ours.last_info == info
    for index, (parameter, other) in enumerate(zip(params, arrays, strict=True)):
        assert array(parameter).tobytes() == other.tobytes()
        known = theirs.state[str(index)]
        found = {"step": steps, **ours.state[parameter]}
        assert found.keys() == known.keys()
        for key, value in found.items():
            value = array(value) if isinstance(value, torch.Tensor) else value
            assert np.array_equal(value, known[key], equal_nan=True)


@pytest.mark.parametrize(("cls", "arguments"), CASES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_tensors_step_as_arrays_do_to_the_bit(
    cls: Any, arguments: dict[str, Any], dtype: Any
) -> None:
    stepped_alike(cls, dtype, arguments)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("state_dtype", ["float32", "bfloat16", "int8"])
def test_state_is_kept_as_told_and_rounded_as_that_of_arrays(cls: Any, state_dtype: str) -> None:
    arguments = {"state_dtype": state_dtype, "rounding": "stochastic", "seed": 5}
    stepped_alike(cls, torch.bfloat16, arguments)
    stepped_alike(cls, torch.float32, arguments)


def test_every_optimizer_but_the_searches_is_there() -> None:
    names = {name for name in fo.optim.__all__ if hasattr(getattr(fo.optim, name), "step")}
    names -= {"RandomSearch", "RandomLocalSearch", "SAM", "Optimizer"}
    assert {cls.__name__ for cls in CLASSES} == names
    assert all(issubclass(cls, torch.optim.Optimizer) for cls in [*CLASSES, ft.SAM])


# PyTorch's own table of cases. Its module imports expecttest for classes that are not used here.
if "expecttest" not in sys.modules:
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    sys.modules["expecttest"] = stand_in
common = pytest.importorskip("torch.testing._internal.common_optimizers")

# SparseAdam takes sparse gradients alone, and LBFGS has a closure alone: neither is here.
INFOS = [info for info in common.optim_db if hasattr(ft, info.optim_cls.__name__)]


def of_the_table(errors: bool) -> list[Any]:
    found = []
    for info in INFOS:
        name = info.optim_cls.__name__
        if errors:
            inputs = info.optim_error_inputs_func(device="cpu", dtype=torch.float32)
        else:
            inputs = info.optim_inputs_func(device="cpu")
        found += [pytest.param(name, case, id=f"{name}-{i}") for i, case in enumerate(inputs)]
    return found


@pytest.fixture
def newton_schulz_in_the_type_of_the_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's Muon rounds to bfloat16 first: without that it can be compared exactly."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


@pytest.fixture
def double() -> Any:
    """Numbers such as `eta` and `mu_product` are of the default dtype in PyTorch."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double", "newton_schulz_in_the_type_of_the_parameter")
@pytest.mark.parametrize(("name", "case"), of_the_table(errors=False))
@pytest.mark.parametrize("flag", [None, "foreach", "fused"])
def test_pytorchs_configurations_give_pytorchs_results(
    name: str, case: Any, flag: str | None
) -> None:
    info = next(info for info in INFOS if info.optim_cls.__name__ == name)
    arguments = dict(case.kwargs)
    if flag is not None:
        if flag not in info.supported_impls:
            pytest.skip(f"PyTorch's has no {flag}")
        if isinstance(arguments.get("lr"), torch.Tensor):
            pytest.skip("PyTorch's takes tensors as rates in its loop alone")
        arguments[flag] = True
    shapes = shapes_of(getattr(ft, name))
    if name == "Adafactor":
        # PyTorch's divides by the size.
        shapes = [shape for shape in shapes if 0 not in shape]
    ours, theirs = parameters(shapes), parameters(shapes)
    a, b = getattr(ft, name)(ours, **arguments), info.optim_cls(theirs, **case.kwargs)
    # A tensor as a rate is float32, in which PyTorch's Muon multiplies it.
    tolerance = 1e-7 if isinstance(arguments.get("lr"), torch.Tensor) else 1e-12
    for step in range(6):
        give_grads(ours, step)
        give_grads(theirs, step)
        a.step()
        b.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)
    for p, q in zip(ours, theirs, strict=True):
        assert list(a.state[p]) == list(b.state[q])
    assert set(b.param_groups[0]) <= set(a.param_groups[0])


@pytest.mark.parametrize(("name", "case"), of_the_table(errors=True))
def test_what_pytorch_refuses_is_refused(name: str, case: Any) -> None:
    given = case.optimizer_error_input
    if case.error_on is not common.OptimizerErrorEnum.CONSTRUCTION_ERROR:
        pytest.skip("errors in a step: of sparse gradients, see the refused tensors")
    cls, words = getattr(ft, name), str(case.error_regex)
    if "as a Tensor is not supported" in words or "either both floats or both Tensors" in words:
        # Each may be a tensor here, whatever the others are.
        cls(parameters(shapes_of(cls)), **given.kwargs)
        return
    if case.error_type is UserWarning:
        with pytest.warns(UserWarning, match="duplicate parameters"):
            cls(given.params, **given.kwargs)
        return
    with pytest.raises(case.error_type):
        cls(given.params, **given.kwargs)


@pytest.mark.parametrize("cls", CLASSES)
def test_constructors_take_what_pytorchs_take_in_its_order(cls: Any) -> None:
    import inspect

    theirs = getattr(torch.optim, cls.__name__, None)
    if theirs is None:
        pytest.skip("PyTorch has none")
    mine = list(inspect.signature(cls).parameters.values())
    for index, known in enumerate(inspect.signature(theirs).parameters.values()):
        found = next(own for own in mine if own.name == known.name)
        assert found.default == known.default or known.name in {"betas", "params"}
        assert found.kind == known.kind
        if known.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            assert mine[index].name == known.name


@pytest.mark.parametrize("cls", CLASSES)
def test_the_reader_without_dlpack_gives_the_same(
    cls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for exchange in [ft.optim._tensors.EXCHANGE, None]:
        monkeypatch.setattr(ft.optim._tensors, "EXCHANGE", exchange)
        params = parameters(shapes_of(cls), torch.float32)
        opt = cls(params)
        for step in range(3):
            give_grads(params, step)
            opt.step()
        found.append(params)
    assert alike(*found)
    assert numbers((2,), 0).shape == (2,)
