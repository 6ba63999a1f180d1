"""The optimizers over tensors under interrupts, in forked children, and in several processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from processes import run

torch = pytest.importorskip("torch", reason="torch is not installed")

import fastoptim.torch as ft  # noqa: E402
from fastoptim import _core  # noqa: E402
from tensors import give_grads, parameters, snapshot, train  # noqa: E402

PACKAGE = str(Path(ft.__file__).parent)


def interrupted_at(instruction: int, call: Callable[[], object]) -> bool:
    """Make a call that is interrupted at an instruction, and tell whether it came to that."""
    left = instruction

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def adam() -> Any:
    params = parameters([(3,), (2, 2)])
    opt = ft.AdamW(params)
    train(opt, params, 1)
    give_grads(params, 1)
    return params, opt


def loading() -> Any:
    params, opt = adam()
    saved = ft.AdamW(others := parameters([(3,), (2, 2)], seed=1), lr=0.5)
    train(saved, others, 3)
    return params, opt, lambda: opt.load_state_dict(saved.state_dict())


def first_step() -> Any:
    params = parameters([(3,), (2, 2)])
    opt = ft.AdamW(params)
    give_grads(params, 1)
    return params, opt, lambda: opt.step(max_norm=1.0)


def second_step() -> Any:
    params = parameters([(3,), (2, 2)])
    opt = ft.SAM(params, ft.AdamW)
    give_grads(params, 1)
    opt.first_step()
    return params, opt, opt.second_step


def whole_step() -> Any:
    params = parameters([(3,)])
    opt = ft.SAM(params, ft.AdamW)
    give_grads(params, 0)
    return params, opt, lambda: opt.step(lambda: give_grads(params, 1))


def average() -> Any:
    params = parameters([(3,), (2, 2)])
    opt = ft.ScheduleFreeSGD(params)
    train(opt, params, 2)
    return params, opt, opt.eval


CALLS: dict[str, Callable[[], Any]] = {
    "step": lambda: (*(both := adam()), both[1].step),
    "first step": first_step,
    "load_state_dict": loading,
    "add_param_group": lambda: (
        *(both := adam()),
        lambda: both[1].add_param_group({"params": parameters([(1,)], seed=3)}),
    ),
    "SAM.second_step": second_step,
    "SAM.step": whole_step,
    "ScheduleFreeSGD.eval": average,
}


def picture(params: Any, opt: Any) -> Any:
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in opt.param_groups
    ]
    return snapshot(opt, params), groups, getattr(opt, "_perturbed", None)


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_finds_a_call_done_or_not_begun(name: str) -> None:
    params, opt, call = CALLS[name]()
    before = picture(params, opt)
    call()
    after = picture(params, opt)
    assert before != after
    for instruction in range(1, 100_000, 1 if name != "load_state_dict" else 7):
        params, opt, call = CALLS[name]()
        interrupted = interrupted_at(instruction, call)
        found = picture(params, opt)
        assert found in (before, after)
        if not interrupted:
            assert found == after
            break
        if not name.startswith("SAM"):
            give_grads(params, 9)
            if name != "ScheduleFreeSGD.eval":
                opt.step()


FORKED = """
import os, sys, threading, torch
import fastoptim.torch as ft
torch.manual_seed(0)

def made(seed):
    params = [torch.nn.Parameter(torch.full((300_000,), 0.5)), torch.nn.Parameter(torch.ones(3))]
    for p in params:
        p.grad = torch.full_like(p, 0.25 * seed)
    return params, ft.AdamW(params)

def work(params, opt):
    for _ in range(3):
        opt.step(max_norm=1.0)
    # The threads of PyTorch itself do not outlive a fork: nothing is computed there.
    return hash(b"".join(p.detach().numpy().tobytes() for p in params)) % 2**40

expected = work(*made(1))
shared, opt = made(1)

def forked():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, repr(work(shared, opt)).encode())
        os._exit(0)
    os.close(write)
    answer = int(os.read(read, 100))
    assert os.waitpid(child, 0)[1] == 0
    return answer

assert forked() == expected
stop = False
def busy():
    mine = made(2)
    while not stop:
        work(*mine)
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
answers = {forked() for _ in range(5)}
stop = True
for thread in threads:
    thread.join()
assert answers == {expected} == {work(shared, opt)}
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_steps() -> None:
    done = run(FORKED)
    assert done.stdout.strip() == "done", done.stderr


OPENMP = """
import os, time, torch
import fastoptim as fo
import fastoptim.torch as ft
from pathlib import Path

def workers():
    tasks = Path("/proc/self/task").iterdir()
    return [task for task in tasks if (task / "comm").read_text().startswith("fastoptim")]

def of_the_pool():
    return len(workers())

def time_of_the_pool():
    return sum(int((task / "schedstat").read_text().split()[0]) for task in workers())

def loss():
    return ft.CrossEntropyLoss()(x, target).item()

torch.set_num_threads(2)
x = torch.randn(65536, 10, requires_grad=True)
target = torch.zeros(65536, dtype=torch.int64)
fo.set_num_threads(1)
expected = loss()
fo.set_num_threads(2)
torch.ones(1 << 20).mul_(2.0)
assert loss() == expected
print(of_the_pool(), end=" ")
time.sleep(1.0)  # After which the threads of PyTorch sleep.
assert loss() == expected
print(of_the_pool(), end=" ")
# The worker of the pool sleeps, and is not woken, unless this process was stopped for too long.
def is_woken():
    before = time_of_the_pool()
    torch.ones(1 << 20).mul_(2.0)
    assert loss() == expected
    time.sleep(0.01)
    return time_of_the_pool() > before
assert not all(is_woken() for _ in range(50))
# A team of another size is not that of PyTorch, which would end its threads.
fo.set_num_threads(3)
torch.ones(1 << 20).mul_(2.0)
assert loss() == expected
print(of_the_pool())
"""


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux")
def test_the_threads_of_pytorch_work_while_they_are_awake() -> None:
    if not _core.use_openmp("libtorch_cpu.so"):
        pytest.skip("this PyTorch has no OpenMP threads")
    done = run(OPENMP)
    assert done.stdout == "0 1 2\n", done.stderr


STARTED = """
import threading, numpy as np, torch, fastoptim as fo, fastoptim.torch
from pathlib import Path

def others():
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum(not name.startswith("fastoptim") for name in names)

def step():
    fo.SGD(np.ones(1 << 20, "f4"), lr=0.1).step(np.ones(1 << 20, "f4"))

def in_a_thread():
    before = others()
    step()
    found.append(others() - before)

found = []
torch.set_num_threads(fo.get_num_threads() + 3)
in_a_thread()  # More threads than this package is to use.
torch.set_num_threads(2)
fo.set_num_threads(2)
threads = [threading.Thread(target=in_a_thread) for _ in range(3)]
for thread in threads:
    thread.start()
    thread.join()
# A thread that has been joined may still be listed.
print(max(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux")
def test_no_threads_of_pytorch_are_started_beyond_the_number() -> None:
    done = run(STARTED)
    assert done.stdout == "0\n", done.stderr


LIMITED = """
import resource, numpy as np, torch, fastoptim as fo, fastoptim.torch
torch.set_num_threads(4)
fo.set_num_threads(4)
p, g = np.ones(1 << 20, "f4"), np.ones(1 << 20, "f4")
opt = fo.SGD(p, lr=0.5)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (ROOM << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
opt.step(g)
print(p.min(), p.max())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux")
@pytest.mark.parametrize(("room", "variables"), [(6, {}), (200, {"OMP_STACKSIZE": "1G"})])
def test_threads_of_pytorch_that_cannot_start_do_not_end_the_process(
    room: int, variables: dict[str, str]
) -> None:
    done = run(LIMITED.replace("ROOM", str(room)), **variables)
    assert done.stdout == "0.5 0.5\n", done.stderr


FORKED_AFTER_A_STEP = """
import os, signal, sys, numpy as np, torch, fastoptim as fo, fastoptim.torch
torch.set_num_threads(2)
fo.set_num_threads(2)
if sys.argv[1:] == ["operation"]:
    torch.ones(1 << 20).mul_(2.0)
fo.SGD(np.ones(1 << 20, "f4"), lr=0.1).step(np.ones(1 << 20, "f4"))
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if torch.ones(1 << 20).mul_(2.0).sum() == 2 << 20 else 1)
print(os.waitpid(child, 0)[1], torch.ones(1 << 20).mul_(2.0).mean().item())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("before", ["", "operation"])
def test_pytorch_works_in_a_child_that_was_forked_after_a_step(before: str) -> None:
    done = run(FORKED_AFTER_A_STEP.replace("sys.argv[1:]", repr([before])))
    assert done.stdout == "0 2.0\n", done.stderr


FORKED_BEFORE_THE_IMPORT = """
import os, torch
torch.set_num_threads(2)
x = torch.ones(1 << 20, requires_grad=True)
x.grad = x.detach().mul(2.0)
child = os.fork()
if child == 0:
    # PyTorch has records of threads that do not exist in this process.
    import fastoptim.torch as ft
    from fastoptim import _core
    assert not _core.use_openmp("libtorch_cpu.so")
    opt = ft.SGD([x], lr=0.5)
    for _ in range(3):
        opt.step()
    os._exit(0 if x.detach().numpy().max() == -2.0 else 1)
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_was_forked_after_work_of_pytorch_steps() -> None:
    done = run(FORKED_BEFORE_THE_IMPORT)
    assert done.stdout == "0\n", done.stderr


DISTRIBUTED = """
import os, sys, torch
import torch.distributed as dist
import torch.multiprocessing as mp
import fastoptim.torch as ft
from torch.nn.parallel import DistributedDataParallel

def train(rank, port, cls, out):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double())
    opt = cls(model.parameters(), lr=0.1)
    torch.manual_seed(rank)
    for _ in range(5):
        opt.zero_grad()
        model(torch.randn(6, 4).double()).square().sum().backward()
        opt.step()
    out.put((rank, torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()))
    dist.destroy_process_group()

if __name__ == "__main__":
    import socket
    found = {}
    for cls in (torch.optim.AdamW, ft.AdamW):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = mp.get_context("fork")
        out = context.SimpleQueue()
        workers = [context.Process(target=train, args=(r, port, cls, out)) for r in range(2)]
        for worker in workers:
            worker.start()
        results = dict(out.get() for _ in workers)
        for worker in workers:
            worker.join()
        assert results[0] == results[1]
        found[cls] = torch.tensor(results[0])
    torch.testing.assert_close(*found.values(), rtol=1e-10, atol=1e-10)
    print("done")
"""


@pytest.mark.skipif(
    not (hasattr(os, "fork") and torch.distributed.is_available()), reason="no processes here"
)
def test_distributed_data_parallel_works_unchanged() -> None:
    done = run(DISTRIBUTED)
    assert done.stdout.strip().endswith("done"), done.stderr
