"""PyTorch's ZeroRedundancyOptimizer around the classes over tensors, on two processes."""

from __future__ import annotations

import os

import pytest

from processes import run

torch = pytest.importorskip("torch", reason="torch is not installed")

SHARDED = """
import os, warnings
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import fastoptim.torch as ft
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

CLASSES = {ft.AdamW: {}, ft.SGD: {"momentum": 0.9}, ft.LAMB: {}, ft.Lion: {}, ft.Adafactor: {}}

def trained(cls, options, rank, sharded):
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)))
    if sharded:
        opt = ZeroRedundancyOptimizer(model.parameters(), cls, lr=0.1, **options)
    else:
        opt = cls(model.parameters(), lr=0.1, **options)
    torch.manual_seed(rank)
    for _ in range(4):
        opt.zero_grad()
        model(torch.randn(6, 4)).square().sum().backward()
        opt.step()
    held = opt.optim.state if sharded else opt.state
    state = None
    if sharded:
        opt.consolidate_state_dict(to=0)
        state = opt.state_dict()["state"] if rank == 0 else None
    else:
        state = opt.state_dict()["state"]
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    return flat, len(held), state

def train(rank, port, out):
    warnings.simplefilter("ignore")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for cls, options in CLASSES.items():
        whole, all_held, expected = trained(cls, options, rank, False)
        flat, held, state = trained(cls, options, rank, True)
        assert torch.equal(flat, whole), cls
        assert 0 < held < all_held == 4, (cls, held)
        if rank == 0:
            assert state.keys() == expected.keys(), cls
            for index, entry in expected.items():
                for key, value in entry.items():
                    assert torch.equal(torch.as_tensor(state[index][key]),
                                       torch.as_tensor(value)), (cls, index, key)
        both = [torch.empty_like(flat) for _ in range(2)]
        dist.all_gather(both, flat)
        assert torch.equal(*both), cls
    out.put("done")
    dist.destroy_process_group()

if __name__ == "__main__":
    import socket
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("fork")
    out = context.SimpleQueue()
    workers = [context.Process(target=train, args=(r, port, out)) for r in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    print("done")
"""


@pytest.mark.skipif(
    not (hasattr(os, "fork") and torch.distributed.is_available()), reason="no processes here"
)
def test_zero_redundancy_optimizer_gives_the_bits_of_the_class() -> None:
    done = run(SHARDED)
    assert done.stdout.strip().endswith("done"), done.stderr
