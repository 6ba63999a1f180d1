"""A small Transformer learns English with the parts of PyTorch, and with those of this package.

The text is that of the manual in Python's standard library. Adam with L2 and AdamW, with and
without warm-up: the same batches, rates and first weights, and other parts. The curves lie on top
of each other.
"""

from __future__ import annotations

import itertools
import pydoc_data.topics
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

import fastoptim as fo
import fastoptim.torch
import report

LENGTH, WIDTH, LAYERS, HEADS, BATCH = 64, 64, 2, 4, 16
RATE, DECAY = 1e-2, 0.1
NAMES = ("AdamW", "Adam")
STYLES = {"PyTorch": "-", "fastoptim.torch": ":"}


@dataclass
class Text:
    """Numbers of words, and the words."""

    training: Any
    test: Any
    words: list[str]


@dataclass
class Run:
    """What a training gave."""

    losses: list[float]
    test: float
    # The seconds of the loss with its gradient, clipping and steps, and of all.
    parts: float
    total: float


class Block(torch.nn.Module):
    """Attention to earlier words, and a network for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(WIDTH) for _ in range(2))
        self.attention = torch.nn.Linear(WIDTH, 3 * WIDTH)
        self.out = torch.nn.Linear(WIDTH, WIDTH)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.GELU(), torch.nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Any) -> Any:
        heads = self.attention(self.norms[0](x)).unflatten(-1, (3, HEADS, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.network(self.norms[1](x))


class Transformer(torch.nn.Module):
    """Scores of each next word."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(words, WIDTH)
        self.places = torch.nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        self.blocks = torch.nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.scores = torch.nn.Sequential(
            torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, words, bias=False)
        )

    def forward(self, x: Any) -> Any:
        return self.scores(self.blocks(self.words(x) + self.places))


def manual(count: int) -> Text:
    """Return the manual of Python in numbers of its most frequent words; 0 is for all others."""
    pages = "\n".join(pydoc_data.topics.topics.values())
    found = re.findall(r"[a-z]+|\d|[^\sa-z\d]", pages.lower())
    words, counts = np.unique(found, return_counts=True)
    frequent = words[np.argsort(-counts, kind="stable")][: count - 1]
    numbers = {word: i for i, word in enumerate(frequent.tolist(), 1)}
    text = torch.tensor([numbers.get(word, 0) for word in found])
    border = len(text) * 9 // 10
    return Text(text[:border], text[border:], ["?", *numbers])


def batches(text: Any, steps: int) -> Any:
    """Return pieces of the text from random places, always the same."""
    starts = np.random.default_rng(0).integers(len(text) - LENGTH - 1, size=(steps, BATCH))
    return text[torch.from_numpy(starts)[..., None] + torch.arange(LENGTH + 1)]


def torch_parts(model: Any, name: str) -> tuple[Any, Any, Callable[[], None]]:
    """Return the loss, the optimizer and the step of PyTorch."""
    opt = getattr(torch.optim, name)(model.parameters(), lr=RATE, weight_decay=decay(name))

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=False)

    return torch.nn.CrossEntropyLoss(), opt, step


def fast_parts(model: Any, name: str) -> tuple[Any, Any, Callable[[], None]]:
    """Return those of this package, whose step clips and zeroes."""
    rule = getattr(fastoptim.torch, name)
    opt = rule(model.parameters(), lr=RATE, weight_decay=decay(name))

    def step() -> None:
        opt.step(max_norm=1.0, zero_grad=True)

    return fastoptim.torch.CrossEntropyLoss(), opt, step


def decay(name: str) -> float:
    """Return a decay that suits Adam: L2 is divided by the size of the gradient."""
    return DECAY if name == "AdamW" else DECAY / 1000


PARTS = {"PyTorch": torch_parts, "fastoptim.torch": fast_parts}


def train(parts: Any, name: str, warmup: int, text: Text, steps: int, progress: Any) -> Run:
    """Train a network, and return the losses by step."""
    torch.manual_seed(0)
    model = Transformer(len(text.words))
    loss_fn, opt, step = parts(model, name)
    rate = fo.schedules.cosine(RATE, steps - warmup)
    if warmup:
        rate = fo.schedules.warmup(rate, warmup)
    losses, spent, began = [], 0.0, time.perf_counter()
    for count, words in enumerate(batches(text.training, steps)):
        scores = model(words[:, :-1]).flatten(0, 1)
        # The gradient by the scores, apart from that of the network.
        leaf = scores.detach().requires_grad_()
        start = time.perf_counter()
        loss = loss_fn(leaf, words[:, 1:].flatten())
        loss.backward()
        spent += time.perf_counter() - start
        scores.backward(leaf.grad)
        start = time.perf_counter()
        opt.param_groups[0]["lr"] = rate(count)
        step()
        spent += time.perf_counter() - start
        losses.append(loss.item())
        progress.update()
    total = time.perf_counter() - began
    with torch.no_grad():
        words = batches(text.test, 20).flatten(0, 1)
        scores = model(words[:, :-1]).flatten(0, 1)
        test = torch.nn.functional.cross_entropy(scores, words[:, 1:].flatten()).item()
    return Run(losses, test, spent, total)


def smooth(losses: list[float], width: int) -> Any:
    """Return means of neighbors."""
    return np.convolve(losses, np.full(width, 1 / width), "valid")


def draw(runs: dict[tuple[str, int, str], Run], steps: int) -> Any:
    """Draw the losses by step, and the seconds beside."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    width = max(1, steps // 50)
    for (name, warmup, parts), run in runs.items():
        label = f"{'warm-up' if warmup else 'no warm-up'}, {parts}"
        color = f"C{int(warmup > 0)}" if parts == "PyTorch" else "black"
        curve, style = smooth(run.losses, width), STYLES[parts]
        axes[NAMES.index(name)].plot(curve, style, color=color, label=label)
    for name, axis in zip(NAMES, axes[:2], strict=True):
        title = f"{name}, weight decay {decay(name):g}"
        axis.set(title=title, xlabel="step", ylabel="loss, mean over neighbors")
        axis.legend()
    seconds = {
        parts: sum(r.parts for (_, _, p), r in runs.items() if p == parts) for parts in PARTS
    }
    axes[2].bar(list(seconds), list(seconds.values()))
    axes[2].set(title="four trainings", ylabel="seconds in loss, clipping and step")
    return figure


def main() -> None:
    asked = report.arguments(__doc__)
    steps, count = (20, 200) if asked.quick else (300, 2000)
    text = manual(count)
    runs: dict[tuple[str, int, str], Run] = {}
    cases = list(itertools.product(NAMES, (0, steps // 10), PARTS))
    with tqdm(total=steps * len(cases), desc="steps", disable=None) as progress:
        for name, warmup, parts in cases:
            progress.set_postfix_str(f"{name}, {parts}")
            run = train(PARTS[parts], name, warmup, text, steps, progress)
            runs[name, warmup, parts] = run
    report.table(
        f"{len(text.training):,} words of Python's manual, {steps} steps",
        ["", "last losses", "on other pages", "loss, clipping, step", "all"],
        [
            [
                f"{name}, {'warm-up' if warmup else 'no warm-up'}, {parts}",
                f"{np.mean(run.losses[-steps // 20 :]):.3f}",
                f"{run.test:.3f}",
                f"{run.parts:.2f} s",
                f"{run.total:.2f} s",
            ]
            for (name, warmup, parts), run in runs.items()
        ],
    )
    for name, warmup in itertools.product(NAMES, (0, steps // 10)):
        ours, theirs = (np.array(runs[name, warmup, parts].losses) for parts in reversed(PARTS))
        start = "with warm-up" if warmup else "without warm-up"
        difference = np.abs(ours - theirs).max()
        print(f"The largest difference of two losses is {difference:.1e} for {name} {start}.")
    report.picture(draw(runs, steps), asked.output, "torch_transformer")


if __name__ == "__main__":
    main()
