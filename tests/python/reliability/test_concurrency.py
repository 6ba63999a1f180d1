"""Threads, forks and instruction sets: no update is lost, and results are bitwise identical."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import LOSSES, OPTIMIZERS
from fastoptim import _core
from processes import run

SIZES = [*range(258), *(2**k + d for k in range(9, 18) for d in (-3, -1, 0, 1, 3))]


def fixed_run() -> str:
    """Return a hash of the results of optimizers, losses, norms and penalties for many sizes."""
    rng = np.random.default_rng(0)
    digest = hashlib.sha256()
    for dtype in "f4", "f8":
        grads = [rng.standard_normal((1, n)).astype(dtype) for n in SIZES]
        for cls in OPTIMIZERS:
            params = [np.ones_like(g) for g in grads]
            opt = cls(params, lr=0.1)
            for max_norm in None, 1.0:
                info = opt.step(grads, max_norm=max_norm)
                digest.update(repr(info.grad_norm).encode())
            for array in params:
                digest.update(array.tobytes())
        for p in 0.5, 1.0, 2.0, 3.0, float("inf"):
            norms = [fo.get_total_norm(grads, p), *(fo.get_total_norm(g, p) for g in grads[::7])]
            digest.update(repr(norms).encode())
        penalty = fo.regularizers.ElasticNet(0.1, 0.3).add_grad(params, grads)
        digest.update(repr(penalty).encode() + b"".join(g.tobytes() for g in grads))
        ema = fo.EMA(params, decay=0.3)
        ema.update(grads)
        digest.update(ema.shadow.flat.tobytes())
        for loss, shape in itertools.product(LOSSES, [(1, 1), (17, 5), (300, 1001)]):
            x, y = (rng.random(shape).astype(dtype) for _ in range(2))
            value, gradient = loss.value_and_grad(x, y)
            digest.update(repr(value).encode())
            digest.update(gradient.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def expected() -> str:
    with fo.num_threads(1):
        return fixed_run()


@pytest.mark.parametrize("n", [2, 3, 64])
def test_threads_change_no_bit(n: int, expected: str) -> None:
    with fo.num_threads(n):
        assert fixed_run() == expected


@pytest.mark.parametrize("tier", _core.tiers())
def test_instruction_sets_change_no_bit(tier: str, expected: str) -> None:
    script = "import test_concurrency as t; print(t._core.tier(), t.fixed_run())"
    done = run(script, FASTOPTIM_ISA=tier)
    assert done.stdout.split() == [tier, expected], done.stderr


@pytest.mark.parametrize(
    "tier", ["sse9", "AVX2 ", {"x86_64": "neon"}.get(platform.machine(), "avx2")]
)
def test_an_unsupported_instruction_set(tier: str) -> None:
    done = run("import fastoptim", FASTOPTIM_ISA=tier)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError")
    assert "FASTOPTIM_ISA" in message
    assert tier in message


IMPORT = """
import os, sys, time
import numpy
before, start = len(os.listdir("/proc/self/task")), time.perf_counter()
import fastoptim
print(time.perf_counter() - start, len(os.listdir("/proc/self/task")) - before)
print(*{"torch", "matplotlib", "sklearn", "ml_dtypes", "scipy", "jax"} & set(sys.modules))
"""


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system has no /proc")
def test_import_starts_no_thread_and_is_quick() -> None:
    seconds, threads, *modules = run(IMPORT).stdout.split()
    assert float(seconds) < 1
    assert (threads, modules) == ("0", [])


FORK = """
import os, sys, threading
import numpy as np
import fastoptim as fo

def work():
    w = np.ones(400_000, "f4")
    with fo.num_threads(3):
        for _ in range(3):
            fo.AdamW(w).step(w.copy(), max_norm=1.0)
    return hash(w.tobytes()) % 2**31

def forked(depth):
    # The child's answer, or that of its own child.
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer = work()
        if depth > 1:
            assert forked(depth - 1) == answer
        os.write(write, str(answer).encode())
        os._exit(0)
    os.close(write)
    answer = int(os.read(read, 100))
    assert os.waitpid(child, 0)[1] == 0
    return answer

expected = work()
assert forked(2) == expected
assert work() == expected

stop = False
def busy():
    while not stop:
        work()
# Forks in the middle of other threads' steps.
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
answers = {forked(1) for _ in range(10)}
stop = True
for thread in threads:
    thread.join()
assert answers == {expected} == {work()}
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_steps_in_parallel() -> None:
    done = run(FORK, PYTHONHASHSEED="0")
    assert done.stdout == "done\n", done.stderr


FORK_IN_A_STEP = """
import os, threading
import numpy as np
import fastoptim as fo

n = 3_000_000
w, g = np.zeros(n, "f4"), np.ones(n, "f4")
opt = fo.SGD([w], lr=1.0, momentum=0.5)
opt.step([g])

def busy():
    while not stop:
        opt.step([g])

def child():
    other = threading.Thread(target=lambda: opt.step([g]))
    before = opt.state["0"]["step"]
    opt.step([g], max_norm=1.0)
    other.start()
    other.join()
    opt.zero_grad([g])
    assert opt.state_dict()["state"][0]["step"] == opt.state["0"]["step"] == before + 2
    opt.load_state_dict(opt.state_dict())

stop = False
thread = threading.Thread(target=busy)
thread.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop = True
thread.join()
opt.step([g])
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_child_uses_the_optimizer_that_its_parent_was_stepping() -> None:
    done = run(FORK_IN_A_STEP)
    assert done.stdout == "done\n", done.stderr


FORK_IN_A_HYPERPARAMETER = """
import os
import numpy as np
import fastoptim as fo

w = np.zeros(2)
def lr(steps):
    global pid
    pid = os.fork()
    if pid == 0:
        # The thread that forked is in the step here, too.
        try:
            opt.step(np.ones(2))
        except RuntimeError as error:
            assert "within one of its own calls" in str(error)
        else:
            os._exit(1)
    return 1.0

opt = fo.SGD(w, lr=lr)
opt.step(np.ones(2))
opt.param_groups[0]["lr"] = 1.0
opt.step(np.ones(2))
if pid == 0:
    os._exit(int(w.tolist() != [-2, -2]))
assert os.waitpid(pid, 0)[1] == 0
print(w.tolist())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_child_that_is_forked_off_within_a_step_finishes_it() -> None:
    done = run(FORK_IN_A_HYPERPARAMETER)
    assert done.stdout == "[-2.0, -2.0]\n", done.stderr


def together(*calls: Callable[[], object]) -> list[Any]:
    """Start calls concurrently in separate threads; return their results or exceptions."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)

    def call(index: int) -> None:
        barrier.wait()
        try:
            results[index] = calls[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return results


def test_different_optimizers_at_once(optimizer: Any) -> None:
    grads = np.linspace(-1, 1, 320_000, dtype="f4").reshape(640, 500)

    def train() -> bytes:
        w = np.ones_like(grads)
        opt = optimizer([w], lr=0.1)
        for _ in range(5):
            # The gradients are shared: they are only read.
            opt.step([grads], max_norm=1.0)
        return w.tobytes()

    assert set(together(*[train] * 4)) == {train()}


class Calls(Sequence[Any]):
    """Gradients that call a function when they are read."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        self.call()
        return [np.ones(3)][index]


USES: dict[str, Callable[[Any], object]] = {
    "step": lambda opt: opt.step([np.ones(3)]),
    "zero_grad": lambda opt: opt.zero_grad([np.ones(3)]),
    "state": lambda opt: opt.state,
    "state_dict": lambda opt: opt.state_dict(),
    "load_state_dict": lambda opt: opt.load_state_dict(saved_state()),
    "add_param_group": lambda opt: opt.add_param_group({"params": {"x": np.ones(2)}}),
    "eval": lambda opt: opt.eval(),
}


def saved_state() -> Any:
    opt = fo.ScheduleFreeSGD([np.zeros(3)], lr=1.0)
    opt.step([np.ones(3)])
    return opt.state_dict()


@pytest.mark.parametrize("use", USES)
def test_a_call_from_within_a_call_of_the_same_optimizer_is_refused(use: str) -> None:
    w = np.zeros(3)
    opt = fo.ScheduleFreeSGD([w])
    opt.param_groups[0]["lr"] = lambda steps: USES[use](opt) and 1.0
    words = "called from within one of its own calls"
    with pytest.raises(RuntimeError, match=words):
        opt.step([np.ones(3)])
    opt.param_groups[0]["lr"] = 1.0
    for call in opt.step, opt.zero_grad:
        with pytest.raises(RuntimeError, match=words):
            call(Calls(lambda: USES[use](opt)))
    assert not w.any()
    opt.step([np.ones(3)])
    assert w.any()


def test_a_concurrent_call_of_the_same_optimizer_is_refused() -> None:
    w = np.zeros(3)
    inside, leave = threading.Event(), threading.Event()

    def lr(steps: int) -> float:
        inside.set()
        leave.wait(60)
        return 1.0

    opt = fo.ScheduleFreeSGD([w])
    opt.param_groups[0]["lr"] = lr
    thread = threading.Thread(target=lambda: opt.step([np.ones(3)]))
    thread.start()
    inside.wait(60)
    try:
        for use in USES.values():
            with pytest.raises(RuntimeError, match="another thread is in a call of this optimizer"):
                use(opt)
    finally:
        leave.set()
        thread.join()
    assert w.any()


def clashes(one: Callable[[], object], other: Callable[[], object]) -> Iterator[list[Any]]:
    """Run two calls concurrently, until one of them was refused."""
    for _ in range(200):
        results = together(one, other)
        yield results
        if any(isinstance(result, Exception) for result in results):
            return
    pytest.fail("the calls never overlapped")


@pytest.mark.parametrize("how", ["two optimizers", "one optimizer"])
def test_two_threads_in_one_buffer_lose_nothing(how: str) -> None:
    w, g = np.zeros(2_000_000, "f4"), np.ones(2_000_000, "f4")
    first = fo.SGD([w], lr=1.0)
    second = fo.SGD([w], lr=1.0) if how == "two optimizers" else first
    applied, refused = 0, 0
    for results in clashes(lambda: first.step([g]), lambda: second.step([g])):
        for result in results:
            assert isinstance(result, RuntimeError | fo.StepInfo), result
        applied += sum(isinstance(result, fo.StepInfo) for result in results)
        refused += sum(isinstance(result, RuntimeError) for result in results)
        assert (w == -applied).all()
    assert refused == 1
    assert sum({id(opt): opt.state["0"]["step"] for opt in (first, second)}.values()) == applied
    first.step([g])
    assert (w == -applied - 1).all()


@pytest.mark.parametrize(
    "other",
    [
        lambda w: fo.get_total_norm(w),
        lambda w: fo.clip_grad_value_(w, 1e9),
        lambda w: fo.EMA(w),
        lambda w: fo.EMA(np.zeros_like(w)).swap(w),
        lambda w: fo.SGD([np.zeros_like(w)]).step([w]),
        lambda w: fo.SGD([np.zeros_like(w)]).step([w], zero_grad=True),
        lambda w: fo.SGD([np.ones_like(w)]).step([w.copy()], copy_to=[w.view("f2")[: w.size]]),
        lambda w: fo.SAM(fo.SGD([np.ones_like(w)])).first_step([w]),
        lambda w: fo.losses.MSELoss()(w, w.copy()),
        lambda w: fo.losses.MSELoss().grad(w.copy(), w.copy(), out=w),
    ],
)
def test_memory_that_another_call_writes_is_refused(other: Any) -> None:
    w, g = np.zeros(2_000_000, "f4"), np.ones(2_000_000, "f4")
    opt = fo.SGD([w], lr=1.0)
    for results in clashes(lambda: opt.step([g]), lambda: other(w)):
        errors = [result for result in results if isinstance(result, Exception)]
        assert all(isinstance(error, RuntimeError) for error in errors), errors
        assert len(errors) < 2


def test_saves_and_loads_concurrent_with_steps_are_consistent() -> None:
    def opt_and_grads(n: int) -> tuple[Any, Any]:
        return fo.SGD([np.zeros(n)], lr=1.0, momentum=0.5), [np.ones(n)]

    def buffer(entry: dict[str, Any]) -> set[float]:
        return set(np.unique(entry["momentum_buffer"]).tolist())

    # The values of the buffer after each number of steps.
    small, one = opt_and_grads(1)
    small.step(one)
    after = {1: buffer(small.state["0"])}
    opt, g = opt_and_grads(1_000_000)
    opt.step(g)
    saved = opt.state_dict()
    for _ in range(20):
        for call in opt.state_dict, lambda: opt.load_state_dict(saved):
            stepped, called = together(lambda: opt.step(g), call)
            assert isinstance(stepped, fo.StepInfo | RuntimeError), stepped
            assert isinstance(called, dict | None | RuntimeError), called
            while max(after) < opt.state["0"]["step"]:
                small.step(one)
                after[small.state["0"]["step"]] = buffer(small.state["0"])
            entries = [opt.state["0"]] + ([called["state"][0]] if isinstance(called, dict) else [])
            for entry in entries:
                assert buffer(entry) == after[entry["step"]]


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "1.5", "99999"])
def test_an_invalid_variable_warns_and_the_default_is_used(text: str) -> None:
    script = "import fastoptim as fo; print(fo.get_num_threads())"
    done = run(script, FASTOPTIM_NUM_THREADS=text)
    assert done.returncode == 0
    assert done.stderr.count("RuntimeWarning") == 1
    assert f"FASTOPTIM_NUM_THREADS={text!r}" in done.stderr
    assert 1 <= int(done.stdout) <= (os.cpu_count() or 1)


def test_the_variable_sets_the_number() -> None:
    done = run("import fastoptim as fo; print(fo.get_num_threads())", FASTOPTIM_NUM_THREADS=" 7 ")
    assert (done.stdout, done.stderr) == ("7\n", "")


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = fo.get_num_threads()
    fo.set_num_threads(np.int64(4))
    yield
    fo.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
def test_num_threads_applies_only_to_the_calling_thread() -> None:
    with fo.num_threads(2):
        assert fo.get_num_threads() == 2
        with fo.num_threads(1):
            assert fo.get_num_threads() == 1
            assert together(fo.get_num_threads) == [4]
        assert fo.get_num_threads() == 2
        fo.set_num_threads(5)
        assert fo.get_num_threads() == 2
        assert together(fo.get_num_threads) == [5]
        with pytest.raises(KeyError), fo.num_threads(3):
            raise KeyError
        assert fo.get_num_threads() == 2
    assert fo.get_num_threads() == 5


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("scope", ["process", "block"])
def test_bad_numbers_of_threads(scope: str) -> None:
    def use(n: Any) -> None:
        if scope == "process":
            fo.set_num_threads(n)
        else:
            with fo.num_threads(n):
                pass

    for n in 0, -1, 1025, 2**70:
        with pytest.raises(ValueError, match="n must be"):
            use(n)
    for bad in 1.5, 2.0, "2", None, True, [2]:
        with pytest.raises(TypeError, match="n must be"):
            use(bad)
    assert fo.get_num_threads() == 4
