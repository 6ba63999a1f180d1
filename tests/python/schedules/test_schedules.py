"""The pure schedules: values, precision, equal bits for numbers and arrays, and errors."""

import copy
import inspect
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoptim import optim, schedules

# One call of each schedule. The first test fails for a schedule without one.
EXAMPLES: dict[str, schedules.Schedule] = {
    "constant": schedules.constant(0.3),
    "cosine": schedules.cosine(0.3, T_max=37, eta_min=1e-3),
    "cosine_restarts": schedules.cosine_restarts(0.3, T_0=3, T_mult=2, eta_min=1e-3),
    "cyclic": schedules.cyclic(0.1, 0.3, step_size_up=5, step_size_down=3, mode="triangular2"),
    "exponential": schedules.exponential(0.3, gamma=0.97),
    "inverse_sqrt": schedules.inverse_sqrt(0.3, timescale=7),
    "join": schedules.join([schedules.constant(0.1), schedules.cosine(0.3, 20)], [11]),
    "linear": schedules.linear(0.3, start_factor=0.2, total_iters=9),
    "multistep": schedules.multistep(0.3, milestones=(5, 11, 11, 30), gamma=0.5),
    "one_cycle": schedules.one_cycle(0.3, total_steps=40, three_phase=True),
    "polynomial": schedules.polynomial(0.3, total_iters=33, power=1.7),
    "step": schedules.step(0.3, step_size=7, gamma=0.9),
    "warmup": schedules.warmup(schedules.exponential(0.3, 0.9), 6),
    "wsd": schedules.wsd(0.3, 5, 10, 20, end_factor=0.1, decay="sqrt"),
}
each = pytest.mark.parametrize("schedule", EXAMPLES.values(), ids=EXAMPLES)


def test_every_schedule_has_an_example() -> None:
    classes = {
        name
        for name, value in vars(schedules).items()
        if inspect.isclass(value) and issubclass(value, schedules.Schedule)
    }
    assert classes - {"Schedule"} == set(EXAMPLES)
    assert classes <= set(schedules.__all__)


@each
def test_an_array_has_the_bits_of_its_numbers(schedule: schedules.Schedule) -> None:
    for count in range(70):
        steps = np.arange(count)
        values = schedule(steps)
        assert values.dtype == np.float64
        assert values.tolist() == [schedule(int(t)) for t in steps]
    grid = np.linspace(0, 80, 600).reshape(20, 30)
    expected = np.array([[schedule(float(t)) for t in row] for row in grid])
    np.testing.assert_array_equal(schedule(grid), expected)
    np.testing.assert_array_equal(schedule(np.asfortranarray(grid)), expected)
    np.testing.assert_array_equal(schedule(grid[::-1, ::2]), expected[::-1, ::2])
    np.testing.assert_array_equal(schedule(grid.astype(">f8")), expected)
    assert schedule(np.array(3)).shape == ()
    assert schedule([]).shape == (0,)


@pytest.mark.parametrize("gamma", np.linspace(0.5, 1.01, 200))
def test_powers_have_the_bits_of_their_numbers(gamma: float) -> None:
    # NumPy has special cases for the exponents 1/2 and 2, but only for scalars.
    steps = np.arange(64) / 2
    for schedule in (
        schedules.exponential(0.3, gamma),
        schedules.step(0.3, 1, gamma),
        schedules.multistep(0.3, range(32), gamma),
        schedules.cyclic(0.1, 0.3, 5, mode="exp_range", gamma=gamma),
        schedules.polynomial(0.3, 40, gamma * 2),
        schedules.polynomial(0.3, gamma * 40, 2),
    ):
        assert schedule(steps).tolist() == [schedule(t) for t in steps]


@each
@pytest.mark.parametrize("kind", [int, float, np.int64, np.uint8, np.float32, np.float64])
def test_a_number_gives_a_float(schedule: schedules.Schedule, kind: Any) -> None:
    assert type(schedule(kind(5))) is float
    assert schedule(kind(5)) == schedule(5)


@each
def test_a_schedule_is_a_value(schedule: schedules.Schedule) -> None:
    for twin in (
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
        eval(repr(schedule), vars(schedules)),
    ):
        assert twin == schedule
        assert hash(twin) == hash(schedule)
        assert twin(11) == schedule(11)
    with pytest.raises(AttributeError):
        schedule.base_lr = 1.0  # type: ignore[attr-defined]


@each
@pytest.mark.parametrize("bad", [-1, -0.5, math.nan, math.inf, [0, -1], [math.nan], [math.inf]])
def test_a_step_is_finite_and_not_negative(schedule: schedules.Schedule, bad: Any) -> None:
    with pytest.raises(ValueError, match="step"):
        schedule(bad)


@each
@pytest.mark.parametrize("bad", ["1", None, 1j, ["a"], [1j]])
def test_a_step_is_a_real_number(schedule: schedules.Schedule, bad: Any) -> None:
    with pytest.raises(TypeError, match="step"):
        schedule(bad)


def test_step_against_its_definition() -> None:
    schedule = schedules.step(0.8, step_size=30, gamma=0.5)
    assert [schedule(t) for t in (0, 29, 30, 59, 60, 90)] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.1]


def test_cosine_against_its_definition() -> None:
    steps = np.arange(101)
    expected = 1e-3 + (0.1 - 1e-3) / 2 * (1 + np.cos(np.pi * steps / 100))
    np.testing.assert_allclose(schedules.cosine(0.1, 100, 1e-3)(steps), expected, rtol=1e-12)


def test_cosine_keeps_its_precision_next_to_the_end() -> None:
    # At the distance x from the end the definition is 1 - cos(x), which is x^2 / 2 - x^4 / 24;
    # computed as 1 + cos(pi - x), only five digits are correct.
    T_max = 1_000_000
    for left in (1, 2, 10, 100):
        x = math.pi * left / T_max
        expected = (x**2 / 2 - x**4 / 24) / 2
        assert schedules.cosine(1.0, T_max)(T_max - left) == pytest.approx(
            expected, rel=1e-12, abs=0
        )


# Long decays to 0, with their values at a number of steps before the end at 10 million.
LONG = 10_000_000
TO_ZERO: list[tuple[schedules.Schedule, Callable[[float], float]]] = [
    (schedules.linear(1.0, 1.0, 0.0, LONG), lambda left: left / LONG),
    (schedules.polynomial(1.0, LONG, 3.0), lambda left: (left / LONG) ** 3),
    (schedules.wsd(1.0, 0, 0, LONG), lambda left: left / LONG),
    # 1 - sqrt(1 - y), as a series in y.
    (
        schedules.wsd(1.0, 0, 0, LONG, decay="sqrt"),
        lambda left: left / LONG / 2 * (1 + left / LONG / 4 + (left / LONG) ** 2 / 8),
    ),
    (
        schedules.one_cycle(1.0, LONG + 1, 1 / (LONG + 1), "linear", 1.0, 1e30),
        lambda left: left / LONG,
    ),
]


@pytest.mark.parametrize(("schedule", "expected"), TO_ZERO)
def test_the_end_of_a_long_run_is_precise(schedule: schedules.Schedule, expected: Any) -> None:
    for left in (1, 2, 77, 1000):
        assert schedule(LONG - left) == pytest.approx(expected(left), rel=1e-12, abs=0)


FROM_TO: list[Callable[[float, float, int], schedules.Schedule]] = [
    lambda first, last, length: schedules.cosine(first, length, last),
    lambda first, last, length: schedules.linear(1.0, first, last, length),
]


@given(
    st.sampled_from(FROM_TO),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 10**7),
    st.integers(0, 2 * 10**7),
)
def test_both_ends_are_exact(make: Any, first: float, last: float, length: int, t: int) -> None:
    schedule = make(first, last, length)
    assert schedule(0) == first
    assert schedule(length) == schedule(length + t) == last
    bottom, top = sorted((first, last))
    assert np.nextafter(bottom, -1) <= schedule(t) <= np.nextafter(top, np.inf)


# Values of each schedule at a few steps, computed by hand.
VALUES: list[tuple[schedules.Schedule, dict[float, float]]] = [
    (schedules.multistep(1.0, [2, 4, 4], 0.5), {0: 1, 1.9: 1, 2: 0.5, 3: 0.5, 4: 0.125, 99: 0.125}),
    (schedules.multistep(1.0, [0]), {0: 0.1}),
    (schedules.exponential(2.0, 0.5), {0: 2, 1: 1, 3: 0.25}),
    (schedules.exponential(2.0, 0.0), {0: 2, 1: 0}),
    (schedules.linear(1.2), {0: 0.4, 5: 1.2, 9: 1.2}),
    (schedules.linear(1.0, 1.0, 0.0, 4), {0: 1, 1: 0.75, 4: 0, 5: 0}),
    (schedules.polynomial(1.0, 4, 2), {0: 1, 2: 0.25, 4: 0, 9: 0}),
    (schedules.polynomial(1.0, 4, 0.0), {0: 1, 3: 1}),
    (schedules.inverse_sqrt(1.0, 4), {0: 1, 4: 1, 16: 0.5}),
    (schedules.cosine_restarts(1.0, 4), {0: 1, 2: 0.5, 4: 1, 6: 0.5, 4.0e6: 1}),
    (schedules.cosine_restarts(1.0, 2, 3, 0.5), {0: 1, 1: 0.75, 2: 1, 5: 0.75, 8: 1, 17: 0.75}),
    (
        schedules.one_cycle(1.0, 10, 0.5, "linear", 10, 10),
        {0: 0.1, 2: 0.55, 4: 1, 9: 0.01, 50: 0.01},
    ),
    (schedules.one_cycle(1.0, 10, 0.4, "linear", 10, 10, True), {3: 1, 6: 0.1, 9: 0.01}),
    (schedules.one_cycle(1.0, 1), {0: 1 / 25 / 1e4, 1: 1 / 25 / 1e4}),
    (schedules.one_cycle(1.0, 2, 1.0), {0: 0.04, 1: 1}),
    (schedules.cyclic(0.0, 1.0, 2, 4), {0: 0, 1: 0.5, 2: 1, 4: 0.5, 6: 0, 8: 1}),
    (schedules.cyclic(1.0, 3.0, 2, mode="triangular2"), {2: 3, 6: 2, 10: 1.5}),
    (schedules.cyclic(0.0, 1.0, 2, mode="exp_range", gamma=0.5), {2: 0.25, 6: 1 / 64}),
    (schedules.wsd(1.0, 4, 4, 4), {0: 0, 2: 0.5, 4: 1, 8: 1, 10: 0.5, 12: 0, 20: 0}),
    (schedules.wsd(1.0, 0, 4, 4, 0.5, "cosine"), {0: 1, 4: 1, 6: 0.75, 8: 0.5}),
    (schedules.wsd(1.0, 0, 0, 4, 0.0, "sqrt"), {0: 1, 1: 0.5, 4: 0}),
    (schedules.wsd(1.0, 0, 3, 0, 0.25), {2: 1, 3: 0.25}),
    (schedules.warmup(schedules.exponential(1.0, 0.5), 4), {0: 0, 1: 0.25, 4: 1, 5: 0.5}),
    (schedules.warmup(schedules.constant(1.0), 0), {0: 1}),
    (
        schedules.join(
            [schedules.constant(1.0), schedules.linear(1.0), schedules.constant(2)], [2, 7]
        ),
        {0: 1, 1.5: 1, 2: 1 / 3, 7: 2},
    ),
    (schedules.join([schedules.constant(1.0)], []), {0: 1}),
]


@pytest.mark.parametrize(("schedule", "values"), VALUES)
def test_values_by_hand(schedule: schedules.Schedule, values: dict[float, float]) -> None:
    for t, expected in values.items():
        assert schedule(t) == pytest.approx(expected, rel=1e-14, abs=1e-16)


@given(st.integers(1, 1000), st.integers(1, 5), st.integers(0, 10**6))
def test_restarts_find_their_period(T_0: int, T_mult: int, t: int) -> None:
    start, length = 0, T_0
    while start + length <= t:
        start, length = start + length, length * T_mult
    expected = schedules.cosine(1.0, length)(t - start)
    assert schedules.cosine_restarts(1.0, T_0, T_mult)(t) == pytest.approx(
        expected, rel=1e-12, abs=0
    )


def test_the_linear_scaling_rule() -> None:
    assert schedules.linear_scaling(0.1, 8192) == pytest.approx(3.2)
    assert schedules.linear_scaling(0.4, 128, base_batch=512) == pytest.approx(0.1)
    bad: dict[str, Any]
    for bad in ({"base_lr": -1.0}, {"batch_size": 0}, {"base_batch": 0.5}):
        arguments: dict[str, Any] = {"base_lr": 0.1, "batch_size": 1, **bad}
        with pytest.raises(ValueError, match=next(iter(bad))):
            schedules.linear_scaling(**arguments)


# A valid call of each, and invalid values for each argument.
FEW: dict[str, dict[str, Any]] = {
    "constant": {},
    "step": {"step_size": 3},
    "multistep": {"milestones": [3]},
    "exponential": {"gamma": 0.9},
    "linear": {},
    "polynomial": {"total_iters": 3},
    "inverse_sqrt": {"timescale": 3},
    "cosine": {"T_max": 3},
    "cosine_restarts": {"T_0": 3},
    "one_cycle": {"total_steps": 3},
    "cyclic": {"max_lr": 0.3},
    "wsd": {"warmup_steps": 1, "stable_steps": 1, "decay_steps": 1},
}
COUNTS = ("step_size", "total_steps", "T_mult")
POSITIVE = ("T_max", "T_0", "total_iters", "timescale", "step_size_up", "step_size_down")
POSITIVE_TOO = ("div_factor", "final_div_factor")
UNITS = ("start_factor", "end_factor", "pct_start")
WORDS = ("anneal_strategy", "mode", "decay")


def bad_numbers() -> list[tuple[str, str, Any]]:
    found: list[tuple[str, str, Any]] = []
    for name, few in FEW.items():
        for argument in inspect.signature(getattr(schedules, name)).parameters:
            bad: list[Any] = [math.nan, math.inf, -0.1]
            if argument in COUNTS:
                bad += [0, 2.5]
            elif argument in POSITIVE + POSITIVE_TOO:
                bad += [0]
            elif argument in UNITS:
                bad += [1.1]
            elif argument == "milestones":
                bad = [[3, 2], [-1], [math.nan]]
            elif argument in WORDS:
                bad = ["other"]
            elif argument == "three_phase":
                continue
            found += [(name, argument, value) for value in bad]
        assert few.keys() <= inspect.signature(getattr(schedules, name)).parameters.keys()
    return found


@pytest.mark.parametrize(("name", "argument", "value"), bad_numbers())
def test_invalid_arguments_are_refused(name: str, argument: str, value: Any) -> None:
    cls = getattr(schedules, name)
    start = "max_lr" if name == "one_cycle" else "base_lr"
    with pytest.raises(ValueError, match=argument):
        cls(**{start: 0.1, **FEW[name], argument: value})
    with pytest.raises(TypeError, match=argument):
        cls(**{start: 0.1, **FEW[name], argument: 1j})


def test_invalid_combinations_are_refused() -> None:
    one = schedules.constant(1.0)
    with pytest.raises(ValueError, match="boundaries"):
        schedules.join([one, one, one], [5, 5])
    with pytest.raises(ValueError, match="boundaries"):
        schedules.join([one, one], [])
    with pytest.raises(ValueError, match="schedules"):
        schedules.join([], [])
    with pytest.raises(TypeError, match="schedules"):
        schedules.join([one, 0.1], [5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="schedules"):
        schedules.join(one, [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"schedule must be .*\.schedules\.constant"):
        schedules.warmup(0.1, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps"):
        schedules.warmup(one, -1)


def half_lives(t: float) -> float:
    # With a branch, which does not work for arrays.
    return 0.4 if t < 2 else 0.4 * 0.5 ** (t - 2)


OWN: dict[str, schedules.Schedule] = {
    "warmup": schedules.warmup(half_lives, 4),
    "no warm-up": schedules.warmup(half_lives, 0),
    "join": schedules.join([half_lives, schedules.constant(0.1), half_lives], [3, 5.5]),
    "nested": schedules.warmup(schedules.join([half_lives, half_lives], [4]), 2),
}


@pytest.mark.parametrize("schedule", OWN.values(), ids=OWN)
def test_a_users_function_is_a_schedule(schedule: schedules.Schedule) -> None:
    grid = np.linspace(0, 20, 42).reshape(2, 3, 7)
    expected = [schedule(t) for t in grid.ravel().tolist()]
    assert schedule(grid).ravel().tolist() == expected
    assert schedule(grid).shape == grid.shape
    assert schedule(np.array(3)).shape == ()
    assert schedule(np.arange(9)).tolist() == [schedule(t) for t in range(9)]
    assert isinstance(schedule(np.float32(2)), float)
    assert pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule) == schedule
    assert hash(schedule) == hash(copy.copy(schedule))
    assert "half_lives" in repr(schedule)


def test_a_users_function_has_the_values_of_the_same_schedule() -> None:
    own, ours = (lambda t: 0.3 * 0.9**t), schedules.exponential(0.3, 0.9)
    steps = np.arange(30)
    for build in (
        lambda g: schedules.warmup(g, 5),
        lambda g: schedules.join([g, schedules.constant(1.0), g], [4, 9]),
    ):
        np.testing.assert_allclose(build(own)(steps), build(ours)(steps), rtol=1e-14)
    opt = optim.SGD(np.array([1.0]), lr=schedules.warmup(own, 5))
    for t in range(8):
        before = opt.params.copy()
        opt.step(np.array([1.0]))
        rate = 0.3 * t / 5 if t < 5 else 0.3 * 0.9 ** (t - 5)
        np.testing.assert_allclose(before - opt.params, rate, rtol=1e-14)


def test_a_users_function_is_called_only_for_its_steps_and_with_an_int() -> None:
    seen: list[Any] = []
    table = [0.1, 0.2, 0.3]

    def own(t: int) -> float:
        seen.append(t)
        return table[t]

    joined = schedules.join([own, own], [3])
    assert [joined(t) for t in range(6)] == joined(np.arange(6)).tolist() == table * 2
    assert seen == [0, 1, 2] * 4
    assert all(type(t) is int for t in seen)
    with pytest.raises(IndexError):
        joined(6)
    assert schedules.warmup(own, 2)(np.array([1, 2, 4])).tolist() == [0.05, 0.1, 0.3]
    for value in ("0.1", None, [0.1], 1j):
        with pytest.raises(TypeError, match="the value of a schedule must be a number"):
            schedules.warmup(lambda t, value=value: value, 2)(1)  # type: ignore[misc]
