"""Losses over tensors: beside PyTorch's, and as autograd sees them."""

import copy
import io
import math
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastoptim as fo  # noqa: E402
import fastoptim.torch as ft  # noqa: E402
import tensor_losses as cases  # noqa: E402
from processes import run  # noqa: E402
from tensor_losses import CASES, OWN, WEIGHT, Case, evaluated, fitted, normal  # noqa: E402

EXACT = {"rtol": 1e-12, "atol": 1e-12}
VERSION = torch.__version__
KNOWS_THE_GRAPH = pytest.mark.skipif(
    not hasattr(torch._C._autograd, "_get_current_graph_task_keep_graph"),
    reason="PyTorch does not tell whether a backward pass keeps the graph",
)
HALVES = [torch.bfloat16, torch.float16]
REDUCTIONS = ["mean", "sum", "none"]


# PyTorch tells everybody that the mean of KLDivLoss is not what its name says.
pytestmark = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")


def made(module: Any, case: Case, dtype: Any = torch.float64, **more: Any) -> Any:
    return getattr(module, case.name)(**fitted(case.arguments, dtype), **more)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_pytorch(case: Case, reduction: str) -> None:
    inputs, others = case.tensors(torch.float64)
    ours = evaluated(made(ft, case, reduction=reduction), inputs, others)
    # PyTorch's NLLLoss has no gradient for the strides of torch.channels_last.
    inputs = [x.contiguous() for x in inputs]
    theirs = evaluated(made(torch.nn, case, reduction=reduction), inputs, others)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("case", CASES + OWN, ids=str)
def test_narrow_types_are_as_near_to_float64_as_their_rounding(case: Case, dtype: Any) -> None:
    inputs, others = case.tensors(dtype)
    narrow = evaluated(made(ft, case, torch.float32), inputs, others)
    wide = [x.double() if x.is_floating_point() else x for x in others]
    exact = evaluated(made(ft, case), [x.double() for x in inputs], wide)
    eps = torch.finfo(dtype).eps
    for mine, expected in zip(narrow, exact, strict=True):
        assert mine.dtype == dtype
        # The gradient from above is rounded, too.
        torch.testing.assert_close(mine.double(), expected, rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("case", OWN, ids=str)
def test_losses_that_pytorch_lacks_are_those_over_arrays(case: Case, reduction: str) -> None:
    inputs, others = case.tensors(torch.float64)
    ours = evaluated(made(ft, case, reduction=reduction), inputs, others, upstream=False)
    arguments = {
        name: x.numpy() if isinstance(x, torch.Tensor) else x
        for name, x in fitted(case.arguments, torch.float64).items()
    }
    loss_fn = getattr(fo.losses, case.name)(**arguments, reduction=reduction)
    value, gradients = loss_fn.value_and_grad(*(x.numpy() for x in inputs + others))
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    for mine, expected in zip(ours, (value, *gradients), strict=True):
        expected = torch.as_tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(mine, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", ["MSELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "TripletMarginLoss"]
)
def test_a_usual_call_is_one_call_of_the_core(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(0, 7, 5, dtype=torch.float32).requires_grad_()
    others = {
        "CrossEntropyLoss": [torch.arange(7) % 5],
        "TripletMarginLoss": [normal(1, 7, 5, dtype=x.dtype), normal(2, 7, 5, dtype=x.dtype)],
    }.get(name, [torch.rand(7, 5)])

    def refuse(*args: Any) -> None:
        raise AssertionError("another way")

    monkeypatch.setattr(ft.losses._base.Call, "compute", refuse)
    loss = getattr(ft, name)()(x, *others)
    loss.backward()
    expected = getattr(torch.nn, name)()(x, *others)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x.grad, torch.autograd.grad(expected, x)[0])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("case", CASES + OWN, ids=str)
def test_gradients_are_those_of_finite_differences(case: Case, reduction: str) -> None:
    inputs, others = case.tensors(torch.float64)
    loss_fn = made(ft, case, reduction=reduction)
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: loss_fn(*x, *others), leaves)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(7, 5), (7, 1), (7,), ()], ids=str)
def test_variances_of_any_shape_have_the_gradient_of_pytorch(shape: Any, reduction: str) -> None:
    x, y, var = normal(0, 7, 5), normal(1, 7, 5), cases.uniform(2, *shape)
    arguments = {"full": True, "eps": 0.2, "reduction": reduction}

    def of(module: Any, var: Any) -> Any:
        loss_fn = module.GaussianNLLLoss(**arguments)
        # PyTorch takes one variance as a number, or else in the shape of the input.
        wide = (lambda v: v.expand(7, 5)) if shape == () else (lambda v: v)
        return evaluated(lambda x, y, v: loss_fn(x, y, wide(v)), [x, y, var], [])

    for mine, expected in zip(of(ft, var), of(torch.nn, var), strict=True):
        torch.testing.assert_close(mine, expected, **EXACT)
    if shape == ():
        ours = evaluated(ft.GaussianNLLLoss(**arguments), [x, y, var], [])
        for mine, expected in zip(ours, of(torch.nn, var), strict=True):
            torch.testing.assert_close(mine, expected, **EXACT)
        if VERSION < (2, 6):
            return  # PyTorch does not take a number there.
        number = ft.GaussianNLLLoss(**arguments)(x, y, 0.5)
        torch.testing.assert_close(number, torch.nn.GaussianNLLLoss(**arguments)(x, y, 0.5))


@pytest.mark.parametrize("name", ["MSELoss", "L1Loss", "HuberLoss", "SmoothL1Loss"])
@pytest.mark.parametrize("both", [True, False])
def test_targets_have_gradients_where_they_do_in_pytorch(name: str, both: bool) -> None:
    x, y = normal(0, 7, 5), normal(1, 7, 5)

    def of(module: Any) -> Any:
        loss_fn = getattr(module, name)()
        if both:
            return evaluated(loss_fn, [x, y], [])
        return evaluated(lambda y: loss_fn(x, y), [y], [])

    for mine, expected in zip(of(ft), of(torch.nn), strict=True):
        torch.testing.assert_close(mine, expected, **EXACT)


@pytest.mark.parametrize("name", ["BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "KLDivLoss"])
def test_other_targets_get_the_gradient_of_pytorch_itself(name: str) -> None:
    x, y = cases.uniform(0, 7, 5), cases.uniform(1, 7, 5)
    mine = evaluated(getattr(ft, name)(), [x, y], [])
    expected = evaluated(getattr(torch.nn, name)(), [x, y], [])
    torch.testing.assert_close(mine, expected, **EXACT)


def test_a_target_without_gradient_is_refused_where_it_asks_for_one() -> None:
    x, y = normal(0, 3), normal(1, 3).sign().requires_grad_()
    with pytest.raises(RuntimeError, match=r"no gradient by target: use target.detach\(\)"):
        ft.HingeLoss()(x, y)
    with torch.no_grad():
        assert ft.HingeLoss()(x, y).isfinite()


def test_a_loss_may_be_used_and_gone_back_through_twice() -> None:
    x, y = normal(0, 9, 5).requires_grad_(), cases.classes(1, 5, 9)
    loss_fn = ft.CrossEntropyLoss()
    (loss_fn(x, y) * 3 + loss_fn(x, y)).backward()
    twice = x.grad
    x.grad = None
    loss = loss_fn(x, y)
    (3 * loss).backward(retain_graph=True)
    first = x.grad.clone()
    loss.backward()
    torch.testing.assert_close(x.grad, twice, **EXACT)
    torch.testing.assert_close(first, 0.75 * twice, **EXACT)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@KNOWS_THE_GRAPH
def test_the_gradient_is_scaled_where_it_lies_only_where_the_graph_goes_away() -> None:
    x, y = normal(0, 9, 5).requires_grad_(), normal(1, 9, 5)
    for factor in (1.0, 2.0):
        loss = ft.MSELoss()(x, y)
        (kept,) = loss.grad_fn.saved_tensors
        above = torch.tensor(factor, dtype=torch.float64)
        (first,) = torch.autograd.grad(loss, x, above, retain_graph=True)
        assert first.data_ptr() != kept.data_ptr()
        (last,) = torch.autograd.grad(loss, x, above)
        assert last.data_ptr() == kept.data_ptr()
        torch.testing.assert_close(first, last, rtol=0, atol=0)


def test_no_gradient_is_made_where_none_is_wanted() -> None:
    x, y = normal(0, 9, 5).requires_grad_(), cases.classes(1, 5, 9)
    expected = torch.nn.CrossEntropyLoss()(x, y).detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            value = ft.CrossEntropyLoss()(x, y)
            assert not value.requires_grad
            assert value.is_inference() == torch.is_inference_mode_enabled()
            torch.testing.assert_close(value.clone(), expected, **EXACT)
    assert not ft.CrossEntropyLoss()(x.detach(), y).requires_grad
    with torch.inference_mode():
        z = torch.ones(3)
    assert ft.MSELoss()(z, z) == 0
    w = torch.ones(3, requires_grad=True)
    ft.MSELoss()(w, z).backward()
    assert w.grad.tolist() == [0, 0, 0]


def test_layouts_of_inputs_do_not_matter() -> None:
    x, y = normal(0, 5, 9).t(), cases.classes(1, 5, 18)[::2]
    flipped = torch.view_as_complex(normal(1, 9, 5, 2)).conj().imag
    assert flipped.is_neg()
    offset = torch.frombuffer(bytearray(364), dtype=torch.float64, offset=4, count=45).view(9, 5)
    offset.copy_(x)
    for given in (x, x[:, :1].expand(9, 5), flipped, offset):
        mine = evaluated(ft.CrossEntropyLoss(), [given.clone()], [y.clone()])
        leaf = given.detach().requires_grad_()
        value = ft.CrossEntropyLoss()(leaf, y)
        value.backward(normal(9, dtype=torch.float64))
        torch.testing.assert_close([value.detach(), leaf.grad], mine, rtol=0, atol=0)


def test_integers_that_stand_for_their_negatives_are_resolved() -> None:
    x, y = normal(0, 4, 5), normal(1, 4, 5)
    sign = torch.tensor([1, -1, -1, 1])
    expected = ft.CosineEmbeddingLoss()(x, y, -sign)
    assert torch.equal(ft.CosineEmbeddingLoss()(x, y, torch._neg_view(sign)), expected)


def test_a_mode_that_makes_other_tensors_does_no_harm() -> None:
    from torch.overrides import TorchFunctionMode

    class Empty(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.empty_like and args[0].ndim == 0:
                return torch.empty(0)
            return func(*args, **(kwargs or {}))

    x, y = normal(0, 4, 5, dtype=torch.float32).requires_grad_(), torch.rand(4, 5)
    expected = ft.MSELoss()(x, y)
    with Empty():
        loss = ft.MSELoss()(x, y)
    assert torch.equal(loss, expected)


def test_the_python_methods_of_older_tensors_give_the_same() -> None:
    script = """
import torch, fastoptim.torch as ft
ft.optim._tensors.EXCHANGE = {exchange}
x = torch.arange(12.0).view(4, 3).requires_grad_()
loss = ft.CrossEntropyLoss()(x, torch.tensor([0, 1, 2, 0]))
loss.backward()
print(loss.item(), x.grad.tolist())
"""
    found = [
        run(script.format(exchange=exchange)) for exchange in ("ft.optim._tensors.EXCHANGE", "None")
    ]
    assert all(process.returncode == 0 for process in found), found
    assert found[0].stdout == found[1].stdout != ""


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["CrossEntropyLoss", "FocalLoss"])
def test_compiled_functions_may_use_them(name: str) -> None:
    loss, y = getattr(ft, name)(), torch.arange(7) % 5
    x = normal(0, 7, 5).requires_grad_()
    compiled = torch.compile(lambda x: loss(x * 1.0, y), backend="eager")
    value, expected = compiled(x), loss(x, y)
    torch.testing.assert_close(value, expected)
    (mine,), (other,) = torch.autograd.grad(value, x), torch.autograd.grad(expected, x)
    torch.testing.assert_close(mine, other)


def test_float16_keeps_the_gradient_of_a_mean_over_many_rows() -> None:
    x = normal(0, 4096, 50, dtype=torch.float16).requires_grad_()
    y = cases.classes(1, 50, 4096)
    wide = x.detach().double().requires_grad_()
    ft.CrossEntropyLoss()(x, y).backward(torch.tensor(32768.0, dtype=torch.float16))
    ft.CrossEntropyLoss()(wide, y).backward(torch.tensor(32768.0, dtype=torch.float64))
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=2e-3, atol=1e-7)


def test_second_derivatives_are_those_of_pytorch_or_an_error() -> None:
    for case in CASES:
        inputs, others = case.tensors(torch.float64)
        found: list[Any] = []
        for module in (ft, torch.nn):
            leaves = [x.detach().contiguous().clone().requires_grad_() for x in inputs]
            value = made(module, case)(*(x * 1.01 for x in leaves), *others)
            first = torch.autograd.grad(3 * value, leaves, create_graph=True)
            # Some first derivatives are constant.
            second = sum((g + x).pow(2).sum() for g, x in zip(first, leaves, strict=True))
            try:
                second.backward()
            except RuntimeError as error:
                found.append(str(error))
            else:
                found.append([x.grad for x in leaves])
        if isinstance(found[1], str):
            assert found[0] == found[1]
        else:
            torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12, msg=str(case))
    x = normal(0, 3).requires_grad_()
    loss = ft.LogCoshLoss()(x, normal(1, 3))
    with pytest.raises(RuntimeError, match="log_cosh cannot be differentiated again"):
        torch.autograd.grad(loss, x, create_graph=True)
    x = normal(0, 3).requires_grad_()
    loss = ft.MSELoss()(x * 1, y := normal(1, 3))
    y.zero_()
    with pytest.raises(RuntimeError, match="changed in place"):
        torch.autograd.grad(loss, x, create_graph=True)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_other_derivatives_are_those_of_pytorch() -> None:
    x, y = normal(0, 4, 5), cases.classes(1, 5, 4)
    for loss_fn in (ft.CrossEntropyLoss(), ft.CrossEntropyLoss(reduction="none")):
        theirs = torch.nn.CrossEntropyLoss(reduction=loss_fn.reduction)
        expected = torch.func.jacrev(theirs)(x, y)
        torch.testing.assert_close(torch.func.jacrev(loss_fn)(x, y), expected, **EXACT)
        batched = torch.func.vmap(loss_fn)(x.view(2, 2, 5), y.view(2, 2))
        torch.testing.assert_close(batched, torch.func.vmap(theirs)(x.view(2, 2, 5), y.view(2, 2)))
    value = ft.CrossEntropyLoss(reduction="none")(x.requires_grad_(), y)
    (rows,) = torch.autograd.grad(
        value, x, torch.eye(4, dtype=torch.float64), is_grads_batched=True
    )
    torch.testing.assert_close(rows, torch.func.jacrev(theirs)(x, y), **EXACT)
    value = ft.MSELoss()(x, torch.zeros_like(x))
    above = torch.tensor([1.0, 2.0], dtype=torch.float64)
    (rows,) = torch.autograd.grad(value, x, above, is_grads_batched=True)
    torch.testing.assert_close(rows, torch.stack([x / 10, x / 5]), **EXACT)
    forward = torch.func.jacfwd(ft.MSELoss())(x.detach(), torch.zeros_like(x.detach()))
    torch.testing.assert_close(forward, x.detach() / 10, **EXACT)
    with pytest.raises(RuntimeError, match=r"transform of torch\.func"):
        torch.func.grad(ft.LogCoshLoss())(x.detach(), x.detach())


def test_autocast_computes_in_float32() -> None:
    x, y = normal(0, 9, 5, dtype=torch.bfloat16), cases.classes(1, 5, 9)
    for module in (ft, torch.nn):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = module.CrossEntropyLoss(weight=WEIGHT)(leaf, y)
        value.backward()
        assert (value.dtype, leaf.grad.dtype) == (torch.float32, torch.bfloat16)
        if module is ft:
            ours = value.detach(), leaf.grad
    torch.testing.assert_close(ours, (value.detach(), leaf.grad))


def test_other_dtypes_are_promoted_as_in_pytorch() -> None:
    x, y = normal(0, 9, dtype=torch.float32), cases.classes(1, 3, 9)
    for target in (y, y > 1, y.double(), y.half()):
        mine = evaluated(ft.MSELoss(), [x], [target])
        # PyTorch promotes integers to the default dtype, and older versions promote nothing.
        dtype = x.dtype if target is y else torch.promote_types(x.dtype, target.dtype)
        theirs = evaluated(torch.nn.MSELoss(), [x.to(dtype)], [target.to(dtype)])
        assert mine[0].dtype == (torch.float64 if target.dtype == torch.float64 else torch.float32)
        if target.dtype != torch.bool:
            torch.testing.assert_close(mine, theirs, check_dtype=False)
        assert mine[1].dtype == x.dtype
    scores = normal(0, 9, 3)
    expected = ft.CrossEntropyLoss()(scores, y)
    for dtype in (torch.int32, torch.int16, torch.int8, torch.uint8):
        assert ft.CrossEntropyLoss()(scores, y.to(dtype)) == expected


# A subclass that nobody knows.
Other: Any = type("Other", (torch.Tensor,), {})


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ([1.0], torch.ones(1), TypeError, "input must be a torch.Tensor, got list"),
        (torch.ones(2), torch.ones(3), ValueError, r"target must have shape \[2\]"),
        (torch.ones(2, device="meta"), torch.ones(2), TypeError, "input must be on the CPU, got"),
        (torch.ones(2), torch.ones(2, device="meta"), TypeError, "target must be on the CPU"),
        (torch.ones(2).to_sparse(), torch.ones(2), TypeError, r"input.to_dense\(\) is"),
        (torch.ones(2) + 1j, torch.ones(2), TypeError, "input must be one of float32"),
        (torch.ones(2), torch.ones(2) + 1j, TypeError, "target must be one of float32"),
        (torch.ones(2, dtype=torch.int64), torch.ones(2), TypeError, "input must be one of"),
        (torch.ones(2).as_subclass(Other), torch.ones(2), TypeError, "the subclass Other"),
    ],
)
def test_what_cannot_be_computed_on_is_refused(x: Any, y: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        ft.MSELoss()(x, y)


def test_wrong_classes_and_arguments_are_refused() -> None:
    x = torch.zeros(3, 4)
    for target, error, message in [
        (torch.tensor([0, 4, 9]), IndexError, r"target\[1\] is 4"),
        (torch.zeros(3), ValueError, r"target must have shape \[3, 4\]"),
        (torch.zeros(3, dtype=torch.bool), TypeError, r"target.long\(\) converts it"),
    ]:
        with pytest.raises(error, match=message):
            ft.CrossEntropyLoss()(x, target)
    with pytest.raises(TypeError, match=r"target.long\(\) converts it"):
        ft.NLLLoss()(x, torch.zeros(3))
    with pytest.raises(TypeError, match=r"weight must be torch.float32 as the input is"):
        ft.NLLLoss(torch.ones(4, dtype=torch.float64))(x, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="4 classes"):
        ft.NLLLoss(torch.ones(3))(x, torch.tensor([0, 1, 2]))
    for make in (lambda: ft.FocalLoss(gamma=-1.0), lambda: ft.HingeLoss(reduction="all")):
        with pytest.raises(ValueError, match=r"gamma|reduction"):
            make()
    with pytest.raises(ValueError, match="reduction must be"):
        ft.MSELoss(reduction="all")(x, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["CosineEmbeddingLoss", "ContrastiveLoss"])
def test_labels_of_pairs_may_have_any_dtype(name: str, dtype: Any) -> None:
    x, y = normal(1, 7, 5, dtype=dtype), normal(2, 7, 5, dtype=dtype)
    labels = torch.tensor([1, 0, 1, 0, 0, 1, 1])
    labels = 2 * labels - 1 if name == "CosineEmbeddingLoss" else labels
    loss = getattr(ft, name)()
    for other in [torch.float32, torch.float64, torch.int32, torch.int8, torch.bfloat16]:
        assert torch.equal(loss(x, y, labels.to(other)), loss(x, y, labels))


def test_values_beyond_the_dtype_are_infinite() -> None:
    x = torch.full((1000,), 200.0, dtype=torch.float16)
    assert ft.MSELoss(reduction="sum")(x, -x) == math.inf
    x = torch.full((2,), 1e20)
    assert ft.MSELoss()(x, -x) == math.inf


def test_empty_batches_are_as_in_pytorch() -> None:
    for reduction, expected in (("mean", "nan"), ("sum", "0.0")):
        x = torch.zeros(0, 3, requires_grad=True)
        value = ft.CrossEntropyLoss(reduction=reduction)(x, torch.zeros(0, dtype=torch.int64))
        value.backward()
        assert (str(value.item()), x.grad.shape) == (expected, (0, 3))


@pytest.mark.parametrize("case", CASES + OWN, ids=str)
def test_modules_are_those_of_pytorch(case: Case) -> None:
    ours = made(ft, case)
    if case in CASES:
        theirs = made(torch.nn, case)
        assert isinstance(ours, type(theirs))
        assert str(ours) == str(theirs)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        ours.load_state_dict(theirs.state_dict())
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    inputs, others = case.tensors(torch.float64)
    value = ours(*inputs, *others)
    for other in (torch.load(file, weights_only=False), copy.deepcopy(ours), ours.double()):
        assert other(*inputs, *others) == value


def test_old_arguments_are_taken_as_in_pytorch() -> None:
    with pytest.warns(UserWarning, match="size_average"):
        assert ft.MSELoss(size_average=False).reduction == "sum"
    with pytest.warns(UserWarning, match="size_average"):
        assert ft.CrossEntropyLoss(None, False).reduction == "sum"
    with pytest.warns(UserWarning, match="reduce"):
        assert ft.TripletMarginLoss(1.0, 2.0, 1e-6, False, None, False).reduction == "none"


DispatchMode: Any = torch.utils._python_dispatch.TorchDispatchMode


class Made(DispatchMode):  # type: ignore[misc]
    """Keeps the tensors of a size that PyTorch's functions make."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.found: dict[int, Any] = {}

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() == self.size:
            self.found[result.untyped_storage().data_ptr()] = result
        return result


@KNOWS_THE_GRAPH
def test_cross_entropy_makes_one_array_where_pytorch_makes_three() -> None:
    x, y = normal(0, 64, 1000).requires_grad_(), cases.classes(1, 1000, 64)
    counts = []
    for module in (ft, torch.nn):
        with Made(x.numel()) as made_here:
            torch.autograd.grad(3 * module.CrossEntropyLoss()(x, y), x)
        counts.append(len(made_here.found.keys() - {x.data_ptr()}))
    assert counts == [1, 3]


def test_hooks_and_checkpoints_see_the_gradient() -> None:
    x, y = normal(0, 9, 5).requires_grad_(), cases.classes(1, 5, 9)
    loss_fn = ft.CrossEntropyLoss()
    (expected,) = torch.autograd.grad(loss_fn(x, y), x)
    again = torch.utils.checkpoint.checkpoint(loss_fn, x, y, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again, x)[0], expected, rtol=0, atol=0)
    packed = []

    def pack(tensor: Any) -> Any:
        packed.append(tensor.shape)
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = loss_fn(x, y)
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], expected, rtol=0, atol=0)
    assert packed == [x.shape]


def test_threads_may_use_one_loss() -> None:
    x, y = normal(0, 200, 50), cases.classes(1, 50, 200)
    loss_fn, found = ft.CrossEntropyLoss(), []

    def work() -> None:
        for _ in range(20):
            leaf = x.clone().requires_grad_()
            loss_fn(leaf, y).backward()
            found.append(leaf.grad)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(torch.equal(grad, found[0]) for grad in found)
