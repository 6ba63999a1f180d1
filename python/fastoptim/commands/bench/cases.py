"""A short comparison of steps and a loss with NumPy, PyTorch and optax.

The scripts in ``benches/python`` of the sources cover all kernels, with the same harness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastoptim as fo
from fastoptim import _core
from fastoptim.commands.bench.ceilings import Ceiling, Stream, ceilings
from fastoptim.commands.bench.contestants import (
    LR,
    WEIGHT_DECAY,
    numpy_adamw,
    numpy_loss_of_classes,
    optax_adamw,
    optax_cross_entropy,
    our_adamw,
    our_loss,
    torch_adamw,
    torch_loss,
)
from fastoptim.commands.bench.harness import (
    HAS_OPTAX,
    HAS_TORCH,
    Contestant,
    arrays,
    check,
    duration,
    limit_threads,
    measure,
    print_machine,
    spread,
)
from fastoptim.plot.axes import new_figure

# Below this number of bytes, the overhead of the call dominates.
LEAST_MOVED = 1 << 20


@dataclass
class Work:
    """One case and its contestants: fastoptim first, and the ceilings last."""

    name: str
    # The required memory traffic in bytes: each array once per read and once per write.
    moved: int
    contestants: Mapping[str, Contestant]


@dataclass
class Row:
    """The measurements of one contestant, as medians."""

    work: str
    contestant: str
    seconds: float
    # The interquartile range of the times.
    spread: str
    # The ratio of its time to that of fastoptim.
    ratio: float
    # Bytes per second, and the ratio to the lowest ceiling if there is one.
    speed: float
    share: float | None
    is_ceiling: bool = False


def adamw(size: int) -> Work:
    """Prepare a step on float32 parameters: 4 reads and 3 writes."""
    params, grads = arrays(1, size), arrays(1, size, seed=1)
    found = {"fastoptim": our_adamw(params, grads), "NumPy out=": numpy_adamw(params, grads)}
    if HAS_TORCH:
        found["torch fused"] = torch_adamw(params, grads, fused=True)
        found["torch default"] = torch_adamw(params, grads, fused=None)
    if HAS_OPTAX:
        found["optax jit"] = optax_adamw(params, grads)
    moved = 28 * size
    if moved >= LEAST_MOVED:
        opt = fo.AdamW(np.ones(1, np.float32), lr=LR, weight_decay=WEIGHT_DECAY)
        found |= ceilings(Stream(3, size), opt, size)
    return Work(f"AdamW step, {size:,}", moved, found)


def cross_entropy(rows: int, classes: int) -> Work:
    """Prepare a loss with its gradient in another array: 12 bytes, since writing also reads."""
    (x,) = arrays(1, rows * classes)
    x = x.reshape(rows, classes)
    target = np.random.default_rng(2).integers(0, classes, rows)
    loss = fo.losses.CrossEntropyLoss()
    found = {
        "fastoptim": our_loss(loss, x, target),
        "NumPy out=": numpy_loss_of_classes(x, target),
    }
    if HAS_TORCH:
        found["torch"] = torch_loss("cross_entropy", x, target)
    if HAS_OPTAX:
        found["optax jit"] = optax_cross_entropy(x, target)
    moved = 12 * x.size
    if moved >= LEAST_MOVED:
        found["stream of 12 B"] = Stream(1, x.size)
    return Work(f"cross-entropy, {rows:,} x {classes:,}", moved, found)


def works(*, full: bool) -> Iterator[Callable[[], Work]]:
    """Return the cases, in cache and beyond; each is prepared just before it runs."""
    for size in (1 << 10, 1 << 16, 1 << 20, *((1 << 24,) if full else ())):
        yield partial(adamw, size)
    for rows, classes in ((128, 10), (1024, 1000), *(((8192, 1000),) if full else ())):
        yield partial(cross_entropy, rows, classes)


def measured(work: Work, rounds: int) -> list[Row]:
    """Compare the results of all contestants, then measure them alternately."""
    check(work.name, work.contestants, tolerance=1e-4)
    times = measure(work.contestants.values(), rounds)
    medians = [float(np.median(taken)) for taken in times]
    bounds = [isinstance(contestant, Ceiling) for contestant in work.contestants.values()]
    # The work cannot take less time than any of its ceilings.
    least = max((taken for taken, bound in zip(medians, bounds, strict=True) if bound), default=0.0)
    return [
        Row(
            work.name,
            label,
            taken,
            spread(each),
            float(np.median(each / times[0])),
            work.moved / taken,
            least / taken if least else None,
            bound,
        )
        for label, taken, each, bound in zip(work.contestants, medians, times, bounds, strict=True)
    ]


def table(rows: list[Row]) -> Iterator[str]:
    """Format the measurements of one case as lines."""
    yield (
        f"\n{rows[0].work:30}{'median':>10}{'middle half':>22}{'ratio':>9}{'GB/s':>8}"
        f"{'of ceiling':>12}  {_core.tier()}"
    )
    for row in rows:
        share = "" if row.share is None else f"{row.share:12.0%}"
        yield (
            f"  {row.contestant:28}{duration(row.seconds):>10}{row.spread:>22}{row.ratio:8.2f}x"
            f"{row.speed / 1e9:8.1f}{share}"
        )


def draw(rows: list[Row], path: Path, kind: str = "png") -> None:
    """Plot the times as bars, one panel per case, to a file of this format."""
    names = list(dict.fromkeys(row.work for row in rows))
    columns = (len(names) + 1) // 2
    figure = new_figure(figsize=(4 * columns, 5.5))
    panels: Any = figure.subplots(2, columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        own = [row for row in rows if row.work == name]
        colours = [
            "lightgray" if row.is_ceiling else "C0" if row.contestant == "fastoptim" else "C1"
            for row in own
        ]
        bars = axes.barh([row.contestant for row in own], [row.ratio for row in own], color=colours)
        axes.bar_label(bars, [duration(row.seconds) for row in own], padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.3)
        axes.set(
            title=f"{name} ({_core.tier()})", xlabel="time relative to fastoptim (lower is better)"
        )
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.savefig(path, format=kind, dpi=120)


def run(threads: int, rounds: int, output: Path | None, *, full: bool) -> None:
    """Measure all cases, print the tables, and plot them if ``output`` is given.

    Raises
    ------
    AssertionError
        The result of a contestant differs from that of fastoptim.
    """
    limit_threads(threads)
    print_machine(threads)
    rows: list[Row] = []
    for prepare in works(full=full):
        rows += (found := measured(prepare(), rounds))
        for line in table(found):
            print(line, flush=True)
    if output is not None:
        draw(rows, output)
        print(f"\nbars: {output}")
