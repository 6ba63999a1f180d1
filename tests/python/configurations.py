"""The configurations of each optimizer that select rules of their own, and inputs for them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import fastoptim as fo

BF16 = np.dtype(ml_dtypes.bfloat16)


FORMS = ["f4", "f8", "f2", BF16]


# What has two passes, or state of its own shape, beside the classes' defaults.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.9, "momentum_form": "inside"}],
    "RMSprop": [{"momentum": 0.9, "centered": True}],
    "Adam": [{"amsgrad": True, "weight_decay": 0.1}, {"cautious": True}],
    "AdamW": [{"cautious": True, "amsgrad": True}],
    "Lion": [{"cautious": True, "weight_decay": 0.1}],
    "LARS": [{"weight_decay": 0.1, "nesterov": True}],
    "LAMB": [{"max_trust": 1.5, "bias_correction": False}],
    "Prodigy": [{"d0": 1e-2, "weight_decay": 0.1, "decouple": False}],
    "Adafactor": [{"weight_decay": 0.1}],
}


def configurations(optimizer: Any) -> list[dict[str, Any]]:
    return [{}, *VARIANTS.get(optimizer.__name__, [])]


def numbers(shapes: Any, dtype: Any, seed: int = 0) -> list[Any]:
    """Give numbers around 0 with some zeros and some large ones among them."""
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape) * rng.choice([0, 0.3, 1, 4], shape) for shape in shapes]
    # The sign of -0 is -0 here, but 0 in NumPy.
    return [(array + 0.0).astype(dtype) for array in arrays]


REGULARIZERS = [
    None,
    fo.regularizers.L1(0.05),
    fo.regularizers.L2(0.3),
    fo.regularizers.ElasticNet(0.05, 0.3),
]


def rounded(x: Any, dtype: Any) -> Any:
    """Round float64 to the nearest bfloat16, ties to even; ml_dtypes goes through float32."""
    if np.dtype(dtype) != BF16:
        return x.astype(dtype)
    fraction, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.rint(fraction * 256) / 256, exponent), BF16)
