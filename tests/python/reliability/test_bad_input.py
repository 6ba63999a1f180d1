"""Invalid input to every function that takes arrays: a clear error, and nothing changes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import fastoptim as fo
from cases import LOSSES
from snapshot import snapshot

SHAPE = (4, 4)


class Subclass(np.ndarray):
    pass


def ones(dtype: Any = "f4") -> Any:
    return np.ones(SHAPE, dtype)


class Attempt(NamedTuple):
    """A call that must fail, and what it must leave alone."""

    call: Callable[[], object]
    watched: list[Any]


def construct(cls: Any, bad: Any) -> Attempt:
    good = ones()
    return Attempt(lambda: cls([good, bad]), [good])


def add_group(cls: Any, bad: Any) -> Attempt:
    opt = stepped(cls)
    return Attempt(lambda: opt.add_param_group({"params": [ones(), bad]}), [opt])


def step(cls: Any, bad: Any) -> Attempt:
    opt, good = stepped(cls), ones()
    return Attempt(lambda: opt.step([good, bad]), [opt, good])


def step_by_name(cls: Any, bad: Any) -> Attempt:
    opt, good = stepped(cls), ones()
    return Attempt(lambda: opt.step({"1": bad, "0": good}), [opt, good])


def stepped(cls: Any) -> Any:
    """Return an optimizer with two parameters and state."""
    opt = cls([ones(), ones()], lr=0.1)
    opt.step([ones(), ones()])
    return opt


# Arguments that are only read, that must match another array, and that are written.
CLIPS: dict[str, Callable[[Any, Any], object]] = {
    "get_total_norm": lambda good, bad: fo.get_total_norm([good, bad]),
    "clip_grad_norm_": lambda good, bad: fo.clip_grad_norm_({"a": good, "b": bad}, 1e-3),
    "clip_grads_with_norm_": lambda good, bad: fo.clip_grads_with_norm_([good, bad], 1.0, 5.0),
    "clip_grad_value_": lambda good, bad: fo.clip_grad_value_((good, bad), 1e-3),
}
GRADS: dict[str, Callable[[Any, Any], object]] = {
    f"{type(loss).__name__}, {name}": call
    for loss in LOSSES
    for name, call in {
        "input": lambda good, bad, f=loss: f(bad, good),
        "target": lambda good, bad, f=loss: f.grad(good, bad),
        "out": lambda good, bad, f=loss: f.value_and_grad(good, good.copy(), out=bad),
    }.items()
}
L2 = fo.regularizers.L2(0.5)
PENALTIES: dict[str, Callable[[Any, Any], object]] = {
    "value": lambda good, bad: L2.value([good, bad]),
    "add_grad, params": lambda good, bad: L2.add_grad([good, bad], [ones(), ones()]),
    "add_grad, grads": lambda good, bad: L2.add_grad([ones(), ones()], {"0": good, "1": bad}),
}
AVERAGES: dict[str, Callable[[Any, Any], object]] = {
    "EMA": lambda good, bad: fo.EMA([good, bad]),
    "GradAccumulator": lambda good, bad: fo.GradAccumulator({"a": good, "b": bad}),
    "add": lambda good, bad: fo.GradAccumulator([ones(), ones()]).add([good, bad], 1.0),
    "update": lambda good, bad: fo.EMA([ones(), ones()]).update([good, bad]),
    "swap": lambda good, bad: fo.EMA([ones(), ones()]).swap({"0": good, "1": bad}),
    "unscale_": lambda good, bad: fo.amp.GradScaler().unscale_(
        fo.SGD([ones(), ones()]), [good, bad]
    ),
}


def functional(call: Callable[[Any, Any], object]) -> Callable[[Any, Any], Attempt]:
    def attempt(_: Any, bad: Any) -> Attempt:
        good = ones()
        return Attempt(lambda: call(good, bad), [good])

    return attempt


PER_OPTIMIZER = {f.__name__: f for f in (construct, add_group, step, step_by_name)}
FUNCTIONS = {
    name: functional(call) for name, call in (CLIPS | GRADS | PENALTIES | AVERAGES).items()
}
ENTRIES = PER_OPTIMIZER | FUNCTIONS
# Averages of 16 bits are held in float32; gradients of float32 parameters may have 16 bits, and an
# input of 16 bits may have a target of float32.
HALVES = {"EMA", "GradAccumulator", "add", "value", "add_grad, grads", "unscale_", *CLIPS}
HALVES |= {name for name in GRADS if name.endswith("input")}
FULL = [name for name in FUNCTIONS if name not in HALVES]
# Integers may be the classes of a target.
REAL = [name for name in ENTRIES if not name.endswith("target")]
MATCHED = [
    "step",
    "step_by_name",
    *GRADS,
    "add_grad, params",
    "add_grad, grads",
    "add",
    "update",
    "swap",
    "unscale_",
]
WRITTEN = [
    "construct",
    "add_group",
    *(name for name in CLIPS if name.endswith("_")),
    *(name for name in GRADS if name.endswith("out")),
    "add_grad, grads",
    "swap",
    "unscale_",
]


def misaligned() -> Any:
    return np.ones(65, "u1")[1:].view("f4").reshape(SHAPE)


def locked() -> Any:
    array = ones()
    array.flags.writeable = False
    return array


BAD: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    "list": (lambda: ones().tolist(), TypeError, [*ENTRIES]),
    "string": (lambda: "array", TypeError, [*ENTRIES]),
    "number": (lambda: 1.0, TypeError, [*ENTRIES]),
    "scalar": (lambda: np.float32(1), TypeError, [*ENTRIES]),
    "object": (lambda: ones(object), TypeError, [*ENTRIES]),
    "int": (lambda: ones("i4"), TypeError, REAL),
    "long": (lambda: ones("i8"), TypeError, REAL),
    "bool": (lambda: ones("?"), TypeError, [*ENTRIES]),
    "complex": (lambda: ones("c8"), TypeError, [*ENTRIES]),
    "structured": (lambda: np.ones(SHAPE, [("x", "f4")]), TypeError, [*ENTRIES]),
    "void": (lambda: np.zeros(SHAPE, "V4"), TypeError, [*ENTRIES]),
    "date": (lambda: np.zeros(SHAPE, "M8[s]"), TypeError, [*ENTRIES]),
    "swapped": (lambda: ones(">f4"), TypeError, [*ENTRIES]),
    "longdouble": (lambda: ones("g"), TypeError, [*ENTRIES]),
    "masked": (lambda: np.ma.ones(SHAPE, "f4"), TypeError, [*ENTRIES]),
    "matrix": (lambda: ones().view(np.matrix), TypeError, [*ENTRIES]),
    "record": (lambda: ones().view(np.recarray), TypeError, [*ENTRIES]),
    "subclass": (lambda: ones().view(Subclass), TypeError, [*ENTRIES]),
    "fortran": (
        lambda: np.asfortranarray(ones() * np.arange(4, dtype="f4")),
        ValueError,
        [*ENTRIES],
    ),
    "reversed": (lambda: ones()[::-1], ValueError, [*ENTRIES]),
    "strided": (lambda: np.ones((4, 8), "f4")[:, ::2], ValueError, [*ENTRIES]),
    "broadcast": (lambda: np.broadcast_to(np.float32(1), SHAPE), ValueError, [*ENTRIES]),
    "misaligned": (misaligned, ValueError, [*ENTRIES]),
    "half": (lambda: ones("f2"), TypeError, FULL),
    "double": (lambda: ones("f8"), TypeError, MATCHED),
    "shape": (lambda: np.ones((4, 5), "f4"), ValueError, MATCHED),
    "transposed": (lambda: np.ones((2, 8), "f4"), ValueError, MATCHED),
    "flat": (lambda: np.ones(16, "f4"), ValueError, MATCHED),
    "more dimensions": (lambda: np.ones((1, 4, 4), "f4"), ValueError, MATCHED),
    "read-only": (locked, ValueError, WRITTEN),
}


def pairs(entries: dict[str, Any]) -> list[tuple[str, str]]:
    return [(entry, case) for case in BAD for entry in BAD[case][2] if entry in entries]


@pytest.mark.parametrize(("entry", "case"), pairs(PER_OPTIMIZER))
def test_bad_arrays_for_an_optimizer(optimizer: Any, entry: str, case: str) -> None:
    refuse(optimizer, entry, case)


@pytest.mark.parametrize(("entry", "case"), pairs(FUNCTIONS))
def test_bad_arrays_for_a_function(entry: str, case: str) -> None:
    refuse(None, entry, case)


def refuse(cls: Any, entry: str, case: str) -> None:
    build, error, _ = BAD[case]
    bad = build()
    attempt = ENTRIES[entry](cls, bad)
    before = snapshot([attempt.watched, bad])
    # A panic of the core is a BaseException, and is not caught here.
    with pytest.raises(error, match=r"grads|params|parameter|input|target|out|logits"):
        attempt.call()
    assert snapshot([attempt.watched, bad]) == before


def from_torch() -> tuple[Any, Any]:
    tensor = pytest.importorskip("torch", reason="torch is not installed").ones(SHAPE)
    return tensor.numpy(), tensor.numpy()


def from_dlpack() -> tuple[Any, Any]:
    a = ones()
    b = np.from_dlpack(a)
    if not b.flags.writeable:
        pytest.skip("this NumPy imports all arrays as read-only")
    return a, b


def from_ctypes() -> tuple[Any, Any]:
    a = ones()
    pointer = a.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return a, np.ctypeslib.as_array(pointer, SHAPE)


def from_buffer() -> tuple[Any, Any]:
    raw = bytearray(ones().tobytes())
    a, b = (np.frombuffer(raw, "f4").reshape(SHAPE) for _ in range(2))
    return a, b


def overlapping() -> tuple[Any, Any]:
    whole = np.ones(31, "f4")
    return whole[:16].reshape(SHAPE), whole[15:].reshape(SHAPE)


SHARED: dict[str, Callable[[], tuple[Any, Any]]] = {
    "same": lambda: (ones(),) * 2,
    "view": lambda: (lambda a: (a, a[:]))(ones()),
    "overlap": overlapping,
    "frombuffer": from_buffer,
    "torch": from_torch,
    "dlpack": from_dlpack,
    "as_strided": lambda: (lambda a: (a, as_strided(a, SHAPE)))(ones()),
    "ctypes": from_ctypes,
    "memoryview": lambda: (lambda a: (a, np.asarray(memoryview(a))))(ones()),
}


@pytest.mark.parametrize("hidden", SHARED)
def test_memory_shared_with_parameters(optimizer: Any, hidden: str) -> None:
    a, b = SHARED[hidden]()
    good = ones()
    opt = optimizer([a, good])
    attempts: list[Callable[[], object]] = [
        lambda: optimizer([a, b]),
        lambda: optimizer({"a": a, "b": b}),
        lambda: optimizer([{"params": [good, a]}, {"params": b, "lr": 0.5}]),
        lambda: opt.add_param_group({"params": b}),
        lambda: opt.step([b, ones()]),
        lambda: opt.step([ones(), b]),
        *(
            lambda x=x: opt.step([x, ones()])
            for slots in opt.state.values()
            for x in slots.values()
            if isinstance(x, np.ndarray) and x.shape == SHAPE
        ),
    ]
    before = snapshot([opt, a, b, good])
    for attempt in attempts:
        with pytest.raises(ValueError, match="share"):
            attempt()
        assert snapshot([opt, a, b, good]) == before


@pytest.mark.parametrize("hidden", SHARED)
def test_memory_shared_between_what_functions_write(hidden: str) -> None:
    a, b = SHARED[hidden]()
    before = snapshot([a, b])
    for name, call in (CLIPS | AVERAGES).items():
        if name.endswith("_") or name == "swap":
            with pytest.raises(ValueError, match="share"):
                call(a, b)
    for loss in LOSSES:
        with pytest.raises(ValueError, match="share"):
            loss.grad(ones(), a, out=b)
    for attempt in (lambda: PENALTIES["add_grad, grads"](a, b), lambda: L2.add_grad(a, b)):
        with pytest.raises(ValueError, match="share"):
            attempt()
    assert snapshot([a, b]) == before
    assert fo.get_total_norm([a, b]) > 0
    assert L2.value([a, b]) > 0


def test_memory_of_torch_is_seen() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.zeros(8)
    with pytest.raises(ValueError, match="share memory"):
        fo.SGD([tensor.numpy(), tensor.numpy()])


def test_state_is_not_a_gradient() -> None:
    opt = fo.Adam(np.ones(4))
    with pytest.raises(ValueError, match=r"exp_avg of \"0\" and grads\[\"0\"\] share memory"):
        opt.step(opt.state["0"]["exp_avg"])


def test_arrays_that_are_only_read_may_share_memory(optimizer: Any) -> None:
    g = locked()
    opt = optimizer([ones(), ones()])
    assert opt.step([g, g], max_norm=1.0, clip_value=1.0).applied


@pytest.mark.parametrize("mode", ["r+", "w+", "c", "r"])
def test_memory_maps(optimizer: Any, tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(64))
    w, plain, g = np.memmap(path, "f4", mode, shape=SHAPE), ones() * 0, ones()
    if mode == "r":
        with pytest.raises(ValueError, match="read-only"):
            optimizer([w])
        optimizer([plain]).step([w])
        return
    optimizer([w], lr=0.1).step([g])
    optimizer([plain], lr=0.1).step([g])
    assert np.array_equal(w, plain)
    assert fo.clip_grad_norm_(w, 1e-12) == fo.get_total_norm(plain)
    assert np.abs(w).max() < np.abs(plain).max()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_scalars_and_empty_arrays_work(optimizer: Any, shape: tuple[int, ...]) -> None:
    if optimizer is fo.Muon:
        pytest.skip("supports only matrices")
    w, g = np.ones(shape), np.ones(shape)
    opt = optimizer([w, np.ones(2)], lr=0.1)
    assert opt.step([g, np.ones(2)], max_norm=1.0).applied
    assert (w < 1).all()
    fo.clip_grad_value_(g, 0.5)
    assert (g == 0.5).all()


def test_a_hyperparameter_that_raises(optimizer: Any) -> None:
    broken = False

    def rate(_: int) -> float:
        if broken:
            raise KeyError("no rate")
        return 0.1

    opt = optimizer([{"params": ones()}, {"params": ones(), "lr": rate}])
    opt.step([ones(), ones()])
    before, broken = snapshot(opt), True
    with pytest.raises(KeyError, match="no rate"):
        opt.step([ones(), ones()])
    broken = False
    assert snapshot(opt) == before


def test_a_hyperparameter_that_uses_its_optimizer(optimizer: Any) -> None:
    opt = stepped(optimizer)
    before, rate = snapshot(opt), opt.param_groups[0]["lr"]
    opt.param_groups[0]["lr"] = lambda _: opt.step([ones(), ones()]) or rate
    with pytest.raises(RuntimeError):
        opt.step([ones(), ones()])
    opt.param_groups[0]["lr"] = rate
    assert snapshot(opt) == before


W = np.ones(SHAPE, "f4")


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ([], ValueError),
        ((), ValueError),
        ({}, ValueError),
        (fo.FlatBuffer({}), ValueError),
        ([{"params": []}], ValueError),
        ([{"params": [W]}, {"params": {}}], ValueError),
        ([W, W], ValueError),
        ({"a": W, "b": W}, ValueError),
        ([{"params": W}, {"params": [W]}], ValueError),
        ([{"params": {"w": W}}, {"params": {"w": ones()}}], ValueError),
        (None, TypeError),
        (5, TypeError),
        ("w", TypeError),
        ({1: W}, TypeError),
        ([W, {"params": ones()}], TypeError),
        ([{"lr": 0.1}], TypeError),
        ([[W]], TypeError),
        ([None], TypeError),
    ],
)
def test_bad_forms_of_params(optimizer: Any, params: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"param|share"):
        optimizer(params)


@pytest.mark.parametrize("zero", [False, True], ids=["step", "zero_grad"])
@pytest.mark.parametrize(
    ("grads", "error"),
    [
        ([], ValueError),
        ([W], ValueError),
        ([W] * 3, ValueError),
        ({"w": W}, ValueError),
        ({"w": W, "b": W, "c": W}, ValueError),
        ({"w": W, "c": W}, ValueError),
        ({}, ValueError),
        (W, ValueError),
        (np.ones(31, "f4"), ValueError),
        (np.ones(33, "f4"), ValueError),
        (np.ones((2, 16), "f4"), ValueError),
        (np.ones(32, "f8"), TypeError),
        (fo.FlatBuffer({"w": SHAPE}), ValueError),
        (fo.FlatBuffer({"w": SHAPE, "b": (16,)}), ValueError),
        (fo.FlatBuffer({"w": SHAPE, "c": SHAPE}), ValueError),
        (fo.FlatBuffer({"w": SHAPE, "b": SHAPE}, "float64"), TypeError),
        (None, TypeError),
        (5, TypeError),
        ("wb", TypeError),
    ],
)
def test_bad_forms_of_grads(optimizer: Any, grads: Any, error: type[Exception], zero: bool) -> None:
    opt = optimizer(fo.FlatBuffer({"w": SHAPE, "b": SHAPE}))
    opt.step([W, W])
    before = snapshot([opt, grads])
    with pytest.raises(error, match="grads"):
        (opt.zero_grad if zero else opt.step)(grads)
    assert snapshot([opt, grads]) == before


@pytest.mark.parametrize("bad", ["text", 1.0, locked(), ones("i4"), np.ones((4, 5), "f4")])
def test_zero_grad_writes_all_or_none(optimizer: Any, bad: Any) -> None:
    opt, good = stepped(optimizer), ones()
    before = snapshot([opt, good, bad])
    with pytest.raises((TypeError, ValueError)):
        opt.zero_grad([good, bad])
    assert snapshot([opt, good, bad]) == before


def test_a_parameter_made_read_only_later(optimizer: Any) -> None:
    opt = stepped(optimizer)
    before = snapshot(opt)
    opt.param_groups[0]["params"][1].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        opt.step([ones(), ones()])
    assert snapshot(opt) == before
    opt.step([ones(), None])


@pytest.mark.parametrize("shape", [(8, 8), (2, 2)])
def test_a_parameter_resized_later(optimizer: Any, shape: tuple[int, ...]) -> None:
    opt = stepped(optimizer)
    w = opt.param_groups[0]["params"][1]
    w.resize(shape, refcheck=False)
    before = snapshot(opt)
    with pytest.raises(ValueError, match="shape"):
        opt.step([ones(), np.ones(shape, "f4")])
    assert snapshot(opt) == before


def test_a_refused_step_allocates_nothing() -> None:
    w = ones()
    opt = fo.SGD([w])
    opt.step([ones()])
    opt.param_groups[0]["momentum"] = 0.9
    before = snapshot(opt)
    with pytest.raises(ValueError, match="share"):
        opt.step([w])
    assert snapshot(opt) == before


@pytest.mark.parametrize("groups", [None, [], [{}], [5, 5], [{"lr": 0.1}] * 3])
def test_param_groups_replaced(optimizer: Any, groups: Any) -> None:
    opt = stepped(optimizer)
    before, good = snapshot(opt), opt.param_groups
    opt.param_groups = groups
    with pytest.raises((TypeError, ValueError)):
        opt.step([ones(), ones()])
    opt.param_groups = good
    assert snapshot(opt) == before


JUNK = [
    *(None, 5, -1, 2**70, 1.5, math.nan, 1j, "x", b"x", True, object(), len, [], {}, (), set()),
    *(W, [W], [W, W], {"0": W, "1": W}, [W, None], np.ones(32), np.zeros(0), {"0": None}),
]
junk = st.sampled_from(JUNK)


@given(grads=junk, options=st.dictionaries(st.sampled_from(["loss_scale", "max_norm"]), junk))
def test_random_input_never_panics(optimizer: Any, grads: Any, options: dict[str, Any]) -> None:
    opt = stepped(optimizer)
    before = snapshot(opt)
    try:
        info = opt.step(grads, **options)
    except (TypeError, ValueError):
        assert snapshot(opt) == before
    else:
        assert info.applied
