"""Plots of these pages, rendered from the code: `python docs/pictures.py [FOLDER]`.

The plots of the examples, which take minutes each, are not rendered again: those that are in
`examples/output` are reduced to the size of the pages.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import fastoptim as fo

STEPS = 200
EXAMPLES = Path(__file__).parents[1] / "examples/output"


class Groups:
    """The minimal optimizer for a scheduler."""

    def __init__(self) -> None:
        self.param_groups: list[dict[str, Any]] = [{"lr": 1.0}]


def all_schedules() -> dict[str, Any]:
    s, lr = fo.schedules, fo.lr_scheduler
    falling = s.exponential(1.0, 0.98)
    return {
        "constant": s.constant(1.0),
        "step": s.step(1.0, 50, 0.5),
        "multistep": s.multistep(1.0, [60, 120, 150], 0.4),
        "exponential": falling,
        "linear": s.linear(1.0, 1.0, 0.1, 150),
        "polynomial": s.polynomial(1.0, 180, 2),
        "inverse_sqrt": s.inverse_sqrt(1.0, 20),
        "cosine": s.cosine(1.0, 180, 0.05),
        "cosine_restarts": s.cosine_restarts(1.0, 25, 2),
        "one_cycle": s.one_cycle(1.0, STEPS),
        "cyclic, triangular": s.cyclic(0.1, 1.0, 25),
        "cyclic, triangular2": s.cyclic(0.1, 1.0, 25, mode="triangular2"),
        "cyclic, exp_range": s.cyclic(0.1, 1.0, 25, mode="exp_range", gamma=0.99),
        "wsd": s.wsd(1.0, 20, 110, 60, decay="sqrt"),
        "warmup(cosine)": s.warmup(s.cosine(1.0, 160), 40),
        "join": s.join([s.linear(1.0, 0.2, 1.0, 50), s.step(1.0, 30, 0.6)], [80]),
        "LambdaLR": lr.LambdaLR(Groups(), lambda t: 1 / (1 + t / 30)),
        "MultiplicativeLR": lr.MultiplicativeLR(Groups(), lambda t: 0.97 if t < 100 else 1.0),
        "ConstantLR": lr.ConstantLR(Groups(), 0.3, 60),
        "ReduceLROnPlateau": lr.ReduceLROnPlateau(Groups(), factor=0.5, patience=20),
    }


def draw_schedules(path: Path) -> None:
    from matplotlib.figure import Figure

    curves = all_schedules()
    metrics = [max(0.97**t, 0.1) for t in range(STEPS)]
    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(5, 4, sharex=True, sharey=True)
    for (name, curve), axes in zip(curves.items(), panels.flat, strict=True):
        fo.plot.schedule(curve, STEPS, metrics, ax=axes)
        axes.set(title=name, xlabel="", ylabel="")
    figure.supxlabel("step")
    figure.supylabel("rate")
    figure.savefig(path, dpi=70)


def reduce_examples(folder: Path) -> None:
    from PIL import Image

    for path in sorted(EXAMPLES.glob("*.png")):
        picture = Image.open(path).convert("RGB")
        picture.thumbnail((1200, 1200), Image.Resampling.LANCZOS)
        picture.quantize(128).save(folder / path.name, optimize=True)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images"
    (folder / "examples").mkdir(parents=True, exist_ok=True)
    draw_schedules(folder / "schedules.png")
    fo.plot.losses().figure.savefig(folder / "losses.png", dpi=70)
    fo.plot.focal().figure.savefig(folder / "focal.png", dpi=70)
    reduce_examples(folder / "examples")


if __name__ == "__main__":
    main()
