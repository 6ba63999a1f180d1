"""Random search: reproducible, never worse, and robust against invalid arguments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

SEARCHES = [fo.RandomSearch, fo.RandomLocalSearch]


@pytest.mark.parametrize("cls", SEARCHES)
def test_the_parameters_are_the_best_point_so_far(cls: Any) -> None:
    w = np.array([0.5, -0.25])
    search = cls({"w": w}, scale=0.3, seed=3)
    best = float(w @ w)
    for _ in range(100):
        found = search.step(lambda params: float(params["w"] @ params["w"]))
        assert found <= best
        assert found == float(w @ w)
        best = found
    assert best < 0.02
    assert search.best == best


@pytest.mark.parametrize("cls", SEARCHES)
def test_draws_depend_on_the_seed_and_not_on_threads(cls: Any) -> None:
    def run(seed: int, threads: int) -> Any:
        params = fo.FlatBuffer({"a": (150_000,), "b": (3, 5)})
        search = cls(params, scale=1.0, seed=seed)
        with fo.num_threads(threads):
            for _ in range(3):
                search.step(lambda p: -float(np.abs(p.flat).sum()))
        return params.flat

    first = run(7, 1)
    assert first.any()
    assert all(np.array_equal(run(7, threads), first) for threads in (2, 3))
    assert not np.array_equal(run(8, 1), first)


def test_arrays_have_different_random_numbers() -> None:
    params = [np.zeros(1000), np.zeros(1000)]
    fo.RandomSearch(params, scale=1.0).step(lambda p: -float(np.abs(p[0]).sum()))
    assert abs(float(params[0] @ params[1]) / 1000) < 0.1
    assert np.std(params) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("cls", SEARCHES)
def test_nan_is_never_better_and_errors_restore(cls: Any) -> None:
    w = np.array([1.0])
    search = cls(w)
    assert search.step(lambda _: math.nan) == math.inf
    assert w[0] == 1.0
    assert search.step(lambda _: 2.0) == 2.0
    before = w.copy()

    def fail(_: Any) -> float:
        raise KeyError("objective")

    with pytest.raises(KeyError):
        search.step(fail)
    assert np.array_equal(w, before)
    assert (search.best, search.steps) == (2.0, 2)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"scale": -1.0}, ValueError),
        ({"scale": math.nan}, ValueError),
        ({"seed": -1}, ValueError),
        ({"seed": 1.5}, TypeError),
        ({"seed": True}, TypeError),
        ({"seed": 2**64}, ValueError),
        ({"scale": "1"}, TypeError),
        ({"params": []}, ValueError),
        ({"params": [np.ones(2, "i4")]}, TypeError),
        ({"params": [np.ones((4, 4))[:, ::2]]}, ValueError),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        fo.RandomSearch(**{"params": np.ones(2), **arguments})


@pytest.mark.parametrize("cls", SEARCHES)
def test_integers_of_any_type_are_seeds(cls: Any) -> None:
    assert cls(np.ones(2), seed=np.int64(3)).seed == 3
    assert cls(np.ones(2), seed=2**64 - 1).seed == 2**64 - 1


@pytest.mark.parametrize("cls", SEARCHES)
def test_attributes_that_are_set_later_are_checked(cls: Any) -> None:
    search = cls(np.ones(2), scale=0.5)
    for name, value, error in [
        ("scale", -1.0, ValueError),
        ("scale", "1", TypeError),
        ("seed", -1, ValueError),
    ]:
        with pytest.raises(error, match=name):
            setattr(search, name, value)
    assert (search.scale, search.seed) == (0.5, 0)
