"""The goals of `fastoptim.torch`, measured against PyTorch.

Each case has its goals beside the measured ratios: how many times as fast as a contestant
fastoptim must be. A compiled step is PyTorch's step under `torch.compile`, after compilation; the
time of the compilation is in the table. Memory is what the work adds, at its peak, to a fresh
process with the inputs.
"""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import harness
from fastoptim._extras import has
from fastoptim.commands.bench.harness import check, duration, limit_threads
from harness import Contestant
from libraries import HAS_COMPILER

if not harness.HAS_TORCH:
    print("PyTorch is not installed: nothing to compare")
    sys.exit()

import torch

import fastoptim.torch

OURS = "fastoptim"

# The hidden size, layers, patch and token counts and classes of ViT-S/16: Touvron et al., 2021.
WIDTH, LAYERS, PATCH, TOKENS, CLASSES = 384, 12, 3 * 16 * 16, 197, 1000
# A fresh process differs by this much between runs of the same work.
NOISE = 2 << 20

Shapes = list[tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """The same work by several contestants."""

    name: str
    # Create the contestants: fastoptim first.
    contestants: Mapping[str, Callable[[], Contestant]]
    # How many times as fast as these contestants fastoptim must be.
    goals: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = 1e-4
    # The largest part of the memory of PyTorch's contestants that fastoptim may use.
    memory: float = 1.0
    # The seconds that fastoptim may take longer than a contestant, by its name.
    excess: Mapping[str, float] = field(default_factory=dict)
    # The most rounds of a case whose single run is long.
    rounds: int = 1000


class CompiledContestant(Contestant):
    """A contestant that is compiled in its first run."""

    def __init__(self, run: Callable[[], object], answer: Any) -> None:
        super().__init__(self._run, answer)
        self._compiled = run
        # The seconds of the first run, in which it was compiled.
        self.compilation = 0.0

    def _run(self) -> None:
        start = time.perf_counter()
        self._compiled()
        self.compilation = self.compilation or time.perf_counter() - start


class PaperLion(torch.optim.Optimizer):  # type: ignore[misc]
    """Lion in PyTorch operations, as the authors of the paper published it."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(1 - group["lr"] * group["weight_decay"])
                state = self.state[p]
                if len(state) == 0:
                    state["exp_avg"] = torch.zeros_like(p)
                exp_avg, (beta1, beta2) = state["exp_avg"], group["betas"]
                update = exp_avg * beta1 + p.grad * (1 - beta1)
                p.add_(update.sign_(), alpha=-group["lr"])
                exp_avg.mul_(beta2).add_(p.grad, alpha=1 - beta2)


class EmptyOptimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """An optimizer whose step does nothing."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Any = None) -> Any:
        pass


def transformer() -> Shapes:
    """Return the shapes of ViT-S/16, with separate projections: 22 million in 200 tensors."""
    square, vector = (WIDTH, WIDTH), (WIDTH,)
    layer: Shapes = [square, vector] * 4 + [vector] * 4
    layer += [(4 * WIDTH, WIDTH), (4 * WIDTH,), (WIDTH, 4 * WIDTH), vector]
    ends: Shapes = [(WIDTH, PATCH), vector, vector, (TOKENS, WIDTH), vector, vector]
    return layer * LAYERS + [*ends, (CLASSES, WIDTH), (CLASSES,)]


def network() -> Shapes:
    """Return the shapes of a network with 256 inputs, 100 hidden units and 26 outputs."""
    return [(100, 256), (100,), (26, 100), (26,)]


def parameters(shapes: Shapes) -> list[Any]:
    """Return parameters of the size of initial weights, with gradients, always the same."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape in shapes:
        parameter = torch.nn.Parameter(0.02 * torch.randn(shape, generator=generator))
        parameter.grad = 1e-3 * torch.randn(shape, generator=generator)
        found.append(parameter)
    return found


def stepping(make: Callable[[list[Any]], Any], shapes: Shapes) -> Contestant:
    held = parameters(shapes)
    opt = make(held)
    return Contestant(opt.step, lambda: harness.torch_answer(held))


def compiled(make: Callable[[list[Any]], Any], shapes: Shapes) -> Contestant:
    held = parameters(shapes)
    opt = make(held)
    torch._dynamo.reset()
    step = torch.compile(opt.step)
    return CompiledContestant(step, lambda: harness.torch_answer(held))


def clipping(opt: Any, held: list[Any], clip: Callable[..., Any]) -> Contestant:
    def run() -> None:
        clip(held, 1.0)
        opt.step()

    return Contestant(run, lambda: harness.torch_answer(held))


def steps(
    name: str,
    rule: str,
    shapes: Shapes,
    goals: Mapping[str, float],
    *,
    compiles: bool = False,
    tolerance: float = 1e-4,
) -> Case:
    """Return a case of one step of an optimizer."""
    theirs: Any = getattr(torch.optim, rule, PaperLion)
    default = "torch default" if hasattr(torch.optim, rule) else "torch code of its paper"
    found: dict[str, Callable[[], Contestant]] = {
        OURS: functools.partial(stepping, getattr(fastoptim.torch, rule), shapes)
    }
    if rule == "AdamW":
        fused = functools.partial(theirs, fused=True)
        found["torch fused"] = functools.partial(stepping, fused, shapes)
    found[default] = functools.partial(stepping, theirs, shapes)
    if compiles and HAS_COMPILER:
        found["torch compiled"] = functools.partial(compiled, theirs, shapes)
    return Case(name, found, goals, tolerance)


def optimizers(asked: harness.Options) -> list[Case]:
    whole = transformer()
    some = whole[:20] if asked.quick else whole
    side = asked.size(1024, 32)
    compiles = not (asked.quick or asked.brief)
    many: Shapes = [(asked.size(1024, 16),)] * asked.size(1000, 20)
    both = {"torch fused": 1.05, "torch default": 3.0}
    cases = [
        steps("AdamW, 1000 tensors of 1 Ki", "AdamW", many, {"torch fused": 5.0}),
        steps("AdamW, 22 million in 200 tensors", "AdamW", some, both, compiles=compiles),
        steps(
            "AdamW, network of 28,326", "AdamW", network(), {"torch fused": 1.5}, compiles=compiles
        ),
    ]
    for rule in ("RMSprop", "NAdam", "Adamax", "RAdam", "Adadelta"):
        name = f"{rule}, 22 million in 200 tensors"
        cases.append(steps(name, rule, some, {"torch default": 4.0}))
    goal = {"torch code of its paper": 4.0}
    cases.append(steps("Lion, 22 million in 200 tensors", "Lion", some, goal))
    if hasattr(torch.optim, "Muon"):
        # PyTorch rounds to bfloat16 in between.
        name = f"Muon, four {side} x {side}"
        goal = {"torch default": 2.0}
        cases.append(steps(name, "Muon", [(side, side)] * 4, goal, tolerance=1e-2))
    return cases


def clips(asked: harness.Options) -> list[Case]:
    def ours(shapes: Shapes) -> Contestant:
        held = parameters(shapes)
        opt = fastoptim.torch.AdamW(held)
        return Contestant(lambda: opt.step(max_norm=1.0), lambda: harness.torch_answer(held))

    def apart(shapes: Shapes, fused: bool | None) -> Contestant:
        held = parameters(shapes)
        opt = torch.optim.AdamW(held, fused=fused)
        return clipping(opt, held, torch.nn.utils.clip_grad_norm_)

    def alone(clip: Callable[..., Any], shapes: Shapes) -> Contestant:
        held = parameters(shapes)
        limits = itertools.count(1)
        return Contestant(
            # The limit shrinks, so that each call clips.
            lambda: clip(held, 1e-2 * 0.99999 ** next(limits)),
            lambda: [p.grad.numpy() for p in held],
        )

    whole = transformer()
    many: Shapes = [(asked.size(1024, 16),)] * asked.size(4000, 20)
    cases = []
    for name, shapes in (
        ("22 million in 200 tensors", whole[:20] if asked.quick else whole),
        ("network of 28,326", network()),
    ):
        found = {
            OURS: functools.partial(ours, shapes),
            "torch fused": functools.partial(apart, shapes, True),
            "torch default": functools.partial(apart, shapes, None),
        }
        cases.append(Case(f"clip and AdamW, {name}", found, {"torch fused": 1.5}))
    found = {
        OURS: functools.partial(alone, fastoptim.torch.clip_grad_norm_, many),
        "torch default": functools.partial(alone, torch.nn.utils.clip_grad_norm_, many),
    }
    cases.append(Case("clip_grad_norm_ alone, 4000 tensors of 1 Ki", found))
    return cases


def losses(asked: harness.Options) -> list[Case]:
    def contestant(loss: Any, rows: int, classes: int, *, compiles: bool = False) -> Contestant:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(rows, classes, generator=generator).requires_grad_()
        y = torch.randint(classes, (rows,), generator=generator)
        found: list[Any] = []

        def run() -> None:
            value = loss(x, y)
            (gradient,) = torch.autograd.grad(value, x)
            found[:] = [value.item(), gradient.numpy()]

        def answer() -> list[Any]:
            run()
            return list(found)

        # The gradient is released before the next is made, as in training.
        def once() -> None:
            run()
            found.clear()

        if compiles:
            torch._dynamo.reset()
            loss = torch.compile(loss)
            return CompiledContestant(once, answer)
        return Contestant(once, answer)

    cases = []
    for rows, classes, goal, memory in ((8192, 1000, 3.0, 1.0), (1024, 32000, 6.0, 0.5)):
        size = asked.size(rows, 32), classes
        theirs = torch.nn.functional.cross_entropy
        found = {
            OURS: functools.partial(contestant, fastoptim.torch.CrossEntropyLoss(), *size),
            "torch default": functools.partial(contestant, theirs, *size),
        }
        if HAS_COMPILER and not (asked.quick or asked.brief):
            found["torch compiled"] = functools.partial(contestant, theirs, *size, compiles=True)
        goals = {"torch default": goal}
        cases.append(Case(f"cross-entropy {rows} x {classes}", found, goals, memory=memory))
    return cases


def trainings(asked: harness.Options) -> list[Case]:
    def model() -> Any:
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(256, 100), torch.nn.ReLU(), torch.nn.Linear(100, 26)
        )

    def training(make: Callable[[Any], Any], loss_fn: Any, *, compiles: bool = False) -> Contestant:
        net = model()
        opt = make(net.parameters())
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(64, 256, generator=generator)
        y = torch.randint(26, (64,), generator=generator)

        def run() -> None:
            opt.zero_grad()
            loss_fn(net(x), y).backward()
            opt.step()

        def answer() -> list[Any]:
            return harness.torch_answer(list(net.parameters()))

        if compiles:
            torch._dynamo.reset()
            forward, step = net, torch.compile(opt.step)
            net = torch.compile(forward)

            def run() -> None:
                opt.zero_grad()
                loss_fn(net(x), y).backward()
                step()

            return CompiledContestant(run, answer)
        return Contestant(run, answer)

    theirs = torch.nn.functional.cross_entropy
    found = {
        OURS: functools.partial(
            training, fastoptim.torch.AdamW, fastoptim.torch.CrossEntropyLoss()
        ),
        "torch default": functools.partial(training, torch.optim.AdamW, theirs),
        "torch fused": functools.partial(
            training, functools.partial(torch.optim.AdamW, fused=True), theirs
        ),
    }
    if HAS_COMPILER and not (asked.quick or asked.brief):
        found["torch compiled"] = functools.partial(
            training, torch.optim.AdamW, theirs, compiles=True
        )
    name = "training step of a 256-100-26 network, batch 64"
    cases = [Case(name, found, {"torch default": 1.3}, tolerance=1e-3)]
    if has("transformers") and has("accelerate"):
        cases.append(trainer(asked))
    return cases


def trainer(asked: harness.Options) -> Case:
    """Return a case of a whole training by the `Trainer` of `transformers`."""

    def contestant(optim: str, *, ours: bool) -> Contestant:
        transformers: Any = importlib.import_module("transformers")
        transformers.logging.set_verbosity_error()
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=1000,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        model = transformers.BertForSequenceClassification(config)
        tokens = torch.randint(1000, (64, 16)).tolist()
        data = [{"input_ids": row, "labels": i % 2} for i, row in enumerate(tokens)]
        folder = tempfile.mkdtemp()
        arguments = transformers.TrainingArguments(
            folder,
            max_steps=asked.size(20, 2),
            per_device_train_batch_size=8,
            optim=optim,
            learning_rate=1e-3,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=0,
        )
        answer: list[Any] = []

        def run() -> None:
            trained = copy.deepcopy(model)
            loop = transformers.Trainer(trained, arguments, train_dataset=data)
            loop.remove_callback(transformers.PrinterCallback)
            loop.train()
            # One vector: some parameters, the biases of keys, have no gradient but rounding errors.
            answer[:] = [np.concatenate([p.detach().numpy().ravel() for p in trained.parameters()])]

        def patched() -> None:
            with fastoptim.torch.patched():
                run()

        return Contestant(patched if ours else run, lambda: answer)

    found = {
        OURS: functools.partial(contestant, "adamw_torch", ours=True),
        "adamw_torch": functools.partial(contestant, "adamw_torch", ours=False),
        "adamw_torch_fused": functools.partial(contestant, "adamw_torch_fused", ours=False),
    }
    goals = {"adamw_torch": 1.0, "adamw_torch_fused": 1.0}
    return Case("a Trainer of transformers", found, goals, tolerance=1e-2, rounds=9)


def overheads(asked: harness.Options) -> list[Case]:
    cases = []
    for count in (1, 200, asked.size(1000, 300)):
        shapes: Shapes = [(4,)] * count
        found = {
            OURS: functools.partial(stepping, fastoptim.torch.AdamW, shapes),
            "an empty step": functools.partial(empty, shapes),
        }
        excess = {"an empty step": 5e-6 + 0.15e-6 * count}
        cases.append(Case(f"step() of {count} tensors of 4", found, excess=excess))
    return cases


def empty(shapes: Shapes) -> Contestant:
    return Contestant(EmptyOptimizer(parameters(shapes)).step, None)


SECTIONS = {
    "optimizers": optimizers,
    "clipping": clips,
    "losses": losses,
    "training": trainings,
    "what a step costs": overheads,
}


def peak(section: str, name: str, label: str, asked: harness.Options, result: Any) -> None:
    """Send the bytes that the work of a contestant adds to this process at its peak."""
    limit_threads(asked.threads)
    (case,) = (case for case in SECTIONS[section](asked) if case.name == name)
    contestant = case.contestants[label]()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_of("VmRSS")
    contestant.run()
    contestant.run()
    result.send(memory_of("VmHWM") - before)


def memory_of(name: str) -> int:
    """Return a number of bytes that Linux counts for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def peaks(section: str, case: Case, asked: harness.Options) -> dict[str, int]:
    """Return the peak memory by contestant, without those that are compiled first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "fastoptim.torch"])
    found = {}
    for label in case.contestants:
        if label == "torch compiled":
            continue
        here, there = context.Pipe(duplex=False)
        arguments = (section, case.name, label, asked, there)
        process = context.Process(target=peak, args=arguments)
        process.start()
        there.close()
        found[label] = here.recv()
        process.join()
    return found


def report(section: str, case: Case, asked: harness.Options) -> list[bool]:
    """Check, measure, record and print one case. Return which of its goals are met."""
    contestants = {label: make() for label, make in case.contestants.items()}
    check(case.name, contestants, case.tolerance)
    if asked.quick:
        print(f"  {case.name}, made small: {', '.join(contestants)} agree", flush=True)
        if asked.json is not None:
            times = harness.timed(contestants, asked)
            harness.record(f"fastoptim.torch, {section}", case.name, contestants, times, asked)
        return []
    compilations = {
        label: contestant.compilation
        for label, contestant in contestants.items()
        if isinstance(contestant, CompiledContestant)
    }
    times = harness.timed(contestants, asked, most=case.rounds)
    # An empty step has no state.
    memory = None
    if not case.excess and sys.platform == "linux" and not asked.brief:
        memory = peaks(section, case, asked)
    harness.record(
        f"fastoptim.torch, {section}", case.name, contestants, times, asked, memory=memory
    )
    print(f"  {case.name}")
    met = []
    for label, taken in zip(case.contestants, times, strict=True):
        ratio = float(np.median(taken / times[0]))
        line = f"    {label:24}{duration(float(np.median(taken))):>10}{ratio:8.2f}x"
        if label in compilations:
            line += f"   compiled in {duration(compilations[label])}"
        if label in case.goals:
            met.append(ratio >= case.goals[label])
            line += f"   goal {case.goals[label]:g}x: {'met' if met[-1] else 'MISSED'}"
        if label in case.excess:
            more = float(np.median(times[0] - taken))
            met.append(more <= case.excess[label])
            line += (
                f"   fastoptim takes {duration(more)} longer, "
                f"goal {duration(case.excess[label])}: {'met' if met[-1] else 'MISSED'}"
            )
        print(line, flush=True)
    return met if memory is None else [*met, remember(case, memory)]


def remember(case: Case, found: dict[str, int]) -> bool:
    """Print the peak memory of one case by contestant. Return whether its goal is met."""
    ours = found.pop(OURS)
    most = max(case.memory * min(found.values()), 0) + NOISE
    print(f"    {'peak memory':24}{ours / 2**20:7.1f} MiB", end="")
    print("".join(f", {label} {size / 2**20:.1f}" for label, size in found.items()), end="")
    met = ours <= most
    goal = "not above PyTorch's" if case.memory == 1 else f"{case.memory:g} of PyTorch's"
    print(f"   goal {goal}: {'met' if met else 'MISSED'}", flush=True)
    return met


def main() -> None:
    asked = harness.options(__doc__ or "")
    met = []
    for section, cases in SECTIONS.items():
        print(f"\n{section}", flush=True)
        for case in cases(asked):
            met += report(section, case, asked)
    if not asked.quick:
        print(f"\n{sum(met)} of {len(met)} goals are met")


if __name__ == "__main__":
    main()
