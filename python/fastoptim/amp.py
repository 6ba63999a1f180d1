"""Loss scaling for low-precision gradients, compatible with PyTorch's ``torch.amp``."""

from fastoptim.grads.scaler import GradScaler

__all__ = ["GradScaler"]


def __dir__() -> list[str]:
    return __all__
