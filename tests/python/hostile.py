"""Invalid arguments, and valid arguments modified to contain them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np


class Refuses:
    """Raises an error for any operation."""

    def refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("refused")

    __array__ = __bool__ = __call__ = __eq__ = __float__ = __getitem__ = __hash__ = refuse
    __index__ = __int__ = __iter__ = __len__ = __repr__ = __str__ = refuse


class Lies:
    """A number and a function that returns invalid values."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def answered(self, *args: Any, **kwargs: Any) -> Any:
        return self.answer

    __array__ = __call__ = __float__ = __index__ = __int__ = answered


class Claims(Sequence[Any]):
    """A sequence of three items that reports another length."""

    def __init__(self, length: int, item: Any) -> None:
        self.length, self.item = length, item

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        if index >= 3:
            raise IndexError(index)
        return self.item


class Shrinks(Sequence[Any]):
    """A sequence that raises at its second item."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: Any) -> Any:
        if index:
            raise KeyboardInterrupt
        return np.zeros(3)


class Matrix(np.ndarray[Any, Any]):
    """A subclass of ndarray."""


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def interrupting(*args: Any) -> Any:
    raise KeyboardInterrupt


def odd_arrays() -> Iterator[Any]:
    dtypes = [
        "f2",
        "f4",
        "f8",
        "g",
        "i1",
        "u1",
        "i2",
        "u2",
        "i4",
        "u4",
        "i8",
        "u8",
        "?",
        "F",
        "D",
        "O",
        "S3",
        "U3",
        "M8[s]",
        "m8[s]",
        "V2",
        "V4",
        ">f4",
        ">f8",
        ">i8",
    ]
    yield from (np.zeros(3, dtype) for dtype in dtypes)
    yield np.zeros(3, [("x", "f4"), ("y", "i8")])
    yield np.array([np.nan, np.inf, -np.inf])
    yield np.array([-1, 2**40, -(2**63)])
    yield np.array([-1, 2**30, -(2**31)], "i4")
    for shape in (), (0,), (0, 3), (3, 0), (2, 3), (1, 1, 1), (1,) * 32, (0, 2**59), (99, 0):
        for dtype in "f4", "f8", "i8":
            yield np.zeros(shape, dtype)
    whole = np.zeros((6, 6))
    yield from (whole[::2], whole[:, 1], whole.T, whole[::-1], whole[0][::-1])
    yield from (np.broadcast_to(np.zeros(1), shape) for shape in [(3,), (2, 3)])
    yield np.zeros(25, "u1")[1:].view("f8")
    yield np.zeros(3).view(Matrix)
    yield np.ma.zeros(3)
    yield np.frombuffer(b"\0" * 24)
    try:
        import ml_dtypes
    except ImportError:
        return
    yield np.zeros(3, ml_dtypes.bfloat16)


def values() -> list[Callable[[], Any]]:
    """Functions that each create an invalid value."""
    plain: list[Any] = [
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        1024,
        2**31,
        2**32,
        2**63 - 1,
        2**63,
        2**64,
        10**400,
    ]
    plain += [-(2**63), -(2**64), 0.0, -0.0, 0.5, -1.5, 5e-324, 1e308, np.nan, np.inf, -np.inf, 1j]
    plain += [
        "",
        "x",
        "0",
        "lr",
        "\ud800",
        "\0",
        "x" * 10**5,
        b"",
        b"x",
        (),
        object,
        int,
        np.float32,
    ]
    plain += [Refuses(), Shrinks(), Ellipsis, NotImplemented, slice(None), range(3), interrupting]
    answers: list[Any] = [None, -1, 2**70, np.nan, "x", [], np.zeros(3)]
    plain += map(Lies, answers)
    lengths = 0, 1, 2**20, 2**40, 2**63 - 1
    plain += [Claims(length, item) for length in lengths for item in (None, 1.0, np.zeros(3))]
    plain += [np.float64(1.5), np.int64(3), np.float32("nan"), np.True_, np.datetime64(0, "s")]
    fresh: list[Callable[[], Any]] = [list, dict, set, bytearray, object, endless]
    fresh += [
        lambda: [None],
        lambda: [[]],
        lambda: nested(500),
        lambda: iter([1.0]),
        lambda: {1: 2},
    ]
    fresh += [lambda: (x for x in "ab"), lambda: [1.0] * 3, lambda: [np.zeros(3)] * 2]
    fresh += [
        lambda: [(print,)],
        lambda: [()],
        lambda: [(interrupting,)],
        lambda: memoryview(b"ab"),
    ]
    fresh += [partial(next_array, index) for index in range(len(list(odd_arrays())))]
    return [*(partial(same, value) for value in plain), *fresh]


def same(value: Any) -> Any:
    return value


def next_array(index: int) -> Any:
    return list(odd_arrays())[index]


VALUES = values()


def spoiled(rng: random.Random, value: Any, depth: int = 3) -> Any:
    """Replace a value, or a value inside it, by an invalid one."""
    inside = depth > 0 and isinstance(value, (list, tuple, dict)) and len(value) > 0
    if not inside or rng.random() < 0.3:
        if isinstance(value, np.ndarray) and value.dtype.char in "fdl" and rng.random() < 0.5:
            return spoiled_array(rng, value)
        return rng.choice(VALUES)()
    if isinstance(value, dict):
        changed = dict(value)
        key = rng.choice(list(changed))
        if rng.random() < 0.2:
            del changed[key]
        else:
            changed[key] = spoiled(rng, changed[key], depth - 1)
        return changed
    items = list(value)
    index = rng.randrange(len(items))
    chance = rng.random()
    if chance < 0.15:
        del items[index]
    elif chance < 0.3:
        items.append(items[index])
    else:
        items[index] = spoiled(rng, items[index], depth - 1)
    return items if isinstance(value, list) else tuple(items)


def spoiled_array(rng: random.Random, array: Any) -> Any:
    """Change one property of an array."""
    if rng.random() < 0.3:
        return array.astype(rng.choice(["f2", "f4", "f8", "i4", "i8", ">f8"]))
    if rng.random() < 0.3:
        return np.full_like(array, rng.choice([-1, 0, 3, 100, 2**31 - 1]))
    locked = array.copy()
    locked.flags.writeable = False
    nearly = [locked, array[None], array.view(Matrix)]
    if array.ndim:
        nearly += [array[:-1], array[1:], np.repeat(array, 2, axis=-1)[..., ::2]]
    return rng.choice(nearly)


def spoiled_arguments(rng: random.Random, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make one or two arguments invalid, or change their number."""
    given = list(arguments)
    if not given or rng.random() < 0.03:
        return (*given, rng.choice(VALUES)()) if rng.random() < 0.5 else tuple(given[:-1])
    for index in rng.sample(range(len(given)), min(len(given), rng.choice([1, 1, 2]))):
        given[index] = spoiled(rng, given[index])
    return tuple(given)
