"""The memory that a call uses lives until the call ends."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import _core
from processes import run

FRESH = """
from collections.abc import Sequence
import numpy as np
import fastoptim as fo

N = 1_000_000  # Large enough for pages of its own, which are given back when it is freed.

class Fresh(Sequence):
    '''Makes a new array at each access, and keeps none.'''
    def __init__(self, dtype="f4"):
        self.dtype = dtype
    def __len__(self):
        return 2
    def __getitem__(self, index):
        if index > 1:
            raise IndexError
        return np.full(N, 1, self.dtype)

def params():
    return [np.zeros(N, "f4"), np.zeros(N, "f4")]

w = params()
opt = fo.SGD(w, lr=1.0)
"""


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("opt.step(Fresh())", -1),
        ("opt.step(Fresh(), zero_grad=True)", -1),
        ("opt.step(params(), copy_to=Fresh('f2'))", 0),
        ("opt.zero_grad(Fresh())", 0),
        ("fo.EMA(w).update(Fresh())", 0),
        ("fo.EMA(w).swap(Fresh())", 0),
        ("fo.GradAccumulator(w).add(Fresh(), weight=1)", 0),
        ("fo.SAM(opt).first_step(Fresh())", 0.05 / 2_000_000**0.5),
        ("fo.regularizers.L2(1.0).add_grad(w, Fresh())", 0),
        ("fo.clip_grad_norm_(Fresh(), 1.0)", 0),
        ("fo.RandomSearch(Fresh()).step(lambda w: 0.0)", 0),
        ("fo._core.exchange(w, Fresh())", 1),
        ("fo._core.lerp(w, Fresh(), 1.0, 'values', ['0', '1'])", 1),
        ("fo._core.sam_perturb(w, Fresh(), [1.0, 1.0], False)", 1),
        ("fo._core.add_normal(Fresh(), 1.0, 0, 0)", 0),
        ("fo._core.clamp(Fresh(), None, 0.5)", 0),
    ],
)
def test_arrays_that_nobody_else_holds_live_to_the_end_of_a_call(
    call: str, expected: float
) -> None:
    script = f"{FRESH}\nfor _ in range(3):\n    w[0][...] = w[1][...] = 0\n    {call}\n"
    done = run(f"{script}print(*(x.min() for x in w), *(x.max() for x in w))")
    assert done.returncode == 0, done.stderr
    assert [float(text) for text in done.stdout.split()] == pytest.approx([expected] * 4)


CLEARED = """
import threading, time
import numpy as np
import fastoptim as fo

w = [np.zeros(1_000_000) for _ in range(8)]
opt = fo.SGD(w, lr=1.0)
for _ in range(5):
    grads = [np.ones(1_000_000) for _ in w]
    thread = threading.Thread(target=lambda: (time.sleep(0.001), grads.clear()))
    thread.start()
    try:
        with fo.num_threads(1):
            opt.step(grads)
    except ValueError:
        assert not grads
    thread.join()
print(opt.state["0"]["step"] == -w[0][0] == -w[-1][-1])
"""


def test_gradients_that_another_thread_drops_during_a_step() -> None:
    done = run(CLEARED)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


class Liar(Sequence[Any]):
    """A sequence that reports a wrong length."""

    def __init__(self, items: Sequence[Any], length: int) -> None:
        self.items = items
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]


LIES: dict[str, Callable[[Any, Any], object]] = {
    "step": lambda w, lie: fo.SGD(w).step(lie(w)),
    "copy_to": lambda w, lie: _step(w, copy=lie([np.ones(3, "f2")])),
    "ema": lambda w, lie: _step(w, average=(lie([np.ones(3, "f4")]), 0.5)),
    "zero_grad": lambda w, lie: fo.SGD(w).zero_grad(lie(w)),
    "betas": lambda w, lie: fo.AdamW(w, betas=lie([0.9, 0.999])),
    "total_norm": lambda w, lie: _core.total_norm(lie(w), None, 2.0),
    "clamp": lambda w, lie: _core.clamp(lie(w), None, 2.0),
    "unscale": lambda w, lie: _core.unscale(["0"], lie(w), w, 2.0),
    "exchange": lambda w, lie: _core.exchange(w, lie([np.ones(3, "f4")])),
    "names": lambda w, lie: _core.exchange(w, [np.ones(3, "f4")], "others", lie(["a"])),
    "lerp": lambda w, lie: _core.lerp(lie(w), w, 1.0, "values", ["0"]),
    "sam_norm": lambda w, lie: _core.sam_norm(w, lie([np.ones(3, "f4")]), False),
    "factors": lambda w, lie: _core.sam_perturb(w, [np.ones(3, "f4")], lie([1.0]), False),
    "add_normal": lambda w, lie: _core.add_normal(lie(w), 1.0, 0, 0),
    "penalty": lambda w, lie: _core.penalty(["0"], lie(w), 1.0, 1.0),
    "stream": lambda w, lie: _core.stream(lie(w), np.ones(3, "f4")),
    "add_group": lambda w, lie: _add_group(["0"], w, False, lie),
    "expected": lambda w, lie: _engine(w).expected(lie([{}]), 0),
    "restore": lambda w, lie: _engine(w).restore([], lie([(0, [], {})]), 0, False),
}


def _engine(w: Any) -> Any:
    return fo.SGD(w)._engine


def _step(w: Any, average: Any = None, copy: Any = None) -> object:
    opt = fo.SGD(w)
    grads = [np.ones_like(x) for x in w]
    return opt._engine.step(
        opt.param_groups, grads, 1.0, None, None, "propagate", None, average, copy, False
    )


def _add_group(names: Any, arrays: Any, flat: bool, given: Any = list) -> None:
    group = {**fo.SGD(np.ones(1)).param_groups[0], "params": tuple(arrays)}
    _core.Engine("SGD", None, "nearest", 0).add_group(group, names, given(arrays), flat)


@pytest.mark.parametrize("length", [0, 3, 2**63 - 1])
@pytest.mark.parametrize("name", LIES)
def test_a_wrong_length_of_a_sequence_is_detected(name: str, length: int) -> None:
    lie(name, length)


def test_a_length_beyond_all_memory() -> None:
    # In a separate process, which a failed allocation may abort.
    done = run("import test_memory as t\nfor name in t.LIES: t.lie(name, 2**40)")
    assert done.returncode == 0, done.stderr


def lie(name: str, length: int) -> None:
    w = [np.ones(3, "f4")]
    with pytest.raises((ValueError, TypeError), match=r"items|arrays for|must be"):
        LIES[name](w, lambda items: Liar(items, length))
    assert w[0].tolist() == [1, 1, 1]


def owners(array: Any) -> list[Any]:
    """Return an array and the owners of its memory."""
    chain = [array]
    while isinstance(chain[-1], np.ndarray):
        chain.append(chain[-1].base)
    return chain[:-1]


def assert_cannot_be_resized(array: Any) -> None:
    for owner in owners(array):
        with pytest.raises(ValueError, match="does not own its data"):
            owner.resize(10**6, refcheck=False)


@pytest.mark.parametrize("storage", [None, "bfloat16", "int8"])
def test_state_cannot_be_resized(optimizer: Any, storage: str | None) -> None:
    pytest.importorskip("ml_dtypes")
    w = np.ones((20, 30), "f4")
    opt = optimizer([w], lr=0.1, state_dtype=storage)
    opt.step([w.copy()])
    for array in opt.state["0"].values():
        if isinstance(array, np.ndarray):
            assert_cannot_be_resized(array)
            assert array.ctypes.data % array.itemsize == 0
    opt.step([w.copy()])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_a_buffer_cannot_be_resized(dtype: str) -> None:
    pytest.importorskip("ml_dtypes")
    buffer = fo.FlatBuffer({"a": (7,), "b": (), "c": (0, 3), "d": (4, 5)}, dtype)
    for array in buffer.flat, *buffer.views, *fo.EMA(buffer).shadow.views:
        assert_cannot_be_resized(array)
    assert buffer.flat.ctypes.data % 64 == 0
    assert buffer.flat.flags.c_contiguous
    assert buffer.flat.flags.writeable
    assert not buffer.flat.any()


def test_views_of_state_outlive_the_optimizer() -> None:
    opt = fo.SGD(np.ones(1000), lr=1.0, momentum=0.5)
    opt.step(np.ones(1000))
    view = opt.state["0"]["momentum_buffer"][10:20]
    del opt
    gc.collect()
    others = [fo.FlatBuffer({"a": (1000,)}, "float64") for _ in range(10)]
    for other in others:
        other.flat[...] = 7
    assert (view == 1).all()


def test_a_parameter_that_was_resized_is_refused() -> None:
    w, g = np.ones(1000), np.ones(1000)
    opt = fo.SGD([w], lr=1.0)
    opt.step([g])
    w.resize(1_000_000, refcheck=False)
    with pytest.raises(ValueError, match=r"is no longer float64 of shape \[1000\]"):
        opt.step([g])


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_no_memory_for_state_is_an_error_that_changes_nothing() -> None:
    done = run("""
import resource
import numpy as np
import fastoptim as fo

def limited(call):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, resource.RLIM_INFINITY))
    try:
        call()
    except MemoryError as error:
        print("cannot allocate" in str(error))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)

fo.set_num_threads(1)  # Threads take memory, too.
w, g = np.zeros(20_000_000, "f4"), np.ones(20_000_000, "f4")
opt = fo.SGD([w], lr=1.0)
limited(lambda: fo.AdamW([w]))
opt.param_groups[0]["momentum"] = 0.5
limited(lambda: (fo.FlatBuffer({"a": (1_000_000,)}), opt.step([g])))
limited(lambda: fo.FlatBuffer({"a": (2**70,)}))
limited(lambda: fo.FlatBuffer({"a": (2**62,)}))
print(opt.state["0"], w.any())
opt.step([g])
print(opt.state["0"]["step"], (w == -1).all())
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n" * 4 + "{'step': 0} False\n1 True\n"


def test_only_the_arrays_of_one_buffer_are_treated_as_flat() -> None:
    buffer = fo.FlatBuffer({"a": (4,), "b": (2, 2), "c": (0,)})
    opt = fo.SGD(buffer)
    with pytest.raises(AttributeError):
        opt._engine.flat = True  # type: ignore[attr-defined]
    _add_group(list(buffer), list(buffer.views), True)
    a, b, c = buffer.views
    for arrays in (
        [b, a],
        [a, np.ones(4, "f4")],
        [a, b.view("f8")],
        [a.view("f8"), b],
        [a[:3], b],
        [a, c.view("f8")],
    ):
        with pytest.raises(ValueError, match="not the arrays of one buffer"):
            _add_group(["0", "1"], arrays, True)
        _add_group(["0", "1"], arrays, False)


@pytest.mark.parametrize("index", [1, 10**9])
@pytest.mark.parametrize("name", ["parameter_step", "scalars", "state"])
def test_a_parameter_that_is_not_there(name: str, index: int) -> None:
    with pytest.raises(IndexError, match=f"parameter {index} of 1"):
        getattr(_engine([np.ones(1)]), name)(index)


def test_state_that_does_not_fit_is_not_restored() -> None:
    opt = fo.SGD([np.ones(3)], lr=1.0, momentum=0.5)
    opt.step([np.ones(3)])
    states: list[Any] = [
        [],
        [(1, [], {})] * 2,
        [(9, [], {"momentum_buffer": np.ones(1)})],
        [(9, [], {"momentum_buffer": np.ones(3, "f4")})],
        [(9, [], {"momentum_buffer": [1.0, 1.0, 1.0]})],
    ]
    for state in states:
        with pytest.raises((ValueError, TypeError)):
            opt._engine.restore(opt.param_groups, state, 5, False)
        assert opt.state["0"]["step"] == opt._engine.steps == 1
        assert opt.state["0"]["momentum_buffer"].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="2 arrays for 1 names"):
        _add_group(["0"], [np.ones(1), np.ones(1)], False)
    with pytest.raises(ValueError, match="there already"):
        _add_group(["0", "0"], [np.ones(1), np.ones(1)], False)


class Model:
    """Holds its optimizer, which holds functions of it."""

    def __init__(self, optimizer: Any) -> None:
        self.w = np.ones((2, 3))
        self.opt = optimizer([self.w], lr=self.lr)

    def lr(self, steps: int) -> float:
        return 0.1 / (1 + steps)


def test_an_optimizer_that_holds_its_owner_is_collected(optimizer: Any) -> None:
    model = Model(optimizer)
    model.opt.step([np.ones((2, 3))])
    gc.collect()
    model.opt.step([np.ones((2, 3))])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_garbage_collection_during_a_step_frees_nothing_in_use() -> None:
    model = Model(lambda params, lr: fo.SGD(params, lr=lambda steps: gc.collect() * 0 + lr(steps)))
    for _ in range(3):
        model.opt.step([np.ones((2, 3))])
    assert model.w[0, 0] == 1 - 0.1 - 0.05 - 0.1 / 3
