"""The layers of the examples: sizes, and backward passes compared with differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import networks
from networks import (
    Conv,
    Dense,
    Flatten,
    MaxPool,
    Network,
    Recurrent,
    ReLU,
    Sigmoid,
    Tanh,
    output_size,
)

NETWORKS: dict[str, tuple[list[networks.Layer], tuple[int, ...]]] = {
    "ReLU": ([Dense(6), ReLU(), Dense(4)], (5,)),
    "tanh": ([Dense(6), Tanh(), Dense(4)], (5,)),
    "sigmoid": ([Dense(6), Sigmoid(), Dense(4)], (5,)),
    "same": ([Conv(3), ReLU(), Flatten(), Dense(4)], (5, 5, 2)),
    "valid": ([Conv(3, padding="valid"), Tanh(), Flatten(), Dense(4)], (6, 5, 2)),
    "stride": ([Conv(3, stride=2), Tanh(), Flatten(), Dense(4)], (6, 7, 1)),
    "wide, padded, stride": ([Conv(2, 4, padding=2, stride=3), Flatten(), Dense(4)], (7, 7, 2)),
    "pooling": ([Conv(3), MaxPool(), Flatten(), Dense(4)], (5, 4, 2)),
    "two convolutions": ([Conv(2), Tanh(), Conv(3), Flatten(), Dense(4)], (4, 4, 1)),
    "recurrent": ([Recurrent(5), Dense(4)], (6, 3)),
    "two recurrent": ([Recurrent(5, radius=1.5), Recurrent(4), Dense(4)], (6, 3)),
}


@pytest.mark.parametrize(
    ("w", "f", "p", "s", "size"),
    [(4, 3, 0, 1, 2), (5, 4, 2, 1, 6), (6, 3, 1, 2, 3), (5, 3, 1, 1, 5), (7, 7, 0, 1, 1)],
)
def test_the_size_of_an_output(w: int, f: int, p: int, s: int, size: int) -> None:
    assert output_size(w, f, p, s) == size
    layer = Conv(1, f, padding=p, stride=s)
    network = Network([layer], (w, w, 1))
    assert network.shapes[-1] == (size, size, 1)
    assert network.forward(np.zeros((2, w, w, 1))).shape == (2, size, size, 1)


def test_a_convolution_is_the_sum_it_is_defined_as() -> None:
    network = Network([Conv(2, 3, padding=1, stride=2)], (5, 6, 3), dtype="float64")
    x = np.random.default_rng(1).normal(size=(2, 5, 6, 3))
    y = network.forward(x)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    w = network.params["w1"].reshape(3, 3, 3, 2)
    for row in range(y.shape[1]):
        for column in range(y.shape[2]):
            window = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            np.testing.assert_allclose(y[:, row, column], np.einsum("nijc,ijco->no", window, w))


def test_pooling_gives_the_gradient_to_one_of_equal_pixels() -> None:
    layer = MaxPool()
    assert layer.forward(np.ones((1, 2, 2, 1))).tolist() == [[[[1.0]]]]
    assert layer.backward(np.ones((1, 1, 1, 1))).ravel().tolist() == [1, 0, 0, 0]


def differences(value: Callable[[], float], array: networks.Array) -> networks.Array:
    """Return central differences for every element of ``array``, which ``value`` reads."""
    result = np.empty_like(array)
    for index in np.ndindex(array.shape):
        kept, eps = array[index], 1e-6
        array[index] = kept + eps
        above = value()
        array[index] = kept - eps
        result[index] = (above - value()) / (2 * eps)
        array[index] = kept
    return result


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_differences(name: str) -> None:
    layers, shape = NETWORKS[name]
    network = Network(layers, shape, dtype="float64")
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, *shape))
    y = rng.integers(0, 4, (3, *network.shapes[-1][:-1]))
    for array in network.params.values():
        array += rng.normal(0, 0.1, array.shape)  # Including biases, which are zero otherwise.

    def value() -> float:
        return network.evaluate(x, y)[0]

    wanted = {key: differences(value, array) for key, array in network.params.items()}
    network.loss_and_gradients(x, y)
    for key, expected in wanted.items():
        np.testing.assert_allclose(network.grads[key], expected, rtol=1e-5, atol=1e-8)
