"""Loss scaling for gradients of low precision, as PyTorch's ``torch.amp`` has it."""

from fastoptim.grads.scaler import GradScaler

__all__ = ["GradScaler"]


def __dir__() -> list[str]:
    return __all__
