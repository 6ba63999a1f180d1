"""Any schedulers, alone, chained by hand and composed, compared with PyTorch's.

The grids of the other tests cover the arguments. Here hypothesis combines them with copies,
restored states and rates that are set by the user.
"""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fastoptim import lr_scheduler
from rates import LRS, in_tensors, pytorch, same

# PyTorch's schedulers warn if their optimizer does not step, which these tests do not need.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step:UserWarning")


def harmonic(t: float) -> float:
    return 1 / (1 + t)


def waving(t: float) -> float:
    return 0.95 - 0.01 * (t % 3)


FUNCTIONS = st.sampled_from([harmonic, waving, [harmonic, waving]])
ETA_MIN = st.sampled_from([0.0, 0.001, 0.05])
CYCLE = {"cycle_momentum": st.booleans(), "max_lr": st.sampled_from([0.3, [0.3, 0.4]])}
ARGUMENTS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "StepLR": {"step_size": st.integers(1, 9), "gamma": st.floats(0.1, 1.1)},
    "MultiStepLR": {
        "milestones": st.lists(st.integers(0, 20), max_size=4).map(sorted),
        "gamma": st.floats(0.1, 1.1),
    },
    # PyTorch's never ends with `total_iters` 0.
    "ConstantLR": {"factor": st.floats(0.1, 1.0), "total_iters": st.integers(1, 9)},
    "LinearLR": {
        "start_factor": st.floats(0.1, 1.0),
        "end_factor": st.floats(0.1, 1.0),
        "total_iters": st.integers(1, 15),
    },
    "ExponentialLR": {"gamma": st.floats(0.5, 1.05)},
    "PolynomialLR": {
        "total_iters": st.integers(1, 30),
        "power": st.sampled_from([0.5, 1.0, 2.0, 3]),
    },
    "CosineAnnealingLR": {"T_max": st.sampled_from([1, 2, 5, 7.5, 9, 30]), "eta_min": ETA_MIN},
    "CosineAnnealingWarmRestarts": {
        "T_0": st.integers(1, 9),
        "T_mult": st.integers(1, 3),
        "eta_min": ETA_MIN,
    },
    "LambdaLR": {"lr_lambda": FUNCTIONS},
    "MultiplicativeLR": {"lr_lambda": FUNCTIONS},
    "CyclicLR": {
        **CYCLE,
        "base_lr": st.sampled_from([0.01, [0.01, 0.02]]),
        "step_size_up": st.integers(1, 6),
        "step_size_down": st.sampled_from([None, 3, 5]),
        "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
        "gamma": st.floats(0.9, 1.0),
    },
    "OneCycleLR": {
        **CYCLE,
        "total_steps": st.integers(35, 60),
        "pct_start": st.floats(0.1, 0.9),
        "anneal_strategy": st.sampled_from(["cos", "linear"]),
        "three_phase": st.booleans(),
    },
}
APART = {"ReduceLROnPlateau", "WarmupStableDecayLR", "SequentialLR", "ChainedScheduler"}
LEAVES = st.one_of(
    [st.tuples(st.just(name), st.fixed_dictionaries(kw)) for name, kw in ARGUMENTS.items()]
)
SEVERAL = st.lists(LEAVES, min_size=1, max_size=3)
SEQUENCES = SEVERAL.flatmap(
    lambda parts: st.tuples(
        st.just("SequentialLR"),
        st.just(parts),
        st.lists(st.integers(0, 25), min_size=len(parts) - 1, max_size=len(parts) - 1).map(sorted),
    )
)
# PyTorch begins a composition inside a sequence one step too early, or fails.
CHAINS = st.tuples(
    st.just("ChainedScheduler"), st.lists(st.one_of(LEAVES, SEQUENCES), min_size=1, max_size=3)
)
PROGRAMS = st.one_of(SEVERAL, SEQUENCES.map(lambda one: [one]), CHAINS.map(lambda one: [one]))


def test_every_scheduler_is_mixed() -> None:
    assert ARGUMENTS.keys() | APART | {"LRScheduler"} == set(lr_scheduler.__all__)


def build(library: Any, optimizer: Any, part: Any) -> Any:
    cls = getattr(library, part[0])
    if part[0] == "SequentialLR":
        return cls(optimizer, [build(library, optimizer, inner) for inner in part[1]], part[2])
    if part[0] == "ChainedScheduler":
        return cls([build(library, optimizer, inner) for inner in part[1]], optimizer=optimizer)
    return cls(optimizer, **copy.deepcopy(part[1]))


def names(part: Any) -> list[str]:
    inner = part[1] if isinstance(part[1], list) else []
    return [part[0], *(name for one in inner for name in names(one))]


def copied(program: Any, kept: Any) -> Any:
    return copy.deepcopy(kept)


def pickled(program: Any, kept: Any) -> Any:
    return pickle.loads(pickle.dumps(kept))


def reloaded(program: Any, kept: Any) -> Any:
    """Restore new schedulers from the states, through JSON."""
    optimizer, schedulers = kept
    # Constructed with the first rates, since a current rate may be negative, which is refused.
    _, other, _ = pytorch(lrs=[copy.deepcopy(g["initial_lr"]) for g in optimizer.param_groups])
    fresh = [build(lr_scheduler, other, part) for part in program]
    other.load_state_dict(optimizer.state_dict())
    for scheduler, old in zip(fresh, schedulers, strict=True):
        scheduler.load_state_dict(json.loads(json.dumps(old.state_dict())))
    return other, fresh


def set_to(optimizer: Any, rate: float) -> None:
    """Set a rate as a user would."""
    group = optimizer.param_groups[1]
    if hasattr(group["lr"], "fill_"):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


EVENTS = st.dictionaries(
    st.integers(0, 29), st.sampled_from([copied, pickled, reloaded, 0.5, 0.001]), max_size=4
)


# May begin with a rate that another scheduler has made negative.
BELOW_0 = ("CosineAnnealingLR", {"T_max": 1, "eta_min": 0.05})


@settings(max_examples=100)
@given(PROGRAMS, EVENTS, st.booleans())
@example([("StepLR", {"step_size": 1, "gamma": 0.25}), BELOW_0], {2: reloaded}, False)
def test_any_schedulers_against_pytorch(program: Any, events: Any, tensors: bool) -> None:
    # PyTorch's schedulers store their momenta in the groups, so the second overwrites the first.
    found = [name for part in program for name in names(part)]
    assume(sum(name in ("CyclicLR", "OneCycleLR") for name in found) <= 1)
    reference, theirs, optimizer = pytorch(lrs=in_tensors() if tensors else LRS)
    their = [build(reference, theirs, part) for part in program]
    kept = optimizer, [build(lr_scheduler, optimizer, part) for part in program]
    for t in range(30):
        same(theirs, kept[0], rtol=1e-7)
        event = events.get(t)
        if isinstance(event, float):
            set_to(theirs, event)
            set_to(kept[0], event)
        elif event is not None:
            kept = event(program, kept)
        for scheduler in [*their, *kept[1]]:
            scheduler.step()
