"""One step of every scheduler on ten groups, ours and PyTorch's, per group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import harness
from fastoptim import lr_scheduler
from harness import Contestant

GROUPS = 10
ARGUMENTS: dict[str, dict[str, Any]] = {
    "LambdaLR": {"lr_lambda": lambda step: 0.99**step},
    "MultiplicativeLR": {"lr_lambda": lambda _step: 0.99999},
    "StepLR": {"step_size": 30},
    "MultiStepLR": {"milestones": [30, 60, 90]},
    "ConstantLR": {},
    "LinearLR": {"total_iters": 100_000},
    "ExponentialLR": {"gamma": 0.99999},
    "PolynomialLR": {"total_iters": 100_000},
    "CosineAnnealingLR": {"T_max": 100_000},
    "CosineAnnealingWarmRestarts": {"T_0": 1000},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 1.0},
    "OneCycleLR": {"max_lr": 1.0, "total_steps": 10_000_000},
    "WarmupStableDecayLR": {"warmup_steps": 100, "stable_steps": 100, "decay_steps": 100_000},
}


class Groups:
    """The least that a scheduler of ours can drive."""

    def __init__(self) -> None:
        self.param_groups = [{"lr": 0.1, "momentum": 0.9} for _ in range(GROUPS)]


def cases(asked: harness.Options) -> Iterator[tuple[str, dict[str, Contestant]]]:
    for name, arguments in ARGUMENTS.items():
        ours = Groups()
        scheduler = getattr(lr_scheduler, name)(ours, **arguments)
        found = {"fastoptim": Contestant(scheduler.step, None)}
        if harness.HAS_TORCH:
            import torch

            cls = getattr(torch.optim.lr_scheduler, name, None)
            if cls is not None:
                groups = [{"params": [torch.zeros(1)]} for _ in range(GROUPS)]
                optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
                optimizer.step()
                found["torch"] = Contestant(cls(optimizer, **arguments).step, None)
        yield name, found


def main() -> None:
    asked = harness.options(__doc__ or "")
    harness.compare(f"one step of a scheduler on {GROUPS} groups", cases(asked), asked)


if __name__ == "__main__":
    main()
