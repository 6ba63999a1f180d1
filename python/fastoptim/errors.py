"""The exceptions of fastoptim."""

from __future__ import annotations

__all__ = ["CheckpointError"]


class CheckpointError(ValueError):
    """Raised for a saved state that is damaged or does not match the object it is loaded into."""
