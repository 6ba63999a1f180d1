"""Parameters and gradients in any ordered iterable, matched by name if there are names."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

FORMS: dict[str, Any] = {
    "list": list,
    "values": lambda arrays: dict(zip("xyz", arrays, strict=False)).values(),
    "deque": deque,
    "generator": lambda arrays: (array for array in arrays),
    "reversed": lambda arrays: reversed(list(reversed(arrays))),
}


def two() -> list[Any]:
    return [np.array([3.0, 4.0]), np.array([12.0])]


@pytest.mark.parametrize("form", FORMS)
def test_any_ordered_iterable_is_accepted(form: str) -> None:
    as_given, (w, b) = FORMS[form], two()
    opt = fo.SGD(as_given([w, b]), lr=1.0)
    assert [*opt.state] == ["0", "1"]
    opt.step(as_given(two()))
    assert (w.tolist(), b.tolist()) == ([0.0, 0.0], [0.0])
    grads = two()
    opt.zero_grad(as_given(grads))
    assert not any(g.any() for g in grads)
    groups = [{"params": as_given([w])}, {"params": as_given([b]), "lr": 0.5}]
    assert [g["lr"] for g in fo.SGD(as_given(groups), lr=1.0).param_groups] == [1.0, 0.5]
    assert fo.get_total_norm(as_given(two())) == 13.0
    grads = two()
    assert fo.clip_grad_norm_(as_given(grads), 6.5) == 13.0
    np.testing.assert_allclose(grads[1], 6.0)
    fo.clip_grad_value_(as_given(grads), 1.0)
    assert grads[1].tolist() == [1.0]
    ema = fo.EMA(as_given(two()), decay=0.0)
    ema.update(as_given([w, b]))
    assert not ema.shadow.flat.any()
    ema.update(as_given([{"params": [w + 1.0]}, {"params": [b + 1.0]}]))
    assert ema.shadow.flat.tolist() == [1.0] * 3
    accumulator = fo.GradAccumulator(as_given(two()))
    accumulator.add(as_given(two()), 2)
    assert accumulator.grads["1"].tolist() == [12.0]
    assert fo.regularizers.L2(1.0).value(as_given(two())) == 169.0
    scaler, sam = fo.amp.GradScaler(2.0), fo.SAM(fo.SGD(as_given(two()), lr=0.0))
    sam.first_step(as_given(two()))
    assert scaler.step(sam, as_given(two())).applied
    opt = fo.SGD(as_given(two()))
    scaler.unscale_(opt, as_given(two()))
    assert scaler.step(opt, as_given(two())).applied


@pytest.mark.parametrize("wrong", [set(), {"a": 1}.keys(), frozenset([1]), "ab", b"ab", 3, None])
def test_unordered_arguments_are_refused(wrong: Any) -> None:
    w = np.ones(2)
    opt = fo.SGD(w)
    calls: dict[str, Any] = {
        "params": [lambda: fo.SGD(wrong), lambda: fo.EMA(wrong), lambda: fo.GradAccumulator(wrong)],
        "grads": [
            lambda: opt.step(wrong),
            lambda: opt.zero_grad(wrong),
            lambda: fo.GradAccumulator(w).add(wrong, 1),
            lambda: fo.get_total_norm(wrong),
            lambda: fo.clip_grad_norm_(wrong, 1.0),
        ],
    }
    for name, each in calls.items():
        for call in each:
            with pytest.raises(TypeError, match=name):
                call()
    assert w.tolist() == [1.0, 1.0]


def test_infinite_iterators_of_gradients_are_refused() -> None:
    w = np.ones(2)
    endless = itertools.repeat(np.ones(2))
    with pytest.raises(ValueError, match="grads has 2 arrays for 1 parameters"):
        fo.SGD([w]).step(endless)
    with pytest.raises(ValueError, match="grads has 2 arrays for 1 parameters"):
        fo.GradAccumulator([w]).add(endless, 1)


def test_a_buffer_in_another_order_is_matched_by_name() -> None:
    params = fo.FlatBuffer({"a": (2,), "b": (2,)}, "f8")
    grads = fo.FlatBuffer.from_arrays({"b": np.full(2, 2.0), "a": np.full(2, 1.0)})
    fo.SGD(params, lr=1.0).step(grads)
    assert params.flat.tolist() == [-1.0, -1.0, -2.0, -2.0]
    fo.SGD(params, lr=1.0).zero_grad(grads)
    assert not grads.flat.any()


def test_directions_of_other_names_are_refused() -> None:
    point, other = [np.zeros(2), np.ones(2)], {"1": np.full(2, 5.0), "0": np.full(2, 3.0)}
    found = fo.landscape.difference(point, other)
    assert found.flat.tolist() == [3.0, 3.0, 4.0, 4.0]
    with pytest.raises(ValueError, match=r"other: missing names \['0', '1'\]"):
        fo.landscape.difference(point, {"a": np.ones(2), "b": np.ones(2)})
