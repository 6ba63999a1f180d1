"""Presets: their values, and a training step of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastoptim as fo

PRESETS: dict[str, tuple[fo.presets.Preset, type, float, float | None]] = {
    "sgd": (fo.presets.image_classification(200), fo.SGD, 0.1, None),
    "adamw": (fo.presets.image_classification(200, "adamw"), fo.AdamW, 1e-3, None),
    "nlp": (fo.presets.nlp(200), fo.AdamW, 2e-4, 1.0),
    "nlp, small": (fo.presets.nlp(200, lr=3e-4), fo.AdamW, 3e-4, 1.0),
    "recurrent": (fo.presets.recurrent(200, max_norm=5), fo.Adam, 1e-3, 5.0),
    "gan": (fo.presets.gan(), fo.Adam, 2e-4, None),
    "reinforcement": (fo.presets.reinforcement_learning(), fo.Adam, 3e-4, None),
    "256": (fo.presets.for_batch_size(256, 200), fo.AdamW, 2.5e-4, None),
    "1023": (fo.presets.for_batch_size(1023, 200), fo.AdamW, 2.5e-4 * 1023 / 256, None),
    "1024": (fo.presets.for_batch_size(1024, 200), fo.AdamW, 1e-3, None),
    "8192": (fo.presets.for_batch_size(8192, 200), fo.LARS, 3.2, None),
    "32768": (fo.presets.for_batch_size(32_768, 200), fo.LAMB, 5e-3, None),
}


@pytest.mark.parametrize("name", PRESETS)
def test_it_is_ready_to_use(name: str) -> None:
    preset, optimizer, highest, max_norm = PRESETS[name]
    assert preset.optimizer is optimizer
    assert preset.max_norm == max_norm
    assert max(preset.schedule(np.arange(200))) == pytest.approx(highest, rel=1e-12)
    w = np.full((4, 3), 2.0)
    opt: Any = preset.optimizer
    opt = opt([w], **{**preset.arguments, "lr": preset.schedule})
    before = float(np.sum(w**2))
    for _ in range(200):
        opt.step([2 * w], max_norm=preset.max_norm)
    assert float(np.sum(w**2)) < before


def test_warm_up_comes_with_size() -> None:
    assert fo.presets.for_batch_size(1023, 200).schedule(0) > 0
    for n in (1024, 8192, 32_768):
        assert fo.presets.for_batch_size(n, 200).schedule(0) == 0
    assert fo.presets.gan().arguments == {"betas": (0.5, 0.999)}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: fo.presets.image_classification(0), ValueError),
        (lambda: fo.presets.image_classification("ten"), TypeError),  # type: ignore[arg-type]
        (lambda: fo.presets.image_classification(10, "lion"), ValueError),  # type: ignore[arg-type]
        (lambda: fo.presets.nlp(5), ValueError),
        (lambda: fo.presets.nlp(100, lr=1e-2), ValueError),
        (lambda: fo.presets.recurrent(10, max_norm=0.1), ValueError),
        (lambda: fo.presets.for_batch_size(0, 100), ValueError),
        (lambda: fo.presets.for_batch_size(10, 5), ValueError),
    ],
)
def test_out_of_range(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call()
