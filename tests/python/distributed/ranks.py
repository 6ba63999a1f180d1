"""The checks that run on several ranks, started by ``mpiexec -n N python ranks.py CHECK...``."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import fastoptim as fo
from configurations import BF16, CONFIGURATIONS
from fastoptim.distributed import ShardedOptimizer, average_gradients

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size

# Arrays of several blocks, shorter than a block, empty, and of one element.
SHAPES = {"a": (3, 3001), "b": (41,), "c": (), "d": (0, 2), "e": (64, 131), "f": (4097,)}
MATRICES = {"a": (30, 31), "b": (5, 8), "c": (64, 3), "d": (7, 7)}
REGULARIZER = fo.regularizers.ElasticNet(1e-3, 1e-2)


def numbers(seed: int, shapes: dict[str, Any], dtype: Any) -> fo.FlatBuffer:
    """Return fixed numbers around 0."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return fo.FlatBuffer.from_arrays({k: np.asarray(v).astype(dtype) for k, v in arrays.items()})


def gradients(seed: int, shapes: dict[str, Any], dtype: Any) -> Iterator[fo.FlatBuffer]:
    """Return the gradients of every rank, whose sums are exact in any order."""
    for rank in range(SIZE):
        rng = np.random.default_rng([seed, rank])
        # 16 bits have few digits, which the sums of seven ranks must fit.
        arrays = {k: rng.integers(-8, 8, shape) for k, shape in shapes.items()}
        yield fo.FlatBuffer.from_arrays({k: np.asarray(v).astype(dtype) for k, v in arrays.items()})


def mean(seed: int, shapes: dict[str, Any], dtype: Any) -> fo.FlatBuffer:
    """Return the average of the gradients of all ranks."""
    total = numbers(0, shapes, dtype)
    wide = np.float32 if total.dtype.itemsize == 2 else total.dtype
    sums = sum(one.flat.astype(wide) for one in gradients(seed, shapes, dtype))
    total.flat[...] = (sums / total.flat.astype(wide).dtype.type(SIZE)).astype(dtype)
    return total


def same(name: str, found: Any, expected: Any) -> None:
    """Compare arrays to the bit."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.dtype == expected.dtype, (name, found.dtype, expected.dtype)
    assert found.shape == expected.shape, (name, found.shape, expected.shape)
    assert found.tobytes() == expected.tobytes(), f"{name} differs on rank {RANK} of {SIZE}"


def same_state(name: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare two results of `state_dict` to the bit."""
    assert found["param_groups"] == expected["param_groups"], name
    assert found["steps"] == expected["steps"], name
    assert found["state"].keys() == expected["state"].keys(), name
    for index, entry in expected["state"].items():
        assert found["state"][index].keys() == entry.keys(), (name, index)
        for key, value in entry.items():
            same(f"{name}: {key} of {index}", found["state"][index][key], value)


def shapes_for(cls: Any) -> dict[str, Any]:
    return MATRICES if cls is fo.Muon else SHAPES


def compare(label: str, cls: Any, dtype: Any, arguments: Any, form: str, **options: Any) -> None:
    """Step on all ranks and in one process, and compare everything that a step writes."""
    shapes = shapes_for(cls)
    params, alone = numbers(1, shapes, dtype), numbers(1, shapes, dtype)
    outputs: list[dict[str, Any]] = [{}, {}]
    if options.pop("outputs", False):
        for one, buffer in zip(outputs, (params, alone), strict=True):
            one["ema"] = fo.EMA(buffer, decay=0.5)
            if dtype in ("f4", "f8"):
                one["copy_to"] = fo.FlatBuffer(shapes, "bfloat16")
    given: Any = params if form == "flat" else dict(params)
    sharded = ShardedOptimizer(cls, given, COMM, **arguments)
    plain = cls(alone if form == "flat" else dict(alone), **arguments)
    for seed in range(2):
        own = list(gradients(seed, shapes, dtype))[RANK]
        info = sharded.step(own, **options, **outputs[0])
        expected = plain.step(mean(seed, shapes, dtype), **options, **outputs[1])
        assert info == expected, (label, info, expected)
    same(label, params.flat, alone.flat)
    for one, other in zip(*(list(x.values()) for x in outputs), strict=True):
        pair = (one, other) if isinstance(one, fo.FlatBuffer) else (one.shadow, other.shadow)
        same(f"{label}, output", pair[0].flat, pair[1].flat)
    if "ema" in outputs[0]:
        assert outputs[0]["ema"].updates == 2
    whole = sharded.state_dict()
    same_state(label, whole, plain.state_dict())
    held = [value for entry in sharded.state.values() for value in entry.values()]
    mine = sum(value.nbytes for value in held if isinstance(value, np.ndarray))
    arrays = [v for entry in whole["state"].values() for v in entry.values()]
    total = sum(value.nbytes for value in arrays if isinstance(value, np.ndarray))
    if not cls._works_by_shape and total:
        elements = params.size
        block = total / elements * fo._core.PART
        assert abs(mine - total / SIZE) <= block + 64, (label, mine, total)


def bits_of_rules() -> None:
    for name, cases in CONFIGURATIONS.items():
        cls = getattr(fo, name)
        for index, arguments in enumerate([{}, *cases.rules]):
            form = "flat" if index % 2 == 0 else "mapping"
            options = {"max_norm": 0.5, "nonfinite": "skip"} if index % 2 else {}
            compare(f"{name} {arguments}", cls, "f4", arguments, form, **options)


def bits_of_options() -> None:
    for name in ("SGD", "AdamW", "LAMB", "Prodigy", "ScheduleFreeAdamW", "Adafactor", "Muon"):
        cls = getattr(fo, name)
        options: dict[str, Any] = {
            "loss_scale": 4.0,
            "clip_value": 0.9,
            "max_norm": 1.0,
            "nonfinite": "raise",
            "regularizer": REGULARIZER,
            "outputs": True,
        }
        for form in ("flat", "mapping"):
            compare(f"{name} with options", cls, "f8", {}, form, **options)
            compare(f"{name} with outputs", cls, "f4", {}, form, outputs=True)


def bits_of_storage() -> None:
    for name in ("AdamW", "SGD", "LAMB", "Adam"):
        cls = getattr(fo, name)
        rules: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}, "Adam": {"amsgrad": True}}
        arguments = rules.get(name, {})
        for dtype, storage in (
            (BF16, None),
            ("f2", "int8"),
            ("f4", "int8"),
            ("f4", "bfloat16"),
        ):
            both = {**arguments, "state_dtype": storage, "seed": 5}
            compare(f"{name} {dtype} {storage}", cls, dtype, both, "flat", max_norm=1.0)
            compare(f"{name} {dtype} {storage}", cls, dtype, both, "mapping", outputs=True)


def groups_and_schedules() -> None:
    def build(make: Callable[..., Any]) -> tuple[fo.FlatBuffer, fo.FlatBuffer, Any]:
        first, second = numbers(1, SHAPES, "f4"), numbers(2, {"x": (5000,)}, "f8")
        groups = [
            {"params": first, "lr": lambda step: 0.1 / (1 + step)},
            {"params": second, "weight_decay": 0.5, "regularizer": REGULARIZER},
        ]
        return first, second, make(groups)

    one, two, sharded = build(lambda groups: ShardedOptimizer(fo.LARS, groups, COMM))
    three, four, plain = build(fo.LARS)
    for seed in range(2):
        own = (
            list(gradients(seed, SHAPES, "f4"))[RANK],
            list(gradients(seed, {"x": 5000}, "f8"))[RANK],
        )
        all_of = mean(seed, SHAPES, "f4"), mean(seed, {"x": 5000}, "f8")
        grads = {**own[0], **own[1], "b": None}
        expected = {**all_of[0], **all_of[1], "b": None}
        # The average over ranks counts a parameter without a gradient on no rank.
        info = sharded.step(grads, max_norm=1.0, zero_grad=True)
        assert info == plain.step(expected, max_norm=1.0), info
        assert not own[1].flat.any()
        assert own[0]["b"].any()
        assert not own[0]["a"].any()
    same("first group", one.flat, three.flat)
    same("second group", two.flat, four.flat)
    assert sharded.current("lr") == plain.current("lr") == 0.1 / 3
    same_state("groups", sharded.state_dict(), plain.state_dict())
    plateau = fo.lr_scheduler.ConstantLR(ShardedOptimizer(fo.SGD, np.ones(3), COMM, lr=0.5))
    assert plateau.get_last_lr() == [0.5 / 3]


def skipped_steps() -> None:
    params = numbers(1, SHAPES, "f4")
    opt = ShardedOptimizer(fo.AdamW, params, COMM, average=False)
    grads = params.zeros_like()
    grads.flat[...] = 1.0
    assert opt.step(grads, nonfinite="skip").applied
    before, state = params.flat.copy(), opt.state_dict()
    bad = params.zeros_like()
    if RANK == SIZE - 1:
        bad["f"][7] = np.inf
    info = opt.step(bad, nonfinite="skip", max_norm=1.0)
    assert not info.applied
    same("skipped", params.flat, before)
    same_state("skipped", opt.state_dict(), state)
    raises(FloatingPointError, 'grads["f"] has', lambda: opt.step(bad, nonfinite="raise"))
    same_state("refused", opt.state_dict(), state)
    # Steps on the sum.
    whole = numbers(1, SHAPES, "f4")
    plain = fo.AdamW(whole)
    grads.flat[...] = SIZE
    plain.step(grads)
    same("sum", params.flat, whole.flat)


def averages() -> None:
    for dtype in ("f4", "f8", "f2", BF16):
        grads = list(gradients(3, SHAPES, dtype))[RANK]
        expected = mean(3, SHAPES, dtype)
        average_gradients(grads, COMM)
        same(f"average of {dtype}", grads.flat, expected.flat)
    x = np.full((2, 3), RANK + 1.0)
    average_gradients(x, COMM, weight=RANK + 1.0)
    weights = np.arange(1.0, SIZE + 1)
    np.testing.assert_allclose(x, (weights * weights).sum() / weights.sum(), rtol=1e-15)
    y = np.full(3, np.nan if RANK else 2.0)
    y[...] = RANK
    raises(ValueError, "weight must be > 0", lambda: average_gradients(y, COMM, weight=0))
    same("unchanged", y, np.full(3, float(RANK)))
    raises(TypeError, "grads must be", lambda: average_gradients(np.ones(3, int), COMM))
    frozen = np.ones(3)
    frozen.flags.writeable = False
    raises(ValueError, "writable", lambda: average_gradients(frozen, COMM))
    raises(ValueError, "weight must be", lambda: average_gradients(y, COMM, weight=-1.0))
    not_a_comm: Any = 3
    raises(TypeError, "comm must be", lambda: average_gradients(y, not_a_comm))
    if SIZE > 1:
        other = np.ones(3 + (RANK == 1))
        raises(ValueError, "grads must be the same on all", lambda: average_gradients(other, COMM))
        kind = np.ones(3, "f8" if RANK else "f4")
        raises(ValueError, "grads must be the same on all", lambda: average_gradients(kind, COMM))
        weight = 1.0 if RANK else None
        raises(ValueError, "weight is given", lambda: average_gradients(y, COMM, weight=weight))


def raises(kind: type[BaseException], text: str, call: Callable[[], object]) -> None:
    """Check that a call raises on this rank, with a message that has the text."""
    with pytest.raises(kind, match=re.escape(text) or None):
        call()


def failing(step: int) -> float:
    """A schedule that fails on one rank."""
    if step == 1 and RANK == SIZE - 1:
        raise ZeroDivisionError("the user's schedule")
    return 0.1


def errors() -> None:
    last = f"rank {SIZE - 1}: " if SIZE - 1 != RANK else ""
    params = numbers(1, SHAPES, "f4")
    opt = ShardedOptimizer(fo.SGD, params, COMM, lr=failing, momentum=0.9)
    grads = params.zeros_like()
    opt.step(grads)
    before, state = params.flat.copy(), [x.copy() for x in _arrays(opt)]
    raises(ZeroDivisionError, f"{last}the user's schedule", lambda: opt.step(grads))
    opt.param_groups[0]["lr"] = 0.5
    wrong: Any = params.zeros_like()
    if RANK == SIZE - 1:
        wrong = numbers(1, SHAPES, "f8")
    raises(TypeError, f"{last}grads", lambda: opt.step(wrong))
    short = np.ones(params.size - (RANK == SIZE - 1), "f4")
    raises(ValueError, f"{last}grads", lambda: opt.step(short))

    def broken() -> Iterator[Any]:
        yield from list(grads.views)[:3]
        if RANK == SIZE - 1:
            raise KeyError("the user's loader")
        yield from list(grads.views)[3:]

    raises(KeyError, "the user's loader", lambda: opt.step(broken()))
    infinity = float("inf") if RANK == SIZE - 1 else 1.0
    raises(ValueError, f"{last}loss_scale", lambda: opt.step(grads, loss_scale=infinity))
    unknown = {"unknown": 1} if RANK == SIZE - 1 else {}
    raises(TypeError, last, lambda: opt.step(grads, **unknown))
    if SIZE > 1:
        scale = 2.0 if RANK == SIZE - 1 else 1.0
        raises(ValueError, "loss_scale must be the same", lambda: opt.step(grads, loss_scale=scale))
        norm = {"max_norm": 1.0} if RANK == SIZE - 1 else {}
        raises(ValueError, "max_norm must be the same", lambda: opt.step(grads, **norm))
        opt.param_groups[0]["momentum"] = 0.5 if RANK == SIZE - 1 else 0.9
        raises(ValueError, "momentum of group 0 must be the same", lambda: opt.step(grads))
        opt.param_groups[0]["momentum"] = 0.9
        missing: Any = dict(grads)
        if RANK == SIZE - 1:
            missing["b"] = None
        raises(ValueError, "dtypes of grads must be", lambda: opt.step(missing))
        half: Any = params.zeros_like()
        if RANK == SIZE - 1:
            half = fo.FlatBuffer(SHAPES, "float16")
        raises(ValueError, "dtypes of grads must be", lambda: opt.step(half))
        other = numbers(RANK, SHAPES, "f4")
        raises(ValueError, "params['a']", lambda: ShardedOptimizer(fo.SGD, other, COMM))
        cls = fo.SGD if RANK else fo.Adam
        raises(ValueError, "cls must be", lambda: ShardedOptimizer(cls, params, COMM))
    same("parameters after errors", params.flat, before)
    for mine, old in zip(_arrays(opt), state, strict=True):
        same("state after errors", mine, old)
    lr: Any = "high" if RANK == SIZE - 1 else 0.1
    raises(TypeError, last, lambda: ShardedOptimizer(fo.SGD, params, COMM, lr=lr))
    not_a_class: Any = fo.SAM
    raises(TypeError, "cls must be", lambda: ShardedOptimizer(not_a_class, params, COMM))
    raises(AttributeError, "has no eval", opt.eval)
    damaged = opt.state_dict()
    if RANK == SIZE - 1:
        damaged["state"][0]["momentum_buffer"] = np.ones(3)
    raises(fo.CheckpointError, f"{last}momentum_buffer", lambda: opt.load_state_dict(damaged))
    opt.step(grads)


def _arrays(opt: ShardedOptimizer) -> list[Any]:
    return [x for e in opt.state.values() for x in e.values() if isinstance(x, np.ndarray)]


def schedule_free() -> None:
    params, alone = numbers(1, SHAPES, "f4"), numbers(1, SHAPES, "f4")
    sharded, plain = (
        ShardedOptimizer(fo.ScheduleFreeSGD, params, COMM),
        fo.ScheduleFreeSGD(alone),
    )
    for seed in range(2):
        sharded.step(list(gradients(seed, SHAPES, "f4"))[RANK])
        plain.step(mean(seed, SHAPES, "f4"))
    for method in ("eval", "train"):
        getattr(sharded, method)()
        getattr(plain, method)()
        same(method, params.flat, alone.flat)


# The class, the dtype and the arguments of saved optimizers.
SAVED: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "adam": (fo.Adam, "f4", {"amsgrad": True}),
    "int8": (fo.AdamW, BF16, {"state_dtype": "int8", "seed": 2}),
    "prodigy": (fo.Prodigy, "f8", {}),
    "muon": (fo.Muon, "f4", {}),
    "adafactor": (fo.Adafactor, "f4", {}),
    "free": (fo.ScheduleFreeAdamW, "f4", {}),
}


def saved_on(ranks: int, name: str) -> str:
    return f"{name}-{ranks}.safetensors"


def reference(name: str, steps: int) -> tuple[fo.FlatBuffer, Any]:
    """Return the parameters and the optimizer of one process after some steps."""
    cls, dtype, arguments = SAVED[name]
    shapes = shapes_for(cls)
    params = numbers(1, shapes, dtype)
    opt = cls(params, **arguments)
    for seed in range(steps):
        opt.step(numbers(10 + seed, shapes, dtype))
    return params, opt


def save() -> None:
    """Save after two steps with the same gradients on all ranks."""
    for name, (cls, dtype, arguments) in SAVED.items():
        shapes = shapes_for(cls)
        params = numbers(1, shapes, dtype)
        opt = ShardedOptimizer(cls, params, COMM, average=False, **arguments)
        for seed in range(2):
            grads = params.zeros_like()
            if RANK == 0:
                grads = numbers(10 + seed, shapes, dtype)
            opt.step(grads)
        fo.save(saved_on(SIZE, name), params=params, opt=opt, epoch=7)


def load() -> None:
    """Load files of other numbers of ranks, and go on; load into the plain class, too."""
    for path in sorted(Path().glob("*.safetensors")):
        name = path.name.partition("-")[0]
        cls, dtype, arguments = SAVED[name]
        shapes = shapes_for(cls)
        params = numbers(5, shapes, dtype)
        opt = ShardedOptimizer(cls, params, COMM, average=False, **arguments)
        opt.step(params.zeros_like())
        values = fo.load(path, params=params, opt=opt)
        assert values == {"epoch": 7}
        expected, plain = reference(name, 2)
        same(f"{path}, parameters", params.flat, expected.flat)
        same_state(str(path), opt.state_dict(), plain.state_dict())
        single = numbers(5, shapes, dtype)
        alone = cls(single, **arguments)
        fo.load(path, params=single, opt=alone)
        same_state(f"{path} in the class", alone.state_dict(), plain.state_dict())
        again = ShardedOptimizer(cls, numbers(5, shapes, dtype), COMM, average=False, **arguments)
        again.load_state_dict(plain.state_dict())
        same_state(f"{path} as a dict", again.state_dict(), plain.state_dict())
        expected, plain = reference(name, 3)
        grads = params.zeros_like()
        if RANK == SIZE - 1:
            grads = numbers(12, shapes, dtype)
        opt.step(grads)
        same(f"{path}, the next step", params.flat, expected.flat)


def bad_files() -> None:
    opt = ShardedOptimizer(fo.Adam, params := numbers(1, SHAPES, "f4"), COMM)
    opt.step(params.zeros_like())
    state = opt.state_dict()
    path = COMM.bcast(tempfile.mkdtemp() if RANK == 0 else None)
    good = f"{path}/good"
    fo.save(good, opt=opt, x=np.ones(2), xy={})
    COMM.Barrier()
    mine = f"{path}/missing" if RANK == SIZE - 1 else good
    last = f"rank {SIZE - 1}: " if SIZE - 1 != RANK else ""
    raises(FileNotFoundError, last, lambda: fo.load(mine, opt=opt))
    values = {"x": object()} if RANK == SIZE - 1 else {"x": 1}
    raises(TypeError, last, lambda: fo.save(f"{path}/other", opt=opt, **values))
    masked = {"x": np.ma.ones(2) if RANK == SIZE - 1 else np.ones(2)}
    dotted: dict[str, Any] = {"x.y" if RANK == SIZE - 1 else "xy": {}}
    for call in (partial(fo.save, f"{path}/other", opt=opt), partial(fo.load, good, opt=opt)):
        raises(TypeError, f"{last}x must be a plain array", partial(call, **masked))
        raises(ValueError, f"{last}names must not be empty", partial(call, **dotted))
    raises(OSError, "", lambda: fo.save(f"{path}/missing/other", opt=opt))
    if RANK == 0:
        data = bytearray(Path(good).read_bytes())
        data[-5] ^= 1
        Path(f"{path}/damaged").write_bytes(data)
    COMM.Barrier()
    mine = f"{path}/damaged" if RANK == SIZE - 1 else good
    raises(fo.CheckpointError, f"{last}{path}/damaged", lambda: fo.load(mine, opt=opt))
    same_state("after refused files", opt.state_dict(), state)


def threads() -> None:
    """Each rank takes its share of the processors, unless the user has chosen."""
    module = importlib.import_module("fastoptim.threads")
    mask = len(os.sched_getaffinity(0))
    average_gradients(np.ones(3), COMM)
    if "FASTOPTIM_NUM_THREADS" in os.environ:
        assert fo.get_num_threads() == int(os.environ["FASTOPTIM_NUM_THREADS"])
        assert not module.share
    elif SIZE > 1:
        assert fo.get_num_threads() == max(1, mask // SIZE)
        assert f"one of {SIZE} ranks" in module.share


def examples() -> None:
    """The examples of the docstrings run, on one rank."""
    for name in ("averaging", "sharded"):
        module = importlib.import_module(f"fastoptim.distributed.{name}")
        failed, attempted = doctest.testmod(module)
        assert attempted > 0
        assert failed == 0


def page() -> None:
    """The code on the page about this runs, and both ways on it give the same step."""
    text = (Path(__file__).parents[3] / "docs" / "distributed.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    assert names["info"].applied
    alone = names["params"].zeros_like()
    names["grads"].flat[...] = RANK + 1
    average_gradients(names["grads"], COMM)
    fo.AdamW(alone, lr=1e-3).step(names["grads"], max_norm=1.0)
    same("both ways", names["params"].flat, alone.flat)


def killed() -> None:
    """One rank dies while the others wait for it in a step."""
    opt = ShardedOptimizer(fo.SGD, params := np.ones(3), COMM)
    opt.step(params.copy())
    if RANK == SIZE - 1:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    opt.step(params.copy())


def uncaught() -> None:
    """One rank ends by an exception of the user's, outside of any call of the package."""
    opt = ShardedOptimizer(fo.SGD, params := np.ones(3), COMM)
    if RANK == SIZE - 1:
        raise LookupError("outside of a step")
    opt.step(params.copy())


def main() -> None:
    for name in sys.argv[1:]:
        globals()[name]()
        COMM.Barrier()
    if RANK == 0:
        print(f"{SIZE} ranks: {' '.join(sys.argv[1:])}")


if __name__ == "__main__":
    main()
