"""The page "Coming from optax and Keras": both sides of its tables compute the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo

PAGE = (Path(__file__).parents[3] / "docs/optax_and_keras.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, str]:
    """The left and the right code of each row of the table below a heading."""
    section = PAGE.split(f"### {heading}\n")[1].split("\n#")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", section, re.MULTILINE))


def gradient(t: int, p: Any) -> Any:
    """A gradient of changing size and sign."""
    return 0.3 * p + np.cos(np.arange(p.size).reshape(p.shape) + 0.7 * t)


def start() -> Any:
    return np.random.default_rng(1).standard_normal((6, 4))


def stepped(code: str, steps: int = 40) -> Any:
    """The parameters after steps of the optimizer of this package."""
    names = {"fo": fo, "p": start(), "keras_eps": keras_eps}
    opt = eval(code, names)
    for t in range(steps):
        opt.step(gradient(t, names["p"]))
    return names["p"]


@pytest.mark.parametrize("theirs", rows("Optimizers of optax"))
def test_optimizers_of_optax_make_the_same_steps(theirs: str) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    optax = pytest.importorskip("optax", reason="optax is not installed")
    with jax.enable_x64():
        rule = eval(theirs, {"optax": optax})
        held = jax.numpy.asarray(start())
        state = rule.init(held)
        for t in range(40):
            g = jax.numpy.asarray(gradient(t, np.asarray(held)))
            updates, state = rule.update(g, state, held)
            held = optax.apply_updates(held, updates)
        ours = stepped(rows("Optimizers of optax")[theirs])
        np.testing.assert_allclose(ours, np.asarray(held), rtol=1e-7)


@pytest.mark.parametrize("theirs", rows("Schedules of optax"))
def test_schedules_of_optax_have_the_same_values(theirs: str) -> None:
    optax = pytest.importorskip("optax", reason="optax is not installed")
    schedule = eval(theirs, {"optax": optax})
    ours = eval(rows("Schedules of optax")[theirs], {"fo": fo})
    values = [float(schedule(t)) for t in range(70)]
    np.testing.assert_allclose([ours(t) for t in range(70)], values, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("theirs", rows("Losses of optax"))
def test_losses_of_optax_have_the_same_values(theirs: str) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    optax = pytest.importorskip("optax", reason="optax is not installed")
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 9, 5))
    q = rng.integers(0, 2, (9, 5)).astype(float)
    if "softmax" in theirs or "kl" in theirs:
        q = rng.dirichlet(np.ones(5), 9)
        x = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    names = {"fo": fo, "optax": optax, "x": x, "y": y, "q": q}
    ours = eval(rows("Losses of optax")[theirs], names)
    with jax.enable_x64():
        assert ours == pytest.approx(float(eval(theirs, names)), rel=1e-9)


Update = Callable[[int, Any, Any], Any]


def keras_eps(step: int) -> float:
    """The function on the page."""
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(def keras_eps.*?)```", PAGE, re.DOTALL)[0], names)
    value: float = names["keras_eps"](step)
    return value


class Keras:
    """The updates of Keras 3, from the sources of its optimizers."""

    def __init__(self) -> None:
        self.m: Any = 0.0
        self.v: Any = 0.0

    def sgd(self, momentum: float, nesterov: bool) -> Update:
        def update(t: int, p: Any, g: Any) -> Any:
            self.m = momentum * self.m - 0.01 * g
            return p + (momentum * self.m - 0.01 * g if nesterov else self.m)

        return update

    def rmsprop(self, t: int, p: Any, g: Any) -> Any:
        self.v = 0.9 * self.v + 0.1 * g * g
        return p - 1e-3 * g / np.sqrt(self.v + 1e-7)

    def adam(self, decay: float) -> Update:
        def update(t: int, p: Any, g: Any) -> Any:
            p = p - p * decay * 1e-3
            self.m = self.m + (g - self.m) * (1 - 0.9)
            self.v = self.v + (g * g - self.v) * (1 - 0.999)
            alpha = 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            return p - self.m * alpha / (np.sqrt(self.v) + 1e-7)

        return update

    def adamax(self, t: int, p: Any, g: Any) -> Any:
        self.m = self.m + (g - self.m) * (1 - 0.9)
        self.v = np.maximum(0.999 * self.v, np.abs(g))
        return p - 1e-3 * self.m / ((1 - 0.9**t) * (self.v + 1e-7))

    def adagrad(self, t: int, p: Any, g: Any) -> Any:
        self.v = (self.v if t > 1 else 0.1) + g * g
        return p - 1e-3 * g / np.sqrt(self.v + 1e-7)

    def adadelta(self, t: int, p: Any, g: Any) -> Any:
        self.v = 0.95 * self.v + 0.05 * g * g
        delta = -np.sqrt(self.m + 1e-7) * g / np.sqrt(self.v + 1e-7)
        self.m = 0.95 * self.m + 0.05 * delta * delta
        return p + 1e-3 * delta

    def lion(self, t: int, p: Any, g: Any) -> Any:
        p = p - 1e-3 * np.sign(self.m * 0.9 + g * 0.1)
        self.m = self.m * 0.99 + g * 0.01
        return p


KERAS: dict[str, Update] = {
    "SGD(0.01)": Keras().sgd(0.0, False),
    "SGD(0.01, 0.9)": Keras().sgd(0.9, False),
    "SGD(0.01, 0.9, nesterov=True)": Keras().sgd(0.9, True),
    "RMSprop(1e-3)": Keras().rmsprop,
    "Adam(1e-3)": Keras().adam(0.0),
    "AdamW(1e-3)": Keras().adam(4e-3),
    "Adamax(1e-3)": Keras().adamax,
    "Adagrad(1e-3)": Keras().adagrad,
    "Adadelta(1e-3)": Keras().adadelta,
    "Lion(1e-3)": Keras().lion,
}


def test_every_optimizer_of_keras_is_compared() -> None:
    assert set(rows("Optimizers of Keras")) == set(KERAS)


@pytest.mark.parametrize("theirs", KERAS)
def test_optimizers_of_keras_make_the_same_steps(theirs: str) -> None:
    p = start()
    for t in range(40):
        p = KERAS[theirs](t + 1, p, gradient(t, p))
    ours = stepped(rows("Optimizers of Keras")[theirs])
    # Where the page says that the epsilons are at other places, to a millionth of the rate.
    atol = 1e-9 if theirs in ("Adagrad(1e-3)", "Adamax(1e-3)") else 1e-14
    np.testing.assert_allclose(ours, p, rtol=0, atol=atol)
