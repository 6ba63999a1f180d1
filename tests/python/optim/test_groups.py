"""Groups: read in linear time, and refused if they were moved."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastoptim as fo


def grouped(count: int = 3, **options: Any) -> Any:
    return fo.SGD([{"params": [np.zeros(2)], "lr": 1.0} for _ in range(count)], **options)


CHANGES: dict[str, Callable[[list[Any]], object]] = {
    "removed": lambda groups: groups.pop(),
    "all removed": lambda groups: groups.clear(),
    "added": lambda groups: groups.append(dict(groups[0])),
    "reordered": lambda groups: groups.reverse(),
    "other params": lambda groups: groups[1].update(params=(np.zeros(2),)),
    "equal params": lambda groups: groups[1].update(params=(*groups[1]["params"],)),
    "no params": lambda groups: groups[1].pop("params"),
}
GRADS = [np.ones(2)] * 3
READERS: dict[str, Callable[[Any, Any], object]] = {
    "step": lambda opt, saved: opt.step(GRADS),
    "state_dict": lambda opt, saved: opt.state_dict(),
    "load_state_dict": lambda opt, saved: opt.load_state_dict(saved),
    "add_param_group": lambda opt, saved: opt.add_param_group({"params": {"new": np.zeros(2)}}),
    "deepcopy": lambda opt, saved: copy.deepcopy(opt),
    "pickle": lambda opt, saved: pickle.dumps(opt),
    "_in_order": lambda opt, saved: opt._in_order(GRADS),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("change", CHANGES)
def test_groups_that_were_moved_are_refused(change: str, reader: str) -> None:
    opt = grouped(momentum=0.5)
    opt.step(GRADS)
    saved, before = opt.state_dict(), [dict(group) for group in opt.param_groups]
    groups, own = opt.param_groups, list(opt.param_groups)
    values = [group["params"][0].copy() for group in before]
    CHANGES[change](groups)
    with pytest.raises(ValueError, match=r"param_groups|parameter group lacks params"):
        READERS[reader](opt, saved)
    for group, value in zip(before, values, strict=True):
        np.testing.assert_array_equal(group["params"][0], value)
    # In the original order they are valid again.
    for group, items in zip(own, before, strict=True):
        group.update(items)
    groups[:] = own
    READERS[reader](opt, saved)
    assert opt._names[:3] == ["0", "1", "2"]


def test_a_group_that_a_hyperparameter_moves_is_refused() -> None:
    opt = grouped()

    def lr(steps: int) -> float:
        opt.param_groups.pop()
        return 1.0

    opt.param_groups[0]["lr"] = lr
    for _ in range(2):
        with pytest.raises(ValueError, match=r"param_groups.*3"):
            opt.step(GRADS)
    assert not any(group["params"][0].any() for group in opt.param_groups)


def seconds(count: int) -> float:
    """Return the shortest time of one step with this number of groups."""
    opt, grads = grouped(count), [np.ones(2)] * count
    times = []
    for _ in range(15):
        start = time.perf_counter()
        opt.step(grads)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.alone
def test_a_step_takes_time_in_proportion_to_its_groups() -> None:
    # Four times as long; it would be sixteen times if each group were compared with all others.
    assert seconds(1000) < 9 * seconds(250)


def test_a_name_twice_in_one_group_is_refused() -> None:
    group = {"params": [np.ones(2), np.ones(3)], "param_names": ["a", "a"]}
    with pytest.raises(ValueError, match=r"param_names must be different names, got \['a'\]"):
        fo.SGD([group])


REWRITES: dict[str, Callable[[dict[str, Any], float], object]] = {
    "set": lambda group, lr: group.update(lr=lr),
    "inserted again": lambda group, lr: (group.pop("lr"), group.update(lr=lr)),
    "under an equal key": lambda group, lr: (
        group.pop("lr"),
        group.update({"".join(["l", "r"]): lr}),
    ),
    "after another key": lambda group, lr: group.update(mine=lr, lr=lr),
}


@pytest.mark.parametrize("rewrite", REWRITES)
def test_a_changed_rate_is_used_in_the_next_step_and_kept(rewrite: str) -> None:
    p = np.zeros(1)
    opt = fo.SGD([p], lr=1.0)
    moved = 0.0
    for lr in (0.5, 0.25, 0.125):
        REWRITES[rewrite](opt.param_groups[0], lr)
        for _ in range(3):
            opt.step([np.ones(1)])
            moved += lr
            assert p[0] == -moved
