"""Saving and loading objects: loads restore them, and a failed load changes nothing."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import OPTIMIZERS
from fastoptim import lr_scheduler
from fastoptim.checkpoint import Reader, saving
from schedulers import ARGUMENTS, made
from snapshot import snapshot

SHAPES = {"w": (3, 2), "b": (4,)}


def buffer(seed: int = 0, dtype: Any = "f4", shapes: Any = SHAPES) -> fo.FlatBuffer:
    params = fo.FlatBuffer(shapes, dtype)
    params.flat[...] = np.random.default_rng(seed).standard_normal(params.size)
    return params


def trained(cls: Any = fo.AdamW, seed: int = 0, **arguments: Any) -> tuple[fo.FlatBuffer, Any]:
    shapes = {"w": (3, 2), "b": (4, 1)} if cls is fo.Muon else SHAPES
    params = buffer(seed, shapes=shapes)
    opt = cls(params, **arguments)
    for step in range(3):
        opt.step(buffer(10 * seed + step + 1, shapes=shapes))
    return params, opt


def picture(thing: Any) -> Any:
    """Return all data of an object."""
    if isinstance(thing, fo.SAM):
        return snapshot([thing.rho, thing.adaptive]), snapshot(thing.base)
    if isinstance(thing, fo.EMA | fo.GradAccumulator):
        return snapshot({k: v for k, v in vars(thing).items() if k not in ("_buffer", "_dtypes")})
    if isinstance(thing, fo.History):
        return snapshot(vars(thing))
    if isinstance(thing, fo.amp.GradScaler) or hasattr(thing, "get_last_lr"):
        return snapshot(thing.state_dict())
    if isinstance(thing, fo.RandomSearch):
        return [thing.scale, thing.seed, thing.steps, thing.best]
    return snapshot(thing)


def ema(seed: int) -> fo.EMA:
    average = fo.EMA(buffer(seed), decay=0.5 + seed / 10, warmup=bool(seed))
    for step in range(seed):
        average.update(buffer(step))
    return average


def accumulator(seed: int) -> fo.GradAccumulator:
    accumulated = fo.GradAccumulator(buffer())
    if seed:
        accumulated.add({"w": np.ones((3, 2), "f4"), "b": None}, seed)
    return accumulated


def history(seed: int) -> fo.History:
    recorded = fo.History()
    for step in range(seed):
        more: dict[str, Any] = {"test.loss": math.nan} if step % 2 else {}
        recorded.record(loss=1 / (step + 1), **more)
    return recorded


def search(seed: int) -> fo.RandomSearch:
    searching = fo.RandomSearch(buffer(), scale=0.5 + seed, seed=seed)
    for _ in range(seed):
        searching.step(lambda params: float(params.flat @ params.flat))
    return searching


def scheduler(seed: int) -> Any:
    opt = fo.SGD(buffer(), lr=0.5)
    scheduling = lr_scheduler.SequentialLR(opt, [made(opt, "StepLR"), made(opt, "LinearLR")], [3])
    for _ in range(2 * seed):
        scheduling.step()
    return scheduling


def plateau(seed: int) -> Any:
    scheduling = lr_scheduler.ReduceLROnPlateau(fo.SGD(buffer(), lr=0.5))
    for step in range(seed):
        scheduling.step(float(step))
    return scheduling


OBJECTS: dict[str, Callable[[int], Any]] = {
    "array": lambda seed: np.arange(5.0) + seed,
    "buffer": buffer,
    "optimizer": lambda seed: trained(seed=seed, lr=0.1 * (seed + 1))[1],
    "sam": lambda seed: fo.SAM(trained(fo.SGD, seed, momentum=0.5)[1], rho=0.1 * seed),
    "scheduler": scheduler,
    "plateau": plateau,
    "scaler": lambda seed: fo.amp.GradScaler(2.0**seed, growth_interval=seed + 1),
    "ema": ema,
    "accumulator": accumulator,
    "history": history,
    "search": search,
    "params": lambda seed: {"a": np.full(3, seed, "f4"), "b": [np.full((), seed), 7]},
}
each = pytest.mark.parametrize("kind", OBJECTS)


@each
def test_every_object_comes_back_as_it_was(tmp_path: Path, kind: str) -> None:
    saved, other = OBJECTS[kind](3), OBJECTS[kind](1)
    for optimizer in (getattr(thing, "base", thing) for thing in (saved, other)):
        if isinstance(optimizer, fo.optim.Optimizer):  # Parameters are saved separately.
            optimizer.params.flat[...] = 0
    assert picture(other) != picture(saved)
    fo.save(tmp_path / "f", x=saved, extra=1)
    assert fo.load(tmp_path / "f", x=other) == {"extra": 1}
    assert picture(other) == picture(saved)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_every_optimizer_comes_back_into_a_fresh_one_and_into_a_used_one(
    tmp_path: Path, cls: Any
) -> None:
    _, opt = trained(cls)
    fo.save(tmp_path / "f", opt=opt)
    for other in (cls(buffer(shapes=opt.params.shapes)), trained(cls, 5)[1]):
        fo.load(tmp_path / "f", opt=other)
        assert snapshot(other.state_dict()) == snapshot(opt.state_dict())


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_scheduler_comes_back(tmp_path: Path, name: str) -> None:
    def scheduler() -> Any:
        groups = [{"params": [np.zeros(2)]}, {"params": [np.zeros(2)]}]
        return made(fo.SGD(groups, lr=0.1, momentum=0.9), name)

    first, second = scheduler(), scheduler()
    for _ in range(4):
        first.step(*((1.0,) if name == "ReduceLROnPlateau" else ()))
    fo.save(tmp_path / "f", s=first, opt=first.optimizer)
    fo.load(tmp_path / "f", s=second, opt=second.optimizer)
    assert second.state_dict() == first.state_dict()
    first.step(*((2.0,) if name == "ReduceLROnPlateau" else ()))
    second.step(*((2.0,) if name == "ReduceLROnPlateau" else ()))
    assert snapshot(second.optimizer.param_groups) == snapshot(first.optimizer.param_groups)


def test_plain_values_come_back_as_they_were(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "none": None,
        "flag": True,
        "big": -(2**200),
        "number": 0.1,
        "negative_zero": -0.0,
        "infinite": -math.inf,
        "text": 'ä "\n\x00 \U0001d54f',
        "items": [1, [2.5, None], (3, ()), {}],
        "by_number": {0: "a", (1, 2): "b", None: [math.inf]},
        "dollar": {"$array": "no array", "b": 1},
        "pcg": np.random.default_rng(3).bit_generator.state,
    }
    fo.save(tmp_path / "f", **values)
    assert repr(fo.load(tmp_path / "f")) == repr(values)


def test_numbers_of_numpy_come_back_as_those_of_python(tmp_path: Path) -> None:
    fo.save(tmp_path / "f", a=np.float32(0.1), b=np.int64(3), c=np.bool_(True), d=np.float64(0.1))
    back = fo.load(tmp_path / "f")
    assert repr(back) == repr({"a": float(np.float32(0.1)), "b": 3, "c": True, "d": 0.1})


@pytest.mark.parametrize("kind", ["PCG64", "MT19937", "Philox", "SFC64"])
def test_generators_continue(tmp_path: Path, kind: str) -> None:
    rng = np.random.Generator(getattr(np.random, kind)(7))
    rng.random(5)
    fo.save(tmp_path / "f", rng=rng.bit_generator.state)
    expected = rng.random(5)
    places: list[dict[str, Any]] = [fo.load(tmp_path / "f")["rng"], {}]
    for found in places:
        if not found:
            fo.load(tmp_path / "f", rng=found)
        rng.bit_generator.state = found
        np.testing.assert_array_equal(rng.random(5), expected)


def test_a_load_alone_gives_values_and_read_only_arrays(tmp_path: Path) -> None:
    params, opt = trained()
    fo.save(tmp_path / "f", model=params, optimizer=opt, a=np.arange(3), items=[np.ones(2), 1])
    back = fo.load(tmp_path / "f")
    assert list(back) == ["model", "a", "items"]
    np.testing.assert_array_equal(back["model"]["w"], params["w"], strict=True)
    np.testing.assert_array_equal(back["a"], np.arange(3), strict=True)
    for array in (back["a"], *back["model"].values(), back["items"][0]):
        assert not array.flags.writeable


def test_a_list_or_dict_keeps_its_arrays_and_is_updated(tmp_path: Path) -> None:
    fo.save(tmp_path / "f", params=[np.ones(2), 1, "a"], more={"w": np.ones(3), "n": [1]})
    w, v = np.zeros(2), np.zeros(3)
    params: list[Any] = [w]
    more = {"w": v, "n": [7, 8], "gone": 1}
    fo.load(tmp_path / "f", params=params, more=more)
    assert (params[0] is w, params[1:], w.tolist()) == (True, [1, "a"], [1, 1])
    assert (more["w"] is v, more["n"], list(more), v.tolist()) == (True, [1], ["w", "n"], [1] * 3)


def test_names_in_the_file_are_descriptive(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")
    params, opt = trained()
    fo.save(tmp_path / "f", model=params, optimizer=opt, ema=fo.EMA(params), epoch=3)
    with safetensors.safe_open(tmp_path / "f", framework="numpy") as file:
        names = {f"model.{k}" for k in params} | {f"ema.shadow.{k}" for k in params}
        names |= {f"optimizer.{slot}.{k}" for slot in ("exp_avg", "exp_avg_sq") for k in params}
        assert set(file.keys()) == names
        np.testing.assert_array_equal(file.get_tensor("model.w"), params["w"])
        assert json.loads(file.metadata()["epoch"])["value"] == 3
        assert json.loads(file.metadata()["optimizer"])["param_groups"][0]["lr"] == 1e-3


def test_files_of_other_programs_load_into_arrays_and_buffers(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    params = buffer(3)
    numpy.save_file({f"model.{k}": v for k, v in params.items()}, tmp_path / "f")
    other = buffer(4)
    assert fo.load(tmp_path / "f", model=other) == {}
    assert other.flat.tobytes() == params.flat.tobytes()
    assert set(fo.load(tmp_path / "f")) == {"model.w", "model.b"}
    with pytest.raises(fo.CheckpointError, match=r"f: model: "):
        fo.load(tmp_path / "f", model=fo.AdamW(buffer()))


def test_other_orders_of_names_are_matched_by_name(tmp_path: Path) -> None:
    params = buffer()
    fo.save(tmp_path / "f", m=params)
    other = fo.FlatBuffer(dict(reversed(SHAPES.items())))
    fo.load(tmp_path / "f", m=other)
    for name in params:
        np.testing.assert_array_equal(other[name], params[name])


# Objects that cannot be saved.


@pytest.mark.parametrize(
    ("thing", "match"),
    [
        (object(), "x is of type object"),
        ({1, 2}, "x is of type set"),
        ([1, {"a": object()}], r"x\.1\.a is of type object"),
        (1j, "x is of type complex"),
        (np.ma.masked_array([1.0]), "x must be a plain array"),
        (np.array(["a"]), "'x': dtype <U1"),
        (np.array([1.0]).astype(">f8"), "'x': dtype >f8"),
        (np.random.default_rng(0), "x is of type Generator"),
    ],
)
def test_unsupported_objects_are_refused_before_the_file_is_changed(
    tmp_path: Path, thing: Any, match: str
) -> None:
    with pytest.raises(TypeError, match=match):
        fo.save(tmp_path / "f", a=1, x=thing)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.b", "", "__metadata__", "fastoptim.a"])
def test_names_have_no_dots(tmp_path: Path, name: str) -> None:
    for call in (fo.save, fo.load):
        with pytest.raises(ValueError, match="names must not"):
            call(tmp_path / "f", **{name: {}})
    assert list(tmp_path.iterdir()) == []


def test_objects_within_an_operation_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "PATIENCE", 0.0)
    params, opt = trained()
    average, scaler, sam = fo.EMA(params), fo.amp.GradScaler(), fo.SAM(opt)
    fo.save(tmp_path / "f", ema=average, scaler=scaler, sam=sam)
    average.swap(params)
    scaler.step(opt, buffer())
    sam.first_step(buffer())
    for named in ({"ema": average}, {"scaler": scaler}, {"sam": sam}):
        for call in (fo.save, fo.load):
            with pytest.raises(RuntimeError, match=r"swapped in|after update|between first_step"):
                call(tmp_path / "f", **named)
    searching = fo.RandomSearch(params)

    def objective(_: Any) -> float:
        if searching.best is not None or searching._trying:
            with pytest.raises(RuntimeError, match="search is in a step"):
                fo.save(tmp_path / "f", search=searching)
        return 0.0

    searching.step(objective)
    searching.step(objective)
    fo.save(tmp_path / "f", search=searching)


# Mismatches and damage.


def refused(path: Path, match: str, **named: Any) -> None:
    """Check that a load fails with this message and changes nothing."""
    before = {name: picture(thing) for name, thing in named.items()}
    with pytest.raises(fo.CheckpointError, match=match) as caught:
        fo.load(path, **named)
    assert str(caught.value).startswith(str(path))
    assert {name: picture(thing) for name, thing in named.items()} == before


def test_objects_that_do_not_match_are_refused_unchanged(tmp_path: Path) -> None:
    params, opt = trained()
    path = tmp_path / "f"
    fo.save(path, m=params, opt=opt, s=scheduler(1), ema=fo.EMA(params), a=np.ones(3), v=[1])
    m = buffer(8)
    two = [{"params": [m["w"]]}, {"params": [m["b"]]}]
    named = [{"params": [m["w"]], "param_names": ["w"]}, {"params": [m["b"]], "param_names": ["b"]}]
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("has no .'zz'", {"zz": buffer()}),
        ("opt: it is of kind AdamW, expected Adam", {"opt": fo.Adam(m)}),
        ("opt: it is of kind AdamW, expected SAM of AdamW", {"opt": fo.SAM(fo.AdamW(m))}),
        (
            "opt: its state_dtype was None, expected 'int8'",
            {"opt": fo.AdamW(m, state_dtype="int8")},
        ),
        ("opt: missing names", {"opt": fo.AdamW(two)}),
        ("opt: param_groups have", {"opt": fo.AdamW(named)}),
        ("opt: parameter 'w' was float32 of shape", {"opt": fo.AdamW(buffer(0, "f8"))}),
        ("opt: parameter 'b' was", {"opt": fo.AdamW(fo.FlatBuffer({"w": (3, 2), "b": 5}))}),
        ("m: 'm.w' is F32 of shape", {"m": buffer(0, "f8")}),
        ("m: 'm.b' is F32 of shape", {"m": fo.FlatBuffer({"w": (3, 2), "b": 5})}),
        ("m: missing names", {"m": fo.FlatBuffer({"w": (3, 2)})}),
        ("m: it is of kind FlatBuffer", {"m": fo.EMA(m)}),
        ("s: it is of kind SequentialLR", {"s": plateau(0)}),
        ("ema: missing names", {"ema": fo.EMA(m["w"])}),
        ("a: 'a' is F64", {"a": np.ones(4)}),
        ("v: it is not a dict", {"v": {}}),
        ("v: missing names", {"v": [np.ones(3)]}),
    ]
    for match, things in wrong:
        refused(path, match, **things)
        refused(path, match, **{"m": buffer(9), "opt": trained(seed=2)[1], **things})


def test_targets_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    params, opt = trained()
    fo.save(tmp_path / "f", m=params, a=np.ones((2, 2)), n=3, opt=opt, same=opt, w=params["w"])
    before = picture(params)
    read_only = np.ones((2, 2))
    read_only.flags.writeable = False
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"a": read_only}, ValueError, "a must be C-contiguous and writeable"),
        ({"a": np.ones((2, 4))[:, ::2]}, ValueError, "a must be C-contiguous and writeable"),
        ({"m": params, "w": params["w"]}, ValueError, r"share memory"),
        ({"opt": opt, "same": opt}, ValueError, "opt and same are the same optimizer"),
        ({"n": 0}, TypeError, "n is of type int, which cannot be loaded in place"),
        ({"a": np.array(["a"])}, TypeError, "a: dtype"),
        ({"a": object()}, TypeError, "a is of type object"),
    ]
    for named, error, match in cases:
        with pytest.raises(error, match=match):
            fo.load(tmp_path / "f", **named)
        assert picture(params) == before


@pytest.mark.parametrize("kind", ["flip", "cut"])
def test_damaged_files_are_refused_and_nothing_changes(tmp_path: Path, kind: str) -> None:
    params, opt = trained()
    fo.save(tmp_path / "f", model=params, optimizer=opt, epoch=3)
    whole = (tmp_path / "f").read_bytes()
    other, fresh = buffer(7), fo.AdamW(buffer())
    rng = np.random.default_rng(0)
    for place in range(0, len(whole), 13):
        damaged = bytearray(whole)
        if kind == "flip":
            damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "g").write_bytes(damaged if kind == "flip" else whole[:place])
        refused(tmp_path / "g", "g", model=other, optimizer=fresh)


def test_a_file_that_changes_between_the_two_readings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, opt = trained()
    path = tmp_path / "f"
    fo.save(path, model=params, optimizer=opt)
    verify = Reader.verify

    def verified(self: Reader, names: Any) -> None:
        verify(self, names)
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\xff")
        os.utime(path, ns=(1, 1))

    monkeypatch.setattr(Reader, "verify", verified)
    refused(path, "changed while it was read", model=buffer(3), optimizer=fo.AdamW(buffer()))


def test_the_second_reading_compares_checksums_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    fo.save(path, a=np.ones(3))
    verify = Reader.verify

    def verified(self: Reader, names: Any) -> None:
        verify(self, names)
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
        self._opened = self._stamp()

    monkeypatch.setattr(Reader, "verify", verified)
    with pytest.raises(fo.CheckpointError, match="second reading failed"):
        fo.load(path, a=np.zeros(3))


def test_a_load_into_an_optimizer_that_is_busy_changes_nothing(tmp_path: Path) -> None:
    params, opt = trained()
    fo.save(tmp_path / "f", model=params, optimizer=opt)
    before = picture(params)

    busy = fo.AdamW(params, weight_decay=0)

    def rate(step: int) -> float:
        with pytest.raises(RuntimeError, match="called from within"):
            fo.load(tmp_path / "f", model=params, optimizer=busy)
        return 0.0

    busy.param_groups[0]["lr"] = rate
    busy.step(buffer())
    assert picture(params) == before


# A file that is closed during the interrupt.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fresh", [True, False])
def test_an_interrupt_while_objects_are_written_leaves_all_or_nothing(
    tmp_path: Path, fresh: bool
) -> None:
    params, opt = trained(fo.SGD, momentum=0.5)
    scheduling = lr_scheduler.StepLR(opt, 2)
    fo.save(tmp_path / "f", model=params, opt=opt, scheduling=scheduling)
    named: dict[str, Any] = {}
    seen = [0]

    def start() -> Any:
        other = buffer(8) if fresh else trained(fo.SGD, 8, momentum=0.5)[0]
        named.update(model=other, opt=fo.SGD(other, lr=0.25, momentum=0.5))
        if not fresh:
            named["opt"].step(buffer(3))
        named["scheduling"] = lr_scheduler.StepLR(named["opt"], 5)
        return [picture(thing) for thing in named.values()]

    def trace(frame: Any, event: str, _: Any) -> Any:
        # From the first write on.
        if seen[0] or frame.f_code.co_name == "action":
            frame.f_trace_opcodes = True
            if event == "opcode":
                seen[0] += 1
                if seen[0] == number:
                    raise KeyboardInterrupt
        return trace

    outcomes, number, after = set(), 0, None
    while after is None:
        number += 1
        before, seen[0] = start(), 0
        tracing = sys.gettrace()
        sys.settrace(trace)
        try:
            fo.load(tmp_path / "f", **named)
        except KeyboardInterrupt:
            sys.settrace(tracing)
            outcomes.add(json.dumps([picture(t) for t in named.values()], default=repr))
        else:
            sys.settrace(tracing)
            after = [picture(thing) for thing in named.values()]
    assert outcomes == {json.dumps(state, default=repr) for state in (before, after)}


# Memory, and other threads.


def test_a_load_holds_no_second_copy(tmp_path: Path) -> None:
    shapes = {f"a{index}": (2**18,) for index in range(16)}
    params = fo.FlatBuffer(shapes)
    params.flat[...] = 1
    opt = fo.SGD(params, momentum=0.9)
    opt.step(params.flat.copy())
    fo.save(tmp_path / "f", model=params, optimizer=opt)
    other = fo.FlatBuffer(shapes)
    fresh = fo.SGD(other)
    tracemalloc.start()
    fo.load(tmp_path / "f", model=other, optimizer=fresh)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * 2**20 + 2**18
    assert other.flat.tobytes() == params.flat.tobytes()


def test_a_save_makes_no_copy(tmp_path: Path) -> None:
    params = fo.FlatBuffer({f"a{index}": (2**18,) for index in range(16)})
    opt = fo.SGD(params, momentum=0.9)
    opt.step(params.flat.copy())
    tracemalloc.start()
    fo.save(tmp_path / "f", model=params, optimizer=opt)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**19


def test_a_save_during_steps_of_another_thread_is_consistent(tmp_path: Path) -> None:
    """Steps add 1 to every element, so a consistent save has the same value everywhere."""
    params = fo.FlatBuffer({"w": (300_000,), "b": (7,)})
    opt = fo.SGD(params, lr=1.0, momentum=0.0, maximize=True)
    average = fo.EMA(params, decay=0.0)
    ones = params.zeros_like()
    ones.flat[...] = 1
    steps, stop = [0, 0], threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                opt.step(ones, ema=average)
            except RuntimeError:
                steps[1] += 1
            else:
                steps[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        seen: list[Any] = []
        for index in range(12):
            path = tmp_path / str(index % 3)
            fo.save(path, model=params, optimizer=opt, ema=average)
            state = fo.load(path)["model"]
            other = fo.SGD(params.zeros_like())
            shadow = fo.EMA(other.params)
            fo.load(path, optimizer=other, ema=shadow)
            counts = {*state["w"], *state["b"], *shadow.shadow.flat}
            assert counts == {other.state_dict()["steps"]} == {shadow.updates}
            seen += counts
    finally:
        stop.set()
        thread.join()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]
    assert set(params.flat) == {steps[0]}


def test_a_save_waits_for_the_second_step_of_sam(tmp_path: Path) -> None:
    params = buffer()
    sam = fo.SAM(fo.SGD(params, lr=0.1))
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with contextlib.suppress(RuntimeError):  # No step can begin during a save.
                sam.step(lambda: (0.0, params.zeros_like()))
            stop.wait(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            fo.save(tmp_path / "f", model=params, sam=sam)
    finally:
        stop.set()
        thread.join()


def test_saving_to_the_file_that_was_loaded(tmp_path: Path) -> None:
    params, opt = trained()
    path = tmp_path / "f"
    fo.save(path, model=params, optimizer=opt)
    fo.load(path, model=params, optimizer=opt)
    before = path.read_bytes()
    fo.save(path, model=params, optimizer=opt)
    assert path.read_bytes() == before
    back = fo.load(path)
    fo.save(path, **back)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_low_precision_asks_for_the_same_rounding_and_seed(tmp_path: Path) -> None:
    params = buffer()
    fo.save(tmp_path / "f", full=fo.AdamW(params, seed=1), low=fo.AdamW(params, state_dtype="int8"))
    fo.load(tmp_path / "f", full=fo.AdamW(params, seed=2))
    refused(
        tmp_path / "f",
        "its seed was 0, expected 2",
        low=fo.AdamW(params, state_dtype="int8", seed=2),
    )
    nearest = fo.AdamW(params, state_dtype="int8", rounding="nearest")
    refused(tmp_path / "f", "its rounding was 'stochastic'", low=nearest)


def test_codes_of_another_version_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opt = trained(state_dtype="int8")[1]
    monkeypatch.setattr("fastoptim.checkpoint.optimizers.INT8_CODES", 1)
    fo.save(tmp_path / "f", opt=opt)
    refused(tmp_path / "f", "opt: int8_codes is 1", opt=opt)


def test_hyperparameters_that_are_functions_stay(tmp_path: Path) -> None:
    rate = fo.schedules.exponential(1.0, 0.9)
    opt = fo.SGD(buffer(), lr=rate)
    opt.step(buffer())
    fo.save(tmp_path / "f", opt=opt)
    plain, scheduled = fo.SGD(buffer()), fo.SGD(buffer(), lr=rate)
    fo.load(tmp_path / "f", opt=plain)
    fo.load(tmp_path / "f", opt=scheduled)
    assert plain.param_groups[0]["lr"] == 0.9
    assert callable(scheduled.param_groups[0]["lr"])
    assert scheduled.current("lr") == 0.9


@pytest.mark.parametrize("damage", ["kind", "value", "state"])
def test_a_forged_file_is_refused(tmp_path: Path, damage: str) -> None:
    """Checksums do not protect against a forged file."""
    data: dict[str, Any] = {"kind": "AdamW", "state": [["w", 1]], "value": {"$tuple": 3}}
    del data[damage]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "_moment", lambda *_: ({"x": json.dumps(data)}, {}))
        fo.save(tmp_path / "f", x=1)
    things: list[Any] = [{}, [], fo.AdamW(buffer()), plateau(0), history(0), ema(0)]
    for thing in things:
        refused(tmp_path / "f", "f: x: ", x=thing)
