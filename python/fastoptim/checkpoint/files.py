"""Atomic replacement of files, and opening of regular files only."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path

from fastoptim.errors import CheckpointError


def opened(path: str | os.PathLike[str]) -> FileIO:
    """Open a regular file for reading.

    Raises
    ------
    CheckpointError
        It is not a regular file; opening a pipe would block.
    OSError
        The operating system raises an error.
    """
    _check_regular(path, Path(path).stat())
    return Path(path).open("rb", buffering=0)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[FileIO]:
    """Return a temporary file that replaces ``path`` if the block succeeds.

    ``path`` is always either the complete old file or the complete new one, also after a crash: the
    temporary file is in the same directory and is synced before it is renamed. The mode of an
    existing file is preserved, and for a symbolic link the target is replaced. Any exception
    removes the temporary file; a killed process leaves ``.fastoptim-*.tmp`` behind.

    Raises
    ------
    CheckpointError
        ``path`` is a directory or a device.
    OSError
        The operating system raises an error, with ``path`` as the file name.
    """
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".fastoptim-{secrets.token_hex(8)}.tmp"
    try:
        mode = _mode_of_existing(path, target)
        # The umask applies to a new file; the content for a private file must not be readable.
        permissions = 0o666 if mode is None else 0o600
        with open(temporary, "xb", buffering=0, opener=partial(os.open, mode=permissions)) as file:
            if mode is not None:
                temporary.chmod(mode)
            yield file
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_directory(target.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            # The error has the name of the temporary file, or no name if a write failed.
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def _mode_of_existing(path: str | os.PathLike[str], target: Path) -> int | None:
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    _check_regular(path, status)
    # A rename does not need write permission for the file, but a read-only file must be kept.
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return stat.S_IMODE(status.st_mode) & 0o777


def _check_regular(path: str | os.PathLike[str], status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise CheckpointError(f"{os.fspath(path)} is {what}")


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":  # Directories cannot be opened, and a rename is synced with the file.
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network file systems cannot sync directories.
            raise
    finally:
        os.close(descriptor)
