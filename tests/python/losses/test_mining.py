"""The choice of triplets compared with its definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim.losses import mine_triplets


def by_definition(x: Any, labels: Any, kind: str, margin: float) -> list[Any]:
    x = x.astype(np.float64)
    d = np.sqrt(((x[:, None] - x[None]) ** 2).sum(2))
    found: list[Any] = []
    for a in range(len(x)):
        others = labels != labels[a]
        positives = [p for p in np.flatnonzero(~others) if p != a]
        negatives = np.flatnonzero(others)
        if kind == "all":
            found += [(a, p, n) for p in positives for n in negatives]
        elif kind == "hard" and positives and len(negatives):
            # The first of equal values, as for argmax and argmin.
            p, n = positives[np.argmax(d[a, positives])], negatives[np.argmin(d[a, negatives])]
            found.append((a, p, n))
        elif kind == "semihard":
            for p in positives:
                good = negatives[(d[a, negatives] > d[a, p]) & (d[a, negatives] < d[a, p] + margin)]
                if len(good):
                    found.append((a, p, good[np.argmin(d[a, good])]))
    return found


@pytest.mark.parametrize("kind", ["semihard", "hard", "all"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (6, 1), (33, 5), (101, 20)])
def test_against_the_definitions(kind: Any, dtype: Any, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape)
    x = rng.standard_normal(shape).astype(dtype)
    for labels in rng.integers(0, 4, shape[0]), np.zeros(shape[0], np.int32), np.arange(shape[0]):
        for threads in 1, 3:
            with fo.num_threads(threads):
                found = mine_triplets(x, labels, kind=kind, margin=0.3)
            assert all(rows.dtype == np.int64 for rows in found)
            expected = by_definition(x, labels, kind, 0.3)
            assert list(zip(*found, strict=True)) == expected


def test_mined_triplets_feed_the_loss() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((60, 8)), rng.integers(0, 5, 60)
    a, p, n = mine_triplets(x, labels, margin=0.5)
    loss = fo.losses.TripletMarginLoss(margin=0.5, eps=0.0, reduction="none")
    values = np.asarray(loss(x[a], x[p], x[n]))
    # Semi-hard: the positive is closer, by less than the margin.
    assert len(values) > 50
    assert ((values > 0) & (values < 0.5)).all()


X, Y = np.ones((4, 3)), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, "kind", {"kind": "soft"}),
        (ValueError, "margin", {"margin": 0.0}),
        (ValueError, "margin", {"margin": np.nan}),
        (ValueError, "embeddings", {"embeddings": X[0]}),
        (ValueError, "embeddings", {"embeddings": X.T}),
        (TypeError, "embeddings", {"embeddings": X.astype(int)}),
        (TypeError, "embeddings", {"embeddings": X.tolist()}),
        (ValueError, "labels", {"labels": Y[:3]}),
        (ValueError, "labels", {"labels": Y[:, None]}),
        (TypeError, "labels", {"labels": Y.astype(float)}),
        (TypeError, "labels", {"labels": Y.astype(bool)}),
    ],
)
def test_bad_arguments(error: Any, match: str, arguments: Any) -> None:
    with pytest.raises(error, match=match):
        mine_triplets(**{"embeddings": X, "labels": Y, **arguments})
