"""Limits of the system: small stacks, no more threads, variables that are not text."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import LOSSES, OPTIMIZERS
from processes import run
from rows import CASES, inputs, made
from snapshot import snapshot

linux = pytest.mark.skipif(sys.platform != "linux", reason="as Linux does it")

# One chunk, several chunks, and enough for the pool.
SHAPES = [(3, 7), (96, 1030)]
OPTIONS: dict[str, Any] = {"clip_value": 0.5, "max_norm": 1.0}


def stepping(cls: Any, dtype: Any, **options: Any) -> Callable[[], Any]:
    """Return a call of all functions of one optimizer."""
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    grads = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    opt = cls(params, lr=0.01, **options)
    sam = fo.SAM(opt, adaptive=True)
    ema = fo.EMA(params, decay=0.9)
    regularizer = fo.regularizers.ElasticNet(0.1, 0.1)

    def call() -> Any:
        opt.step(grads)
        opt.step(grads, **OPTIONS, regularizer=regularizer, ema=ema)
        sam.first_step(grads)
        sam.second_step(grads)
        if hasattr(opt, "eval"):
            opt.eval()
        ema.update(params)
        ema.swap(params)
        return snapshot([params, opt.state, ema.shadow])

    return call


def measuring(dtype: Any) -> Callable[[], Any]:
    """Return a call of functions other than optimizers and losses."""
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    labels = rng.integers(0, 5, len(grads[1]))
    accumulator = fo.GradAccumulator(grads)
    search = fo.RandomLocalSearch([g.copy() for g in grads], scale=0.1, seed=1)

    def call() -> Any:
        accumulator.add(grads, weight=2.0)
        found = [fo.get_total_norm(grads, p) for p in (1.0, 2.0, 3.0)]
        found.append(fo.clip_grad_norm_(grads, 1.0))
        fo.clip_grad_value_(grads, 0.1)
        found.append(search.step(lambda params: float(params[0][0, 0])))
        triplets = fo.losses.mine_triplets(grads[1], labels)
        return found, snapshot([grads, triplets])

    return call


def losing(dtype: Any) -> Callable[[], Any]:
    """Return a call of every loss."""
    calls: list[tuple[Any, tuple[Any, ...]]] = []
    for shape in (1, 1), (33, 10), (300, 100):
        rng = np.random.default_rng(0)
        x, y, z = (rng.random(shape).astype(dtype) for _ in range(3))
        calls += [(loss, (x, y)) for loss in LOSSES]
        calls.append((fo.losses.TripletMarginLoss(), (x, y, z)))
        rows: list[Any] = [*CASES, (fo.losses.CrossEntropyLoss, {"label_smoothing": 0.1})]
        calls += [
            (made(cls, arguments, shape[1], dtype), inputs(cls, shape, dtype))
            for cls, arguments in rows
        ]

    def call() -> Any:
        return snapshot([loss.value_and_grad(*arguments) for loss, arguments in calls])

    return call


def everything() -> dict[str, Callable[[], Any]]:
    """Return calls of everything with a kernel."""
    calls: dict[str, Callable[[], Any]] = {}
    for dtype in "f4", "f8":
        calls[f"losses {dtype}"] = losing(dtype)
        calls[f"others {dtype}"] = measuring(dtype)
        for cls in OPTIMIZERS:
            calls[f"{cls.__name__} {dtype}"] = stepping(cls, dtype)
    calls["losses f2"] = losing("f2")
    for cls in OPTIMIZERS:
        calls[f"{cls.__name__} int8"] = stepping(cls, "f4", state_dtype="int8")
    return calls


def on_small_stacks() -> None:
    """Call everything on threads with the smallest stack that Python allows, and compare."""
    expected = {name: call() for name, call in everything().items()}
    calls = everything()
    for kib in 32, 64, 128:
        try:
            threading.stack_size(kib * 1024)
            break
        except ValueError:  # Python requires more.
            continue
    found = {}
    for name, call in calls.items():
        print(name, flush=True)
        thread = threading.Thread(target=lambda: found.update({name: call()}))  # noqa: B023
        thread.start()
        thread.join()
    assert found == expected
    print("done")


@linux
def test_every_kernel_runs_on_the_smallest_stack() -> None:
    done = run("import test_limits as t; t.on_small_stacks()", FASTOPTIM_NUM_THREADS="2")
    assert done.stdout.endswith("done\n"), done.stdout[-100:] + done.stderr


def test_workers_have_a_stack_of_their_own() -> None:
    script = "import test_limits as t; [call() for call in t.everything().values()]; print('done')"
    done = run(script, FASTOPTIM_NUM_THREADS="2", RUST_MIN_STACK="1")
    assert done.stdout == "done\n", done.stderr


def workers() -> int:
    """Count the threads of the pool."""
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum(name.startswith("fastoptim-") for name in names)


def within_a_second(wanted: int) -> bool:
    """Wait for a number of workers; a thread has its name only when it runs."""
    for _ in range(1000):
        if workers() == wanted:
            return True
        time.sleep(0.001)
    return False


def a_thread_fits() -> bool:
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


def with_few_threads(room: int) -> None:
    """Step with a limit of the number of threads, and then without it."""
    import resource

    grads = np.random.default_rng(0).standard_normal(1 << 18).astype("f4")
    params = [np.ones_like(grads) for _ in range(2)]
    alone, together = (fo.AdamW(p, lr=0.1) for p in params)
    fo.set_num_threads(8)  # Imported by the user that may read the package.
    root = os.getuid() == 0
    if root:  # whom no limit holds
        os.setuid(65534)
    _, most = resource.getrlimit(resource.RLIMIT_NPROC)
    limit = 0
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, most))
    while not a_thread_fits():
        limit += 1
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, most))
    resource.setrlimit(resource.RLIMIT_NPROC, (limit - 1 + room, most))

    for t in range(100):
        with fo.num_threads(1):
            alone.step(grads)
        together.step(grads)
        if t == 50:
            # The same user may have other processes, but the user that root changes to has none.
            assert within_a_second(room) if root else workers() <= 7, workers()
            resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    assert within_a_second(7)
    assert params[0].tobytes() == params[1].tobytes()
    print("done")


@pytest.mark.alone
@linux
@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_step_goes_on_with_the_threads_there_are(room: int) -> None:
    done = run(f"import test_limits as t; t.with_few_threads({room})")
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.skipif(os.name == "nt", reason="variables are text on Windows")
def test_a_number_of_threads_that_is_not_text_is_invalid() -> None:
    script = "import fastoptim as fo; print(fo.get_num_threads())"
    done = run(script, FASTOPTIM_NUM_THREADS=os.fsdecode(b"2\xff"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert r"FASTOPTIM_NUM_THREADS='2\udcff'" in done.stderr
    assert 1 <= int(done.stdout) <= (os.cpu_count() or 1)


@pytest.mark.skipif(os.name == "nt", reason="variables are text on Windows")
def test_an_instruction_set_that_is_not_text_is_unknown() -> None:
    done = run("import fastoptim", FASTOPTIM_ISA=os.fsdecode(b"baseline\xff"))
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: FASTOPTIM_ISA: unknown instruction set")
    assert "baseline" in message
