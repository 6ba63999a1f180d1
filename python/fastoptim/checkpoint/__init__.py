"""Checkpoint files: named arrays and text in the safetensors format, with checksums.

The reader and the writer of the format are the package's own, not those of the ``safetensors``
package: NumPy is the only hard dependency; a writer must stream into a temporary file that it
syncs before it takes the place of the last checkpoint, and show progress; and a reader must find
every damaged byte, for which the format itself has no means. Any program that reads safetensors
reads these files: the checksums are entries of the format's metadata.

A file that another program wrote has no checksums. It is read after the same validation of its
header, with ``Reader.version`` None.
"""

from __future__ import annotations

from fastoptim.checkpoint.loading import load
from fastoptim.checkpoint.reader import Reader
from fastoptim.checkpoint.saving import save
from fastoptim.checkpoint.writer import Tensor, write

__all__ = ["Reader", "Tensor", "load", "save", "write"]


def __dir__() -> list[str]:
    return __all__
