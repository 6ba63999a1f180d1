"""One step of every scheduler on one group and on ten, compared with PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import harness
from fastoptim import lr_scheduler
from harness import Contestant

GROUPS = (1, 10)
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
    """The minimal optimizer for a scheduler."""

    def __init__(self, count: int) -> None:
        self.param_groups = [{"lr": 0.1, "momentum": 0.9} for _ in range(count)]


def contestant(scheduler: Any) -> Contestant:
    return Contestant(scheduler.step, lambda: [np.array(scheduler.get_last_lr())])


def cases(count: int) -> Iterator[tuple[str, dict[str, Contestant]]]:
    for name, arguments in ARGUMENTS.items():
        found = {"fastoptim": contestant(getattr(lr_scheduler, name)(Groups(count), **arguments))}
        if harness.HAS_TORCH:
            import torch

            cls = getattr(torch.optim.lr_scheduler, name, None)
            if cls is not None:
                groups = [{"params": [torch.zeros(1)]} for _ in range(count)]
                optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
                found["torch"] = contestant(cls(optimizer, **arguments))
                optimizer.step()  # PyTorch warns if the optimizer does not step first.
        yield name, found


def main() -> None:
    asked = harness.options(__doc__ or "")
    for count in GROUPS:
        title = f"one step of a scheduler, groups: {count}"
        harness.compare(title, cases(count), asked, tolerance=1e-12)


if __name__ == "__main__":
    main()
