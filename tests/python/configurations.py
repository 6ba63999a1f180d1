"""The arguments with which each optimizer is tested, and its inputs."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import ml_dtypes
import numpy as np

import fastoptim as fo
from fastoptim.optim._storage import StateDtype

BF16 = np.dtype(ml_dtypes.bfloat16)

# The dtypes of parameters, and the values of `state_dtype`.
FORMS = ["f4", "f8", "f2", BF16]
STORAGES = [None, *get_args(StateDtype)]


class Configurations(NamedTuple):
    """Arguments of one class in addition to its defaults."""

    # One for each rule or layout of the state; used by all tests of all rules.
    rules: list[dict[str, Any]] = []  # noqa: RUF012
    # Other values, for other cases of the formulas; used in addition by comparisons with a formula
    # or another package.
    values: list[dict[str, Any]] = []  # noqa: RUF012


# From PyTorch's table of cases (torch/testing/_internal/common_optimizers.py).
DECAYS: list[dict[str, Any]] = [{"weight_decay": 0.1}, {"weight_decay": 0.1, "maximize": True}]
DECOUPLED: dict[str, Any] = {"weight_decay": 0.1, "decoupled_weight_decay": True}
ADAM: list[dict[str, Any]] = [
    *DECAYS,
    {"lr": 0.01},
    {"weight_decay": 0.1, "amsgrad": True, "betas": (0.0, 0.0)},
    {"eps": 0.1},
]

# Every optimizer. Those of PyTorch are compared with it for arguments that both accept.
CONFIGURATIONS: dict[str, Configurations] = {
    "SGD": Configurations(
        rules=[
            {"momentum": 0.9, "weight_decay": 0.1},
            {"momentum": 0.9, "momentum_form": "inside"},
        ],
        values=[
            *DECAYS,
            {"lr": 1e-2},
            {"momentum": 0.9},
            {"momentum": 0.9, "dampening": 0.5},
            {"momentum": 0.9, "dampening": 0.3, "maximize": True},
            {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
            {
                "momentum": 0.9,
                "momentum_form": "inside",
                "nesterov": True,
                "weight_decay": 0.1,
            },
        ],
    ),
    "Adagrad": Configurations(
        values=[
            *DECAYS,
            {"lr": 0.1},
            {"initial_accumulator_value": 0.1, "weight_decay": 0.1},
            {"lr": 0.1, "weight_decay": 0.1, "lr_decay": 0.5},
            {"lr": 0.1, "weight_decay": 0.1, "lr_decay": 0.01},
            {"initial_accumulator_value": 0.1, "eps": 1e-3, "maximize": True},
        ],
    ),
    "RMSprop": Configurations(
        rules=[{"momentum": 0.9, "centered": True}],
        values=[
            *DECAYS,
            {"lr": 1e-3},
            {"momentum": 0.1, "weight_decay": 0.1},
            {"momentum": 0.1, "centered": True, "weight_decay": 0.1},
            {"centered": True, "alpha": 0.9},
            {"centered": True, "weight_decay": 0.1},
            {"momentum": 0.9, "eps_inside_sqrt": True},
            {"momentum": 0.9, "centered": True, "alpha": 0.9, "maximize": True},
        ],
    ),
    "Adadelta": Configurations(
        values=[
            *DECAYS,
            {"lr": 0.01},
            {"rho": 0.95, "weight_decay": 0.9},
            {"rho": 0.95, "weight_decay": 0.1, "lr": 0.5, "maximize": True},
        ],
    ),
    "Adam": Configurations(
        rules=[{"amsgrad": True, "weight_decay": 0.1}, {"cautious": True}],
        values=[
            *ADAM,
            {**DECOUPLED, "lr": 0.1},
            {"betas": (0.0, 0.0), "maximize": True},
            {"cautious": True, "amsgrad": True, "weight_decay": 0.1, "maximize": True},
        ],
    ),
    "AdamW": Configurations(
        rules=[{"cautious": True, "amsgrad": True}],
        values=[
            *ADAM,
            {"weight_decay": 0.1, "amsgrad": True},
            {"betas": (0.8, 0.95), "amsgrad": True, "maximize": True},
            {"cautious": True, "lr": 0.1},
        ],
    ),
    "Adamax": Configurations(
        values=[
            *DECAYS,
            {"lr": 0.1},
            {"betas": (0.8, 0.9)},
            {"weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 0.1, "maximize": True},
        ],
    ),
    "NAdam": Configurations(
        values=[
            *DECAYS,
            DECOUPLED,
            {"lr": 1e-3, "momentum_decay": 6e-3},
            {"momentum_decay": 0.1, "weight_decay": 0.1},
            {"weight_decay": 0.1, "momentum_decay": 0.1, "maximize": True},
        ],
    ),
    "RAdam": Configurations(
        values=[
            *DECAYS,
            DECOUPLED,
            {**DECOUPLED, "eps": 1e-3},
            {"lr": 2e-3},
            {"eps": 1e-6, "betas": (0.5, 0.9)},
            {"weight_decay": 0.1, "betas": (0.9, 0.9), "maximize": True},
            # Never rectified: rho_inf is 3.
            {"betas": (0.9, 0.5)},
        ],
    ),
    "Rprop": Configurations(
        values=[
            {"lr": 2e-4},
            {"etas": (0.2, 1.5), "lr": 2e-4},
            {"step_sizes": (2e-6, 1e-3)},
            {"lr": 0.1, "etas": (0.8, 1.5), "step_sizes": (1e-3, 0.2), "maximize": True},
        ],
    ),
    "ASGD": Configurations(
        values=[
            *DECAYS,
            {"lr": 0.02, "lambd": 0.1},
            {"t0": 100, "weight_decay": 0.1},
            {"t0": 20, "alpha": 0.5},
            {"t0": 20, "lambd": 0.1, "alpha": 0.5, "weight_decay": 0.1, "maximize": True},
        ],
    ),
    "Lion": Configurations(
        rules=[{"cautious": True, "weight_decay": 0.1}],
        values=[{"weight_decay": 0.5, "lr": 0.1, "maximize": True}, {"cautious": True}],
    ),
    "AdEMAMix": Configurations(
        values=[{"t_alpha": 50, "t_beta3": 70, "weight_decay": 0.1, "maximize": True}],
    ),
    "ScheduleFreeSGD": Configurations(
        values=[
            {"lr": 0.1},
            {"lr": 0.1, "warmup_steps": 10, "r": 1.0, "weight_decay": 0.1, "maximize": True},
        ],
    ),
    "ScheduleFreeAdamW": Configurations(
        values=[
            {
                "warmup_steps": 10,
                "r": 1.0,
                "weight_lr_power": 1.0,
                "weight_decay": 0.1,
                "maximize": True,
            },
        ],
    ),
    "LARS": Configurations(
        rules=[{"weight_decay": 0.1, "nesterov": True}],
        values=[
            {"momentum": 0, "weight_decay": 0.1, "trust_coefficient": 0.1},
            {"nesterov": True, "weight_decay": 0.1, "maximize": True},
            {"dampening": 0.3, "layer_adaptation": False, "lr": 0.1},
        ],
    ),
    "LAMB": Configurations(
        rules=[{"max_trust": 1.5, "bias_correction": False}],
        values=[
            {"bias_correction": False, "max_trust": 0.5, "maximize": True},
            {"layer_adaptation": False},
        ],
    ),
    "Prodigy": Configurations(
        rules=[{"d0": 1e-2, "weight_decay": 0.1, "decouple": False}],
        values=[
            {"weight_decay": 0.1, "use_bias_correction": True, "beta3": 0.9},
            {
                "weight_decay": 0.1,
                "decouple": False,
                "safeguard_warmup": True,
                "d_coef": 2.0,
                "maximize": True,
            },
            {"growth_rate": 1.1, "d0": 1e-3},
        ],
    ),
    "Adafactor": Configurations(
        rules=[{"weight_decay": 0.1}],
        values=[
            {"weight_decay": 0.1, "maximize": True},
            {"lr": 0.01},
            {"d": 1.5},
            {"eps": (1e-5, 1e-2)},
            {"beta2_decay": -1.0},
            {"weight_decay": 0.1, "d": 0.1, "eps": (1e-3, 0.1), "maximize": True},
        ],
    ),
    "Muon": Configurations(
        values=[
            {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
            {"lr": 0.1, "momentum": 0.8, "nesterov": False},
            {"lr": 0.1, "weight_decay": 0.2, "adjust_lr_fn": "match_rms_adamw"},
            {"ns_steps": 6, "ns_coefficients": (3.4, -4.7, 2.0), "eps": 1.0},
            {"momentum": 0.5, "weight_decay": 0, "maximize": True},
        ],
    ),
}


def configurations(optimizer: Any) -> list[dict[str, Any]]:
    """The defaults, and arguments that select another rule."""
    return [{}, *CONFIGURATIONS[optimizer.__name__].rules]


def all_configurations(name: str) -> list[dict[str, Any]]:
    """The defaults, and all arguments in the table for a class."""
    return [{}, *CONFIGURATIONS[name].rules, *CONFIGURATIONS[name].values]


def numbers(shapes: Any, dtype: Any, seed: int = 0) -> list[Any]:
    """Return numbers around 0, including some zeros and some large numbers."""
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
