"""No argument of a function of the core, private ones included, causes a panic or a crash.

Each function is called with valid arguments, one or two of which are replaced by invalid ones.
Afterwards the objects are used normally.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import inspect
import io
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import _core
from hostile import VALUES, spoiled_arguments

torch: Any = None
ft: Any = None
if importlib.util.find_spec("torch") is not None:
    torch = importlib.import_module("torch")
    ft = importlib.import_module("fastoptim.torch")

Arguments = tuple[Any, ...]


def entries() -> dict[str, Any]:
    """Return every function, class, method and attribute of the core by name."""
    found: dict[str, Any] = {}
    for name, thing in vars(_core).items():
        if inspect.isclass(thing):
            found[name] = thing
            for member, value in vars(thing).items():
                if not member.startswith("__"):
                    found[f"{name}.{member}"] = value
        elif callable(thing) and not name.startswith("__"):
            found[name] = thing
    return found


ENTRIES = entries()


if torch is not None:
    # The functions over tensors take the module of the package that uses PyTorch.
    support = ft.optim._tensors
    ENTRIES |= {
        name: partial(ENTRIES[name], support)
        for name in ("tensor_norm", "perturb_tensors", "exchange_tensors")
    }
    engine: Any = _core.TensorEngine
    ENTRIES["TensorEngine"] = lambda *arguments: engine(*arguments, support)


def x(*shape: int, dtype: str = "f8") -> Any:
    return np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape).astype(dtype)


ROWS = np.array([0, 2, 1])
SIGNS = np.array([1.0, -1.0, 1.0])
MORE = x(2, 2)
WRITTEN: dict[str, bool] = {}
NOTE = [(WRITTEN.update, {"done": True})]


class Held:
    """An engine, with its groups and parameters."""

    def __init__(self, cls: Any = fo.AdamW, dtype: str = "f8", **storage: Any) -> None:
        self.params = [x(3, dtype=dtype), x(2, 3, dtype=dtype)]
        opt = cls(dict(zip("ab", self.params, strict=True)), **storage)
        (self.group,) = opt.param_groups
        self.engine = opt._engine
        self.step()

    def step(self) -> Any:
        return self.engine.step(*self.step_arguments())

    def step_arguments(self, everything: bool = False) -> Arguments:
        first = ([self.group], [np.ones_like(p) for p in self.params])
        if not everything:
            return (*first, 1.0, None, None, "propagate", None, None, None, False, None)
        average = ([p.copy() for p in self.params], 0.5)
        copy = [np.zeros(p.shape, "f2") for p in self.params]
        return (*first, 2.0, 1.0, 0.5, "skip", fo.regularizers.L2(0.1), average, copy, True, NOTE)

    def shared_arguments(self) -> Arguments:
        """Return the arguments of a step in a job of one process."""
        exchange = SimpleNamespace(
            begin=lambda grads: [g.reshape(-1) for g in grads], sum=id, max=id, finish=dict
        )
        return (*self.step_arguments(everything=True), exchange)

    def states(self) -> list[Any]:
        saved = self.engine.snapshot()
        return [(n, [value for _, value in numbers], dict(arrays)) for n, numbers, arrays in saved]

    def use(self) -> None:
        """Call all methods with valid arguments."""
        engine = self.engine
        for index in range(2):
            engine.state(index), engine.scalars(index), engine.parameter_step(index)
        engine.snapshot(), engine.expected([self.group], 3)
        try:
            engine.step(*self.step_arguments(everything=True))
            self.step()
            engine.restore([self.group], self.states(), 3, False)
            engine.average([self.group], True)
        except Exception:  # Invalid values that were accepted may be refused now.
            return


class HeldTensors:
    """An engine over tensors, with its groups and parameters."""

    def __init__(self, name: str = "AdamW", **storage: Any) -> None:
        params = [torch.nn.Parameter(torch.ones(shape)) for shape in ((3,), (2, 3))]
        for p in params:
            p.grad = torch.ones_like(p)
        self.opt = getattr(ft, name)(params, lr=1e-3, **storage)
        self.opt.step()
        self.engine, self.groups = self.opt._engine, self.opt.param_groups

    def step_arguments(self, everything: bool = False) -> Arguments:
        if not everything:
            return self.groups, 1.0, None, None, "propagate", None, None, None, False, None
        params = self.groups[0]["params"]
        average = ([torch.zeros_like(p) for p in params], 0.5)
        copy = [torch.zeros(p.shape, dtype=torch.float16) for p in params]
        penalty = fo.regularizers.L2(0.1)
        return self.groups, 2.0, 1.0, 0.5, "skip", penalty, average, copy, True, NOTE

    def use(self) -> None:
        """Step and save with valid arguments."""
        try:
            self.opt.step(max_norm=1.0)
            self.opt.state_dict()
        except Exception:  # Invalid values that were accepted may be refused now.
            return


ENGINES: list[Callable[[], Any]] = [
    Held,
    lambda: Held(dtype="f4", state_dtype="int8"),
    lambda: Held(fo.ScheduleFreeSGD),
]

TENSOR_ENGINES: list[Callable[[], Any]] = [
    HeldTensors,
    lambda: HeldTensors(state_dtype="int8"),
    lambda: HeldTensors("ScheduleFreeSGD"),
]


def engines(name: str) -> list[Callable[[], Any]]:
    """Return the engines that have a method or an attribute."""
    return TENSOR_ENGINES if name.startswith("TensorEngine.") else ENGINES


# Valid arguments of methods and functions, in several forms.
METHODS: dict[str, list[Callable[[Any], Arguments]]] = {
    "Engine.add_group": [
        lambda held: ({**held.group, "params": (MORE,)}, ["c"], [MORE], False, NOTE),
    ],
    "Engine.average": [lambda held: ([held.group], True)],
    "Engine.check_groups": [lambda held: ([held.group],)],
    "Engine.expected": [lambda held: ([held.group], 3)],
    "Engine.parameter_step": [lambda held: (1,)],
    "Engine.restore": [lambda held: ([held.group], held.states(), 3, False, NOTE)],
    "Engine.scalars": [lambda held: (1,)],
    "Engine.snapshot": [lambda held: ()],
    "Engine.state": [lambda held: (1,)],
    "Engine.step": [
        lambda held: held.step_arguments(),
        lambda held: held.step_arguments(everything=True),
        lambda held: held.shared_arguments(),
    ],
    "Engine.zero_grad": [lambda held: ([np.ones_like(p) for p in held.params],)],
    "TensorEngine.average": [lambda held: (held.groups, True, NOTE)],
    "TensorEngine.check_groups": [lambda held: (held.groups,)],
    "TensorEngine.decode": [
        lambda held: (torch.zeros(3, dtype=torch.int8), torch.ones(1), torch.ones(3))
    ],
    "TensorEngine.encode": [
        lambda held: (torch.ones(3), torch.zeros(3, dtype=torch.int8), torch.ones(1))
    ],
    "TensorEngine.expected": [lambda held: (held.groups, [(0, "float32", (3,))])],
    "TensorEngine.forget": [lambda held: ()],
    "TensorEngine.set_averaged": [lambda held: (True,)],
    "TensorEngine.set_state": [lambda held: ({},), lambda held: (dict(held.engine.state),)],
    "TensorEngine.set_steps": [lambda held: (3,)],
    "TensorEngine.step": [
        lambda held: held.step_arguments(),
        lambda held: held.step_arguments(everything=True),
    ],
}


def loaded() -> Arguments:
    """Return an engine with state for a load, and a file."""
    held = Held()
    state = [(n, numbers, list(arrays)) for n, numbers, arrays in held.states()]
    file = io.BytesIO(bytes(24))
    fill = [(_core.read_into, file, 0, held.params[0].view("u1"), None)]
    return [(held.engine, state, 3, False)], [(0, 8)], fill, NOTE


def reserved() -> Arguments:
    held, opt = Held(), fo.AdamW([x(3), x(2, 3)])
    return opt._engine, opt.param_groups, held.states(), 3, []


def kept() -> Arguments:
    held = Held()
    return _core.Hold(), [(held.engine, [held.group])], [(0, 8)]


FUNCTIONS: dict[str, list[Callable[[], Arguments]]] = {
    "Hold": [lambda: ()],
    "Hold.close": [lambda: (_core.Hold(),)],
    "Hold.enter": [kept],
    "crc32": [lambda: (np.arange(9, dtype="u1"), 3)],
    "load": [loaded],
    "read_into": [lambda: (io.BytesIO(bytes(9)), 1, np.zeros(8, "u1"), None)],
    "release": [lambda: (Held().engine, [1, 2])],
    "reserve": [reserved],
    "Engine": [
        lambda: (fo.AdamW._kind, "int8", "stochastic", 3),
        lambda: (fo.SGD._kind, None, "nearest", 0),
        lambda: (fo.SGD._kind, None, "nearest", 0, [(0, 4096), (0, 0)]),
    ],
    "add_normal": [lambda: ([x(3), x(2, dtype="f4")], 0.5, 1, 2)],
    "add_penalty": [lambda: (["a", "b"], [x(3), x(2)], [x(3), None], 0.1, 0.2)],
    "aligned_zeros": [lambda: (3, np.dtype("f4"))],
    "arithmetic": [
        lambda: ("Adam", Held().group, 3),
        lambda: ("LAMB", Held(fo.LAMB).group, 3, True),
    ],
    "attempt": [lambda: (int, int)],
    "call_all": [lambda: ([({}.update, {"a": 1}), (print, "")],)],
    "clamp": [lambda: ([x(3), None], ["a", "b"], 0.5)],
    "clip_to_norm": [
        lambda: ([x(3), None], 1.0, 2.0, False),
        lambda: ([x(3)], float("inf"), 1.0, True),
    ],
    "dense_tensors": [lambda: ([torch.ones(3), torch.ones(2, 3)[:, :2], torch.ones(())],)],
    "ForeignArray": [lambda: (torch.ones(3), True)],
    "use_huge_pages": [
        lambda: (_core.ForeignArray(torch.ones(3), True),),
        lambda: (_core.ForeignArray(torch.empty(5 << 20), False),),
    ],
    "TensorEngine": [
        lambda: (ft.SGD._kind, "int8", "nearest", 3, {}, False),
        lambda: (ft.AdamW._kind, None, "stochastic", 0, {}, True),
    ],
    "exchange_tensors": [lambda: ([torch.ones(3)], [torch.zeros(3)], NOTE)],
    "perturb_tensors": [
        lambda: (
            [torch.ones(3), torch.ones(2, 3).t()],
            [torch.ones(3), torch.ones(3, 2)],
            [0.1, 0.2],
            True,
            (1, 2),
            NOTE,
        )
    ],
    "tensor_loss": [
        lambda: ("mse", options(), (torch.ones(3), torch.ones(3)), (1, -1), True),
        lambda: (
            "cross_entropy",
            options(label_smoothing=0.1, weight=None, ignore_index=-100),
            (torch.ones(3, 4, requires_grad=True), torch.arange(3)),
            (1, 0),
            True,
        ),
    ],
    "gradient_like": [lambda: (torch.ones(3),), lambda: (torch.empty(9 << 20),)],
    "tensor_norm": [lambda: ([torch.ones(3)], [torch.ones(3, dtype=torch.float16)], True)],
    "compute_loss": [
        lambda: ("mse", options(), (x(3), x(3)), None, 1.0, True),
        lambda: ("huber", options("none", delta=1.0), (x(3), x(3)), x(3), 2.0, True),
        lambda: (
            "kl_div",
            options("batchmean", log_target=False),
            (x(2, 3), x(2, 3)),
            None,
            1.0,
            True,
        ),
        lambda: (
            "poisson_nll",
            options(log_input=True, full=False, eps=1e-8),
            (x(3), x(3)),
            None,
            1.0,
            True,
        ),
        lambda: ("bce", options(weight=x(2, 3)), (x(2, 3), x(2, 3)), None, 1.0, True),
        lambda: (
            "bce_with_logits",
            options(weight=x(2, 3), pos_weight=x(3)),
            (x(2, 3), x(2, 3)),
            None,
            1.0,
            True,
        ),
        lambda: ("sigmoid_focal", options(gamma=2.0, alpha=0.25), (x(3), x(3)), None, 1.0, True),
        lambda: (
            "hinge",
            options(margin=1.0, squared=True),
            (x(3, dtype="f4"), x(3, dtype="f4")),
            None,
            1.0,
            True,
        ),
        lambda: (
            "gaussian_nll",
            options("none", full=True, eps=1e-6),
            (x(3), x(3), x(3)),
            None,
            1.0,
            True,
        ),
        lambda: (
            "cross_entropy",
            options(label_smoothing=0.1, weight=x(4), ignore_index=-100),
            (x(3, 4), ROWS),
            None,
            1.0,
            True,
        ),
        lambda: (
            "cross_entropy",
            options("none", label_smoothing=0.0, weight=None, ignore_index=-100),
            (x(3, 4), x(3, 4)),
            None,
            1.0,
            True,
        ),
        lambda: (
            "nll",
            options("sum", weight=x(4), ignore_index=1),
            (x(3, 4), ROWS),
            x(3, 4),
            1.0,
            True,
        ),
        lambda: (
            "focal",
            options(gamma=2.0, alpha=0.5, ignore_index=-100),
            (x(3, 4), ROWS),
            None,
            1.0,
            True,
        ),
        lambda: (
            "focal",
            options(gamma=2.0, alpha=x(4), ignore_index=-100),
            (x(3, 4), ROWS),
            None,
            1.0,
            True,
        ),
        lambda: (
            "multi_margin",
            options(p=2, margin=1.0, average_classes=False, weight=x(4)),
            (x(3, 4), ROWS),
            None,
            1.0,
            True,
        ),
        lambda: (
            "triplet_margin",
            options(margin=1.0, p=2.0, eps=1e-6, swap=True, squared=False),
            (x(3, 4), x(3, 4) + 1, x(3, 4) + 2),
            None,
            1.0,
            True,
        ),
        lambda: (
            "cosine_embedding",
            options("none", margin=0.1),
            (x(3, 4), x(3, 4) + 1, SIGNS),
            None,
            1.0,
            True,
        ),
        lambda: (
            "contrastive",
            options("sum", margin=1.0),
            (x(3, 4), x(3, 4) + 1, ROWS),
            (x(3, 4), x(3, 4)),
            1.0,
            True,
        ),
        # What is loaded by tiles.
        lambda: (
            "cross_entropy",
            options("none", label_smoothing=0.1, weight=(1.0, 2.0, 0.5, 1.0), ignore_index=-100),
            (x(3, 4, 2, dtype="f2"), np.zeros((3, 2), "u1")),
            x(3, 4, 2, dtype="f2"),
            1.0,
            True,
        ),
        lambda: (
            "cross_entropy",
            options(label_smoothing=0.0, weight=[1.0, 2.0], ignore_index=-100),
            (x(3, 2, 2), x(3, 2, 2)),
            None,
            1.0,
            True,
        ),
        lambda: ("nll", options(weight=None, ignore_index=0), (x(4), 1), x(4), 1.0, True),
        lambda: (
            "bce_with_logits",
            options(weight=x(2, 1), pos_weight=[0.5]),
            (x(2, 3), x(2, 3)),
            None,
            1.0,
            True,
        ),
        lambda: (
            "gaussian_nll",
            options(full=True, eps=1e-6),
            (x(2, 3), x(2, 3), x(2)),
            (x(2, 3), x(2)),
            1.0,
            True,
        ),
        lambda: (
            "gaussian_nll",
            options(full=True, eps=1e-6),
            (x(3, dtype="f2"), x(3, dtype="f4"), 0.5),
            None,
            1.0,
            True,
        ),
    ],
    "exchange": [lambda: ([x(3), x(2, dtype="f2")], [x(3), x(2, dtype="f2")], "y", ["a"], NOTE)],
    "get_num_threads": [lambda: ()],
    "is_thread_count": [lambda: ("3",)],
    "lerp": [lambda: ([x(3), x(2, dtype="f4")], [x(3), x(2, dtype="f2")], 0.5, "y", ["a"], NOTE)],
    "loss_arguments": [
        lambda: ("huber", options(delta=1)),
        lambda: ("sigmoid_focal", options("none", gamma=2.0, alpha=None)),
        lambda: ("focal", options(gamma=2, alpha=x(4), ignore_index=-100)),
        lambda: ("focal", options(gamma=2, alpha=[1.0, 2.0], ignore_index=-100)),
        lambda: ("bce", options(weight=[[1.0, 2.0], [0.5, 1]])),
        lambda: (
            "multi_margin",
            options(p=1, margin=1.0, average_classes=True, weight=None),
        ),
    ],
    "mine_triplets": [
        lambda: (x(4, 3), np.array([0, 0, 1, 1]), "semihard", 0.5),
        lambda: (x(4, 3), np.array([0, 0, 1, 1]), "hard", 0.5),
        lambda: (x(4, 3), np.array([0, 0, 1, 1], "u8"), "all", 0.5),
        lambda: (x(4, 3, dtype="f2"), np.array([0, 0, 1, 1], "i1"), "hard", 0.5),
    ],
    "penalty": [lambda: (["a", "b"], [x(3), x(2, dtype="f4")], 0.1, 0.2)],
    "sam_norm": [lambda: ([x(3), x(2)], [x(3), None], True)],
    "sam_perturb": [
        lambda: ([x(3), x(2, dtype="f2")], [x(3), None], [0.1, 0.2], True, (1, 2), NOTE)
    ],
    "scale_to_norm": [lambda: ([x(3), None], ["a", "b"], 1.0, 5.0)],
    "set_num_threads": [lambda: (2,)],
    "suggest_num_threads": [lambda: (2,)],
    "set_own_threads": [lambda: (2,), lambda: (None,)],
    "stream": [
        lambda: ([x(3, dtype="f4"), x(3, dtype="f4")], x(3, dtype="f4")),
        lambda: ([], x(3, dtype="f4"), 2),
    ],
    "tier": [lambda: ()],
    "tiers": [lambda: ()],
    "total_norm": [lambda: ([x(3), None], ["a", "b"], 2.0)],
    "unscale": [lambda: (["a", "b"], [x(3), x(2)], [x(3), None], 2.0, NOTE)],
    "use_openmp": [lambda: ("libtorch_cpu.so",), lambda: ("libfastoptim-none.so",)],
}


def of_tensors(name: str) -> bool:
    """Return whether an entry needs PyTorch."""
    others = {"ForeignArray", "gradient_like", "use_huge_pages"}
    return "Tensor" in name or "tensor" in name or name in others


if torch is None:
    ENTRIES = {name: entry for name, entry in ENTRIES.items() if not of_tensors(name)}
    FUNCTIONS = {name: ways for name, ways in FUNCTIONS.items() if not of_tensors(name)}
    METHODS = {name: ways for name, ways in METHODS.items() if not of_tensors(name)}


def options(reduction: str = "mean", **arguments: Any) -> dict[str, Any]:
    return {"reduction": reduction, **arguments}


def is_attribute(entry: Any) -> bool:
    return inspect.isgetsetdescriptor(entry) or inspect.ismemberdescriptor(entry)


def test_every_entry_has_good_arguments() -> None:
    named = {name for name, entry in ENTRIES.items() if not is_attribute(entry)}
    assert named == METHODS.keys() | FUNCTIONS.keys()
    for name, ways in FUNCTIONS.items():
        for way in ways:
            ENTRIES[name](*way())
    for name, methods in METHODS.items():
        for make, method in itertools.product(engines(name), methods):
            held = make()
            getattr(held.engine, name.split(".")[1])(*method(held))


def refused(call: Callable[..., Any], *arguments: Any) -> None:
    """Make a call that may raise any error except a panic."""
    try:
        call(*arguments)
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise


def attack(name: str, times: int) -> None:
    """Call a function with invalid arguments, then use the objects."""
    rng = random.Random(name)
    entry, member = ENTRIES[name], name.split(".")[-1]
    for number in range(times):
        print(name, number, flush=True)
        if name in FUNCTIONS:
            arguments = spoiled_arguments(rng, rng.choice(FUNCTIONS[name])())
            refused(entry, *arguments)
            continue
        held = rng.choice(engines(name))()
        if is_attribute(entry):
            getattr(held.engine, member)
            value = rng.choice(VALUES)()
            refused(setattr, held.engine, member, value)
        else:
            arguments = spoiled_arguments(rng, rng.choice(METHODS[name])(held))
            refused(getattr(held.engine, member), *arguments)
        refused(held.use)
    _core.set_own_threads(None)


def main() -> None:
    """Test the functions named on the command line."""
    faulthandler.enable()
    for name in sys.argv[1:]:
        attack(name, 300)
    print("survived")


@pytest.mark.parametrize("share", range(2))
def test_invalid_arguments_leave_usable_objects(share: int) -> None:
    names = sorted(ENTRIES)[share::2]
    script = "import test_hostile; test_hostile.main()"
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests / "reliability"), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *names],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    where = "\n".join(run.stdout.splitlines()[-3:])
    assert (run.returncode, where.splitlines()[-1:]) == (0, ["survived"]), where + run.stderr
