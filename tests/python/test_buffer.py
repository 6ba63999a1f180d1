"""FlatBuffer: its layout, its mapping, what goes in, and what does not."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastoptim as fo

NAMES = st.text(min_size=1, max_size=3)
SHAPES = st.dictionaries(NAMES, st.lists(st.integers(0, 5), max_size=3).map(tuple), max_size=5)
DTYPES = ["float32", "float64", "float16", "bfloat16"]


@given(shapes=SHAPES, dtype=st.sampled_from(DTYPES))
def test_views_lie_one_after_the_other(shapes: dict[str, tuple[int, ...]], dtype: str) -> None:
    buffer = fo.FlatBuffer(shapes, dtype)
    assert buffer.size == 0 or buffer.flat.__array_interface__["data"][0] % 64 == 0
    assert (buffer.names, dict(buffer.shapes)) == (tuple(shapes), shapes)
    assert list(buffer) == list(shapes)
    assert len(buffer) == len(shapes)
    assert buffer.dtype.name == dtype
    buffer.flat[...] = np.arange(buffer.size) % 100
    parts = [view.ravel() for _, view in buffer.items()]
    whole = np.concatenate(parts) if parts else buffer.flat
    assert np.array_equal(whole, buffer.flat)
    for name, shape in shapes.items():
        start = buffer.offsets[name]
        expected = buffer.flat[start : start + int(np.prod(shape))].reshape(shape)
        assert buffer[name].shape == shape
        assert np.array_equal(buffer[name], expected)
    other = pickle.loads(pickle.dumps(buffer))
    assert np.array_equal(other.flat, buffer.flat)
    assert (other.names, other.dtype) == (buffer.names, buffer.dtype)


def test_views_are_the_memory() -> None:
    buffer = fo.FlatBuffer({"w": (2, 2), "b": 3})
    buffer["w"][0, 1] = 5
    buffer["b"] = [1, 2, 3]
    assert buffer.flat.tolist() == [0, 5, 0, 0, 1, 2, 3]
    assert "w" in buffer
    assert "x" not in buffer
    with pytest.raises(KeyError):
        buffer["x"]
    assert buffer.zeros_like().flat.tolist() == [0] * 7
    assert repr(buffer) == "FlatBuffer({'w': (2, 2), 'b': (3,)}, dtype='float32')"


def test_arrays_of_any_layout_and_real_type_go_in() -> None:
    buffer = fo.FlatBuffer({"w": (2, 3), "b": (2,)})
    w = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    buffer.assign({"b": np.array([7, 8], "i2"), "w": w})
    assert buffer.flat.tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    buffer.assign([w[::-1], [True, False]])
    assert buffer.flat.tolist() == [3, 4, 5, 0, 1, 2, 1, 0]
    buffer.assign({"w": buffer.flat[2:].reshape(2, 3), "b": buffer.flat[:2]})
    assert buffer.flat.tolist() == [5, 0, 1, 2, 1, 0, 3, 4]


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        ({"w": np.ones(2)}, ValueError),
        ({"w": np.ones(2), "b": np.ones(1), "c": np.ones(1)}, ValueError),
        ([np.ones(2)], ValueError),
        ([np.ones(2), np.ones(2)], ValueError),
        ([np.ones(2), np.ones(1, complex)], TypeError),
        ([np.ones(2), np.array(["x"])], TypeError),
        ([np.ones(2), np.array([None])], TypeError),
        ([np.ones(2), np.zeros(1, [("x", "f4")])], TypeError),
    ],
)
def test_all_or_nothing_is_assigned(arrays: Any, error: type[Exception]) -> None:
    buffer = fo.FlatBuffer({"w": (2,), "b": (1,)})
    with pytest.raises(error):
        buffer.assign(arrays)
    assert buffer.flat.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("shapes", "dtype", "error"),
    [
        ({1: (2,)}, "float32", TypeError),
        ({"w": (-1,)}, "float32", ValueError),
        ({"w": (2.5,)}, "float32", TypeError),
        ({"w": (2,)}, "int32", TypeError),
        ({"w": (2,)}, "complex64", TypeError),
        ({"w": (2,)}, ">f4", TypeError),
    ],
)
def test_what_is_no_buffer(shapes: Any, dtype: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        fo.FlatBuffer(shapes, dtype)


def test_mixed_types_are_refused() -> None:
    with pytest.raises(TypeError, match="one dtype"):
        fo.FlatBuffer.from_arrays({"a": np.ones(1, "f4"), "b": np.ones(1)})
    assert fo.FlatBuffer.from_arrays({"a": np.ones(2)}).dtype == np.float64


def test_copied_together_buffer_and_optimizer_stay_tied() -> None:
    params = fo.FlatBuffer({"w": (3,)})
    opt = fo.SGD(params, lr=1.0)
    params2, opt2 = copy.deepcopy((params, opt))
    params3, opt3 = pickle.loads(pickle.dumps((params, opt)))
    alone = copy.deepcopy(opt)
    for other in (opt2, opt3, alone):
        other.step(np.ones(3, "f4"))
    assert params.flat.tolist() == [0, 0, 0]
    assert params2.flat.tolist() == params3.flat.tolist() == [-1, -1, -1]
    assert alone.param_groups[0]["params"][0].tolist() == [-1, -1, -1]
