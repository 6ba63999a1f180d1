"""Layers with forward and backward passes in plain NumPy, all parameters in one buffer.

Images are arrays of (batch, height, width, channels), sequences of (batch, time, channels).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import fastoptim as fo

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
CROSS_ENTROPY = fo.losses.CrossEntropyLoss()


class Layer:
    """A layer. By default it has no parameters and the same shape for input and output."""

    def plan(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        """Return the shapes of one output and of the parameters for the shape of one input."""
        return shape, {}

    def start(self, params: dict[str, Array], grads: dict[str, Array], rng: Any) -> None:
        """Store the views of the parameters and of the gradients, and initialize the weights."""

    def forward(self, x: Array) -> Array:
        """Return the output, and store the values that the backward pass needs."""
        raise NotImplementedError

    def backward(self, delta: Array) -> Array:
        """Write the gradients of the parameters and return that of the input."""
        raise NotImplementedError


class Affine(Layer):
    """A layer with weights ``w`` of (inputs, outputs) and biases ``b``.

    The standard deviation of the weights is the square root of gain / inputs. A gain of 2 preserves
    the variance through ReLU (He et al., 2015), and 1 through tanh near zero (LeCun et al., 1998).
    """

    gain: float

    def start(self, params: dict[str, Array], grads: dict[str, Array], rng: Any) -> None:
        self.params, self.grads = params, grads
        w = params["w"]
        w[...] = rng.normal(0, np.sqrt(self.gain / w.shape[0]), w.shape)


class Dense(Affine):
    """A fully connected layer over the last axis."""

    def __init__(self, outputs: int, gain: float = 2.0) -> None:
        self.outputs, self.gain = outputs, gain

    def plan(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        return (*shape[:-1], self.outputs), {"w": (shape[-1], self.outputs), "b": (self.outputs,)}

    def forward(self, x: Array) -> Array:
        self.x = x
        return x @ self.params["w"] + self.params["b"]

    def backward(self, delta: Array) -> Array:
        rows = delta.reshape(-1, self.outputs)
        np.matmul(self.x.reshape(len(rows), -1).T, rows, out=self.grads["w"])
        np.sum(rows, axis=0, out=self.grads["b"])
        return delta @ self.params["w"].T


class ReLU(Layer):
    def forward(self, x: Array) -> Array:
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, delta: Array) -> Array:
        result: Array = delta * (self.y > 0)
        return result


class Tanh(Layer):
    def forward(self, x: Array) -> Array:
        self.y: Array = np.tanh(x)
        return self.y

    def backward(self, delta: Array) -> Array:
        result: Array = delta * (1 - self.y**2)
        return result


class Sigmoid(Layer):
    def forward(self, x: Array) -> Array:
        self.y = 0.5 * (np.tanh(0.5 * x) + 1)  # Does not overflow.
        return self.y

    def backward(self, delta: Array) -> Array:
        return delta * self.y * (1 - self.y)


class Flatten(Layer):
    def plan(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        return (int(np.prod(shape)),), {}

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, delta: Array) -> Array:
        return delta.reshape(self.shape)


def output_size(w: int, f: int, p: int, s: int) -> int:
    """Positions of a window of ``f`` in ``w`` inputs with padding ``p`` and stride ``s``."""
    return (w - f + 2 * p) // s + 1


class Conv(Affine):
    """A convolution with windows of ``size`` by ``size``.

    ``padding`` is the number of zeros at each border. ``"valid"`` is 0, and ``"same"`` is half of
    the window, so that an odd window with stride 1 preserves the size.
    """

    def __init__(
        self, outputs: int, size: int = 3, padding: int | str = "same", stride: int = 1
    ) -> None:
        named = {"valid": 0, "same": (size - 1) // 2}
        self.padding = named[padding] if isinstance(padding, str) else padding
        self.outputs, self.size, self.stride, self.gain = outputs, size, stride, 2.0

    def plan(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        *sides, channels = shape
        height, width = (output_size(w, self.size, self.padding, self.stride) for w in sides)
        inputs = self.size**2 * channels
        return (height, width, self.outputs), {"w": (inputs, self.outputs), "b": (self.outputs,)}

    def places(self, padded: Array) -> list[Array]:
        """Return, for each pixel of the window, a view of the inputs at all positions."""
        sides = [(w - self.size) // self.stride + 1 for w in padded.shape[1:3]]
        height, width = (self.stride * (n - 1) + 1 for n in sides)
        return [
            padded[:, i : i + height : self.stride, j : j + width : self.stride]
            for i in range(self.size)
            for j in range(self.size)
        ]

    def forward(self, x: Array) -> Array:
        border = (self.padding, self.padding)
        padded = np.pad(x, ((0, 0), border, border, (0, 0)))
        self.padded_shape = padded.shape
        # One row per position (im2col), so that the convolution is one matrix product.
        self.columns = np.concatenate(self.places(padded), axis=-1)
        return self.columns @ self.params["w"] + self.params["b"]

    def backward(self, delta: Array) -> Array:
        rows = delta.reshape(-1, self.outputs)
        np.matmul(self.columns.reshape(len(rows), -1).T, rows, out=self.grads["w"])
        np.sum(rows, axis=0, out=self.grads["b"])
        padded = np.zeros(self.padded_shape, delta.dtype)
        pixels = np.split(self.params["w"], self.size**2)
        for place, w in zip(self.places(padded), pixels, strict=True):
            place += (rows @ w.T).reshape(place.shape)
        inner = slice(self.padding, -self.padding or None)
        return padded[:, inner, inner]


class MaxPool(Layer):
    """Max pooling over 2 by 2 pixels per channel; an odd last row or column is dropped."""

    def plan(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        height, width, channels = shape
        return (height // 2, width // 2, channels), {}

    def corners(self, x: Array) -> list[Array]:
        """Return views of the four pixels of every square."""
        height, width = (n // 2 * 2 for n in x.shape[1:3])
        return [x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]

    def forward(self, x: Array) -> Array:
        a, b, c, d = self.corners(x)
        self.x, self.y = x, np.maximum(np.maximum(a, b), np.maximum(c, d))
        return self.y

    def backward(self, delta: Array) -> Array:
        result = np.zeros_like(self.x)
        free = np.ones(delta.shape, bool)  # The first of equal pixels gets the gradient.
        for pixel, slope in zip(self.corners(self.x), self.corners(result), strict=True):
            largest = free & (pixel == self.y)
            np.multiply(delta, largest, out=slope)
            free &= ~largest
        return result


class Recurrent(Layer):
    """A plain recurrent layer: h[t] = tanh(x[t] w + h[t-1] u + b), from h = 0.

    ``u`` is initialized to ``radius`` times an orthogonal matrix.
    """

    def __init__(self, outputs: int, radius: float = 1.0) -> None:
        self.outputs, self.radius = outputs, radius

    def plan(self, shape: Shape) -> tuple[Shape, dict[str, Shape]]:
        n = self.outputs
        return (shape[0], n), {"w": (shape[1], n), "u": (n, n), "b": (n,)}

    def start(self, params: dict[str, Array], grads: dict[str, Array], rng: Any) -> None:
        self.params, self.grads = params, grads
        params["w"][...] = rng.normal(0, 0.1, params["w"].shape)
        u = params["u"]
        u[...] = self.radius * np.linalg.qr(rng.normal(size=u.shape))[0]

    def forward(self, x: Array) -> Array:
        self.x = x
        # One more than inputs: h[:, t] is the state before time t and h[:, t + 1] after it.
        self.h = np.zeros((x.shape[0], x.shape[1] + 1, self.outputs), x.dtype)
        driven = x @ self.params["w"] + self.params["b"]
        for t in range(x.shape[1]):
            np.tanh(driven[:, t] + self.h[:, t] @ self.params["u"], out=self.h[:, t + 1])
        return self.h[:, 1:]

    def backward(self, delta: Array) -> Array:
        slopes = np.empty_like(delta)
        carried = np.zeros_like(delta[:, 0])
        for t in reversed(range(delta.shape[1])):
            slopes[:, t] = (delta[:, t] + carried) * (1 - self.h[:, t + 1] ** 2)
            carried = slopes[:, t] @ self.params["u"].T
        for name, seen in (("w", self.x), ("u", self.h[:, :-1])):
            self.grads[name][...] = np.tensordot(seen, slopes, axes=([0, 1], [0, 1]))
        np.sum(slopes, axis=(0, 1), out=self.grads["b"])
        return slopes @ self.params["w"].T


class Network:
    """A sequence of layers; those with parameters are numbered from 1: w1, b1, w2, ..."""

    def __init__(
        self, layers: Sequence[Layer], shape: Shape, seed: int = 0, dtype: str = "float32"
    ) -> None:
        self.layers = layers
        self.shapes = [shape]  # The shapes of one input and of the output of each layer.
        named: dict[str, Shape] = {}
        planned: list[dict[str, str]] = []
        number = 1
        for layer in layers:
            shape, own = layer.plan(shape)
            self.shapes.append(shape)
            planned.append({name: f"{name}{number}" for name in own})
            named |= {f"{name}{number}": size for name, size in own.items()}
            number += bool(own)
        self.params = fo.FlatBuffer(named, dtype=dtype)
        self.grads = self.params.zeros_like()
        rng = np.random.default_rng(seed)
        for layer, names in zip(layers, planned, strict=True):
            params, grads = (
                {short: buffer[name] for short, name in names.items()}
                for buffer in (self.params, self.grads)
            )
            layer.start(params, grads, rng)

    def forward(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, delta: Array) -> None:
        """Write the gradients, given the gradient of the output of the last forward pass."""
        for layer in reversed(self.layers):
            delta = layer.backward(delta)

    def loss_and_gradients(self, x: Array, y: Array) -> float:
        """Write the gradients of the mean cross-entropy, and return its value."""
        scores = self.forward(x)
        rows = scores.reshape(-1, scores.shape[-1])
        loss, delta = CROSS_ENTROPY.value_and_grad(rows, y.reshape(-1), out=rows)
        self.backward(delta.reshape(scores.shape))
        return float(loss)

    def evaluate(self, x: Array, y: Array) -> tuple[float, float]:
        """Return the mean cross-entropy and the accuracy."""
        scores = np.concatenate([self.forward(x[i : i + 1000]) for i in range(0, len(x), 1000)])
        rows = scores.reshape(-1, scores.shape[-1])
        correct = rows.argmax(axis=1) == y.reshape(-1)
        return float(CROSS_ENTROPY(rows, y.reshape(-1))), float(correct.mean())
