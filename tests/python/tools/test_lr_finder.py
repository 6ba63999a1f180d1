"""The range test: its rates, when it stops, its suggestion, and restored state."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import OPTIMIZERS
from snapshot import snapshot


def quadratic(curvature: float) -> Any:
    """0.5 c |w|^2, on which SGD multiplies w by 1 - lr c."""
    return lambda w: (0.5 * curvature * float(w @ w), curvature * w)


def matrices() -> Any:
    rng = np.random.default_rng(5)
    return {"w": rng.standard_normal((3, 4)), "v": rng.standard_normal((2, 5))}


def bowl(params: Any) -> Any:
    loss = sum(float((array**2).sum()) for array in params.values())
    return loss, {name: 2 * array for name, array in params.items()}


def test_the_rates_are_exponential_and_the_losses_those_before_each_step() -> None:
    result = fo.LRFinder(fo.SGD(np.array([2.0])), quadratic(1.0)).run(1e-3, 1.0, 50)
    np.testing.assert_allclose(result.lrs, 1e-3 * 1e3 ** (np.arange(50) / 49), rtol=1e-12)
    w = 2.0 * np.cumprod([1.0, *(1 - result.lrs[:-1])])
    np.testing.assert_allclose(result.losses, 0.5 * w**2, rtol=1e-12)


@pytest.mark.parametrize("curvature", [0.5, 10.0, 1000.0])
def test_the_suggestion_is_a_tenth_to_all_of_the_fastest_rate(curvature: float) -> None:
    w = np.array([1.0, -3.0])
    result = fo.LRFinder(fo.SGD(w), quadratic(curvature)).run()
    assert result.suggestion is not None
    assert 0.05 < result.suggestion * curvature < 1
    assert result.suggestion in result.lrs
    # The steepest fall of a known curve: of -tanh(3 log10(lr / 1e-3)), and with noise on it.
    losses = iter(2 - np.tanh(3 * np.log10(np.geomspace(1e-7, 10, 100) / 1e-3)))
    known = fo.LRFinder(fo.SGD(w), lambda w: (next(losses), 0 * w)).run()
    assert known.suggestion == pytest.approx(1e-3, rel=0.25)
    rng = np.random.default_rng(0)
    smooth = 2 - np.tanh(np.log10(np.geomspace(1e-7, 10, 100) / 1e-3))
    noisy = iter(smooth + 0.05 * rng.standard_normal(100))
    known = fo.LRFinder(fo.SGD(w), lambda w: (next(noisy), 0 * w)).run()
    assert known.suggestion == pytest.approx(1e-3, rel=0.9)


def swept(losses: Any, **arguments: Any) -> fo.LRFinderResult:
    """Sweep over given losses, which do not depend on the steps."""
    given = iter(losses)
    finder = fo.LRFinder(fo.SGD(np.ones(1)), lambda w: (float(next(given)), w * 0))
    return finder.run(**{"num_iter": len(losses), "quiet": True, **arguments})


def test_it_stops_where_the_running_mean_is_five_times_its_best() -> None:
    losses = [4.0, 2.0, *[1.0] * 100, *[10.0] * 100]
    mean, best = 0.0, np.inf
    wanted: list[float] = []
    for loss in losses:
        wanted.append(loss)
        mean = 0.95 * mean + 0.05 * loss
        unbiased = mean / (1 - 0.95 ** len(wanted))
        if len(wanted) >= 20:
            best = min(best, unbiased)
            if unbiased > 5 * best:
                break
    result = swept(losses)
    assert 102 < len(wanted) < 202
    assert result.losses.tolist() == wanted
    assert len(result.lrs) == len(result.smoothed) == len(wanted)


def test_a_lucky_batch_at_the_start_does_not_end_the_sweep() -> None:
    assert len(swept([1e-6, *[1.0] * 99]).losses) == 100
    assert len(swept([1.0, 1.0, 1e-6, *[1.0] * 97]).losses) == 100
    rng = np.random.default_rng(3)
    for _ in range(20):
        # Distributed as squared errors of single samples.
        assert len(swept(rng.standard_normal(100) ** 2).losses) == 100


def test_the_smoothed_losses_are_exponential_averages_to_both_sides() -> None:
    losses = np.random.default_rng(0).standard_normal(50) ** 2 + 1
    result = swept(losses)
    for i, value in enumerate(result.smoothed):
        weights = np.exp(-np.abs(np.arange(50) - i) / 1.5)
        np.testing.assert_allclose(value, weights @ losses / weights.sum(), rtol=1e-12)
    # The bias is corrected: the average of a constant is the constant, also at the ends.
    np.testing.assert_allclose(swept(np.full(30, 3.0)).smoothed, 3.0, rtol=1e-14)


RATES = np.geomspace(1e-7, 10, 100)


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.2])
def test_noise_does_not_move_the_suggestion_away_from_the_fall(spread: float) -> None:
    curve = 2 - np.tanh(2 * np.log10(RATES / 1e-2))
    for seed in range(30):
        rng = np.random.default_rng(seed)
        result = swept(np.maximum(curve, 0) * (1 + spread * rng.standard_normal(100)))
        assert result.suggestion is not None
        assert 3e-3 < result.suggestion < 5e-2
        assert 0.95 <= result.confidence <= 1


def regression(seed: int, batch: int) -> Any:
    """Return a linear model on batches of noisy samples."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((500, 10))
    targets = inputs @ rng.standard_normal(10) + 0.5 * rng.standard_normal(500)

    def objective(w: Any) -> Any:
        rows = rng.integers(0, 500, batch)
        error = inputs[rows] @ w - targets[rows]
        return float(error @ error) / batch, 2 * inputs[rows].T @ error / batch

    return objective


@pytest.mark.parametrize(("batch", "least"), [(2, 3), (4, 18), (8, 20), (64, 20)])
def test_suggestions_on_small_batches_train(batch: int, least: int) -> None:
    # SGD lowers the loss by more than half in 300 steps at rates of 5e-4 to 0.1 or more.
    suggested = []
    for seed in range(20):
        finder = fo.LRFinder(fo.SGD(np.zeros(10)), regression(seed, batch))
        with np.errstate(over="ignore", invalid="ignore"):
            suggested.append(finder.run(num_iter=200, quiet=True).suggestion)
    found = [rate for rate in suggested if rate is not None]
    assert len(found) >= least
    assert all(5e-4 < rate < 0.3 for rate in found)


def test_no_suggestion_where_there_is_only_noise() -> None:
    rng = np.random.default_rng(1)
    for draw in (
        lambda: 5 + rng.standard_normal(100),
        lambda: rng.standard_normal(100) ** 2,
        lambda: rng.exponential(size=100),
        lambda: (rng.random(100) < 0.3).astype(float),
        # The loss never decreases, and diverges at the end.
        lambda: 5 + rng.standard_normal(100) + np.geomspace(1e-12, 1e6, 100),
    ):
        results = [swept(draw()) for _ in range(60)]
        assert all((one.suggestion is None) == (one.confidence < 0.95) for one in results)
        # 1 in 20 for normal noise.
        assert sum(one.suggestion is not None for one in results) <= 6
        assert np.median([one.confidence for one in results]) < 0.9


def test_negative_losses_are_not_divergence() -> None:
    given = iter([-1.0, -2.0, -1.5, *[-3.0] * 20])
    result = fo.LRFinder(fo.SGD(np.ones(1)), lambda w: (next(given), w * 0)).run(num_iter=23)
    assert len(result.losses) == 23
    # From -3 it may rise by 4 times 3.
    given = iter([-3.0, *[8.0] * 15, *[400.0] * 20])
    result = fo.LRFinder(fo.SGD(np.ones(1)), lambda w: (next(given), w * 0)).run(num_iter=30)
    assert result.losses[-2:].tolist() == [8.0, 400.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_ends_the_sweep(bad: float) -> None:
    given = iter([3.0, 2.0, bad])
    opt = fo.AdamW(np.ones(2))
    result = fo.LRFinder(opt, lambda w: (next(given), np.full(2, bad))).run()
    assert result.losses.tolist() == [3.0, 2.0]
    with pytest.raises(ValueError, match="first loss"):
        fo.LRFinder(opt, lambda w: (bad, w * 0)).run()


def test_no_suggestion_where_the_loss_never_falls() -> None:
    for level in (1.0, 0.0, np.log(5), -0.3):
        same = fo.LRFinder(fo.SGD(np.ones(1)), lambda w, level=level: (level, 0 * w)).run()  # type: ignore[misc]
        assert (same.suggestion, same.confidence) == (None, 0.0)
    rising = fo.LRFinder(fo.SGD(np.ones(2), maximize=True), quadratic(1.0)).run()
    assert (rising.suggestion, rising.confidence) == (None, 0.0)
    for num_iter in range(2, 30):
        short = fo.LRFinder(fo.SGD(np.ones(2)), quadratic(1.0)).run(num_iter=num_iter)
        assert short.suggestion is None or short.suggestion in short.lrs


@pytest.mark.parametrize("cls", OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("fail", [False, True])
def test_everything_is_restored_bit_for_bit(cls: Any, steps: int, fail: bool) -> None:
    opt = cls(matrices(), lr=fo.schedules.exponential(0.01, 0.9))
    for _ in range(steps):
        opt.step(bowl(opt.params)[1])
    before, dicts, held = snapshot(opt), opt.param_groups, opt.state["w"]
    twin = copy.deepcopy(opt)
    calls = 0

    def objective(params: Any) -> Any:
        nonlocal calls
        calls += 1
        if fail and calls == 5:
            raise KeyError("objective")
        return bowl(params)

    finder = fo.LRFinder(opt, objective)
    if fail:
        with pytest.raises(KeyError):
            finder.run()
    else:
        finder.run(1e-4, 1.0, 20)
    assert calls >= 5
    assert snapshot(opt) == before
    assert opt.param_groups is dicts
    assert all(
        np.shares_memory(array, opt.state["w"][name])
        for name, array in held.items()
        if isinstance(array, np.ndarray)
    )
    for each in (opt, twin):
        each.step(bowl(matrices())[1])
    assert snapshot(opt) == snapshot(twin)


@pytest.mark.parametrize("fail_at", [None, 1, 2, 7])
def test_sam_and_momentum_that_was_switched_on_are_restored(fail_at: int | None) -> None:
    base = fo.SGD(matrices(), lr=0.1)
    base.step(bowl(base.params)[1])
    base.param_groups[0]["momentum"] = 0.9
    sam, calls = fo.SAM(base), 0
    before = copy.deepcopy(base.params), base.param_groups[0]["lr"]

    def objective(params: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == fail_at:
            raise KeyError("objective")
        return bowl(params)

    if fail_at is None:
        assert fo.LRFinder(sam, objective).run().suggestion is not None
    else:
        with pytest.raises(KeyError):
            fo.LRFinder(sam, objective).run()
    after = base.params
    assert all(np.array_equal(before[0][name], after[name]) for name in after)
    assert (base.param_groups[0]["lr"], base.state["w"]["step"]) == (0.1, 1)
    sam.step(lambda: bowl(base.params))
    g = bowl(before[0])[1]
    norm = np.sqrt(sum((x**2).sum() for x in g.values()))
    w = before[0]["w"]
    np.testing.assert_allclose(after["w"], w - 0.1 * 2 * (w + 0.05 * g["w"] / norm), rtol=1e-12)


def test_groups_that_cannot_be_restored_are_refused_first() -> None:
    opt = fo.AdamW(matrices())
    opt.param_groups[0]["eps"] = -1.0
    before = [array.copy() for array in opt.params.values()]
    with pytest.raises(ValueError, match="eps"):
        fo.LRFinder(opt, lambda _: pytest.fail("was called")).run()
    assert all(np.array_equal(x, y) for x, y in zip(before, opt.params.values(), strict=True))


def test_the_objective_gets_the_form_that_was_given() -> None:
    w, v = np.ones(3), np.ones((2, 2))
    buffer = fo.FlatBuffer({"w": (3,)})
    groups: list[dict[str, Any]] = [{"params": {"w": w}}, {"params": {"v": v}, "lr": 0.5}]
    cases: list[tuple[Any, Any]] = [
        (buffer, buffer),
        (w, w),
        ([w], [w]),
        ((a for a in (w, v)), [w, v]),
        ({"w": w}, {"w": w}),
        (groups, {"w": w, "v": v}),
        ([{"params": w}, {"params": [v]}], [w, v]),
        ([{"params": [w]}], [w]),
    ]
    for given, wanted in cases:
        opt = fo.SGD(given)
        for each in (opt, pickle.loads(pickle.dumps(opt))):
            assert type(each.params) is type(wanted)
            assert len(each.params) == len(wanted)
            names = wanted if isinstance(wanted, dict) else range(len(wanted))
            if wanted is not buffer:
                assert all(np.array_equal(each.params[name], wanted[name]) for name in names)
    groups_seen: list[float] = []
    opt = fo.SGD(groups)

    def objective(params: Any) -> Any:
        groups_seen.append(opt.param_groups[1]["lr"])
        return bowl(params)

    result = fo.LRFinder(opt, objective).run(1e-3, 1e-2, 4)
    assert groups_seen == result.lrs.tolist()
    assert [group["lr"] for group in opt.param_groups] == [1e-3, 0.5]


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"start_lr": 0.0}, ValueError, "start_lr"),
        ({"start_lr": 10.0, "end_lr": 1.0}, ValueError, "end_lr"),
        ({"end_lr": np.inf}, ValueError, "end_lr"),
        ({"start_lr": np.nan}, ValueError, "start_lr"),
        ({"start_lr": "low"}, TypeError, "start_lr"),
        ({"num_iter": 1}, ValueError, "num_iter"),
        ({"num_iter": 2.5}, TypeError, "num_iter"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        fo.LRFinder(fo.SGD(np.ones(1)), quadratic(1.0)).run(**arguments)


def test_invalid_optimizers_and_objectives_are_refused() -> None:
    with pytest.raises(TypeError, match="opt"):
        fo.LRFinder(np.ones(1), quadratic(1.0))  # type: ignore[arg-type]
    w = np.ones(2)
    for answer in (1.0, (1.0, w, w), ("one", w), (w, w)):
        with pytest.raises(TypeError, match="objective"):
            fo.LRFinder(fo.SGD(w), lambda _, answer=answer: answer).run()  # type: ignore[misc]
    for grads in (np.ones(3), np.ones(2, "f4")):
        with pytest.raises((TypeError, ValueError), match="grads"):
            fo.LRFinder(fo.SGD(w), lambda _, grads=grads: (1.0, grads)).run()  # type: ignore[misc]
    assert w.tolist() == [1.0, 1.0]
