"""Drop-in replacements of optimizers, losses, clipping and averages of PyTorch on CPUs.

All functions take and return PyTorch tensors, and work on their memory without copies. The package
needs the extra ``torch``; ``import fastoptim`` alone does not import it.

Examples
--------
>>> import torch
>>> import fastoptim.torch
>>> model = torch.nn.Linear(3, 1)
>>> opt = fastoptim.torch.AdamW(model.parameters(), lr=1e-3)
>>> model(torch.ones(2, 3)).sum().backward()
>>> opt.step(max_norm=1.0)
>>> opt.last_info.applied
True
"""

from fastoptim import _core, _extras

_extras.require("torch", "fastoptim.torch")

from fastoptim.torch.clip import (  # noqa: E402 (of torch, which may be missing)
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from fastoptim.torch.ema import EMA  # noqa: E402
from fastoptim.torch.losses import (  # noqa: E402 (of torch, which may be missing)
    BCELoss,
    BCEWithLogitsLoss,
    ContrastiveLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    FocalLoss,
    GaussianNLLLoss,
    HingeEmbeddingLoss,
    HingeLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    LogCoshLoss,
    MSELoss,
    MultiMarginLoss,
    NLLLoss,
    PoissonNLLLoss,
    SigmoidFocalLoss,
    SmoothL1Loss,
    SoftMarginLoss,
    TripletMarginLoss,
)
from fastoptim.torch.optim import (  # noqa: E402 (of torch, which may be missing)
    ASGD,
    LAMB,
    LARS,
    SAM,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AdEMAMix,
    Lion,
    Muon,
    NAdam,
    Optimizer,
    Prodigy,
    RAdam,
    RMSprop,
    Rprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
)
from fastoptim.torch.patching import patch, patched, unpatch  # noqa: E402

# The threads of PyTorch's operations, which wait awake after each.
_core.use_openmp("libtorch_cpu.so")

__all__ = [
    "ASGD",
    "EMA",
    "LAMB",
    "LARS",
    "SAM",
    "SGD",
    "AdEMAMix",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "BCELoss",
    "BCEWithLogitsLoss",
    "ContrastiveLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HingeLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "Lion",
    "LogCoshLoss",
    "MSELoss",
    "MultiMarginLoss",
    "Muon",
    "NAdam",
    "NLLLoss",
    "Optimizer",
    "PoissonNLLLoss",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "patch",
    "patched",
    "unpatch",
]


def __dir__() -> list[str]:
    return __all__
