"""The exceptions of fastoptim that Python has no name for."""

from __future__ import annotations

__all__ = ["CheckpointError"]


class CheckpointError(ValueError):
    """A saved state that is damaged, or does not fit what it is loaded into."""
