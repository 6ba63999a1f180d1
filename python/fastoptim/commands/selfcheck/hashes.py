"""Fixed runs of every optimizer and loss, and hashes of their results.

``python -m fastoptim.commands.selfcheck.hashes`` prints the hashes on this machine; with numbers of
threads as arguments, those for each number. The published hashes are in ``selfcheck.json``. Inputs
are computed from integers, so they do not depend on any library.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import fastoptim as fo

PUBLISHED = Path(__file__).with_name("selfcheck.json")

Array: TypeAlias = NDArray[Any]
Kind: TypeAlias = Callable[[tuple[int, ...], int, str], Array]

# Large enough to use several threads, and not a multiple of any block size.
SHAPES = {"w": (211, 337), "b": (1009,)}
ROWS, CLASSES = 701, 101

# Arguments that select other rules; other optimizers run only with their defaults.
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "maximize": True}],
    "RMSprop": [{}, {"momentum": 0.9, "centered": True}],
    "Adam": [{}, {"weight_decay": 0.01}],
    "AdamW": [
        {},
        {"amsgrad": True},
        {"cautious": True},
        {"state_dtype": "bfloat16"},
        {"state_dtype": "int8"},
    ],
}


def integers(size: int, seed: int) -> NDArray[np.uint64]:
    """Return integers of 64 random bits: SplitMix64 (Steele et al., 2014) of 0, 1, 2, ..."""
    with np.errstate(over="ignore"):
        z = np.arange(1, size + 1, dtype=np.uint64) + np.uint64(seed << 32)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def unit(shape: tuple[int, ...], seed: int, dtype: str) -> Array:
    """Return numbers in [0, 1) that float32 represents exactly."""
    # Few bits, so that values derived from them are exact in float32, too.
    bits = integers(math.prod(shape), seed) >> np.uint64(42)
    return (bits.astype(np.float64) / 2**22).astype(dtype).reshape(shape)


def real(shape: tuple[int, ...], seed: int, dtype: str) -> Array:
    """Return numbers in [-4, 4) that float32 represents exactly."""
    return unit(shape, seed, dtype) * 8 - 4


def above(shape: tuple[int, ...], seed: int, dtype: str) -> Array:
    """Return numbers in [1, 3)."""
    return unit(shape, seed, dtype) * 2 + 1


def bits(shape: tuple[int, ...], seed: int, dtype: str) -> Array:
    """Return zeros and ones."""
    return (unit(shape, seed, dtype) < 0.5).astype(dtype)


def signs(shape: tuple[int, ...], seed: int, dtype: str) -> Array:
    """Return -1 and 1."""
    return bits(shape, seed, dtype) * 2 - 1


def labels(shape: tuple[int, ...], seed: int, _dtype: str) -> Array:
    """Return one class for each row."""
    return (integers(shape[0], seed) % np.uint64(CLASSES)).astype(np.int64)


def per_row(kind: Kind) -> Kind:
    """Return one number for each row."""
    return lambda shape, seed, dtype: kind(shape[:1], seed, dtype)


# The arguments of each loss and the kinds of its inputs; the first word is the class.
LOSSES: dict[str, tuple[dict[str, Any], tuple[Kind, ...]]] = {
    "MSELoss": ({}, (real, real)),
    "L1Loss": ({}, (real, real)),
    "HuberLoss": ({"delta": 0.5}, (real, real)),
    "SmoothL1Loss": ({}, (real, real)),
    "LogCoshLoss": ({}, (real, real)),
    "BCELoss": ({}, (unit, unit)),
    "BCEWithLogitsLoss": ({}, (real, unit)),
    "CrossEntropyLoss": ({}, (real, labels)),
    "CrossEntropyLoss smoothed": ({"label_smoothing": 0.1}, (real, labels)),
    "CrossEntropyLoss of probabilities": ({}, (real, unit)),
    "NLLLoss": ({}, (real, labels)),
    "KLDivLoss": ({}, (real, unit)),
    "HingeLoss": ({}, (real, signs)),
    "HingeLoss squared": ({"squared": True}, (real, signs)),
    "MultiMarginLoss": ({}, (real, labels)),
    "FocalLoss": ({}, (real, labels)),
    "SigmoidFocalLoss": ({}, (real, bits)),
    "ContrastiveLoss": ({}, (real, real, per_row(bits))),
    "TripletMarginLoss": ({}, (real, real, real)),
    "CosineEmbeddingLoss": ({}, (real, real, per_row(signs))),
    "SoftMarginLoss": ({}, (real, signs)),
    "HingeEmbeddingLoss": ({}, (real, signs)),
    "PoissonNLLLoss": ({}, (real, above)),
    "GaussianNLLLoss": ({}, (real, real, above)),
}


def optimizer(cls: Any, arguments: dict[str, Any], dtype: str) -> Iterator[Any]:
    """Make three steps: plain, clipped by norm and clipped by value."""
    # Muon supports only matrices, and its products are slow.
    params = fo.FlatBuffer({"w": (67, 131)} if cls is fo.Muon else SHAPES, dtype)
    params.flat[:] = real(params.flat.shape, 1, dtype)
    opt = cls(params, **arguments)
    for seed, options in enumerate(({}, {"max_norm": 1.0}, {"clip_value": 0.5}), start=2):
        yield opt.step(real(params.flat.shape, seed, dtype), **options).grad_norm or 0.0
    yield params.flat


def sharpness_aware(dtype: str) -> Iterator[Any]:
    """Make one step of SAM."""
    params = fo.FlatBuffer(SHAPES, dtype)
    params.flat[:] = real(params.flat.shape, 1, dtype)
    sam = fo.SAM(fo.SGD(params, lr=0.1))
    sam.first_step(real(params.flat.shape, 2, dtype))
    yield params.flat.copy()
    sam.second_step(real(params.flat.shape, 3, dtype))
    yield params.flat


def search(cls: Any, dtype: str) -> Iterator[Any]:
    """Make three draws, of which the last two are accepted."""
    params = fo.FlatBuffer(SHAPES, dtype)
    values = iter((3.0, 4.0, 2.0, 1.0))
    opt = cls(params, scale=0.1, seed=5)
    for _ in range(3):
        yield opt.step(lambda _: next(values))
    yield params.flat


def loss(cls: Any, arguments: dict[str, Any], kinds: Sequence[Kind], dtype: str) -> Iterator[Any]:
    """Compute the value and the gradient, reduced and element by element."""
    inputs = [kind((ROWS, CLASSES), seed, dtype) for seed, kind in enumerate(kinds, start=1)]
    for reduction in ("mean", "none"):
        value, gradient = cls(**arguments, reduction=reduction).value_and_grad(*inputs)
        yield value
        yield from gradient if isinstance(gradient, tuple) else (gradient,)


def norms(dtype: str) -> Iterator[Any]:
    """Compute the norms that do not need the power function of the system."""
    x = real((ROWS * CLASSES,), 1, dtype)
    yield from (fo.get_total_norm(x, norm_type) for norm_type in (1.0, 2.0, math.inf))


def runs() -> Iterator[tuple[str, Callable[[str], Iterable[Any]]]]:
    """Return every run by name, as a function of a dtype."""
    for name in fo.optim.__all__:
        cls = getattr(fo.optim, name)
        is_optimizer = isinstance(cls, type) and issubclass(cls, fo.optim.Optimizer)
        if is_optimizer and cls is not fo.optim.Optimizer:
            for arguments in ARGUMENTS.get(name, [{}]):
                what = " ".join([name, *(f"{key}={value}" for key, value in arguments.items())])
                yield what, partial(optimizer, cls, arguments)
    yield "SAM", sharpness_aware
    for name in ("RandomSearch", "RandomLocalSearch"):
        yield name, partial(search, getattr(fo, name))
    for name in fo.losses.__all__:
        for what, (arguments, kinds) in LOSSES.items():
            if what.split()[0] == name:
                yield what, partial(loss, getattr(fo.losses, name), arguments, kinds)
    yield "norms", norms


def hashes() -> dict[str, str]:
    """Compute the hashes of all results in little-endian byte order."""
    found = {}
    for name, run in runs():
        for dtype in ("float32", "float64"):
            digest = hashlib.sha256()
            for part in run(dtype):
                array = np.asarray(part)
                digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
            found[f"{name}, {dtype}"] = digest.hexdigest()[:16]
    return found


def main() -> None:
    """Print the hashes as JSON."""
    if len(sys.argv) == 1:
        print(json.dumps(hashes(), indent=1))
        return
    found = {}
    for threads in sys.argv[1:]:
        with fo.num_threads(int(threads)):
            found[threads] = hashes()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
