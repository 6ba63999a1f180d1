"""The pure schedules: values, precision, equal bits for numbers and arrays, and errors."""

import copy
import inspect
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoptim import schedules

# One call of each schedule. A new schedule without one fails the first test.
EXAMPLES: dict[str, schedules.Schedule] = {
    "cosine": schedules.cosine(0.3, T_max=37, eta_min=1e-3),
    "step": schedules.step(0.3, step_size=7, gamma=0.9),
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
    # computed as 1 + cos(pi - x) it has five digits left.
    T_max = 1_000_000
    for left in (1, 2, 10, 100):
        x = math.pi * left / T_max
        expected = (x**2 / 2 - x**4 / 24) / 2
        assert schedules.cosine(1.0, T_max)(T_max - left) == pytest.approx(expected, rel=1e-12)


@given(st.floats(0, 1e3), st.integers(1, 10**7), st.floats(0, 1e3), st.integers(0, 2 * 10**7))
def test_cosine_stays_between_its_ends(high: float, T_max: int, low: float, t: int) -> None:
    schedule = schedules.cosine(high, T_max, low)
    assert schedule(0) == high
    assert schedule(T_max) == schedule(T_max + t) == low
    bottom, top = sorted((high, low))
    assert np.nextafter(bottom, -1) <= schedule(t) <= np.nextafter(top, np.inf)


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("step", {"step_size": 0}, "step_size"),
        ("step", {"step_size": -3}, "step_size"),
        ("step", {"step_size": 2.5}, "step_size"),
        ("step", {"step_size": 3, "gamma": math.nan}, "gamma"),
        ("step", {"step_size": 3, "gamma": -0.1}, "gamma"),
        ("step", {"step_size": 3, "base_lr": -1.0}, "base_lr"),
        ("cosine", {"T_max": 0}, "T_max"),
        ("cosine", {"T_max": -1}, "T_max"),
        ("cosine", {"T_max": math.nan}, "T_max"),
        ("cosine", {"T_max": math.inf}, "T_max"),
        ("cosine", {"T_max": 3, "eta_min": -1e-9}, "eta_min"),
        ("cosine", {"T_max": 3, "base_lr": math.inf}, "base_lr"),
    ],
)
def test_what_can_never_work_is_refused(name: str, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        getattr(schedules, name)(**{"base_lr": 0.1, **arguments})
    with pytest.raises(TypeError, match=named):
        getattr(schedules, name)(**{"base_lr": 0.1, **arguments, named: "0.1"})
