"""The schedulers: closed forms, comparison with PyTorch, resuming, and errors."""

import copy
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import lr_scheduler, schedules
from rates import LRS, in_tensors, pytorch, same

# PyTorch's schedulers warn if their optimizer does not step, which these tests do not need.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Detected call of .lr_scheduler.step:UserWarning",
    "ignore:The epoch parameter in .scheduler.step:UserWarning",
)


def halving(t: int) -> float:
    return 0.5 ** (t // 3)


def shrinking(t: int) -> float:
    return 0.9 + 0.05 * (t % 3)


def product_of(lr: float, lr_lambda: Any) -> Callable[[float], float]:
    def at(t: float) -> float:
        rate = lr
        for step in range(1, int(t) + 1):
            rate *= lr_lambda(step)
        return rate

    return at


# Constructor arguments of each class, for every test of all classes.
GRIDS: dict[str, list[dict[str, Any]]] = {
    "StepLR": [
        {"step_size": size, "gamma": gamma} for size in (1, 3, 7) for gamma in (0.1, 0.97, 1.3)
    ],
    "CosineAnnealingLR": [
        {"T_max": T_max, "eta_min": eta_min} for T_max in (1, 2, 9, 12.5) for eta_min in (0.0, 0.01)
    ],
    "MultiStepLR": [
        {"milestones": milestones, "gamma": gamma}
        for milestones in ([3], [2, 5, 5, 20])
        for gamma in (0.1, 0.97, 1.3)
    ],
    "ExponentialLR": [{"gamma": gamma} for gamma in (0.5, 0.99, 1.02)],
    "ConstantLR": [{}, {"factor": 0.7, "total_iters": 12}, {"factor": 1.0, "total_iters": 3}],
    "LinearLR": [
        {},
        {"start_factor": 0.1, "end_factor": 0.8, "total_iters": 11},
        {"start_factor": 1.0, "end_factor": 0.25, "total_iters": 20},
    ],
    "LambdaLR": [{"lr_lambda": halving}, {"lr_lambda": shrinking}],
    "MultiplicativeLR": [{"lr_lambda": shrinking}],
    "CosineAnnealingWarmRestarts": [
        {"T_0": 1},
        {"T_0": 6, "eta_min": 0.01},
        {"T_0": 50, "T_mult": 2},
    ],
    "WarmupStableDecayLR": [
        {"warmup_steps": 0, "stable_steps": 5, "decay_steps": 10, "decay": "cosine"},
        {"warmup_steps": 4, "stable_steps": 5, "decay_steps": 10, "end_factor": 0.1},
    ],
    "PolynomialLR": [{}, {"total_iters": 13, "power": 2.0}, {"total_iters": 30, "power": 0.5}],
}
# The closed form of each class, as a pure schedule.
CLOSED: dict[str, Callable[..., Callable[[float], float]]] = {
    "StepLR": schedules.step,
    "CosineAnnealingLR": schedules.cosine,
    "MultiStepLR": schedules.multistep,
    "ExponentialLR": schedules.exponential,
    "ConstantLR": lambda lr, factor=1 / 3, total_iters=5: (
        lambda t: lr * factor if t < total_iters else lr
    ),
    "LinearLR": schedules.linear,
    "LambdaLR": lambda lr, lr_lambda: lambda t: lr * lr_lambda(int(t)),
    "MultiplicativeLR": product_of,
    "CosineAnnealingWarmRestarts": schedules.cosine_restarts,
    "WarmupStableDecayLR": schedules.wsd,
    "PolynomialLR": lambda lr, total_iters=5, power=1.0: schedules.polynomial(
        lr, total_iters, power
    ),
}
CASES = [(name, arguments) for name, grid in GRIDS.items() for arguments in grid]


def label(part: Any) -> str:
    """Return the name of a part of a case, without addresses of functions, which differ by run."""
    if isinstance(part, dict):
        return str([getattr(value, "__name__", value) for value in part.values()])
    return str(part)


each = pytest.mark.parametrize(
    ("name", "arguments"),
    CASES,
    ids=label,
)


class Groups:
    """A minimal object for a scheduler."""

    def __init__(self, *lrs: Any) -> None:
        self.param_groups: list[dict[str, Any]] = [{"lr": lr} for lr in lrs]

    @property
    def lrs(self) -> list[Any]:
        return [group["lr"] for group in self.param_groups]


def build(optimizer: Any, name: str, arguments: dict[str, Any], **more: Any) -> Any:
    return getattr(lr_scheduler, name)(optimizer, **arguments, **more)


# Schedulers that set more than the rate, and compositions, have their own tests.
APART = {"CyclicLR", "OneCycleLR", "SequentialLR", "ChainedScheduler", "ReduceLROnPlateau"}
OURS_ALONE = {"WarmupStableDecayLR"}
PYTORCHS = [(name, arguments) for name, arguments in CASES if name not in OURS_ALONE]
each_of_pytorchs = pytest.mark.parametrize(
    ("name", "arguments"),
    PYTORCHS,
    ids=label,
)


def test_every_scheduler_is_in_the_grids() -> None:
    assert set(GRIDS) | APART | {"LRScheduler"} == set(lr_scheduler.__all__)


@each
def test_the_rate_is_the_closed_form_to_the_bit(name: str, arguments: dict[str, Any]) -> None:
    groups = Groups(*LRS)
    scheduler = build(groups, name, arguments)
    closed = [CLOSED[name](lr, **arguments) for lr in LRS]
    for t in range(int(arguments.get("T_max", 50)) + 1):
        assert groups.lrs == scheduler.get_last_lr() == [curve(t) for curve in closed]
        scheduler.step()
    assert [group["initial_lr"] for group in groups.param_groups] == list(LRS)


def test_restarts_at_fractions_against_pytorch() -> None:
    for arguments in ({"T_0": 5}, {"T_0": 3, "T_mult": 2, "eta_min": 0.01}):
        reference, theirs, ours = pytorch()
        their_scheduler = reference.CosineAnnealingWarmRestarts(theirs, **arguments)
        our_scheduler = lr_scheduler.CosineAnnealingWarmRestarts(ours, **arguments)
        for epoch in (0.0, 0.5, 1.25, 4.75, None, None, 2.5, 8.0, 9.5, 20.25, None):
            their_scheduler.step(epoch)
            our_scheduler.step(epoch)
            same(theirs, ours)
        for _ in range(100):
            their_scheduler.step()
            our_scheduler.step()
            same(theirs, ours)
    before = our_scheduler.state_dict()
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="epoch"):
            our_scheduler.step(bad)
    with pytest.raises(TypeError, match="epoch"):
        our_scheduler.step("next")  # type: ignore[arg-type]
    assert our_scheduler.state_dict() == before
    with pytest.raises(ValueError, match="T_0"):
        our_scheduler.T_0 = -3
    assert our_scheduler.state_dict() == before


@pytest.mark.parametrize(
    ("name", "arguments"),
    [c for c in CASES if c[0] not in ("CosineAnnealingLR", "MultiplicativeLR")],
)
def test_the_rate_does_not_drift_from_the_closed_form(name: str, arguments: dict[str, Any]) -> None:
    groups = Groups(*LRS)
    scheduler = build(groups, name, arguments)
    for _ in range(2000):
        scheduler.step()
    assert groups.lrs == [CLOSED[name](lr, **arguments)(2000) for lr in LRS]


def test_a_rate_set_after_the_curve_is_at_0_is_still_scaled_against_pytorch() -> None:
    reference, theirs, ours = pytorch()
    made = [
        library.ExponentialLR(o, 0.01) for library, o in ((reference, theirs), (lr_scheduler, ours))
    ]
    for t in range(220):
        if t == 200:
            for optimizer in (theirs, ours):
                optimizer.param_groups[0]["lr"] = 1.0
        for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
            # Below 1e-300 the last digits are lost, in PyTorch's product first.
            assert a["lr"] == pytest.approx(b["lr"], rel=1e-9, abs=1e-300)
        for scheduler in made:
            scheduler.step()


def test_a_replaced_function_takes_effect() -> None:
    groups = Groups(1.0)
    scheduler = lr_scheduler.LambdaLR(groups, halving)
    scheduler.lr_lambda = shrinking
    scheduler.step()
    assert groups.lrs == [shrinking(1)]


def test_the_rate_does_not_drift() -> None:
    groups = Groups(0.1)
    scheduler = lr_scheduler.CosineAnnealingLR(groups, T_max=100, eta_min=1e-3)
    for _ in range(20_050):
        scheduler.step()
    assert groups.lrs == [schedules.cosine(0.1, 100, 1e-3)(50)]


# Changes of the rates by something else than the scheduler, given the groups and the step.
def nothing(groups: list[dict[str, Any]], t: int) -> None:
    pass


def the_user_sets_one(groups: list[dict[str, Any]], t: int) -> None:
    if t in (4, 17):
        groups[1]["lr"] = 0.5 / t


def the_user_scales_all_at_every_step(groups: list[dict[str, Any]], t: int) -> None:
    for group in groups:
        group["lr"] *= 1.01


def the_user_sets_the_floor(groups: list[dict[str, Any]], t: int) -> None:
    if t == 8:
        groups[0]["lr"] = 0.01


@each_of_pytorchs
@pytest.mark.parametrize(
    "outside",
    [nothing, the_user_sets_one, the_user_scales_all_at_every_step, the_user_sets_the_floor],
)
def test_values_against_pytorch(name: str, arguments: dict[str, Any], outside: Any) -> None:
    reference, theirs, ours = pytorch()
    their_scheduler = getattr(reference, name)(theirs, **arguments)
    our_scheduler = build(ours, name, arguments)
    for t in range(60):
        same(theirs, ours)
        outside(theirs.param_groups, t)
        outside(ours.param_groups, t)
        their_scheduler.step()
        our_scheduler.step()
        assert our_scheduler.get_last_lr() == [group["lr"] for group in ours.param_groups]


@pytest.mark.parametrize("first", PYTORCHS[::3])
@pytest.mark.parametrize("second", PYTORCHS[1::3])
def test_two_chained_by_hand_against_pytorch(first: Any, second: Any) -> None:
    reference, theirs, ours = pytorch()
    pairs = [
        (getattr(reference, name)(theirs, **arguments), build(ours, name, arguments))
        for name, arguments in (first, second)
    ]
    for _ in range(40):
        same(theirs, ours)
        for scheduler in itertools.chain(*pairs):
            scheduler.step()


@each_of_pytorchs
@pytest.mark.parametrize("last_epoch", [0, 5, 8, 11, 24])
def test_resuming_by_last_epoch_against_pytorch(
    name: str, arguments: dict[str, Any], last_epoch: int
) -> None:
    reference, theirs, ours = pytorch()
    for group in theirs.param_groups + ours.param_groups:
        group["initial_lr"] = 2 * group["lr"]
    their_scheduler = getattr(reference, name)(theirs, **arguments, last_epoch=last_epoch)
    our_scheduler = build(ours, name, arguments, last_epoch=last_epoch)
    for _ in range(30):
        same(theirs, ours)
        their_scheduler.step()
        our_scheduler.step()


@each_of_pytorchs
def test_rates_in_tensors_against_pytorch(name: str, arguments: dict[str, Any]) -> None:
    reference, theirs, ours = pytorch(lrs=in_tensors("float32"))
    tensors = [group["lr"] for group in ours.param_groups]
    their_scheduler = getattr(reference, name)(theirs, **arguments)
    our_scheduler = build(ours, name, arguments)
    for _ in range(20):
        same(theirs, ours, rtol=1e-4)  # float32, and PyTorch's recursion.
        their_scheduler.step()
        our_scheduler.step()
    assert all(
        group["lr"] is tensor for group, tensor in zip(ours.param_groups, tensors, strict=True)
    )


def test_a_rate_in_a_tensor_does_not_drift() -> None:
    torch = pytest.importorskip("torch")
    groups = Groups(torch.tensor(0.1))
    scheduler = lr_scheduler.CosineAnnealingLR(groups, T_max=100)
    for _ in range(2_050):
        scheduler.step()
    start = float(torch.tensor(0.1))
    assert groups.lrs[0] == torch.tensor(schedules.cosine(start, 100)(50))


# The others fail in PyTorch.
@pytest.mark.parametrize(
    "name",
    ["ConstantLR", "ExponentialLR", "LinearLR", "MultiStepLR", "PolynomialLR", "StepLR"],
)
def test_a_group_added_later_against_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    reference, theirs, ours = pytorch()
    their_scheduler = getattr(reference, name)(theirs, **GRIDS[name][-1])
    our_scheduler = build(ours, name, GRIDS[name][-1])
    for t in range(30):
        if t == 7:
            theirs.add_param_group({"params": [torch.zeros(1)], "lr": 0.7})
            ours.add_param_group({"params": [torch.zeros(1)], "lr": 0.7})
        their_scheduler.step()
        our_scheduler.step()
        for a, b in zip(theirs.param_groups, ours.param_groups, strict=True):
            assert b["lr"] == pytest.approx(a["lr"], rel=1e-9)


@pytest.mark.parametrize("name", sorted(GRIDS.keys() - OURS_ALONE))
@pytest.mark.parametrize("tensors", [False, True])
def test_a_state_of_pytorch_loads(name: str, tensors: bool) -> None:
    arguments, other = GRIDS[name][0], GRIDS[name][-1]
    other = {**other, **{key: arguments[key] for key in arguments if key == "lr_lambda"}}
    reference, theirs, ours = pytorch(lrs=in_tensors() if tensors else LRS)
    their_scheduler = getattr(reference, name)(theirs, **arguments)
    for _ in range(4):
        their_scheduler.step()
    our_scheduler = build(ours, name, other)
    our_scheduler.load_state_dict(their_scheduler.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for _ in range(20):
        same(theirs, ours)
        their_scheduler.step()
        our_scheduler.step()


@each
@pytest.mark.parametrize("optimizer_first", [True, False])
@pytest.mark.parametrize("done", [0, 1, 9, 14])
def test_a_state_continues_to_the_bit(
    name: str, arguments: dict[str, Any], optimizer_first: bool, done: int
) -> None:
    def optimizer(lrs: tuple[float, ...]) -> fo.SGD:
        return fo.SGD([{"params": [np.zeros(2)], "lr": lr} for lr in lrs])

    groups = optimizer(LRS)
    scheduler = build(groups, name, arguments)
    for _ in range(done):
        scheduler.step()
    saved = json.loads(json.dumps(scheduler.state_dict()))
    saved_optimizer = copy.deepcopy(groups.state_dict())

    other = optimizer((7.0, 8.0))
    kept = {key: value for key, value in arguments.items() if key == "lr_lambda"}
    resumed = build(other, name, {**GRIDS[name][-1], **kept})
    for restore_optimizer in (optimizer_first, not optimizer_first):
        if restore_optimizer:
            other.load_state_dict(saved_optimizer)
        else:
            before = [dict(group) for group in other.param_groups]
            resumed.load_state_dict(saved)
            for group, old in zip(other.param_groups, before, strict=True):
                assert group["lr"] == old["lr"], "a load never writes a rate"
    assert resumed.state_dict() == scheduler.state_dict()
    for _ in range(30):
        scheduler.step()
        resumed.step()
        assert resumed.get_last_lr() == scheduler.get_last_lr()
        assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in groups.param_groups]


def test_repr() -> None:
    scheduler = lr_scheduler.StepLR(Groups(0.1), 3)
    assert repr(scheduler) == "StepLR(step_size=3, gamma=0.1, last_epoch=0)"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("StepLR", {"step_size": 0}),
        ("StepLR", {"step_size": 2.5}),
        ("StepLR", {"step_size": 3, "gamma": math.nan}),
        ("CosineAnnealingLR", {"T_max": 0}),
        ("CosineAnnealingLR", {"T_max": 3, "eta_min": -1.0}),
        ("CosineAnnealingLR", {"T_max": 3, "last_epoch": -2}),
        ("CosineAnnealingLR", {"T_max": 3, "last_epoch": 2**63}),
        ("ExponentialLR", {"gamma": 10**400}),
        ("CosineAnnealingWarmRestarts", {"T_0": 0}),
        ("CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 0}),
        ("LambdaLR", {"lr_lambda": [halving, halving]}),
        ("ConstantLR", {"factor": 0.0}),
        ("ConstantLR", {"total_iters": -1}),
        ("ExponentialLR", {"gamma": math.nan}),
        ("LinearLR", {"start_factor": 0.0}),
        ("LinearLR", {"start_factor": 1.5}),
        ("LinearLR", {"end_factor": 1.5}),
        ("LinearLR", {"total_iters": 0}),
        ("MultiStepLR", {"milestones": [5, 3]}),
        ("PolynomialLR", {"total_iters": 0}),
        ("PolynomialLR", {"power": math.inf}),
        ("WarmupStableDecayLR", {"stable_steps": 1, "decay_steps": 1, "warmup_steps": -1}),
    ],
)
def test_a_refused_argument_leaves_the_groups_alone(name: str, arguments: dict[str, Any]) -> None:
    groups = Groups(0.1)
    with pytest.raises(ValueError, match=list(arguments)[-1]):
        getattr(lr_scheduler, name)(groups, **arguments)
    assert groups.param_groups == [{"lr": 0.1}]


def test_invalid_optimizers_and_rates_are_refused() -> None:
    with pytest.raises(TypeError, match="param_groups"):
        lr_scheduler.StepLR(object(), 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"lr of param_groups\[1\]"):
        lr_scheduler.StepLR(Groups(0.1, schedules.cosine(0.1, 10)), 3)
    with pytest.raises(ValueError, match=r"lr of param_groups\[0\]"):
        lr_scheduler.StepLR(Groups(math.nan), 3)
    with pytest.raises(KeyError, match="initial_lr"):
        lr_scheduler.StepLR(Groups(0.1), 3, last_epoch=4)
    with pytest.raises(TypeError, match="last_epoch"):
        lr_scheduler.StepLR(Groups(0.1), 3, last_epoch=1.5)  # type: ignore[arg-type]


def test_milestones_may_be_any_sequence() -> None:
    for milestones in ((m for m in (2, 5)), range(2, 8, 3), np.array([2, 5]), (2, 5)):
        groups = Groups(*LRS)
        scheduler = lr_scheduler.MultiStepLR(groups, milestones, 0.5)
        for _ in range(5):
            scheduler.step()
        assert groups.lrs == [lr * 0.25 for lr in LRS]
        assert json.loads(json.dumps(scheduler.state_dict()))["milestones"] == [2, 5]


def test_a_change_inside_an_argument_takes_effect() -> None:
    groups = Groups(1.0)
    scheduler = lr_scheduler.MultiStepLR(groups, [2, 9], 0.5)
    scheduler.milestones[1] = 3
    for _ in range(3):
        scheduler.step()
    assert groups.lrs == [0.25]


def test_a_state_with_a_negative_rate_can_be_loaded() -> None:
    # Below eta_min, the increasing half of a cosine decreases a rate, in PyTorch, too.
    reference, theirs, ours = pytorch()
    made = [
        [library.PolynomialLR(optimizer, 6), library.CosineAnnealingLR(optimizer, 7.5, 0.001)]
        for library, optimizer in ((reference, theirs), (lr_scheduler, ours))
    ]
    for _ in range(30):
        for scheduler in itertools.chain(*made):
            scheduler.step()
        same(theirs, ours)
    assert ours.param_groups[0]["lr"] < 0
    for scheduler in made[1]:
        before = scheduler.state_dict()
        scheduler.load_state_dict(json.loads(json.dumps(before)))
        assert scheduler.state_dict() == before


def test_groups_may_share_a_tensor() -> None:
    torch = pytest.importorskip("torch")
    made = []
    for library in (torch.optim.lr_scheduler, lr_scheduler):
        groups = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)]}]
        optimizer = torch.optim.SGD(groups, lr=torch.tensor(0.1))
        made.append((optimizer, library.ExponentialLR(optimizer, 0.9)))
    for _ in range(20):
        same(made[0][0], made[1][0], rtol=1e-5)
        for _, scheduler in made:
            scheduler.step()


def test_a_failed_step_changes_nothing() -> None:
    groups = Groups(*LRS)
    scheduler = lr_scheduler.StepLR(groups, 1)
    vars(scheduler)["gamma"] = math.nan  # An attribute would be checked.
    before = copy.deepcopy(groups.param_groups), scheduler.last_epoch, scheduler.get_last_lr()
    with pytest.raises(ValueError, match="gamma"):
        scheduler.step()
    scheduler.gamma = 0.5
    groups.param_groups[1]["lr"] = "fast"
    before[0][1]["lr"] = "fast"
    with pytest.raises(TypeError, match=r"lr of param_groups\[1\] must be a number, got 'fast'"):
        scheduler.step()
    assert before == (groups.param_groups, scheduler.last_epoch, scheduler.get_last_lr())
    del groups.param_groups[1]
    with pytest.raises(ValueError, match="1 groups"):
        scheduler.step()
    assert scheduler.last_epoch == before[1]


@pytest.mark.parametrize(
    "change",
    [
        {"last_epoch": -2},
        {"last_epoch": 1.5},
        {"base_lrs": [0.1]},
        {"base_lrs": [0.1, math.nan]},
        {"base_lrs": "ab"},
        {"base_lrs": [0.1, -1.0]},
        {"_last_lr": [0.1, math.inf]},
        {"step_size": 0},
        {"gamma": "big"},
        {"gamma": math.nan},
        {"T_max": 3},
    ],
)
def test_a_bad_state_changes_nothing(change: dict[str, Any]) -> None:
    groups = Groups(*LRS)
    scheduler = lr_scheduler.StepLR(groups, 3)
    before = scheduler.state_dict()
    with pytest.raises(fo.CheckpointError):
        scheduler.load_state_dict({**lr_scheduler.StepLR(Groups(1, 2), 4).state_dict(), **change})
    assert scheduler.state_dict() == before
    incomplete = {key: value for key, value in before.items() if key != "gamma"}
    with pytest.raises(fo.CheckpointError, match="gamma"):
        scheduler.load_state_dict(incomplete)
