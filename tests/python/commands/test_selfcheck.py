"""The fixed runs cover all optimizers and losses, with inputs independent of libraries."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastoptim as fo
from cases import OPTIMIZERS
from fastoptim.commands.selfcheck import hashes


def test_the_integers_are_those_of_the_paper() -> None:
    def split_mix(state: int) -> int:
        z = state * 0x9E3779B97F4A7C15 % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    # The first outputs of the reference implementation with state 0.
    assert split_mix(1) == 0xE220A8397B1DCDAF
    for seed in (0, 1, 9):
        wanted = [split_mix(i + 1 + (seed << 32)) for i in range(50)]
        assert hashes.integers(50, seed).tolist() == wanted


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        (hashes.unit, 0, 1),
        (hashes.real, -4, 4),
        (hashes.above, 1, 3),
        (hashes.bits, 0, 1.1),
        (hashes.signs, -1, 1.1),
    ],
)
def test_the_numbers_are_the_same_in_both_types(kind: hashes.Kind, low: float, high: float) -> None:
    single, double = (kind((40, 50), 3, dtype) for dtype in ("float32", "float64"))
    assert (single.dtype, double.dtype) == (np.dtype("f4"), np.dtype("f8"))
    assert np.array_equal(single, double)
    assert low <= single.min() < single.max() < high


def test_every_optimizer_and_loss_is_run_and_published() -> None:
    names = {name for name, _ in hashes.runs()}
    classes = {name.split()[0] for name in names}
    losses = {
        name
        for name in fo.losses.__all__
        if isinstance(cls := getattr(fo.losses, name), type) and issubclass(cls, fo.losses.Loss)
    }
    assert classes >= losses - {"Loss"}
    assert classes >= {cls.__name__ for cls in OPTIMIZERS}
    published = json.loads(hashes.PUBLISHED.read_text())
    wanted = {f"{name}, {dtype}" for name in names for dtype in ("float32", "float64")}
    assert set(published) == wanted, (
        "python -m fastoptim.commands.selfcheck.hashes > selfcheck.json"
    )


def test_a_hash_detects_one_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones(1000)
    monkeypatch.setattr(hashes, "runs", lambda: iter([("ones", lambda _: iter([2.0, x]))]))
    before = hashes.hashes()
    assert set(before) == {"ones, float32", "ones, float64"}
    assert hashes.hashes() == before
    x[17] = np.nextafter(1, 2)
    assert hashes.hashes()["ones, float32"] != before["ones, float32"]
