"""Checkpoint files: named arrays and text in the safetensors format, with checksums.

The reader and the writer are implemented here instead of using the ``safetensors`` package, because
NumPy is the only required dependency, a writer must stream into a temporary file, sync it before it
replaces the last checkpoint and show progress, and a reader must detect every damaged byte, which
the format itself does not support. Any program that reads safetensors can read these files: the
checksums are entries of the metadata.

A file written by another program has no checksums. Its header is validated in the same way, and
``Reader.version`` is None.
"""

from __future__ import annotations

from fastoptim.checkpoint.loading import load
from fastoptim.checkpoint.reader import Reader
from fastoptim.checkpoint.saving import save
from fastoptim.checkpoint.writer import Tensor, write

__all__ = ["Reader", "Tensor", "load", "save", "write"]


def __dir__() -> list[str]:
    return __all__
