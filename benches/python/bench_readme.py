"""The chart of the README: steps and losses against the fastest call of each library.

Draws docs/images/speed.svg, unless --quick.
"""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import bench_clip
import fastoptim as fo
import harness
from fastoptim import _core
from fastoptim.commands.bench.contestants import (
    numpy_adamw,
    numpy_loss_of_classes,
    optax_adamw,
    optax_cross_entropy,
    our_adamw,
    our_loss,
    torch_adamw,
    torch_loss,
)
from fastoptim.commands.bench.harness import check, duration, measure
from fastoptim.commands.machine import processor
from harness import Array, Contestant

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "speed.svg"
# Readable on white and on near black: the contrast of texts with both is at least 4, of bars 3.
TEXT, OURS, OTHERS = "#7a7f87", "#d9480f", "#8a94a6"


@dataclass
class Bar:
    """One library in one case."""

    library: str
    # Median, first and third quartile of the ratios of its times to ours.
    ratios: tuple[float, float, float]
    seconds: float


def step(size: int) -> dict[str, Contestant]:
    params, grads = harness.arrays(1, size), harness.arrays(1, size, seed=1)
    found = {"fastoptim": our_adamw(params, grads)}
    if harness.HAS_TORCH:
        found["PyTorch"] = torch_adamw(params, grads, fused=True)
    if harness.HAS_OPTAX:
        found["optax"] = optax_adamw(params, grads)
    return found | {"NumPy": numpy_adamw(params, grads)}


def clipped_step(size: int) -> dict[str, Contestant]:
    params, grads = harness.arrays(1, size), harness.arrays(1, size, seed=1)
    found = {"fastoptim": bench_clip.our_step(params, grads)}
    if harness.HAS_TORCH:
        found["PyTorch"] = bench_clip.torch_step(params, grads, fused=True)
    if harness.HAS_OPTAX:
        found["optax"] = optax_adamw(params, grads, max_norm=bench_clip.MAX_NORM)
    return found | {"NumPy": bench_clip.numpy_step(params, grads)}


def cross_entropy(rows: int, classes: int) -> dict[str, Contestant]:
    x: Array = harness.arrays(1, rows * classes)[0].reshape(rows, classes)
    target = np.random.default_rng(2).integers(0, classes, rows)
    found = {"fastoptim": our_loss(fo.losses.CrossEntropyLoss(), x, target)}
    if harness.HAS_TORCH:
        found["PyTorch"] = torch_loss("cross_entropy", x, target)
    if harness.HAS_OPTAX:
        found["optax"] = optax_cross_entropy(x, target)
    return found | {"NumPy": numpy_loss_of_classes(x, target)}


def cases(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    """Yield cases in a cache and beyond, among them those that we win by the least."""
    yield "AdamW, 64 Ki parameters", step(asked.size(1 << 16, 1 << 12))
    yield "AdamW, 16 Mi parameters", step(asked.size(1 << 24, 1 << 12))
    yield "Clip by norm, AdamW, 16 Mi", clipped_step(asked.size(1 << 24, 1 << 12))
    yield "Cross-entropy, 65536 x 10", cross_entropy(asked.size(1 << 16, 64), 10)
    yield "Cross-entropy, 8192 x 1000", cross_entropy(asked.size(1 << 13, 16), 1000)


def bars(contestants: dict[str, Contestant], rounds: int) -> list[Bar]:
    times = measure(contestants.values(), rounds)
    found = []
    for library, taken in zip(contestants, times, strict=True):
        low, middle, high = np.percentile(taken / times[0], [25, 50, 75])
        found.append(Bar(library, (middle, low, high), float(np.median(taken))))
    return found


def caption(threads: int) -> str:
    """Say what was measured, where and with which versions."""
    versions = [
        f"{title} {importlib.metadata.version(name).partition('+')[0]}"
        for title, name in (("NumPy", "numpy"), ("PyTorch", "torch"), ("optax", "optax"))
        if name == "numpy" or (harness.HAS_TORCH if name == "torch" else harness.HAS_OPTAX)
    ]
    return (
        f"float32, {threads} threads of {processor()} ({_core.tier()}). {', '.join(versions)},"
        f" Python {platform.python_version()}.\nPyTorch with fused=True, optax under jit, NumPy in"
        " place on one thread. Whiskers: the middle half."
    )


def draw(measured: dict[str, list[Bar]], threads: int, path: Path) -> None:
    """Draw the ratios as bars, transparent and in colours for light and dark pages."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "fastoptim",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": TEXT,
        "axes.edgecolor": TEXT,
        "axes.labelcolor": TEXT,
        "xtick.color": TEXT,
        "ytick.color": TEXT,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(8, 0.26 * sum(map(len, measured.values())) + 2), layout="tight")
        axes = figure.add_subplot()
        place, places, names = 0.0, [], []
        for case, found in measured.items():
            axes.text(0, place, case, fontweight="bold", va="center")
            for bar in found:
                place += 1
                middle, low, high = bar.ratios
                ours = bar is found[0]
                axes.barh(place, middle, 0.75, color=OURS if ours else OTHERS)
                if not ours:
                    axes.plot([low, high], [place, place], color=TEXT, linewidth=1.2)
                label = duration(bar.seconds) if ours else f"{middle:.3g}x"
                axes.annotate(
                    label, (max(middle, high), place), (4, 0), textcoords="offset points",
                    va="center", color=OURS if ours else TEXT,
                )  # fmt: skip
                places.append(place)
                names.append(bar.library)
            place += 1.5
        axes.axvline(1, color=OURS, linewidth=0.8, linestyle=":")
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.margins(x=0.1, y=0.01)
        axes.set_xlim(left=0)
        axes.tick_params(left=False)
        axes.set_xlabel(f"time relative to fastoptim (shorter is faster)\n\n{caption(threads)}")
        axes.spines[["top", "right", "left"]].set_visible(False)
        metadata = {"Date": None, "Creator": None}
        figure.savefig(path, format="svg", transparent=True, metadata=metadata)


def main() -> None:
    asked = harness.options(__doc__ or "")
    measured = {}
    for name, contestants in cases(asked):
        check(name, contestants, tolerance=1e-4)
        measured[name] = bars(contestants, 1 if asked.quick else asked.rounds)
        print(f"{name}: the results of {', '.join(contestants)} agree")
        if not asked.quick:
            for bar in measured[name]:
                middle, low, high = bar.ratios
                print(
                    f"    {bar.library:12} {duration(bar.seconds):>10}"
                    f" {middle:6.2f}x ({low:.2f} to {high:.2f})"
                )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, PICTURE.name) if asked.quick else PICTURE
        draw(measured, asked.threads, path)
        print(f"drew {path.name} in {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
