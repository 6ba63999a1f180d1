"""Minibatches: every index once, shuffled, and reproducible by seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastoptim as fo


@pytest.mark.parametrize("n", [0, 1, 7, 12, 1000])
@pytest.mark.parametrize("batch_size", [1, 4, 12, 5000])
@pytest.mark.parametrize("drop_last", [False, True])
def test_each_index_once_and_as_many_batches_as_said(
    n: int, batch_size: int, drop_last: bool
) -> None:
    batches = fo.minibatches(n, batch_size, drop_last=drop_last)
    count = len(batches)
    given = list(batches)
    assert len(given) == count == (n // batch_size if drop_last else -(-n // batch_size))
    assert all(rows.dtype == np.int64 for rows in given)
    assert all(len(rows) == batch_size for rows in given[: n // batch_size])
    indices = np.concatenate([*given, np.empty(0, np.int64)])
    assert len(set(indices.tolist())) == len(indices)
    assert set(indices.tolist()) <= set(range(n))
    assert len(indices) == (count * batch_size if drop_last else n)
    assert list(batches) == [], "one pass"
    assert len(batches) == count


def test_the_seed_decides() -> None:
    def order(seed: int) -> Any:
        return np.concatenate(list(fo.minibatches(1000, 64, seed=seed)))

    assert np.array_equal(order(3), order(3))
    orders = np.array([order(seed) for seed in range(400)])
    # Each index has mean position 499.5 with a standard deviation of 289 / 20 over 400 orders.
    assert np.abs(np.argsort(orders).mean(axis=0) - 499.5).max() < 5 * 14.5
    assert len({tuple(row) for row in orders}) == 400


def test_the_order_for_a_seed_is_fixed() -> None:
    (rows,) = fo.minibatches(10, 10)
    assert rows.tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ((-1, 4), ValueError, "n "),
        ((10, 0), ValueError, "batch_size"),
        ((10, 4, -1), ValueError, "seed"),
        ((10.0, 4), TypeError, "n "),
        ((10, "4"), TypeError, "batch_size"),
        ((10, 4, None), TypeError, "seed"),
        ((10, 4, 0, "no"), TypeError, "drop_last"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        fo.minibatches(*arguments)
