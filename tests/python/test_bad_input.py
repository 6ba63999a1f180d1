"""What must be refused, by every function that takes arrays, before anything is written."""

from __future__ import annotations

import ctypes
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import OPTIMIZERS

SHAPE = (4, 4)


class Subclass(np.ndarray[Any, Any]):
    pass


BAD_ARRAYS: dict[str, tuple[Any, type[Exception]]] = {
    "list": ([[1.0] * 4] * 4, TypeError),
    "none of these": ("text", TypeError),
    "int": (np.ones(SHAPE, "i4"), TypeError),
    "bool": (np.ones(SHAPE, bool), TypeError),
    "float16": (np.ones(SHAPE, "f2"), TypeError),
    "long double": (np.ones(SHAPE, np.longdouble), TypeError),
    "object": (np.ones(SHAPE, object), TypeError),
    "complex": (np.ones(SHAPE, "c8"), TypeError),
    "structured": (np.ones(SHAPE, [("x", "f4")]), TypeError),
    "swapped": (np.ones(SHAPE, ">f4"), TypeError),
    "masked": (np.ma.ones(SHAPE, "f4"), TypeError),
    "matrix": (np.ones(SHAPE, "f4").view(np.matrix), TypeError),
    "subclass": (np.ones(SHAPE, "f4").view(Subclass), TypeError),
    "fortran": (np.asfortranarray(np.arange(16, dtype="f4").reshape(SHAPE)), ValueError),
    "reversed": (np.ones(SHAPE, "f4")[::-1], ValueError),
    "strided": (np.ones((4, 8), "f4")[:, ::2], ValueError),
    "broadcast": (np.broadcast_to(np.float32(1), SHAPE), ValueError),
    "misaligned": (np.ones(65, "u1")[1:].view("f4").reshape(SHAPE), ValueError),
}
BAD_GRADS = BAD_ARRAYS | {
    "float64": (np.ones(SHAPE), TypeError),
    "wide": (np.ones((4, 5), "f4"), ValueError),
    "flat": (np.ones(16, "f4"), ValueError),
}


@pytest.mark.parametrize("case", BAD_GRADS)
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_bad_gradients_change_nothing(cls: Any, case: str) -> None:
    bad, error = BAD_GRADS[case]
    first, w = np.ones(SHAPE, "f4"), np.ones(SHAPE, "f4")
    opt = cls([first, w], lr=0.1)
    opt.step([np.ones(SHAPE, "f4")] * 2)
    params, before = (first.copy(), w.copy()), pickle.dumps(opt.state_dict())
    with pytest.raises(error, match="grads"):
        opt.step([np.ones(SHAPE, "f4"), bad])
    assert np.array_equal(first, params[0])
    assert np.array_equal(w, params[1])
    assert pickle.dumps(opt.state_dict()) == before


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_parameters(case: str) -> None:
    bad, error = BAD_ARRAYS[case]
    opt = fo.SGD([np.ones(2)])
    with pytest.raises(error, match="params"):
        opt.add_param_group({"params": [np.ones(3), bad]})
    with pytest.raises(error, match="params"):
        fo.SGD([bad])
    assert len(opt.param_groups) == len(opt.state) == 1


CLIPPING: list[Callable[[Any], object]] = [
    lambda grads: fo.clip_grad_norm_(grads, 0.1),
    lambda grads: fo.clip_grad_value_(grads, 0.1),
    lambda grads: fo.clip_grads_with_norm_(grads, 0.1, 2.0),
    fo.get_total_norm,
]


@pytest.mark.parametrize("case", BAD_ARRAYS)
@pytest.mark.parametrize("clip", CLIPPING)
def test_bad_arrays_are_not_clipped(clip: Callable[[Any], object], case: str) -> None:
    bad, error = BAD_ARRAYS[case]
    good = np.ones(SHAPE, "f4")
    with pytest.raises(error, match="grads"):
        clip([good, bad])
    assert np.array_equal(good, np.ones(SHAPE, "f4"))


def pairs_that_share() -> dict[str, tuple[Any, Any]]:
    raw = bytearray(64)
    base = np.zeros(24, "f4")
    address = base.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return {
        "itself": (base, base),
        "overlapping slices": (base[:16], base[8:]),
        "frombuffer": (np.frombuffer(raw, "f4"), np.frombuffer(raw, "f4")),
        "strides": (base, np.lib.stride_tricks.as_strided(base, (16,), (4,))),
        "DLPack": (base, np.from_dlpack(base)),
        "ctypes": (base, np.ctypeslib.as_array(address, (24,))),
    }


@pytest.mark.parametrize("case", pairs_that_share())
def test_shared_memory_is_refused_however_hidden(case: str) -> None:
    a, b = pairs_that_share()[case]
    with pytest.raises(ValueError, match="share memory"):
        fo.SGD([a, b])
    with pytest.raises(ValueError, match="share memory"):
        fo.SGD([{"params": a}, {"params": b}])
    opt = fo.SGD([a[:16]], lr=1.0)
    with pytest.raises(ValueError, match=r"params\[\"0\"\] and grads\[\"0\"\] share memory"):
        opt.step([b[:16]])
    with pytest.raises(ValueError, match="share memory"):
        fo.clip_grad_value_([a, b], 1.0)
    assert not a.any()


def test_memory_of_torch_is_seen() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.zeros(8)
    with pytest.raises(ValueError, match="share memory"):
        fo.SGD([tensor.numpy(), tensor.numpy()])


def test_state_is_not_a_gradient() -> None:
    opt = fo.Adam(np.ones(4))
    with pytest.raises(ValueError, match=r"exp_avg of \"0\" and grads\[\"0\"\] share memory"):
        opt.step(opt.state["0"]["exp_avg"])


def test_gradients_may_share_memory() -> None:
    g = np.ones(3)
    g.setflags(write=False)
    assert fo.SGD([np.ones(3), np.ones(3)]).step([g, g]).applied


def test_read_only() -> None:
    w, g = np.ones(3), np.ones(3)
    opt = fo.SGD([w])
    w.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        opt.step([g])
    with pytest.raises(ValueError, match="read-only"):
        fo.SGD([w])
    for clip in CLIPPING[:3]:
        with pytest.raises(ValueError, match="read-only"):
            clip([w])


def test_a_parameter_that_changed_is_refused() -> None:
    w = np.ones(4)
    opt = fo.SGD([w])
    w.shape = (2, 2)
    with pytest.raises(ValueError, match="no longer"):
        opt.step([np.ones((2, 2))])
    w.shape = (4,)
    w.resize(1000, refcheck=False)
    with pytest.raises(ValueError, match="params"):
        opt.step([np.ones(1000)])


def test_a_memory_map_works(tmp_path: Path) -> None:
    w = np.memmap(tmp_path / "w", "f4", "w+", shape=(8,))
    fo.SGD(w, lr=1.0).step(np.ones(8, "f4"))
    w.flush()
    assert np.fromfile(tmp_path / "w", "f4").tolist() == [-1] * 8


@pytest.mark.parametrize(
    ("grads", "error"),
    [
        ([np.ones(2)], ValueError),
        ([np.ones(2)] * 3, ValueError),
        ({"a": np.ones(2)}, ValueError),
        ({"a": np.ones(2), "b": np.ones(2), "c": np.ones(2)}, ValueError),
        (None, TypeError),
        ("ab", TypeError),
        (1.0, TypeError),
    ],
)
def test_gradients_in_another_structure(grads: Any, error: type[Exception]) -> None:
    opt = fo.SGD({"a": np.ones(2), "b": np.ones(2)})
    with pytest.raises(error, match="grads"):
        opt.step(grads)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ([], ValueError),
        ({}, ValueError),
        (None, TypeError),
        ("w", TypeError),
        (1.0, TypeError),
        ({1: np.ones(2)}, TypeError),
        ([{"params": np.ones(2), "rate": 1.0}], ValueError),
        ([{"params": {"a": np.ones(2)}}, {"params": {"a": np.ones(2)}}], ValueError),
    ],
)
def test_parameters_that_are_none(params: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        fo.SGD(params)
