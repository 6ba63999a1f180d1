"""One sweep: a step with options equals separate calls, in the documented order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from configurations import BF16, FORMS, REGULARIZERS, STORAGES, configurations, numbers, rounded
from fastoptim import _core
from processes import run
from snapshot import snapshot

# Smaller, slightly larger and much larger than the blocks of 1024 and chunks of 16384 elements.
SHAPES = [(3, 5), (1, 1030), (0, 4), (150, 230)]
SMALL = [(3, 5), (2, 2)]


def prepared(
    params: list[Any],
    grads: list[Any],
    maximize: bool = False,
    loss_scale: float = 1.0,
    regularizer: Any = None,
    clip_value: float | None = None,
    max_norm: float | None = None,
) -> tuple[list[Any], float | None]:
    """Apply the operations of a step to the gradients one by one, and return their norm."""
    found = []
    for p, g in zip(params, grads, strict=True):
        u = g * g.dtype.type((-1 if maximize else 1) / loss_scale)
        if regularizer is not None:
            u += p.dtype.type(regularizer.l1) * np.sign(p) + p.dtype.type(2 * regularizer.l2) * p
        found.append(u if clip_value is None else u.clip(-clip_value, clip_value))
    norm = None if max_norm is None else fo.clip_grad_norm_(found, max_norm)
    return found, norm


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_options_are_separate_calls_to_the_bit(optimizer: Any, dtype: str, maximize: bool) -> None:
    """Loss scales are powers of two, so that they are exact."""
    options = itertools.product([1.0, 8.0], REGULARIZERS, [None, 0.7], [None, 1.0, 1e9, math.inf])
    chosen = itertools.cycle(configurations(optimizer))
    for (scale, penalty, bound, max_norm), extra in zip(options, chosen, strict=False):
        a, b = numbers(SMALL, dtype), numbers(SMALL, dtype)
        fused, apart = optimizer(a, maximize=maximize, **extra), optimizer(b, **extra)
        for seed in range(3):
            grads = numbers(SMALL, dtype, 1 + seed)
            how: dict[str, Any] = {
                "regularizer": penalty,
                "clip_value": bound,
                "max_norm": max_norm,
            }
            ready, norm = prepared(b, grads, maximize, scale, **how)
            apart.step(ready)
            info = fused.step(grads, loss_scale=scale, **how)
            assert info == fo.StepInfo(True, norm)
            assert snapshot(a) == snapshot(b), (scale, how, extra)
        assert snapshot(fused.state) == snapshot(apart.state)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_nonfinite_gradients_give_the_same_results(optimizer: Any, bad: float) -> None:
    options = itertools.product(REGULARIZERS[::3], [None, 0.7], [None, 1.0, math.inf])
    chosen = itertools.cycle(configurations(optimizer))
    for (penalty, bound, max_norm), extra in zip(options, chosen, strict=False):
        a, b = numbers(SMALL, "f8"), numbers(SMALL, "f8")
        fused, apart = optimizer(a, **extra), optimizer(b, **extra)
        grads = numbers(SMALL, "f8", 1)
        grads[0][1, 2] = bad
        how: dict[str, Any] = {"regularizer": penalty, "clip_value": bound, "max_norm": max_norm}
        ready, norm = prepared(b, grads, **how)
        apart.step(ready)
        assert repr(fused.step(grads, **how)) == repr(fo.StepInfo(True, norm))
        for x, y in zip([*a, *arrays(fused)], [*b, *arrays(apart)], strict=True):
            np.testing.assert_array_equal(x, y)


def arrays(opt: Any) -> list[Any]:
    entries = [entry.values() for entry in opt.state.values()]
    return [x for x in itertools.chain(*entries) if isinstance(x, np.ndarray)]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_options_over_blocks_and_chunks(optimizer: Any, dtype: str) -> None:
    how: dict[str, Any] = {"regularizer": REGULARIZERS[3], "clip_value": 0.7, "max_norm": 10.0}
    for extra in configurations(optimizer):
        a, b = numbers(SHAPES, dtype), numbers(SHAPES, dtype)
        fused, apart = optimizer(a, **extra), optimizer(b, **extra)
        grads = numbers(SHAPES, dtype, 1)
        ready, norm = prepared(b, grads, loss_scale=4.0, **how)
        apart.step(ready)
        assert fused.step(grads, loss_scale=4.0, **how).grad_norm == norm
        assert snapshot([a, fused.state]) == snapshot([b, apart.state])


def test_any_loss_scale_in_float64(optimizer: Any) -> None:
    how: dict[str, Any] = {"regularizer": REGULARIZERS[3], "clip_value": 0.7, "max_norm": 1.0}
    for extra, scale in itertools.product(configurations(optimizer), [3.0, 1e-3, 65_521.0]):
        a, b = numbers(SHAPES[:2], "f8"), numbers(SHAPES[:2], "f8")
        fused, apart = optimizer(a, **extra), optimizer(b, **extra)
        for seed in range(3):
            grads = [g * scale for g in numbers(SHAPES[:2], "f8", 1 + seed)]
            ready, norm = prepared(b, grads, loss_scale=scale, **how)
            apart.step(ready)
            info = fused.step(grads, loss_scale=scale, **how)
            assert info.grad_norm == pytest.approx(norm, rel=1e-14)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)


def test_gradients_in_16_bits_are_their_numbers_in_float32(optimizer: Any) -> None:
    for dtype, extra in itertools.product(["f2", BF16], configurations(optimizer)):
        a, b = numbers(SHAPES, "f4"), numbers(SHAPES, "f4")
        low, single = optimizer(a, **extra), optimizer(b, **extra)
        for options in {}, {"clip_value": 0.7, "max_norm": 1.0, "regularizer": REGULARIZERS[3]}:
            grads = numbers(SHAPES, dtype, 1)
            before = snapshot(grads)
            expected = single.step([g.astype("f4") for g in grads], **options)
            assert low.step(grads, **options) == expected
            assert snapshot(grads) == before
        low.step(grads, zero_grad=True)
        single.step([g.astype("f4") for g in numbers(SHAPES, dtype, 1)])
        assert snapshot([a, low.state]) == snapshot([b, single.state])
        assert not any(np.any(g) for g in grads)


def arithmetic(dtype: Any) -> Any:
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def taken(opt: Any, params: list[Any]) -> list[Any]:
    """Return the values for averages and copies: for Schedule-Free the averaged iterate."""
    group, found = opt.param_groups[0], []
    for p, state in zip(params, opt.state.values(), strict=True):
        x = p.astype(arithmetic(p.dtype))
        if hasattr(opt, "eval") and state["step"]:
            beta = group["momentum"] if "momentum" in group else group["betas"][0]
            x += x.dtype.type(1 - 1 / beta) * (state["z"] - x)
        found.append(x)
    return found


@pytest.mark.parametrize("dtype", FORMS)
@pytest.mark.parametrize("warmup", [False, True])
def test_average_and_copy_are_separate_calls_to_the_bit(
    optimizer: Any, dtype: Any, warmup: bool
) -> None:
    cases = itertools.product([0.0, 0.9, 0.999], ["f2", BF16], configurations(optimizer))
    for decay, half, extra in cases:
        a, b = numbers(SHAPES, dtype), numbers(SHAPES, dtype)
        fused, apart = optimizer(a, **extra), optimizer(b, **extra)
        averages = [fo.EMA(x, decay, warmup) for x in (a, [p.astype(arithmetic(dtype)) for p in b])]
        copies = [np.zeros(shape, half) for shape in SHAPES]
        for seed in range(3):
            grads = numbers(SHAPES, dtype, 1 + seed)
            apart.step(grads)
            averages[1].update(taken(apart, b))
            fused.step(grads, ema=averages[0], copy_to=copies, zero_grad=True)
            assert snapshot(a) == snapshot(b)
            assert not any(np.any(g) for g in grads)
            shadows = [average.shadow.flat for average in averages]
            assert snapshot(shadows[0]) == snapshot(shadows[1]), (decay, extra)
        assert averages[0].updates == 3
        expected = [rounded(x.astype("f8"), half) for x in taken(apart, b)]
        assert snapshot(copies) == snapshot(expected)
        if hasattr(fused, "eval") and arithmetic(dtype) == np.dtype(dtype):
            fused.eval()
            assert snapshot(a) == snapshot(taken(apart, b))


def test_a_copy_rounds_once_and_to_even() -> None:
    ties = [1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 65520.0, 65519.9]
    near = [1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8 - 2.0**-40, 1 + 2.0**-11 + 2.0**-40, 1e-8, 1e-45]
    x = np.array([*ties, *near, 0.0, -0.0, math.inf, math.nan, 1e-310, 3.5e38, 1e300])
    for dtype, half in itertools.product(["f4", "f8"], ["f2", BF16]):
        with np.errstate(over="ignore"):
            w = np.concatenate([x, -x]).astype(dtype)
            expected = rounded(w.astype("f8"), half)
        copy = np.ones(w.shape, half)
        fo.SGD(w, lr=0.0).step(np.zeros_like(w), copy_to=copy)
        np.testing.assert_array_equal(copy.astype("f8"), expected.astype("f8"))
        assert (np.signbit(copy) == np.signbit(expected))[~np.isnan(w)].all()


@pytest.mark.parametrize("dtype", FORMS)
def test_parameters_without_gradient_are_averaged_and_copied(optimizer: Any, dtype: Any) -> None:
    shapes = [(3, 5), (130, 130)]
    params, other = numbers(shapes, dtype), numbers(shapes, arithmetic(dtype), 9)
    opt = optimizer(params)
    opt.step(numbers(shapes, dtype, 1))
    average, mirror = (fo.EMA(other, 0.5) for _ in range(2))
    for given in [None, None], [numbers(shapes, dtype, 2)[0], None]:
        copies: list[Any] = [np.zeros(shape, "f2") for shape in shapes]
        before = snapshot([params[1], second_state(opt)])
        assert opt.step(given, ema=average, copy_to=copies, zero_grad=True).applied
        assert snapshot([params[1], second_state(opt)]) == before
        mirror.update(taken(opt, params))
        assert snapshot(average.shadow.flat) == snapshot(mirror.shadow.flat)
        assert snapshot(copies) == snapshot([x.astype("f2") for x in taken(opt, params)])


def second_state(opt: Any) -> Any:
    """Return the state of the second parameter, except Prodigy's shared scalars."""
    return {key: x for key, x in opt.state["1"].items() if key[0] != "d"}


def test_schedule_free_parameters_without_steps_are_averaged() -> None:
    w, copy = np.array([[1.0, 2.0]]), np.zeros((1, 2), "f2")
    for cls in fo.ScheduleFreeSGD, fo.ScheduleFreeAdamW:
        average = fo.EMA([np.zeros((1, 2))], 0.5)
        cls([w]).step([None], ema=average, copy_to=[copy])
        assert copy.tolist() == [[1.0, 2.0]]
        assert average.shadow.flat.tolist() == [0.5, 1.0]


class World:
    """An optimizer, and everything that a step may change."""

    def __init__(self, optimizer: Any, dtype: Any, shapes: Any = SMALL, **extra: Any) -> None:
        self.params = numbers(shapes, dtype)
        self.grads = numbers(shapes, dtype, 1)
        self.opt = optimizer(self.params, **extra)
        self.average = fo.EMA(self.params, 0.5)
        self.copies = [np.ones(shape, BF16) for shape in shapes]

    def step(self, **options: Any) -> fo.StepInfo:
        more = {"ema": self.average, "copy_to": self.copies, "zero_grad": True}
        info: fo.StepInfo = self.opt.step(self.grads, **{**more, **options})
        return info

    def snapshot_of(self) -> Any:
        average = [self.average.shadow.flat, self.average.updates]
        return snapshot([self.params, self.grads, self.opt, average, self.copies])


@pytest.mark.parametrize("dtype", FORMS)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_skipped_step_changes_nothing(optimizer: Any, dtype: Any, bad: float) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"max_norm": 1.0},
        {"clip_value": 0.5},
        {"regularizer": REGULARIZERS[3], "clip_value": 0.5, "max_norm": 1.0, "loss_scale": 8.0},
    ]
    for extra, stepped in itertools.product(configurations(optimizer), [False, True]):
        world = World(optimizer, dtype, [(3, 5), (2, 600), (1, 1)], **extra)
        if stepped:
            world.step(zero_grad=False)
        for where, option in itertools.product(range(3), options):
            world.grads[where][-1, -1] = bad
            before = world.snapshot_of()
            info = world.step(nonfinite="skip", **option)
            assert not info.applied
            assert (info.grad_norm is None) == ("max_norm" not in option)
            with pytest.raises(FloatingPointError, match=rf'grads\["{where}"\]'):
                world.step(nonfinite="raise", **option)
            assert world.snapshot_of() == before
            world.grads[where][-1, -1] = 0.25
        assert world.step(nonfinite="skip").applied


def test_a_skipped_step_does_not_switch_momentum_on() -> None:
    for dtype, storage in itertools.product(FORMS, STORAGES):
        world = World(fo.SGD, dtype, state_dtype=storage)
        world.step(zero_grad=False)
        world.opt.param_groups[0]["momentum"] = 0.9
        before = world.snapshot_of()
        good = world.grads[1][0, 0]
        world.grads[1][0, 0] = math.inf
        assert not world.step(nonfinite="skip").applied
        world.grads[1][0, 0] = good
        assert world.snapshot_of() == before
        assert world.step(nonfinite="skip").applied
        assert "momentum_buffer" in world.opt.state["0"]


def test_raise_names_the_first_bad_parameter() -> None:
    groups: list[dict[str, Any]] = [
        {"params": {"a": np.ones(3, "f4"), "b": np.ones((2, 2), "f4")}},
        {"params": {"c": np.ones(2000), "d": np.ones(1, BF16)}, "maximize": True},
    ]
    opt = fo.SGD(groups)
    shapes = {name: p for group in groups for name, p in group["params"].items()}
    for bad in itertools.product([False, True], repeat=4):
        grads = {name: np.ones_like(p) for name, p in shapes.items()}
        for name, is_bad in zip(grads, bad, strict=True):
            if is_bad:
                grads[name].flat[-1] = math.nan
        if not any(bad):
            assert opt.step(grads, nonfinite="raise").applied
            continue
        with pytest.raises(FloatingPointError, match=rf'"{"abcd"[bad.index(True)]}"'):
            opt.step(grads, nonfinite="raise")


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_finite_gradients_are_not_skipped(policy: Any) -> None:
    """Norms too large for float64, penalties of infinite parameters, sums too large for float32."""
    w = np.zeros(3)
    info = fo.SGD(w, lr=1.0).step(np.full(3, 1.5e308), max_norm=1.0, nonfinite=policy)
    assert info == fo.StepInfo(True, math.inf)
    assert w.tolist() == [-1.5e308] * 3
    w = np.array([math.inf, 1.0])
    penalty = fo.regularizers.L2(0.5)
    info = fo.SGD(w, lr=1.0).step(np.ones(2), regularizer=penalty, max_norm=1.0, nonfinite=policy)
    assert info == fo.StepInfo(True, math.inf)
    single = np.zeros(1000, "f4")
    info = fo.SGD(single, lr=1.0).step(np.full(1000, 3e38, "f4"), max_norm=1.0, nonfinite=policy)
    assert info.applied
    assert info.grad_norm == pytest.approx(3e38 * math.sqrt(1000), rel=1e-6)
    np.testing.assert_allclose(single, -1 / math.sqrt(1000), rtol=1e-6)


@pytest.mark.parametrize("how", [{}, {"clip_value": 1.0}, {"max_norm": 1.0}])
def test_gradients_that_overflow_when_unscaled_are_skipped(how: dict[str, float]) -> None:
    for dtype, scale in [("f4", 1e-30), ("f8", 1e-300)]:
        world = World(fo.SGD, dtype)
        world.grads[0][0, 0] = 1e10
        before = world.snapshot_of()
        assert not world.step(loss_scale=scale, nonfinite="skip", **how).applied
        assert world.snapshot_of() == before
        with pytest.raises(FloatingPointError, match='"0"'):
            world.step(loss_scale=scale, nonfinite="raise", **how)


def buffers(dtype: Any, arrays: list[Any]) -> Any:
    return fo.FlatBuffer.from_arrays({f"p{i}": a.astype(dtype) for i, a in enumerate(arrays)})


@pytest.mark.parametrize("dtype", FORMS)
def test_forms_and_threads_give_the_same_bits(optimizer: Any, dtype: Any) -> None:
    """Buffers, flat gradients, lists, mappings and groups; one, two and three threads."""
    shapes = [(1, 3), (40, 60), (1, 1), (130, 140)]
    start, grads = numbers(shapes, dtype), numbers(shapes, dtype, 1)
    names = [f"p{i}" for i in range(len(shapes))]
    options: dict[str, Any] = {"regularizer": REGULARIZERS[3], "clip_value": 0.7, "max_norm": 2.0}

    def forms() -> Iterator[tuple[Any, Any, Any, Any]]:
        fresh = [p.copy() for p in start]
        flat = buffers(dtype, start)
        named = dict(zip(names, fresh, strict=True))
        yield flat, buffers(dtype, grads), buffers(BF16, start), flat
        flat = buffers(dtype, start)
        yield flat, buffers(dtype, grads).flat.copy(), dict(buffers(BF16, start)), flat
        yield named, dict(zip(names, grads, strict=True)), buffers(BF16, start), named
        fresh = [p.copy() for p in start]
        groups = [{"params": fresh[:1]}, {"params": fresh[1:]}]
        yield groups, tuple(grads), [np.ones(s, BF16) for s in shapes], fresh

    results = set()
    for threads in 1, 2, 3:
        for params, given, copies, held in forms():
            opt = optimizer(params)
            average = fo.EMA(params, 0.5)
            with fo.num_threads(threads):
                for _ in range(2):
                    info = opt.step(given, ema=average, copy_to=copies, **options)
                opt.step(given, zero_grad=False)
            arrays = list(held.values()) if hasattr(held, "values") else held
            copied = list(copies.values()) if hasattr(copies, "values") else copies
            state = list(opt.state.values())
            results.add(repr([info, snapshot([arrays, copied, average.shadow.flat, state])]))
    assert len(results) == 1


def test_a_flat_copy_for_a_buffer() -> None:
    params = buffers("f4", numbers(SMALL, "f4"))
    halves = fo.FlatBuffer(params.shapes, dtype="bfloat16")
    fo.SGD(params, lr=0.0).step(params.zeros_like(), copy_to=halves.flat)
    assert snapshot(halves.flat) == snapshot(params.flat.astype(BF16))


@pytest.mark.parametrize("tier", _core.tiers())
def test_instruction_sets_change_no_bit(tier: str) -> None:
    script = "import test_sweep as t; print(t._core.tier(), t.fixed_run())"
    done = run(script, FASTOPTIM_ISA=tier)
    assert done.stdout.split() == [tier, fixed_run()], done.stderr


def fixed_run() -> str:
    """Return a hash of the results of sweeps with all options in every storage."""
    import hashlib

    from cases import OPTIMIZERS

    digest = hashlib.sha256()
    options: dict[str, Any] = {"regularizer": REGULARIZERS[3], "clip_value": 0.7, "max_norm": 2.0}
    storages = itertools.product([None, "bfloat16", "int8"], ["stochastic", "nearest"])
    for cls, dtype, (state, rounding) in itertools.product(OPTIMIZERS, FORMS, storages):
        shapes = [(1, 257), (3, 1025)]
        params = numbers(shapes, dtype)
        opt = cls(params, state_dtype=state, rounding=rounding, seed=3)
        copies = [np.ones(shape, "f2") for shape in shapes]
        for seed in range(2):
            opt.step(numbers(shapes, dtype, 1 + seed), copy_to=copies, **options)
        digest.update(b"".join(x.tobytes() for x in [*params, *copies, *arrays(opt)]))
    return digest.hexdigest()


def test_options_of_sam_belong_to_its_second_step(optimizer: Any) -> None:
    a, b = numbers(SMALL, "f8"), numbers(SMALL, "f8")
    sam, base = fo.SAM(optimizer(a), rho=0.1), optimizer(b)
    averages, copies = [fo.EMA(x, 0.5) for x in (a, b)], [np.zeros(s, "f2") for s in SMALL]
    how: dict[str, Any] = {
        "max_norm": 1.0,
        "clip_value": 0.7,
        "regularizer": REGULARIZERS[3],
        "loss_scale": 4.0,
    }
    for seed in range(2):
        first, second = numbers(SMALL, "f8", 1 + seed), numbers(SMALL, "f8", 5 + seed)
        sam.first_step(first)
        bad = [g.copy() for g in second]
        bad[1][0, 0] = math.nan
        moved = snapshot(a)
        with pytest.raises(FloatingPointError, match='"1"'):
            sam.second_step(bad, nonfinite="raise")
        assert snapshot(a) == moved
        given = [g.copy() for g in second]
        info = sam.second_step(given, ema=averages[0], copy_to=copies, zero_grad=True, **how)
        assert info == base.step(second, ema=averages[1], **how)
        assert snapshot([a, averages[0].shadow.flat]) == snapshot([b, averages[1].shadow.flat])
        assert not any(g.any() for g in given)
    sam.first_step(first)
    assert not sam.second_step(bad, nonfinite="skip", ema=averages[0]).applied
    assert averages[0].updates == 2
    assert snapshot(a) == snapshot(b)


def test_groups_step_as_optimizers_of_their_own(optimizer: Any) -> None:
    """Groups of every dtype, with one pass and with two, some of them in many chunks."""
    if optimizer is fo.Prodigy:
        pytest.skip("its d is shared by all groups")
    shapes = [(200, 300), (4, 300), (2, 2)]
    groups, alone = [], []
    settings = itertools.product(FORMS, configurations(optimizer))
    for index, (dtype, extra) in enumerate(settings):
        groups.append({"params": numbers(shapes, dtype, index), **extra})
        alone.append(optimizer(numbers(shapes, dtype, index), rounding="nearest", **extra))
    opt = optimizer(groups, rounding="nearest")
    grads = [numbers(shapes, group["params"][0].dtype, 5) for group in groups]
    for _ in range(2):
        copies = [[np.ones(shape, BF16) for shape in shapes] for _ in groups]
        opt.step(list(itertools.chain(*grads)), copy_to=list(itertools.chain(*copies)))
        for group, own, given, copy in zip(groups, alone, grads, copies, strict=True):
            expected = [np.ones(shape, BF16) for shape in shapes]
            own.step(given, copy_to=expected)
            found = own.param_groups[0]["params"]
            assert snapshot([group["params"], copy]) == snapshot([list(found), expected])


Bad = tuple[type[Exception], str, Callable[[World], dict[str, Any]]]


def flipped(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


BAD: list[Bad] = [
    (TypeError, "ema", lambda _: {"ema": 5}),
    (TypeError, "ema", lambda w: {"ema": w.params}),
    (ValueError, "ema", lambda w: {"ema": fo.EMA(w.params[:1])}),
    (TypeError, "ema", lambda w: {"ema": fo.EMA([p.astype("f4") for p in w.params])}),
    (ValueError, "ema", lambda w: {"ema": fo.EMA([p.T.copy() for p in w.params])}),
    (ValueError, "ema.*share|share.*ema", lambda w: {"ema": over(w, w.params)}),
    (ValueError, "ema.*share|share.*ema", lambda w: {"ema": over(w, w.grads), "zero_grad": False}),
    (RuntimeError, "swap", lambda w: {"ema": swapped(w)}),
    (TypeError, "copy_to", lambda _: {"copy_to": 5}),
    (TypeError, "copy_to", lambda _: {"copy_to": "text"}),
    (TypeError, "copy_to", lambda w: {"copy_to": [w.copies[0], None]}),
    (TypeError, "copy_to", lambda w: {"copy_to": [c.astype("f4") for c in w.copies]}),
    (TypeError, "copy_to", lambda w: {"copy_to": [w.copies[0], w.copies[1].astype("i2")]}),
    (TypeError, "copy_to", lambda w: {"copy_to": [w.copies[0], np.ones((2, 2), ">f2")]}),
    (ValueError, "copy_to", lambda w: {"copy_to": w.copies[:1]}),
    (ValueError, "copy_to", lambda w: {"copy_to": w.copies[0]}),
    (ValueError, "copy_to", lambda w: {"copy_to": [*w.copies, w.copies[0].copy()]}),
    (ValueError, "copy_to", lambda w: {"copy_to": w.copies[::-1]}),
    (ValueError, "copy_to", lambda w: {"copy_to": {"0": w.copies[0], "x": w.copies[1]}}),
    (ValueError, "copy_to", lambda w: {"copy_to": [flipped(c) for c in w.copies]}),
    (ValueError, "contiguous", lambda w: {"copy_to": [c.T.copy().T for c in w.copies]}),
    (ValueError, "copy_to.*share", lambda _: {"copy_to": list(twice())}),
    (ValueError, "share", lambda w: {"copy_to": views(w.params)}),
    (ValueError, "share", lambda w: {"copy_to": views(w.grads), "zero_grad": False}),
    (ValueError, "share", lambda w: {"copy_to": views(w.average.shadow.views)}),
    (ValueError, "loss_scale", lambda _: {"loss_scale": math.inf}),
    (ValueError, "max_norm", lambda _: {"max_norm": 0.0}),
    (ValueError, "max_norm", lambda _: {"max_norm": math.nan}),
    (ValueError, "clip_value", lambda _: {"clip_value": -1.0}),
    (ValueError, "clip_value", lambda _: {"clip_value": math.nan}),
    (ValueError, "loss_scale", lambda _: {"loss_scale": 10**400}),
    (ValueError, "nonfinite", lambda _: {"nonfinite": "ignore"}),
    (TypeError, "nonfinite", lambda _: {"nonfinite": 1}),
    (TypeError, "nonfinite", lambda _: {"nonfinite": None}),
    (TypeError, "regularizer", lambda _: {"regularizer": 0.1}),
    (TypeError, "regularizer", lambda _: {"regularizer": "l2"}),
    (TypeError, "regularizer", lambda _: {"regularizer": fo.regularizers.L2}),
    (TypeError, "zero_grad", lambda _: {"zero_grad": 1}),
    (TypeError, "zero_grad", lambda _: {"zero_grad": None}),
    (TypeError, "loss_scale", lambda _: {"loss_scale": "1"}),
    (TypeError, "max_norm", lambda _: {"max_norm": "1"}),
]


def over(world: World, arrays: list[Any]) -> fo.EMA:
    """Return an average that shares memory with arrays."""
    average = fo.EMA(world.params)
    average.shadow._views = tuple(arrays)
    return average


def swapped(world: World) -> fo.EMA:
    average = fo.EMA([p.copy() for p in world.params])
    average.swap([p.copy() for p in world.params])
    return average


def twice() -> Iterator[Any]:
    memory = np.zeros(20, BF16)
    yield memory[:15].reshape(3, 5)
    yield memory[14:18].reshape(2, 2)


def views(arrays: Sequence[Any]) -> list[Any]:
    return [array.reshape(-1).view("f2")[: array.size].reshape(array.shape) for array in arrays]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_options_change_nothing(case: int) -> None:
    error, words, options = BAD[case]
    for cls, extra in [(fo.SGD, {}), (fo.AdamW, {"state_dtype": "int8"}), (fo.LAMB, {})]:
        world = World(cls, "f8", **extra)
        world.step(zero_grad=False)
        chosen = options(world)
        before = world.snapshot_of()
        with pytest.raises(error, match=words):
            world.step(**chosen)
        assert world.snapshot_of() == before


def test_gradients_that_are_to_be_zeroed_are_written() -> None:
    w, g = np.ones((2, 3)), np.ones((2, 3))
    g.flags.writeable = False
    opt = fo.AdamW([w])
    assert opt.step([g]).applied
    before = snapshot([w, opt])
    with pytest.raises(ValueError, match=r'grads\["0"\] is read-only'):
        opt.step([g], zero_grad=True)
    two = fo.SGD([np.ones(3), np.ones(3)])
    same = np.ones(3)
    assert two.step([same, same]).applied
    with pytest.raises(ValueError, match="grads and grads share memory"):
        two.step([same, same], zero_grad=True)
    assert same.tolist() == [1.0] * 3
    assert snapshot([w, opt]) == before


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_gradients_of_another_dtype_are_refused(dtype: str) -> None:
    for low, other in itertools.product(["f2", BF16], ["f2", BF16, "f4", "f8"]):
        w = np.ones((2, 2), low)
        opt = fo.SGD(w)
        if np.dtype(low) == np.dtype(other):
            assert opt.step(np.ones((2, 2), other)).applied
            continue
        with pytest.raises(TypeError, match="grads"):
            opt.step(np.ones((2, 2), other))
        assert (w == 1).all()
    opt = fo.SGD(np.ones(2, dtype))
    with pytest.raises(TypeError, match="grads"):
        opt.step(np.ones(2, "f4" if dtype == "f8" else "f8"))
