"""The ranks of a communicator: agreement, errors, and their share of the processors."""

from __future__ import annotations

import atexit
import builtins
import math
import os
import sys
import traceback
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from fastoptim import _core, _extras, threads
from fastoptim._checks import shown
from fastoptim.errors import CheckpointError
from fastoptim.params.structure import Array

_KEY: list[int] = []


def team_of(comm: Any) -> Team:
    """Return the team of a communicator; the first call with it is collective."""
    mpi = _extras.require("mpi4py.MPI", "fastoptim.distributed")
    if not isinstance(comm, mpi.Intracomm):
        raise TypeError(f"comm must be an intracommunicator of mpi4py.MPI, got {shown(comm)}")
    if comm == mpi.COMM_NULL:
        raise ValueError("comm must not be MPI.COMM_NULL")
    if not _KEY:
        _KEY.append(mpi.Comm.Create_keyval())
    team: Team | None = comm.Get_attr(_KEY[0])
    if team is None:
        team = Team(mpi, comm.Dup())
        comm.Set_attr(_KEY[0], team)
    return team


class Team:
    """The ranks of a communicator, with a communicator of their own for the messages here."""

    def __init__(self, mpi: Any, comm: Any) -> None:
        self.mpi, self.comm = mpi, comm
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self._share_processors()
        if self.size > 1:
            atexit.register(self._end_job_after_error)

    def agreement(self) -> Agreement:
        """Return a context in which all ranks make the same call."""
        return Agreement(self)

    def abort(self) -> NoReturn:
        """End the job after an error in communication, from which ranks cannot recover."""
        traceback.print_exc()
        print(f"fastoptim.distributed: rank {self.rank} ends the job", file=sys.stderr, flush=True)
        self.comm.Abort(1)
        raise SystemExit(1)  # Abort does not return.

    def gathered(
        self, parts: Sequence[Array], shapes: Sequence[tuple[int, ...]], root: int | None = None
    ) -> list[Array]:
        """Join the parts of all ranks in order, on all ranks or on one; others return nothing."""
        receives = root in (None, self.rank)
        sizes = self.comm.allgather([part.nbytes for part in parts])
        wholes = []
        for index, (part, shape) in enumerate(zip(parts, shapes, strict=True)):
            counts = [size[index] for size in sizes]
            if sum(counts) != math.prod(shape) * part.itemsize:
                raise ValueError(f"parts of {counts} bytes for an array of {shape}")
            whole = np.empty(shape if receives else 0, part.dtype)
            own = [np.ascontiguousarray(part).reshape(-1).view(np.uint8), self.mpi.BYTE]
            to = [whole.reshape(-1).view(np.uint8), (counts, None), self.mpi.BYTE]
            if root is None:
                self.comm.Allgatherv(own, to)
            else:
                self.comm.Gatherv(own, to if receives else None, root)
            wholes.append(whole)
        return wholes if receives else []

    def _meet(self, error: BaseException | None, subject: Mapping[str, Any]) -> None:
        """Raise an error if a rank has one, or if the subject differs between ranks."""
        digest = zlib.crc32(repr(list(subject.items())).encode())
        found = np.array([error is not None, digest, -digest])
        self.comm.Allreduce(self.mpi.IN_PLACE, found, self.mpi.MAX)
        failed, high, low = found.tolist()
        if failed:
            reports = self.comm.allgather(None if error is None else _report(error))
            if error is None:
                rank, (name, message) = next(
                    (rank, report) for rank, report in enumerate(reports) if report is not None
                )
                raise _class(name)(f"rank {rank}: {message}")
        elif high != -low:
            texts = {name: f"{value!r:.300}" for name, value in subject.items()}
            self._raise_difference(self.comm.allgather(texts))

    def _raise_difference(self, subjects: Sequence[Mapping[str, str]]) -> NoReturn:
        """Name the first entry that is not the same on all ranks."""
        for rank, theirs in enumerate(subjects):
            for name in dict.fromkeys([*subjects[0], *theirs]):
                first, other = (one.get(name, "not given") for one in (subjects[0], theirs))
                if first != other:
                    raise ValueError(
                        f"{name} must be the same on all ranks: it is {first} on rank 0, and "
                        f"{other} on rank {rank}"
                    )
        raise ValueError("all ranks must make the same call")

    def _share_processors(self) -> None:
        """Set the number of threads to the share of this rank, unless the user has set it."""
        node = self.comm.Split_type(self.mpi.COMM_TYPE_SHARED)
        masks = node.allgather(_processors())
        node.Free()
        if len(masks) == 1:
            return
        users = Counter(processor for mask in masks for processor in mask)
        share = sum(1 / users[processor] for processor in _processors())
        count = max(1, min(int(share + 1e-9), _core.get_num_threads()))
        if _core.suggest_num_threads(count):
            threads.share = f"share of one of {len(masks)} ranks on this machine"

    def _end_job_after_error(self) -> None:
        """End the job if an uncaught exception ends this process: other ranks would wait for it."""
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if error is not None and not self.mpi.Is_finalized():
            print(
                f"fastoptim.distributed: rank {self.rank} ended by an error and ends the job",
                file=sys.stderr,
                flush=True,
            )
            self.comm.Abort(1)


class Agreement:
    """A collective call, in which all ranks meet once.

    `meet` returns on all ranks or raises on all: an error on one rank before it, or differing
    subjects. A rank that leaves the context without calling it meets there.
    """

    def __init__(self, team: Team) -> None:
        self._team = team
        self._met = False

    def meet(self, subject: Mapping[str, Any] | None = None) -> None:
        """Wait for all ranks; ``subject`` must be the same on all."""
        self._met = True
        self._team._meet(None, subject or {})

    def __enter__(self) -> Agreement:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._met:
            self._met = True
            self._team._meet(error, {})


def _report(error: BaseException) -> tuple[str, str]:
    # The text of a KeyError is the repr of its argument.
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return type(error).__name__, text or type(error).__name__


def _class(name: str) -> type[Exception]:
    """Return the class of an error on another rank, or RuntimeError if it is not built in."""
    if name == "CheckpointError":
        return CheckpointError
    found = getattr(builtins, name, None)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return RuntimeError
    # Errors in text take other arguments than a message.
    return RuntimeError if issubclass(found, UnicodeError) else found


def _processors() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
