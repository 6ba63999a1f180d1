"""Sequences and chains of schedulers, compared with PyTorch's."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from fastoptim import lr_scheduler
from rates import LRS, in_tensors, mine, pytorch, same, written

# PyTorch's schedulers warn if their optimizer does not step, which these tests do not need.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step:UserWarning")


def rising(cycle: float) -> float:
    return 1 / (1 + cycle)


# The parts of sequences and chains, by their names in both libraries.
PARTS: list[list[tuple[str, tuple[Any, ...]]]] = [
    [("ConstantLR", (0.1, 5)), ("ExponentialLR", (0.9,))],
    [("LinearLR", (0.1, 1.0, 7)), ("CosineAnnealingLR", (30,))],
    [("LinearLR", (0.1, 1.0, 7)), ("StepLR", (4, 0.5)), ("PolynomialLR", (10, 2.0))],
    [("ExponentialLR", (0.9,)), ("LambdaLR", (rising,)), ("MultiplicativeLR", (rising,))],
    [("MultiStepLR", ([3, 6], 0.5)), ("CosineAnnealingWarmRestarts", (6,))],
]
# One of each class: every pair is tested as a sequence and as a chain.
ONES: list[tuple[str, tuple[Any, ...]]] = [
    ("ConstantLR", (0.1, 3)),
    ("LinearLR", (0.1, 1.0, 4)),
    ("ExponentialLR", (0.9,)),
    ("StepLR", (2, 0.5)),
    ("MultiStepLR", ([1, 4], 0.5)),
    ("PolynomialLR", (6, 2.0)),
    ("CosineAnnealingLR", (6, 0.01)),
    ("CosineAnnealingWarmRestarts", (4, 2)),
    ("LambdaLR", (rising,)),
    ("MultiplicativeLR", (rising,)),
    ("CyclicLR", (0.01, 0.2, 3)),
    ("OneCycleLR", (0.3, 30)),
]
# PyTorch's schedulers store their momenta in the groups, so the second overwrites the first.
PAIRS = [
    list(pair)
    for pair in itertools.product(ONES, ONES)
    if (pair[0][0], pair[1][0]) != ("OneCycleLR", "CyclicLR")
]


def parts(library: Any, optimizer: Any, names: Any) -> list[Any]:
    return [getattr(library, name)(optimizer, *arguments) for name, arguments in names]


@pytest.mark.parametrize("names", PARTS + PAIRS)
def test_sequences_against_pytorch(names: Any) -> None:
    reference, theirs, ours = pytorch()
    milestones = [7, 15][: len(names) - 1]
    their = reference.SequentialLR(theirs, parts(reference, theirs, names), milestones)
    our = lr_scheduler.SequentialLR(ours, parts(lr_scheduler, ours, names), milestones)
    for _ in range(30):
        same(theirs, ours)
        assert our.get_last_lr() == [group["lr"] for group in ours.param_groups]
        their.step()
        our.step()


@pytest.mark.parametrize("names", PARTS + PAIRS)
def test_chains_against_pytorch(names: Any) -> None:
    reference, theirs, ours = pytorch()
    their = reference.ChainedScheduler(parts(reference, theirs, names), optimizer=theirs)
    our = lr_scheduler.ChainedScheduler(parts(lr_scheduler, ours, names), optimizer=ours)
    for _ in range(25):
        same(theirs, ours)
        their.step()
        our.step()
        np.testing.assert_allclose(our.get_last_lr(), their.get_last_lr(), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("names", PARTS)
@pytest.mark.parametrize("done", [0, 6, 9])
def test_sequences_and_chains_continue_to_the_bit(names: Any, done: int) -> None:
    for chained in (False, True):
        made = []
        for optimizer in (mine(), mine()):
            schedulers = parts(lr_scheduler, optimizer, names)
            milestones = [7, 15][: len(names) - 1]
            made.append(
                (
                    optimizer,
                    lr_scheduler.ChainedScheduler(schedulers)
                    if chained
                    else lr_scheduler.SequentialLR(optimizer, schedulers, milestones),
                )
            )
        (first, scheduler), (second, resumed) = made
        for _ in range(done):
            scheduler.step()
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        resumed.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
        for _ in range(12):
            scheduler.step()
            resumed.step()
            assert resumed.get_last_lr() == scheduler.get_last_lr()


@pytest.mark.parametrize("milestones", [[0], [1]])
def test_a_sequence_skips_a_warm_up_of_length_zero(milestones: list[int]) -> None:
    reference, theirs, ours = pytorch()
    names = [("LinearLR", (0.1, 1.0, 4)), ("ExponentialLR", (0.9,))]
    their = reference.SequentialLR(theirs, parts(reference, theirs, names), milestones)
    our = lr_scheduler.SequentialLR(ours, parts(lr_scheduler, ours, names), milestones)
    for _ in range(10):
        same(theirs, ours)
        their.step()
        our.step()


def test_a_chain_may_be_a_part_of_a_sequence() -> None:
    reference, theirs, ours = pytorch()
    made = []
    for library, optimizer in ((reference, theirs), (lr_scheduler, ours)):
        ramp = library.LinearLR(optimizer, 0.1, total_iters=5)
        low = library.ConstantLR(optimizer, 0.1, total_iters=5)
        chain = library.ChainedScheduler([ramp, low])
        after = library.ConstantLR(optimizer, 0.5, total_iters=5)
        made.append(library.SequentialLR(optimizer, [chain, after], [5]))
    for _ in range(15):
        same(theirs, ours)
        for scheduler in made:
            scheduler.step()


def test_nested_compositions_behave_as_alone() -> None:
    # PyTorch's cannot restart at a milestone.
    def chain(opt: Any) -> Any:
        decays = [lr_scheduler.ExponentialLR(opt, 0.9), lr_scheduler.StepLR(opt, 3, 0.5)]
        return lr_scheduler.ChainedScheduler(decays)

    def sequence(opt: Any) -> Any:
        return lr_scheduler.SequentialLR(
            opt, [lr_scheduler.LinearLR(opt, 0.5, 1.0, 4), chain(opt)], [4]
        )

    alone, opt = mine(), mine()
    expected = sequence(alone)
    outer = lr_scheduler.SequentialLR(
        opt, [lr_scheduler.ConstantLR(opt, 0.1, 9), sequence(opt)], [3]
    )
    state = json.loads(json.dumps(outer.state_dict()))
    for _ in range(3):
        assert outer.get_last_lr() == [lr * 0.1 for lr in LRS]
        outer.step()
    for _ in range(12):
        assert outer.get_last_lr() == expected.get_last_lr()
        outer.step()
        expected.step()
    outer.load_state_dict(state)
    assert outer.state_dict() == state


def test_a_sequence_resumes_by_last_epoch() -> None:
    def sequence(opt: Any, last_epoch: int) -> Any:
        schedulers = [
            lr_scheduler.StepLR(opt, 3, 0.5, last_epoch=last_epoch),
            lr_scheduler.ExponentialLR(opt, 0.9),
        ]
        return lr_scheduler.SequentialLR(opt, schedulers, [9], last_epoch=last_epoch)

    first, second = mine(), mine()
    scheduler = sequence(first, -1)
    for _ in range(4):
        scheduler.step()
    second.load_state_dict(first.state_dict())
    resumed = sequence(second, 3)
    for _ in range(12):
        assert resumed.get_last_lr() == scheduler.get_last_lr()
        scheduler.step()
        resumed.step()


@pytest.mark.parametrize("chained", [False, True])
def test_a_state_of_pytorch_loads(chained: bool) -> None:
    reference, theirs, ours = pytorch()
    made = []
    for library, optimizer in ((reference, theirs), (lr_scheduler, ours)):
        found = parts(library, optimizer, PARTS[1])
        made.append(
            library.ChainedScheduler(found)
            if chained
            else library.SequentialLR(optimizer, found, [7])
        )
    their, our = made
    for _ in range(4):
        their.step()
    our.load_state_dict(their.state_dict())
    ours.load_state_dict(theirs.state_dict())
    for _ in range(20):
        same(theirs, ours)
        their.step()
        our.step()


@pytest.mark.parametrize("chained", [False, True])
def test_a_bad_state_changes_nothing(chained: bool) -> None:
    opt = mine()
    found = parts(lr_scheduler, opt, PARTS[0])
    scheduler: Any = (
        lr_scheduler.ChainedScheduler(found)
        if chained
        else lr_scheduler.SequentialLR(opt, found, [7])
    )
    for _ in range(3):
        scheduler.step()
    before = copy.deepcopy(scheduler.state_dict())
    states = before["_schedulers"]
    changes: list[Any] = [
        {"_last_lr": [0.1]},
        {"_last_lr": "ab"},
        {"_schedulers": 3},
        {"_schedulers": states[:1]},
        # The first part is valid.
        {"_schedulers": [{**states[0], "last_epoch": 9}, {**states[1], "gamma": -1.0}]},
        {"more": 1},
    ]
    if not chained:
        changes += [{"last_epoch": -1}, {"milestones": [7, 8]}, {"milestones": 7}]
    for state in (None, 3, {}, *({**before, **change} for change in changes)):
        with pytest.raises(fo.CheckpointError):
            scheduler.load_state_dict(state)
        assert scheduler.state_dict() == before


def test_a_chain_moves_all_or_none() -> None:
    for tensors in (False, True):
        opt = pytorch(lrs=in_tensors())[1] if tensors else mine()
        inner = lr_scheduler.SequentialLR(opt, [lr_scheduler.StepLR(opt, 2)], [])
        once = lr_scheduler.OneCycleLR(opt, 0.3, 3)
        chain = lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(opt, 0.9), inner, once])
        for _ in range(3):
            chain.step()
        before = copy.deepcopy((written(opt), chain.state_dict()))
        for _ in range(2):
            with pytest.raises(ValueError, match="total_steps"):
                chain.step()
            assert (written(opt), chain.state_dict()) == before


def test_a_part_that_cannot_begin_leaves_a_sequence_where_it_is() -> None:
    opt = mine()
    second = lr_scheduler.ExponentialLR(opt, 0.9)
    sequence = lr_scheduler.SequentialLR(opt, [lr_scheduler.StepLR(opt, 1), second], [2])
    sequence.step()
    before = copy.deepcopy((written(opt), sequence.state_dict()))
    vars(second)["gamma"] = -1.0  # An attribute would be checked.
    with pytest.raises(ValueError, match="gamma"):
        sequence.step()
    second.gamma = 0.9
    assert (written(opt), sequence.state_dict()) == before
    sequence.step()
    assert sequence.get_last_lr() == list(LRS)


def test_parts_and_milestones_may_come_from_iterators() -> None:
    expected, opt = mine(), mine()
    lists = lr_scheduler.SequentialLR(expected, parts(lr_scheduler, expected, PARTS[0]), [7])
    iterators = lr_scheduler.SequentialLR(
        opt, iter(parts(lr_scheduler, opt, PARTS[0])), (m for m in (7,))
    )
    for _ in range(10):
        assert lists.get_last_lr() == iterators.get_last_lr()
        lists.step()
        iterators.step()


def test_invalid_compositions_are_refused() -> None:
    opt = mine()
    first, second = lr_scheduler.ExponentialLR(opt, 0.9), lr_scheduler.StepLR(opt, 3)
    other = lr_scheduler.StepLR(mine(), 3)
    for schedulers, milestones in (([], []), ([first, other], [3]), ([first, second], [])):
        with pytest.raises(ValueError, match=r"schedulers|milestones"):
            lr_scheduler.SequentialLR(opt, schedulers, milestones)
    with pytest.raises(ValueError, match="milestones"):
        lr_scheduler.SequentialLR(opt, [first, second, first], [5, 3])
    parts: list[Any] = [object(), lr_scheduler.ReduceLROnPlateau(opt)]
    for part in parts:
        with pytest.raises(TypeError, match="schedulers"):
            lr_scheduler.ChainedScheduler([part], optimizer=opt)
    for value in (None, 5, "x"):
        with pytest.raises(TypeError, match="schedulers"):
            lr_scheduler.SequentialLR(opt, value, [])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="milestones"):
            lr_scheduler.SequentialLR(opt, [first, second], value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="schedulers"):
        lr_scheduler.ChainedScheduler([])
