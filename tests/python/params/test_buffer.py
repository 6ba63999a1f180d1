"""FlatBuffer: layout, assignment, copies, invalid input."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import fastoptim as fo
from snapshot import snapshot

DTYPES = [
    "float32",
    "float64",
    "float16",
    "bfloat16",
    np.float32,
    np.dtype("f8"),
    ml_dtypes.bfloat16,
]
SHAPES = {"w": (10, 3073), "b": (10,), "scalar": (), "none": (0, 4), "last": (2, 3)}


def filled(dtype: Any = "float32") -> fo.FlatBuffer:
    buffer = fo.FlatBuffer({"w": (3, 3), "b": (3,)}, dtype)
    buffer.flat[...] = np.arange(12)
    return buffer


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layout(dtype: Any) -> None:
    buffer = fo.FlatBuffer(SHAPES, dtype=dtype)
    assert isinstance(buffer, Mapping)
    assert buffer.names == tuple(buffer) == tuple(SHAPES)
    assert buffer.shapes == SHAPES
    assert buffer.offsets == {"w": 0, "b": 30730, "scalar": 30740, "none": 30741, "last": 30741}
    assert buffer.size == buffer.flat.size == 30747
    assert len(buffer) == len(SHAPES)
    assert buffer.dtype == buffer.flat.dtype
    assert buffer.dtype == (ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    assert not buffer.flat.any()
    assert "b" in buffer
    assert "c" not in buffer
    assert list(buffer.items())[1][1].shape == (10,)
    assert repr(SHAPES) in repr(buffer)


@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=4).map(tuple), max_size=6),
    dtype=st.sampled_from(["float32", "float64", "float16", "bfloat16"]),
)
def test_flat_is_the_concatenation(shapes: list[tuple[int, ...]], dtype: str) -> None:
    buffer = fo.FlatBuffer({str(i): shape for i, shape in enumerate(shapes)}, dtype)
    buffer.flat[...] = np.arange(buffer.size)
    joined = np.concatenate([np.zeros(0, buffer.dtype), *(v.ravel() for v in buffer.values())])
    assert joined.tobytes() == buffer.flat.tobytes()
    assert buffer.size == sum(map(math.prod, shapes))
    for flat in buffer.flat, buffer.zeros_like().flat, copy.deepcopy(buffer).flat:
        assert flat.__array_interface__["data"][0] % 64 == 0 or flat.size == 0
    for view in buffer.views:
        assert view.size == 0 or np.shares_memory(view, buffer.flat)
        assert view.flags.c_contiguous
        assert view.flags.aligned
    again = fo.FlatBuffer.from_arrays(buffer)
    assert snapshot(again) == snapshot(buffer)


def test_a_shape_may_be_an_integer() -> None:
    assert fo.FlatBuffer({"a": 3, "b": np.int64(2), "c": [1, 2]}).shapes == {
        "a": (3,),
        "b": (2,),
        "c": (1, 2),
    }


def test_items_are_views_and_setting_copies_in() -> None:
    buffer = filled()
    view, address = buffer["b"], buffer.flat.__array_interface__["data"][0]
    buffer["b"] = [7, 8, 9]
    assert view.tolist() == buffer.flat[9:].tolist() == [7, 8, 9]
    view[0] = -1
    assert buffer.flat[9] == -1
    buffer["w"] = buffer["w"].T
    assert buffer["w"].tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    buffer["b"] = 0
    assert not view.any()
    assert buffer.flat.__array_interface__["data"][0] == address


def test_from_arrays_copies_and_keeps_the_dtype() -> None:
    for dtype in "f4", "f8", "f2", ml_dtypes.bfloat16:
        w = np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype))
        buffer = fo.FlatBuffer.from_arrays({"w": w, "b": w[0]})
        assert buffer.dtype == dtype
        assert buffer.flat.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
        assert not np.shares_memory(buffer.flat, w)
    assert fo.FlatBuffer.from_arrays({"w": [1.0, 2.0]}).dtype == "float64"
    assert fo.FlatBuffer.from_arrays({}).size == 0


@pytest.mark.parametrize("value", [np.ones((2, 3)), np.ones(3), [1.0, 2.0], [[1, 2], [3, 4]]])
def test_arrays_instead_of_shapes_are_refused_with_the_remedy(value: Any) -> None:
    with pytest.raises(TypeError, match=r"shape of 'w' must be .*FlatBuffer\.from_arrays"):
        fo.FlatBuffer({"w": value})


@pytest.mark.parametrize("dtype", ["x", 3, None, [1], np.int8, "complex64", ">f4"])
def test_another_dtype_is_refused_with_the_supported_ones(dtype: Any) -> None:
    with pytest.raises(TypeError, match="dtype must be float32, float64, float16 or bfloat16"):
        fo.FlatBuffer({"w": 3}, dtype)


def test_a_ragged_list_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="'w' must be an array"):
        fo.FlatBuffer.from_arrays({"w": [[1.0], [1.0, 2.0]]})


def test_zeros_like_has_the_same_layout() -> None:
    buffer = filled("float64")
    other = buffer.zeros_like()
    assert (other.shapes, other.offsets, other.dtype) == (
        buffer.shapes,
        buffer.offsets,
        buffer.dtype,
    )
    other.flat[...] = 5
    assert buffer.flat.tolist() == list(range(12))


W = np.arange(9.0).reshape(3, 3)


@pytest.mark.parametrize(
    "w",
    [
        W,
        np.asfortranarray(W),
        W[::-1][::-1],
        W.astype(">f8"),
        W.astype("i4"),
        W.astype(bool),
        W.astype("f2"),
        W.astype(ml_dtypes.bfloat16),
        W.astype(np.longdouble),
        W.tolist(),
        np.broadcast_to(3.0, (3, 3)),
        np.frombuffer(b"0" + W.tobytes(), "u1")[1:].view("f8").reshape(3, 3),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES[:4])
def test_assign_takes_any_layout_and_real_dtype(w: Any, dtype: str) -> None:
    b = np.array([1, 2, 3])
    forms: list[Any] = [{"b": b, "w": w}, [w, b], (w, b)]
    for form in forms:
        buffer = fo.FlatBuffer({"w": (3, 3), "b": (3,)}, dtype)
        buffer.assign(form)
        assert buffer["w"].tolist() == np.asarray(w).astype(buffer.dtype).tolist()
        assert buffer["b"].tolist() == [1, 2, 3]


def test_assign_accepts_arrays_that_overlap_the_buffer() -> None:
    buffer = fo.FlatBuffer({"a": 3, "b": 3, "c": 3}, "float64")
    buffer.flat[...] = np.arange(9)
    buffer.assign({"a": buffer["b"], "b": buffer["a"], "c": buffer.flat[5:8]})
    assert buffer.flat.tolist() == [3, 4, 5, 0, 1, 2, 5, 6, 7]
    buffer.assign([buffer.flat[::3], as_strided(buffer.flat, (3,), (0,)), buffer.flat[8:5:-1]])
    assert buffer.flat.tolist() == [3, 0, 5, 3, 3, 3, 7, 6, 5]
    buffer.assign(buffer)
    assert buffer.flat.tolist() == [3, 0, 5, 3, 3, 3, 7, 6, 5]


def test_assigned_values_that_are_too_large_become_infinite() -> None:
    buffer = filled()
    buffer.assign([np.full((3, 3), -1e300), [1e300, 1, np.nan]])
    assert np.array_equal(buffer["w"], np.full((3, 3), -np.inf))
    assert np.array_equal(buffer["b"], [np.inf, 1, np.nan], equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES[:4])
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(how: Any, dtype: str) -> None:
    buffer = filled(dtype)
    other = how(buffer)
    assert snapshot(other) == snapshot(buffer)
    assert (other.offsets, other.dtype) == (buffer.offsets, buffer.dtype)
    other["b"] = 50
    assert np.array_equal(other["b"], other.flat[9:])
    assert buffer.flat[9] == 9


@pytest.mark.parametrize("form", [lambda x: x, lambda x: [{"params": x}]])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_with_an_optimizer(optimizer: Any, how: Any, form: Any) -> None:
    if optimizer is fo.Muon:
        pytest.skip("supports only matrices")
    buffer = filled()
    opt = optimizer(form(buffer), lr=0.1)
    grads = buffer.zeros_like()
    grads.flat[...] = 1
    together, tied = how((buffer, opt))
    tied.step(grads)
    opt.step(grads)
    assert snapshot(together) == snapshot(buffer) != snapshot(filled())
    before, alone = snapshot(buffer), how(opt)
    alone.step(grads)
    assert snapshot(buffer) == before


def test_a_buffer_is_equal_only_to_itself() -> None:
    a, b = filled(), filled()
    assert a != b
    assert {a: 1, b: 2}[a] == 1


class Subclass(np.ndarray):
    pass


BAD_ARRAYS: dict[str, tuple[Any, type[Exception]]] = {
    "complex": (np.ones(3, "c8"), TypeError),
    "object": (np.ones(3, object), TypeError),
    "structured": (np.ones(3, [("x", "f4")]), TypeError),
    "void": (np.zeros(3, "V4"), TypeError),
    "string": (["1", "2", "3"], TypeError),
    "date": (np.zeros(3, "M8[s]"), TypeError),
    "None": (None, TypeError),
    "masked": (np.ma.ones(3), TypeError),
    "subclass": (np.ones(3).view(Subclass), TypeError),
    "shape": (np.ones(4), ValueError),
    "dimension": (np.ones((2, 3)), ValueError),
    "ragged": ([1, [2, 3], 4], ValueError),
}


@pytest.mark.parametrize(("bad", "error"), BAD_ARRAYS.values(), ids=list(BAD_ARRAYS))
def test_bad_arrays_change_nothing(bad: Any, error: type[Exception]) -> None:
    buffer, w = filled(), np.full((3, 3), 5.0)
    before = snapshot(buffer)
    for arrays in {"w": w, "b": bad}, [w, bad]:
        with pytest.raises(error):
            buffer.assign(arrays)
    with pytest.raises(error):
        buffer["b"] = bad
    assert snapshot(buffer) == before


BAD_FORMS: dict[str, tuple[Any, type[Exception]]] = {
    "missing": ({"w": W}, ValueError),
    "extra": ({"w": W, "b": [1, 2, 3], "c": W}, ValueError),
    "too few": ([W], ValueError),
    "too many": ([W, [1, 2, 3], W], ValueError),
    "number": (1.0, TypeError),
    "string": ("wb", TypeError),
    "None": (None, TypeError),
}


@pytest.mark.parametrize(("bad", "error"), BAD_FORMS.values(), ids=list(BAD_FORMS))
def test_bad_forms_change_nothing(bad: Any, error: type[Exception]) -> None:
    buffer = filled()
    before = snapshot(buffer)
    with pytest.raises(error, match="arrays"):
        buffer.assign(bad)
    assert snapshot(buffer) == before


@pytest.mark.parametrize("part", ["w", "b"])
def test_a_read_only_part_refuses_the_whole(part: str) -> None:
    buffer = filled()
    before = snapshot(buffer)
    buffer[part].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        buffer.assign([W + 1, [1, 2, 3]])
    assert snapshot(buffer) == before


@pytest.mark.parametrize(
    ("shapes", "dtype", "error"),
    [
        ([("w", (2,))], "float32", TypeError),
        (3, "float32", TypeError),
        ({1: (2,)}, "float32", TypeError),
        ({"w": 1.5}, "float32", TypeError),
        ({"w": (1.5, 2)}, "float32", TypeError),
        ({"w": None}, "float32", TypeError),
        ({"w": "ab"}, "float32", TypeError),
        ({"w": -1}, "float32", ValueError),
        ({"w": (2, -1)}, "float32", ValueError),
        *(({"w": 2}, dtype, TypeError) for dtype in ["int32", "?", "c8", "O", "g", "S3", "x"]),
        *(({"w": 2}, dtype, TypeError) for dtype in [">f4", ">f8", ">f2", [("x", "f4")]]),
    ],
)
def test_bad_layouts(shapes: Any, dtype: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        fo.FlatBuffer(shapes, dtype)


@pytest.mark.parametrize(
    "arrays",
    [
        {"w": np.ones(2), "b": np.ones(2, "f4")},
        {"w": np.ones(2, int)},
        {"w": np.ones(2, ">f4")},
        {"w": np.ma.ones(2)},
        {1: np.ones(2)},
        [np.ones(2)],
        None,
    ],
)
def test_bad_arrays_for_a_new_buffer(arrays: Any) -> None:
    with pytest.raises(TypeError):
        fo.FlatBuffer.from_arrays(arrays)


def test_the_layout_cannot_be_changed() -> None:
    buffer: Any = filled()
    for layout in buffer.shapes, buffer.offsets:
        with pytest.raises(TypeError):
            layout["w"] = 7
    for name in "flat", "names", "shapes", "offsets", "size", "dtype", "other":
        with pytest.raises(AttributeError):
            setattr(buffer, name, None)
    with pytest.raises(KeyError):
        buffer["c"]
    with pytest.raises(KeyError):
        buffer["c"] = 1
    with pytest.raises(AttributeError):
        del buffer["w"]
