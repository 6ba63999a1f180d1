"""Nothing that is passed to the core, to private entries too, makes it panic or ends the process.

Each entry is called with good arguments of which one or two are spoiled. What is left is then
used as it is meant to be.
"""

from __future__ import annotations

import faulthandler
import inspect
import io
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import _core
from hostile import VALUES, spoiled_arguments

Arguments = tuple[Any, ...]


def entries() -> dict[str, Any]:
    """Every function, class, method and attribute of the core, under its name."""
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


def x(*shape: int, dtype: str = "f8") -> Any:
    return np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape).astype(dtype)


ROWS = np.array([0, 2, 1])
SIGNS = np.array([1.0, -1.0, 1.0])
MORE = x(2, 2)
NOTE = [({}.update, {"done": True})]


class Held:
    """An engine, and the groups and parameters of it."""

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
        return (*first, 2.0, 1.0, 0.5, "skip", (0.1, 0.1), average, copy, True, NOTE)

    def states(self) -> list[Any]:
        saved = self.engine.snapshot()
        return [(n, [value for _, value in numbers], dict(arrays)) for n, numbers, arrays in saved]

    def use(self) -> None:
        """Call everything as it is meant to be."""
        engine = self.engine
        for index in range(2):
            engine.state(index), engine.scalars(index), engine.parameter_step(index)
        engine.snapshot(), engine.expected([self.group], 3)
        try:
            engine.step(*self.step_arguments(everything=True))
            self.step()
            engine.restore([self.group], self.states(), 3, False)
            engine.average([self.group], True)
        except Exception:  # Nonsense that was taken may still be refused now.
            return


ENGINES: list[Callable[[], Held]] = [
    Held,
    lambda: Held(dtype="f4", state_dtype="int8"),
    lambda: Held(fo.ScheduleFreeSGD),
]

# Good arguments of methods, and of functions, in several ways.
METHODS: dict[str, list[Callable[[Held], Arguments]]] = {
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
    ],
    "Engine.zero_grad": [lambda held: ([np.ones_like(p) for p in held.params],)],
}


def loaded() -> Arguments:
    """An engine with state for a load, and a file."""
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
    ],
    "add_normal": [lambda: ([x(3), x(2, dtype="f4")], 0.5, 1, 2)],
    "add_penalty": [lambda: (["a", "b"], [x(3), x(2)], [x(3), None], 0.1, 0.2)],
    "aligned_zeros": [lambda: (3, np.dtype("f4"))],
    "attempt": [lambda: (int, int)],
    "call_all": [lambda: ([({}.update, {"a": 1}), (print, "")],)],
    "clamp": [lambda: ([x(3), None], ["a", "b"], 0.5)],
    "elementwise_loss": [
        lambda: ("mse", [], "mean", x(3), x(3), None, 1.0, True),
        lambda: ("huber", [1.0], "none", x(3), x(3), x(3), 2.0, True),
        lambda: ("kl_div", [0.0], "sum", x(2, 3), x(2, 3), None, 1.0, True),
        lambda: ("poisson_nll", [1.0, 0.0, 1e-8], "mean", x(3), x(3), None, 1.0, True),
        lambda: ("bce", [], "mean", x(2, 3), x(2, 3), None, 1.0, True, x(2, 3)),
        lambda: ("bce_with_logits", [], "mean", x(2, 3), x(2, 3), None, 1.0, True, x(2, 3), x(3)),
        lambda: ("sigmoid_focal", [2.0, 0.25, 0.75], "none", x(3), x(3), None, 1.0, True),
        lambda: ("hinge", [1.0, 1.0], "mean", x(3, dtype="f4"), x(3, dtype="f4"), None, 1.0, True),
    ],
    "exchange": [lambda: ([x(3), x(2, dtype="f2")], [x(3), x(2, dtype="f2")], "y", ["a"], NOTE)],
    "gaussian_loss": [
        lambda kind=kind: (True, 1e-6, kind, x(3), x(3), x(3), None, 1.0, True)
        for kind in ("none", "mean")
    ],
    "get_num_threads": [lambda: ()],
    "is_thread_count": [lambda: ("3",)],
    "lerp": [lambda: ([x(3), x(2, dtype="f4")], [x(3), x(2, dtype="f2")], 0.5, "y", ["a"], NOTE)],
    "mine_triplets": [
        lambda kind=kind: (x(4, 3), np.array([0, 0, 1, 1]), kind, 0.5)
        for kind in ("semihard", "hard", "all")
    ],
    "penalty": [lambda: (["a", "b"], [x(3), x(2, dtype="f4")], 0.1, 0.2)],
    "row_loss": [
        lambda: ("cross_entropy", [0.1], x(4), -100, "mean", x(3, 4), ROWS, None, 1.0, True),
        lambda: ("cross_entropy", [0.0], None, None, "none", x(3, 4), x(3, 4), None, 1.0, True),
        lambda: ("nll", [], x(4), 1, "sum", x(3, 4), ROWS, x(3, 4), 1.0, True),
        lambda: ("focal", [2.0, 0.5], None, -100, "mean", x(3, 4), ROWS, None, 1.0, True),
        lambda: (
            "multi_margin",
            [2.0, 1.0, 0.0],
            x(4),
            None,
            "mean",
            x(3, 4),
            ROWS,
            None,
            1.0,
            True,
        ),
    ],
    "sam_norm": [lambda: ([x(3), x(2)], [x(3), None], True)],
    "sam_perturb": [
        lambda: ([x(3), x(2, dtype="f2")], [x(3), None], [0.1, 0.2], True, (1, 2), NOTE)
    ],
    "scale_to_norm": [lambda: ([x(3), None], ["a", "b"], 1.0, 5.0)],
    "set_num_threads": [lambda: (2,)],
    "set_own_threads": [lambda: (2,), lambda: (None,)],
    "stream": [lambda: ([x(3, dtype="f4"), x(3, dtype="f4")], x(3, dtype="f4"))],
    "tier": [lambda: ()],
    "tiers": [lambda: ()],
    "total_norm": [lambda: ([x(3), None], ["a", "b"], 2.0)],
    "unscale": [lambda: (["a", "b"], [x(3), x(2)], [x(3), None], 2.0, NOTE)],
    "vector_loss": [
        lambda: (
            "triplet_margin",
            [1.0, 2.0, 1e-6, 1.0, 0.0],
            "mean",
            named("apn"),
            None,
            None,
            1.0,
            True,
        ),
        lambda: ("cosine_embedding", [0.1], "none", named("ab"), ("y", SIGNS), None, 1.0, True),
        lambda: (
            "contrastive",
            [1.0],
            "sum",
            named("ab"),
            ("y", ROWS),
            (x(3, 4), x(3, 4)),
            1.0,
            True,
        ),
    ],
}


def named(names: str) -> list[tuple[str, Any]]:
    return [(name, x(3, 4) + index) for index, name in enumerate(names)]


def is_attribute(entry: Any) -> bool:
    return inspect.isgetsetdescriptor(entry) or inspect.ismemberdescriptor(entry)


def test_every_entry_has_good_arguments() -> None:
    named = {name for name, entry in ENTRIES.items() if not is_attribute(entry)}
    assert named == METHODS.keys() | FUNCTIONS.keys()
    for name, ways in FUNCTIONS.items():
        for way in ways:
            ENTRIES[name](*way())
    for name, ways in METHODS.items():
        for make in ENGINES:
            for way in ways:
                held = make()
                getattr(held.engine, name.split(".")[1])(*way(held))


def refused(call: Callable[[], Any]) -> None:
    """Make a call that may raise anything but a panic."""
    try:
        call()
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise


def attack(name: str, times: int) -> None:
    """Call an entry with nonsense, and use what is left."""
    rng = random.Random(name)
    entry, member = ENTRIES[name], name.split(".")[-1]
    for number in range(times):
        print(name, number, flush=True)
        if name in FUNCTIONS:
            arguments = spoiled_arguments(rng, rng.choice(FUNCTIONS[name])())
            refused(lambda arguments=arguments: entry(*arguments))
            continue
        held = rng.choice(ENGINES)()
        if is_attribute(entry):
            getattr(held.engine, member)
            value = rng.choice(VALUES)()
            refused(lambda held=held, value=value: setattr(held.engine, member, value))
        else:
            arguments = spoiled_arguments(rng, rng.choice(METHODS[name])(held))
            refused(lambda held=held, given=arguments: getattr(held.engine, member)(*given))
        refused(held.use)
    _core.set_own_threads(None)


def main() -> None:
    """Attack the entries that are named."""
    faulthandler.enable()
    for name in sys.argv[1:]:
        attack(name, 300)
    print("survived")


@pytest.mark.parametrize("share", range(2))
def test_nonsense_is_refused_and_leaves_what_works(share: int) -> None:
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
