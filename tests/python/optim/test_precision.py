"""Parameters and moments in low precision: storage, rounding and memory."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from configurations import BF16, FORMS, REGULARIZERS, STORAGES, configurations, numbers, rounded
from fastoptim.commands.demo.training import Digits, Perceptron
from snapshot import snapshot

HALVES: list[Any] = ["f2", BF16]
ROUNDINGS: list[Any] = ["stochastic", "nearest"]
SHAPES = [(3, 5), (1, 1030), (20, 300)]
SIGNED = {"exp_avg", "exp_avg_fast", "exp_avg_slow", "momentum_buffer", "grad_avg"}
SQUARES = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "acc_delta", "exp_inf"}
# The second pass of these reads moments that the first pass has rounded.
TWO_PASSES = (fo.LAMB, fo.LARS, fo.Prodigy)
OPTIONS: dict[str, Any] = {"regularizer": REGULARIZERS[3], "clip_value": 0.7, "max_norm": 5.0}


def arrays_of(entry: Any) -> dict[str, Any]:
    return {name: x for name, x in entry.items() if isinstance(x, np.ndarray)}


def origin(octaves: int) -> Any:
    """Return the constant that is added to a fraction of the scale before its bits become a
    code."""
    return np.uint32((127 - octaves << 23) + (1 << 20) + (9 << 20 >> octaves))


def shares(octaves: int) -> Any:
    """Return the fraction of the scale that each code represents."""
    codes = np.arange(8 * octaves, dtype="u4") << 20
    return ((codes + origin(octaves)).view("f4") - origin(octaves).view("f4")).astype("f8")


def places(share: Any, octaves: int) -> Any:
    """Return the codes of fractions before rounding."""
    constant = float(origin(octaves).view("f4"))
    mantissa, exponent = np.frexp(np.append(share, 0.0) + constant)
    place = 8 * (exponent + 2 * mantissa)
    return (place - place[-1])[:-1]


def loaded(entry: Any, name: str) -> Any:
    """Return the values of a state array in any storage, in float64."""
    array = entry[name]
    if f"{name}_scale" not in entry:
        return array.astype("f8")
    scale = np.repeat(entry[f"{name}_scale"].astype("f8"), 256)[: array.size].reshape(array.shape)
    if name in SQUARES:
        return shares(32)[array] * scale**2
    return np.sign(array) * shares(16)[np.abs(array)] * scale


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "options"])
@pytest.mark.parametrize("half", HALVES)
def test_nearest_is_float32_rounded_after_every_step(
    optimizer: Any, half: Any, options: Any
) -> None:
    for extra in configurations(optimizer):
        low = numbers(SHAPES, half)
        single = [p.astype("f4") for p in low]
        mine = optimizer(low, rounding="nearest", **{"lr": 0.01, **extra})
        model = optimizer(single, **{"lr": 0.01, **extra})
        for seed in range(4):
            grads = numbers(SHAPES, half, 1 + seed)
            info = model.step([g.astype("f4") for g in grads], **options)
            for p in single:
                p[...] = p.astype(half)
            assert mine.step(grads, **options) == info
            assert snapshot(low) == snapshot([p.astype(half) for p in single])
            assert snapshot(mine.state) == snapshot(model.state)


@pytest.mark.parametrize(
    ("dtype", "storage"), [("f4", "bfloat16"), ("f8", "bfloat16"), ("f8", "float32")]
)
def test_moments_to_the_nearest_are_rounded_after_every_step(
    optimizer: Any, dtype: str, storage: str
) -> None:
    for extra in configurations(optimizer):
        a, b = numbers(SHAPES, dtype), numbers(SHAPES, dtype)
        low = optimizer(a, state_dtype=storage, rounding="nearest", **extra)
        model = optimizer(b, **extra)
        for seed in range(4):
            grads = numbers(SHAPES, dtype, 1 + seed)
            low.step(grads, **OPTIONS)
            model.step(grads, **OPTIONS)
            for state, exact in zip(low.state.values(), model.state.values(), strict=True):
                for name, array in arrays_of(exact).items():
                    if name in SIGNED | SQUARES:
                        to = BF16 if storage == "bfloat16" else np.dtype(storage)
                        assert state[name].dtype == to
                        array[...] = rounded(array.astype("f8"), to)
            if optimizer in TWO_PASSES:
                for x, y in zip(a, b, strict=True):
                    assert np.sqrt(np.mean((x - y) ** 2)) < 2e-3
            else:
                assert snapshot(a) == snapshot(b), extra


@pytest.mark.parametrize("storage", STORAGES[1:])
@pytest.mark.parametrize("dtype", FORMS)
def test_every_storage_stays_near_float64(optimizer: Any, dtype: Any, storage: str) -> None:
    """Stochastic rounding adds noise, but no step has a large error."""
    if optimizer is fo.Prodigy and dtype not in ("f4", "f8"):
        pytest.skip("it estimates distances by its first steps of 1e-6")
    for extra in configurations(optimizer):
        low = [np.full((64, 64), 1.0).astype(dtype)]
        exact = [np.full((64, 64), 1.0)]
        mine, model = optimizer(low, state_dtype=storage, **extra), optimizer(exact, **extra)
        for seed in range(20):
            grads = numbers([(64, 64)], BF16, 1 + seed)
            ones = [(1 + 0.5 * g.astype("f8")).astype(BF16).astype("f8") for g in grads]
            model.step(ones, **OPTIONS)
            mine.step([g.astype(dtype) for g in ones], **OPTIONS)
        moved, off = 1.0 - exact[0], low[0].astype("f8") - exact[0]
        bits = np.abs(exact[0]).max() * 2.0 ** {"f2": -10, "f4": -23, "f8": -52}.get(dtype, -7)
        assert np.abs(off.mean()) <= 0.02 * np.abs(moved).mean() + bits / 10, extra
        # Prodigy's steps grow by an estimated factor, and so does the noise of 8 bits.
        share = 0.25 if optimizer is fo.Prodigy and storage == "int8" else 0.2
        assert np.sqrt(np.mean(off**2)) <= share * np.sqrt(np.mean(moved**2)) + 5 * bits, extra


@pytest.mark.parametrize("half", HALVES)
def test_prodigy_needs_stochastic_rounding_in_16_bits(half: Any) -> None:
    for rounding in ROUNDINGS:
        w = np.ones(10_000, half)
        opt = fo.Prodigy(w, rounding=rounding)
        for _ in range(200):
            opt.step(2 * w)
        if rounding == "stochastic":
            assert 0.2 < opt.state["0"]["d"] < 0.8
            assert np.abs(w.astype("f4")).mean() < 1e-3
        else:
            assert (w == 1).all()


SMALL_UPDATES = [
    (lambda w, r: fo.SGD(w, lr=1e-4, rounding=r), 1.0, 1 - 1e-4 * np.arange(101)),
    (
        lambda w, r: fo.AdamW(w, lr=1e-3, weight_decay=0.1, rounding=r),
        0.0,
        (1 - 1e-4) ** np.arange(101),
    ),
]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(("make", "gradient", "path"), SMALL_UPDATES)
def test_small_updates_are_preserved_on_average(
    make: Any, gradient: float, path: Any, half: Any
) -> None:
    n = 1 << 16
    for rounding in ROUNDINGS:
        w = np.ones(n, half)
        opt = make(w, rounding)
        for t in range(1, 101):
            opt.step(np.full(n, gradient, half))
            mean = w.mean(dtype="f8")
            if rounding == "nearest":
                assert mean == 1
                continue
            # A sum of t rounding errors, each smaller than a unit.
            unit = 2.0 ** (-11 if half == "f2" else -8)
            assert abs(mean - path[t]) < 5 * unit * math.sqrt(t / 4 / n)


def test_small_changes_of_moments_are_preserved_on_average() -> None:
    n, exact = 4096, 1 - 0.999**2000
    means = {}
    for rounding in ROUNDINGS:
        opt = fo.AdamW(np.ones(n, "f4"), lr=0.0, state_dtype="bfloat16", rounding=rounding)
        for _ in range(2000):
            opt.step(np.ones(n, "f4"))
        means[rounding] = opt.state["0"]["exp_avg_sq"].mean(dtype="f8")
    assert means["stochastic"] == pytest.approx(exact, rel=2e-3)
    assert means["nearest"] == 0.25


def stepped(
    optimizer: Any, seed: int = 0, dtype: Any = "f4", storage: Any = "int8", threads: int = 1
) -> Any:
    params = numbers([(1, 3), (150, 240)], dtype)
    opt = optimizer(params, state_dtype=storage, seed=seed)
    with fo.num_threads(threads):
        for t in range(3):
            opt.step(numbers([(1, 3), (150, 240)], dtype, 1 + t), **OPTIONS)
    return snapshot([params, opt.state])


@pytest.mark.parametrize("dtype", FORMS)
@pytest.mark.parametrize("storage", STORAGES)
def test_bits_depend_on_the_seed_and_not_on_threads(
    optimizer: Any, dtype: Any, storage: Any
) -> None:
    first = stepped(optimizer, 1, dtype, storage)
    for threads in 1, 2, 3:
        assert stepped(optimizer, 1, dtype, storage, threads) == first
    params = numbers([(1, 3), (150, 240)], dtype)
    state = optimizer(params, state_dtype=storage).state["1"]
    is_rounded = any(x.dtype.itemsize < 4 for x in [*params, *arrays_of(state).values()])
    assert (stepped(optimizer, 2, dtype, storage) != first) == is_rounded


@pytest.mark.parametrize("storage", STORAGES)
def test_a_buffer_is_a_list_of_arrays_to_the_bit(optimizer: Any, storage: Any) -> None:
    shapes, results = [(1, 3), (7, 300), (130, 140)], set()
    for flat, dtype in itertools.product([False, True], [BF16]):
        arrays: Any = numbers(shapes, dtype)
        grads: Any = numbers(shapes, dtype, 1)
        if flat:
            arrays, grads = (
                fo.FlatBuffer.from_arrays({str(i): x for i, x in enumerate(y)})
                for y in (arrays, grads)
            )
        opt = optimizer(arrays, state_dtype=storage)
        for _ in range(3):
            opt.step(grads)
        held = list(arrays.values()) if flat else arrays
        results.add(repr(snapshot([held, opt.state])))
    assert len(results) == 1


def test_equal_parameters_and_steps_are_rounded_differently() -> None:
    n = 1 << 14
    params = [np.ones(n, BF16), np.ones(n, BF16)]
    opt = fo.SGD(params, lr=1e-3)
    opt.step([np.ones(n, BF16)] * 2)
    down = [p < 1 for p in params]
    for p in params:
        p[...] = 1
    opt.step([np.ones(n, BF16)] * 2)
    down += [p < 1 for p in params]
    share = 1e-3 * 2**8
    for a, b in itertools.combinations(down, 2):
        assert np.mean(a) == pytest.approx(share, rel=0.1)
        assert np.mean(a & b) == pytest.approx(share**2, rel=0.2)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", FORMS)
def test_the_maximum_of_amsgrad_never_falls(dtype: Any, storage: Any, rounding: Any) -> None:
    rng = np.random.default_rng(0)
    w = np.zeros(1000, dtype)
    opt = fo.AdamW(w, amsgrad=True, betas=(0.9, 0.5), state_dtype=storage, rounding=rounding)
    before = np.zeros(1000)
    for t in range(60):
        opt.step((rng.standard_normal(1000) * 1.02**t).astype(dtype))
        now = loaded(opt.state["0"], "max_exp_avg_sq")
        # In 8 bits, values that are rounded up may have the rounding error of the arithmetic.
        slack = 1e-4 if storage == "int8" else 0.0
        assert (now >= before * (1 - slack)).all()
        before = now


def test_dtypes_of_the_state(optimizer: Any) -> None:
    for dtype, storage, extra in itertools.product(FORMS, STORAGES, configurations(optimizer)):
        params = numbers(SHAPES, dtype)
        opt = optimizer(params, state_dtype=storage, **extra)
        own = np.dtype("f8") if dtype == "f8" else np.dtype("f4")
        moments = {"float32": np.dtype("f4"), "bfloat16": BF16}.get(storage or "", own)
        for p, entry in zip(params, opt.state.values(), strict=True):
            state = arrays_of(entry)
            for name, array in state.items():
                expected: Any
                what = name.removesuffix("_scale")
                if what != name:
                    expected, shape = np.dtype("f4"), (math.ceil(p.size / 256),)
                    assert state[what].dtype.itemsize == 1
                elif name in SIGNED | SQUARES:
                    code = np.dtype("u1" if name in SQUARES else "i1")
                    expected, shape = (code if storage == "int8" else moments), p.shape
                    assert (f"{name}_scale" in state) == (storage == "int8")
                else:
                    expected, shape = own, array.shape
                assert (array.dtype, array.shape) == (expected, shape), name
                assert not array.any()


def test_memory_of_adamw() -> None:
    n = 100_000
    bytes_of: dict[Any, float] = {None: 8.0, "float32": 8.0, "bfloat16": 4.0, "int8": 2.03126}
    for storage, expected in bytes_of.items():
        opt = fo.AdamW(np.zeros(n, BF16), state_dtype=storage)
        size = sum(x.nbytes for x in arrays_of(opt.state["0"]).values())
        assert size / n == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", FORMS)
@pytest.mark.parametrize("storage", STORAGES)
def test_continuing_from_a_copy_to_the_bit(optimizer: Any, dtype: Any, storage: Any) -> None:
    for extra, rounding in itertools.product(configurations(optimizer), ROUNDINGS):
        stored = {"state_dtype": storage, "rounding": rounding, "seed": 5, **extra}
        params = numbers(SHAPES, dtype)
        opt = optimizer(params, **stored)
        opt.step(numbers(SHAPES, dtype, 1))
        again = [p.copy() for p in params]
        new = optimizer(again, **stored)
        new.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
        copies = [new, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))]
        for other in copies:
            assert snapshot(other.state) == snapshot(opt.state)
        for t in range(2):
            for each in opt, *copies:
                each.step(numbers(SHAPES, dtype, 2 + t))
        for other in copies:
            held = list(other.param_groups[0]["params"])
            assert snapshot([held, other.state]) == snapshot([params, opt.state])


def test_state_of_another_storage_is_refused(optimizer: Any) -> None:
    for mine, other in itertools.permutations(STORAGES[1:], 2):
        opts = [optimizer(numbers(SHAPES, "f4"), state_dtype=s, lr=0.01) for s in (mine, other)]
        for opt in opts:
            opt.step(numbers(SHAPES, "f4", 1))
        before = snapshot(opts[0])
        if {*SIGNED, *SQUARES} & {*opts[0].state["0"]}:
            with pytest.raises(fo.CheckpointError, match=r"expected"):
                opts[0].load_state_dict(opts[1].state_dict())
        assert snapshot(opts[0]) == before


def test_state_that_cannot_be_negative_is_refused(optimizer: Any) -> None:
    sizes = {*SQUARES, "sum", "row_var", "col_var", "variance", "step_size"}
    for extra, shape in itertools.product(configurations(optimizer), [(3, 4), (5,)]):
        if optimizer is fo.Muon and len(shape) == 1:
            continue
        opt = optimizer(numbers([shape], "f4"), **extra)
        opt.step(numbers([shape], "f4", 1))
        before = snapshot(opt)
        for name in arrays_of(opt.state["0"]):
            saved = opt.state_dict()
            saved["state"][0][name].flat[0] = -1.0
            if name in sizes:
                with pytest.raises(fo.CheckpointError, match=f"{name} .* negative"):
                    opt.load_state_dict(saved)
                assert snapshot(opt) == before
            else:
                opt.load_state_dict(saved)
                before = snapshot(opt)


@pytest.mark.parametrize("change", ["missing", "shape", "nan", "negative", "codes"])
def test_scales_that_do_not_fit_are_refused(change: str) -> None:
    opt = fo.AdamW(np.ones(300, "f4"), state_dtype="int8")
    opt.step(np.ones(300, "f4"))
    before, saved = snapshot(opt), opt.state_dict()
    entry = saved["state"][0]
    if change == "missing":
        del entry["exp_avg_scale"]
    elif change == "shape":
        entry["exp_avg_scale"] = np.ones(3, "f4")
    elif change == "codes":
        entry["exp_avg"] = entry["exp_avg"].astype("u1")
    else:
        entry["exp_avg_sq_scale"][1] = math.nan if change == "nan" else -1.0
    with pytest.raises(fo.CheckpointError, match="exp_avg"):
        opt.load_state_dict(saved)
    assert snapshot(opt) == before


@pytest.mark.parametrize("dtype", FORMS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_8_bit_moments_are_accurate_to_one_unit(dtype: Any, rounding: Any) -> None:
    """Compare the moments of each step with float64, computed from the previous stored moments."""
    n, size = 1000, np.repeat([1e-12, 1.0, 0.0, 1e3], 250)
    opt = fo.AdamW(np.zeros(n, dtype), lr=1e-3, state_dtype="int8", rounding=rounding)
    m, v = np.zeros((2, n))
    for t in range(30):
        rng = np.random.default_rng(t)
        g = (rng.standard_normal(n) * rng.choice([0, 1e-3, 1], n) * size).astype(dtype)
        opt.step(g)
        g = g.astype("f8")
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        state = opt.state["0"]
        for name, exact, octaves in [("exp_avg", m, 16), ("exp_avg_sq", v, 32)]:
            largest = np.array([np.abs(exact[i : i + 256]).max() for i in range(0, n, 256)])
            scales = largest if octaves == 16 else np.sqrt(largest)
            np.testing.assert_allclose(state[f"{name}_scale"], scales, rtol=1e-6, atol=1e-38)
            unit = np.repeat(np.where(largest == 0, 1, largest), 256)[:n]
            off = np.abs(state[name].astype("i4")) - places(np.abs(exact) / unit, octaves)
            assert (loaded(state, name) * exact >= 0).all()
            low, high = {
                ("nearest", 16): (-0.501, 0.501),
                ("nearest", 32): (-0.001, 1.001),
            }.get((rounding, octaves), (-1.001, 1.001))
            assert off.min() >= low
            assert off.max() <= high
        assert (loaded(state, "exp_avg_sq")[v > 1e-37] > 0).all()
        m, v = loaded(state, "exp_avg"), loaded(state, "exp_avg_sq")


def dynamic_map(first: int) -> Any:
    """Return the dynamic map of Dettmers et al. for fractions from 0 to 1.

    Midpoints of ``first`` parts of 1e-7 to 1e-6, of twice as many in the next decade, and so on.
    """
    edges = [np.linspace(0.1, 1, first * 2**i + 1) * 10.0 ** (i - 6) for i in range(7)]
    return np.concatenate([[0.0], *[(x[1:] + x[:-1]) / 2 for x in edges], [1.0]])


def test_8_bit_codes_have_smaller_relative_errors_than_the_dynamic_map() -> None:
    """The largest errors of rounding to nearest, by decade below the largest value, as in the
    guide."""

    def nearest(codes: Any, x: Any) -> Any:
        above = np.searchsorted(codes, x).clip(1, len(codes) - 1)
        return np.where(x - codes[above - 1] < codes[above] - x, codes[above - 1], codes[above])

    decades = 10.0 ** -np.linspace(np.arange(4), np.arange(1, 5), 5001)
    for first, second, m, root in [
        (shares(16), shares(32), [0.059, 0.059, 0.060, 0.068], [0.030, 0.030, 0.030, 0.030]),
        (dynamic_map(1), dynamic_map(2), [0.062, 0.11, 0.18, 0.28], [0.031, 0.094, 0.27, 1.0]),
    ]:
        found = np.abs(nearest(first, decades) / decades - 1).max(0)
        np.testing.assert_allclose(found, m, rtol=0.03)
        found = np.abs(np.sqrt(nearest(second, decades**2)) / decades - 1).max(0)
        np.testing.assert_allclose(found, root, rtol=0.03)


def moved(grads: Any, first: Any, second: Any) -> Any:
    """Return the change in 100 steps of Adam with moments rounded to nearest in two maps, in a
    block."""
    w, m, v = np.zeros((3, grads.size))
    for t in range(1, 101):
        m, v = 0.9 * m + 0.1 * grads, 0.999 * v + 0.001 * grads**2
        w -= 1e-3 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-12)
        m = first[np.abs(m[:, None] / m.max() - first).argmin(1)] * m.max()
        v = second[np.maximum(1, np.abs(v[:, None] / v.max() - second).argmin(1))] * v.max()
    return w


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_small_gradients_of_a_block_move_parameters_as_in_float32(rounding: Any) -> None:
    grads = np.random.default_rng(0).uniform(0.5, 1, (5, 100, 256)).astype("f4")
    powers = 10.0 ** -np.arange(5)
    grads *= powers[:, None, None].astype("f4")
    g = np.moveaxis(grads, 0, -1).reshape(-1).copy()  # All five in each block.
    g[::256] = 1.0
    size = np.tile(powers, g.size // 5)
    size[::256] = 1.0
    means = {}
    for storage in "float32", "int8":
        w = np.zeros_like(g)
        opt = fo.Adam(w, lr=1e-3, eps=1e-12, state_dtype=storage, rounding=rounding)
        for _ in range(100):
            opt.step(g)
        means[storage] = np.array([w[size == x].mean(dtype="f8") for x in powers])
    bound = 0.01 if rounding == "stochastic" else 0.05
    np.testing.assert_allclose(means["int8"], means["float32"], rtol=bound)
    # The map of the paper stores second moments, not roots: 1e-8 is below its smallest code.
    theirs = moved(g[:256].astype("f8"), dynamic_map(1), dynamic_map(2))
    mean = [-theirs[size[:256] == x].mean() for x in powers]
    np.testing.assert_allclose(mean, [0.1, 0.1, 0.1, 0.1, 0.013], rtol=0.1)


@pytest.mark.parametrize("version", [None, 1, 3, "new", "2.5", [2]])
def test_8_bit_codes_of_another_version_are_refused(optimizer: Any, version: Any) -> None:
    opt = optimizer(numbers(SHAPES, "f4"), state_dtype="int8", lr=0.01)
    opt.step(numbers(SHAPES, "f4", 1))
    before, saved = snapshot(opt), opt.state_dict()
    assert saved.pop("int8_codes") == 2
    if version is not None:
        saved["int8_codes"] = version
    if {*SIGNED, *SQUARES} & {*opt.state["0"]}:
        with pytest.raises(fo.CheckpointError, match="int8_codes"):
            opt.load_state_dict(saved)
    assert snapshot(opt) == before
    opt.load_state_dict({**saved, "int8_codes": np.int64(2)})
    assert snapshot(opt) == before


@pytest.fixture(scope="module")
def digits() -> Digits:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    return Digits.load(0)


def trained_loss(digits: Digits, dtype: Any, **storage: Any) -> float:
    """Train the network of the demonstration, and return its loss over all digits."""
    steps, rng = 400, np.random.default_rng(1)
    network = Perceptron((64, 64, 10), np.random.default_rng(0))
    params = fo.FlatBuffer(network.params.shapes, dtype)
    params.assign(network.params)
    grads, loss_fn = params.zeros_like(), fo.losses.CrossEntropyLoss()
    opt = fo.AdamW(params, lr=fo.schedules.cosine(3e-3, steps), **storage)
    for _ in range(steps):
        network.params.assign(params)
        rows = rng.choice(len(digits.x), 48, replace=False)
        values = network.forward(digits.x[rows])
        network.backward(values, loss_fn.grad(values[-1], digits.y[rows]))
        grads.assign(network.grads)
        opt.step(grads, max_norm=1.0)
    network.params.assign(params)
    return float(loss_fn(network.forward(digits.x)[-1], digits.y))


# Not with rounding to nearest for bfloat16 parameters, whose updates are below half a unit, and
# int8 moments, where the second moment only increases.
TRAINED: list[tuple[Any, Any, str]] = [
    ("float32", "bfloat16", "stochastic"),
    ("float32", "bfloat16", "nearest"),
    ("float32", "int8", "stochastic"),
    (BF16, None, "stochastic"),
    (BF16, "bfloat16", "stochastic"),
    (BF16, "int8", "stochastic"),
    ("float16", None, "stochastic"),
    ("float16", "int8", "stochastic"),
]


def test_training_ends_where_float32_does(digits: Digits) -> None:
    expected = trained_loss(digits, "float32")
    assert expected < 0.2
    for dtype, storage, rounding in TRAINED:
        found = trained_loss(digits, dtype, state_dtype=storage, rounding=rounding)
        assert found == pytest.approx(expected, rel=0.02), (dtype, storage, rounding)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("cls", [fo.ScheduleFreeSGD, fo.ScheduleFreeAdamW])
def test_schedule_free_goes_to_the_average_and_back(cls: Any, half: Any) -> None:
    w = numbers([(40, 500)], half)
    opt = cls(w, lr=0.01)
    for t in range(5):
        opt.step(numbers([(40, 500)], half, 1 + t))
    y, z = w[0].astype("f4"), opt.state["0"]["z"].copy()
    assert z.dtype == np.float32
    opt.eval()
    assert snapshot(w[0]) == snapshot((y + np.float32(1 - 1 / 0.9) * (z - y)).astype(half))
    with pytest.raises(RuntimeError, match="train"):
        opt.step(numbers([(40, 500)], half))
    opt.train()
    unit = 2.0 ** (-10 if half == "f2" else -7)
    np.testing.assert_allclose(w[0].astype("f4"), y, rtol=unit, atol=unit * np.abs(y - z).max())
    assert snapshot(opt.state["0"]["z"]) == snapshot(z)


@pytest.mark.parametrize("dtype", FORMS)
@pytest.mark.parametrize("storage", STORAGES)
def test_nan_propagates(optimizer: Any, dtype: Any, storage: Any) -> None:
    for extra, where, bad in itertools.product(
        configurations(optimizer), ["params", "grads"], [math.nan, math.inf]
    ):
        own = "f8" if dtype == "f8" else "f4"
        results = []
        for form, state_dtype in [(own, None), (dtype, storage)]:
            params = [np.full((3, 100), 0.5, form)]
            opt = optimizer(params, state_dtype=state_dtype, **extra)
            for t in range(3):
                grads = [np.full((3, 100), 0.25, form)]
                if t == 1:
                    {"params": params, "grads": grads}[where][0][1, 7] = bad
                opt.step(grads)
            results.append(np.isfinite(params[0].astype("f8")))
        # Values that share an 8-bit block with a nonfinite value may become nonfinite.
        assert not (results[1] & ~results[0]).any(), (extra, where, bad)


@pytest.mark.parametrize("dtype", FORMS)
@pytest.mark.parametrize("storage", STORAGES)
def test_scalars_and_empty_arrays(optimizer: Any, dtype: Any, storage: Any) -> None:
    for shape in [(), (0,), (3, 0), (1,)]:
        if optimizer is fo.Muon and len(shape) != 2:
            continue
        w, target = np.ones(shape, dtype), np.zeros(shape, BF16)
        opt = optimizer(w, lr=0.1, state_dtype=storage)
        for _ in range(2):
            assert opt.step(np.ones(shape, dtype), max_norm=1.0, copy_to=target).applied
        assert snapshot(target) == snapshot(rounded(w.astype("f8"), BF16)) or hasattr(opt, "eval")
        assert np.isfinite(w.astype("f8")).all()
        copy.deepcopy(opt).step(np.ones(shape, dtype))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", FORMS)
def test_moments_decay_to_zero(dtype: Any, storage: Any, rounding: Any) -> None:
    w = np.ones((2, 300), dtype)
    opt = fo.Adam(w, betas=(0.5, 0.9), state_dtype=storage, rounding=rounding)
    opt.step(np.ones((2, 300), dtype))
    for _ in range(2200 if dtype == "f8" else 400):
        opt.step(np.zeros((2, 300), dtype))
    before = snapshot(w)
    assert np.isfinite(w.astype("f8")).all()
    assert not loaded(opt.state["0"], "exp_avg").any()
    opt.step(np.zeros((2, 300), dtype))
    assert snapshot(w) == before


def test_idle_moments_in_a_busy_block_decay_on_average() -> None:
    g = np.ones((400, 256), "f4")
    opt = fo.Adam(np.zeros((400, 256), "f4"), state_dtype="int8")
    opt.step(g)
    g[:, 1:] = 0
    for _ in range(60):
        opt.step(g)
    m = loaded(opt.state["0"], "exp_avg")
    np.testing.assert_allclose(m[:, 0], 1 - 0.9**61, rtol=1e-5)
    assert m[:, 1:].mean() == pytest.approx(0.1 * 0.9**60, abs=2e-4)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("half", HALVES)
def test_sam_to_the_nearest(half: Any, adaptive: bool) -> None:
    for dtype in half, "f4":
        params = numbers(SHAPES, dtype)
        before = [p.astype("f4") for p in params]
        grads = numbers(SHAPES, half, 1)
        single = [g.astype("f4") for g in grads]
        sam = fo.SAM(fo.SGD(params, lr=0.1, rounding="nearest"), rho=2.0, adaptive=adaptive)
        sam.first_step(grads)
        weights = [p * p if adaptive else np.ones_like(p) for p in before]
        squares = [(np.sqrt(w) * g).astype("f8") for w, g in zip(weights, single, strict=True)]
        factor = 2.0 / np.sqrt(sum(np.sum(x * x) for x in squares))
        for p, old, w, g in zip(params, before, weights, single, strict=True):
            moved = (old + np.float32(factor) * (w * g)).astype(dtype).astype("f8")
            unit = 2.0 ** (-10 if dtype == "f2" else -7)
            np.testing.assert_allclose(p.astype("f8"), moved, rtol=unit, atol=1e-6)
            assert np.mean(p.astype("f8") == moved) > 0.5
        sam.second_step([np.zeros_like(g) for g in grads])
        assert snapshot(params) == snapshot([p.astype(dtype) for p in before])


@pytest.mark.parametrize("half", HALVES)
def test_sam_perturbs_on_average(half: Any) -> None:
    """Each element moves by less than half a unit."""
    n = 1 << 16
    moves = []
    for seed in 0, 1:
        w, g = np.ones(n, half), np.ones(n, half)
        sam = fo.SAM(fo.SGD(w, lr=0.1, seed=seed), rho=1e-4 * math.sqrt(n))
        sam.first_step(g)
        moves.append(w.astype("f8") - 1)
        assert moves[-1].mean() == pytest.approx(1e-4, rel=0.1)
        sam.second_step(g)
    assert (moves[0] != moves[1]).any()
    sam = fo.SAM(fo.SGD(w, lr=0.1, rounding="nearest"), rho=1e-4 * math.sqrt(n))
    before = snapshot(w)
    sam.first_step(g)
    assert snapshot(w) == before


def test_sam_accepts_groups_added_later() -> None:
    base = fo.SGD([np.ones(3, BF16)], lr=0.1)
    sam = fo.SAM(base, rho=0.1)
    sam.step(lambda: (0.0, [np.ones(3, BF16)]))
    base.add_param_group({"params": {"late": np.ones(2)}, "maximize": True})
    assert sam.step(lambda: (1.0, {"0": np.ones(3, BF16), "late": np.ones(2)})) == 1.0
    np.testing.assert_allclose(base.param_groups[1]["params"][0], [1.1, 1.1])


@pytest.mark.parametrize("half", HALVES)
def test_searches_refuse_16_bits(half: Any) -> None:
    for cls in fo.RandomSearch, fo.RandomLocalSearch:
        with pytest.raises(TypeError, match=r"params\[0\] must be float32 or float64, got"):
            cls(np.ones(3, half))


BAD: list[tuple[type[Exception], dict[str, Any]]] = [
    (ValueError, {"state_dtype": "float64"}),
    (ValueError, {"state_dtype": "float16"}),
    (TypeError, {"state_dtype": np.float32}),
    (TypeError, {"state_dtype": 8}),
    (ValueError, {"rounding": "up"}),
    (TypeError, {"rounding": None}),
    (ValueError, {"seed": -1}),
    (ValueError, {"seed": 2**64}),
    (TypeError, {"seed": 1.0}),
    (TypeError, {"seed": True}),
    (TypeError, {"seed": "1"}),
]


@pytest.mark.parametrize(("error", "arguments"), BAD)
def test_bad_storage(optimizer: Any, error: Any, arguments: Any) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        optimizer([np.ones((2, 2), "f4")], **arguments)
