"""Threads, processes and instruction sets: the same bits, and nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import _core

FIXED_RUN = """
import hashlib
import numpy as np
import fastoptim as fo
rng = np.random.default_rng(0)
p, g = rng.standard_normal((2, 100_003)).astype("f4")
logits = rng.standard_normal((64, 37)).astype("f4")
for name in fo.optim.__all__:
    cls = getattr(fo.optim, name)
    if not issubclass(cls, fo.optim.Optimizer) or cls is fo.optim.Optimizer:
        continue
    cls(p[:90_000].reshape(300, 300), lr=0.01).step(g[:90_000].reshape(300, 300), max_norm=1.0)
value, gradient = fo.losses.CrossEntropyLoss().value_and_grad(logits, np.arange(64) % 37)
norm = fo.get_total_norm(p)
print(hashlib.sha256(p.tobytes() + gradient.tobytes() + repr((value, norm)).encode()).hexdigest())
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_tier_and_thread_count_gives_the_same_bits() -> None:
    printed = {
        run(FIXED_RUN, FASTOPTIM_ISA=tier, FASTOPTIM_NUM_THREADS=threads).stdout
        for tier in _core.tiers()
        for threads in ("1", "3")
    }
    assert len(printed) == 1
    assert len(printed.pop().strip()) == 64


@pytest.mark.parametrize("tier", ["sse9", "neon" if "avx2" in _core.tiers() else "avx2"])
def test_an_impossible_tier_is_an_import_error(tier: str) -> None:
    done = run("import fastoptim", FASTOPTIM_ISA=tier)
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert tier in done.stderr


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "99999"])
def test_nonsense_in_the_environment_warns(text: str) -> None:
    code = "import fastoptim, os; print(fastoptim.get_num_threads(), len(os.sched_getaffinity(0)))"
    done = run(code, FASTOPTIM_NUM_THREADS=text)
    assert "FASTOPTIM_NUM_THREADS" in done.stderr
    assert "RuntimeWarning" in done.stderr
    threads, processors = done.stdout.split()
    assert 1 <= int(threads) <= int(processors)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_importing_starts_no_thread() -> None:
    count = "len(os.listdir('/proc/self/task'))"
    code = f"import os, numpy; before = {count}; import fastoptim; print({count} - before)"
    assert run(code).stdout == "0\n"


def test_thread_counts() -> None:
    before = fo.get_num_threads()
    seen = []
    with fo.num_threads(3):
        assert fo.get_num_threads() == 3
        other = threading.Thread(target=lambda: seen.append(fo.get_num_threads()))
        other.start()
        other.join()
    assert seen == [before]
    assert fo.get_num_threads() == before
    fo.set_num_threads(2)
    assert fo.get_num_threads() == 2
    fo.set_num_threads(before)
    for bad, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)):
        with pytest.raises(error):
            fo.set_num_threads(bad)  # type: ignore[arg-type]
        with pytest.raises(error), fo.num_threads(bad):  # type: ignore[arg-type]
            pass
    assert fo.get_num_threads() == before


def test_different_optimizers_step_at_once() -> None:
    n, steps = 200_000, 20

    def train(seed: int) -> Any:
        rng = np.random.default_rng(seed)
        p, g = rng.standard_normal((2, n)).astype("f4")
        opt = fo.AdamW(p, lr=0.1)
        for _ in range(steps):
            opt.step(g, max_norm=1.0)
        return p

    expected = [train(seed) for seed in range(4)]
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: found.update({seed: train(seed)}))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[seed], expected[seed]) for seed in range(4))


@pytest.mark.parametrize("shared", ["optimizer", "parameters"])
def test_two_threads_in_one_buffer(shared: str) -> None:
    n = 4_000_000
    p, g = np.zeros(n, "f4"), np.ones(n, "f4")
    first = fo.SGD(p, lr=1.0)
    second = first if shared == "optimizer" else fo.SGD(p, lr=1.0)
    applied = [0, 0]
    refused = [0, 0]
    barrier = threading.Barrier(2)

    def train(index: int, opt: fo.SGD) -> None:
        for _ in range(30):
            barrier.wait()
            try:
                opt.step(g)
                applied[index] += 1
            except RuntimeError:
                refused[index] += 1

    threads = [
        threading.Thread(target=train, args=(index, opt))
        for index, opt in enumerate((first, second))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(applied) + sum(refused) == 60
    assert sum(refused) > 0
    assert np.all(p == -sum(applied))
