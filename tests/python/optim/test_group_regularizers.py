"""Regularizers of groups, and of the step."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from snapshot import snapshot

R: Any = fo.regularizers
DEFAULT = R.L1(0.25)
OWN: dict[str, Any] = {"none": None, "l2": R.L2(0.5), "both": R.ElasticNet(0.125, 0.5)}


def arrays(dtype: str = "f8") -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"silent": (5000,), "none": (3,), "l2": (7, 5), "both": ()}
    return {name: np.asarray(rng.standard_normal(s), dtype) for name, s in shapes.items()}


def grouped(params: dict[str, Any], order: Any = None, **options: Any) -> Any:
    """Return groups of one array each, one of them without a regularizer."""
    groups = [
        {"params": {name: params[name]}, **({"regularizer": OWN[name]} if name in OWN else {})}
        for name in order or params
    ]
    return fo.SGD(groups, **{"lr": 1.0, **options})


def gradient(name: str, p: Any) -> Any:
    """Return the gradient of the penalty on an array."""
    regularizer = OWN.get(name, DEFAULT)
    if regularizer is None:
        return np.zeros_like(p)
    return regularizer.l1 * np.sign(p) + 2 * regularizer.l2 * p


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("order", [["silent", "none", "l2", "both"], ["none", "both", "silent"]])
@pytest.mark.parametrize("maximize", [False, True])
def test_each_group_uses_its_own_regularizer(dtype: str, order: list[str], maximize: bool) -> None:
    params, sign = arrays(dtype), -1.0 if maximize else 1.0
    params = {name: params[name] for name in order}
    grads = {name: np.full_like(p, 12.0) for name, p in params.items()}
    prepared = {name: sign * 3.0 + gradient(name, p) for name, p in params.items()}
    norm = float(np.sqrt(sum(np.sum(np.square(g, dtype="f8")) for g in prepared.values())))
    expected = {name: p - prepared[name] * 2.0 / norm for name, p in params.items()}
    opt = grouped(params, order, maximize=maximize)
    info = opt.step(grads, regularizer=DEFAULT, loss_scale=4.0, max_norm=2.0)
    assert info.grad_norm == pytest.approx(norm, rel=1e-7 if dtype == "f4" else 1e-12)
    for name, p in params.items():
        np.testing.assert_allclose(p, expected[name], rtol=1e-5 if dtype == "f4" else 2e-6)


def test_groups_without_a_regularizer_have_no_penalty() -> None:
    params = arrays()
    expected = {name: p - gradient(name, p) for name, p in params.items()}
    expected["silent"] = params["silent"].copy()
    grouped(params).step({name: np.zeros_like(p) for name, p in params.items()})
    for name, p in params.items():
        np.testing.assert_allclose(p, expected[name], rtol=1e-15)


def test_the_regularizer_may_change_between_steps() -> None:
    w = np.ones(2)
    opt = fo.SGD([{"params": [w], "regularizer": R.L2(0.25)}], lr=1.0)
    group, zeros = opt.param_groups[0], np.zeros(2)
    opt.step(zeros)
    assert w.tolist() == [0.5, 0.5]
    group["regularizer"] = R.L1(0.25)
    opt.step(zeros)
    assert w.tolist() == [0.25, 0.25]
    group["regularizer"] = None
    opt.step(zeros, regularizer=R.L1(5.0))
    assert w.tolist() == [0.25, 0.25]
    del group["regularizer"]
    opt.step(zeros, regularizer=R.L1(0.125))
    assert w.tolist() == [0.125, 0.125]
    assert opt.current("lr") == 1.0
    with pytest.raises(ValueError, match="name must be one of"):
        opt.current("regularizer")


@pytest.mark.parametrize("wrong", ["L2", 0.1, fo.regularizers.L2, {"l1": 0.1}, lambda step: None])
def test_other_objects_than_regularizers_are_refused(wrong: Any) -> None:
    w = np.ones(2)
    match = r"regularizer must be one of fastoptim\.regularizers or None"
    with pytest.raises(TypeError, match=match):
        fo.SGD([{"params": [w], "regularizer": wrong}])
    opt = fo.SGD([{"params": [w]}])
    before = snapshot(opt)
    with pytest.raises(TypeError, match=match):
        opt.add_param_group({"params": {"b": np.ones(3)}, "regularizer": wrong})
    with pytest.raises(TypeError, match=match):
        opt.step(np.ones(2), regularizer=wrong)
    assert snapshot(opt) == before
    opt.param_groups[0]["regularizer"] = wrong
    with pytest.raises(TypeError, match=match):
        opt.step(np.ones(2))
    assert w.tolist() == [1.0, 1.0]


@dataclass(frozen=True)
class Mine(fo.regularizers.Regularizer):
    """A regularizer of a user."""

    scale: float = 0.5

    def __post_init__(self) -> None:
        self._set(l1=self.scale, l2=0.0)


def test_regularizers_of_a_users_class() -> None:
    def make(regularizer: Any) -> Any:
        return fo.SGD([{"params": [np.ones(2)], "regularizer": regularizer}], lr=1.0)

    opt = make(Mine())
    opt.step([np.zeros(2)])
    assert opt.param_groups[0]["params"][0].tolist() == [0.5, 0.5]
    saved = opt.state_dict()
    other = make(Mine())
    other.load_state_dict(saved)
    assert other.param_groups[0]["regularizer"] == Mine()
    for regularizer in None, R.L1(0.5), Mine(1.0):
        with pytest.raises(fo.CheckpointError, match="Mine"):
            make(regularizer).load_state_dict(saved)
    with pytest.raises(ValueError, match=r"regularizer must be finite and >= 0, got -1"):
        make(Mine(-1.0))


def saved_in_a_file(opt: Any, folder: Path) -> Any:
    fo.save(folder / "opt", opt=opt)
    other = grouped(arrays(), momentum=0.5)
    for group in other.param_groups:
        group["regularizer"] = R.L2(3.0)
    fo.load(folder / "opt", opt=other)
    return other


def loaded(opt: Any, folder: Path) -> Any:
    del folder
    other = grouped(arrays(), momentum=0.5)
    for group in other.param_groups:
        group["regularizer"] = R.ElasticNet(3.0, 4.0)
    other.load_state_dict(json.loads(json.dumps(opt.state_dict(), default=np.ndarray.tolist)))
    return other


COPIES: dict[str, Callable[[Any, Path], Any]] = {
    "pickle": lambda opt, folder: pickle.loads(pickle.dumps(opt)),
    "deepcopy": lambda opt, folder: copy.deepcopy(opt),
    "file": saved_in_a_file,
    "state_dict": loaded,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_and_saved_states_have_the_regularizer(way: str, tmp_path: Path) -> None:
    params = arrays()
    opt = grouped(params, momentum=0.5)
    opt.param_groups[1]["regularizer"] = R.ElasticNet(0.1, 0.2, proximal=True)
    if way != "state_dict":  # JSON does not store arrays, and there are none before a step.
        opt.step({name: np.ones_like(p) for name, p in params.items()})
    other = COPIES[way](opt, tmp_path)
    own = [group.get("regularizer", "silent") for group in opt.param_groups]
    found = [group.get("regularizer", "silent") for group in other.param_groups]
    # A state without an entry for it does not change it.
    silent = {"file": R.L2(3.0), "state_dict": R.ElasticNet(3.0, 4.0)}.get(way, "silent")
    assert found == [silent, *own[1:]]
    if silent != "silent":
        del other.param_groups[0]["regularizer"]
    for mine, theirs in zip(opt.param_groups, other.param_groups, strict=True):
        theirs["params"][0][...] = mine["params"][0]
    for each in opt, other:
        grads = [np.full_like(g["params"][0], 0.5) for g in each.param_groups]
        each.step(grads, regularizer=DEFAULT)
    assert snapshot(other.param_groups) == snapshot(opt.param_groups)


def test_loading_an_equal_regularizer_keeps_the_object() -> None:
    opt = grouped(arrays())
    own = opt.param_groups[2]["regularizer"]
    opt.load_state_dict(opt.state_dict())
    assert opt.param_groups[2]["regularizer"] is own


@pytest.mark.parametrize(
    "wrong",
    ["L2", {}, {"class": "L3"}, {"class": "L1"}, {"class": "L2", "l2": -1.0}, {"class": ["L2"]}],
)
def test_invalid_saved_regularizers_are_refused(wrong: Any) -> None:
    opt = grouped(arrays())
    state, before = opt.state_dict(), snapshot(opt)
    state["param_groups"][2]["regularizer"] = wrong
    with pytest.raises(fo.CheckpointError, match="regularizer"):
        opt.load_state_dict(state)
    assert snapshot(opt) == before


def test_pytorch_loads_a_state_with_a_regularizer() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    w = np.ones(3)
    opt = fo.Adam([{"params": [w], "regularizer": R.L2(0.5)}])
    opt.step(np.ones(3))
    tensor = torch.ones(3, dtype=torch.float64)
    other = torch.optim.Adam([tensor])
    other.load_state_dict(opt.state_dict(tensors=True))
    back = fo.Adam([{"params": [w.copy()], "regularizer": R.L1(3.0)}])
    back.load_state_dict(other.state_dict())
    assert back.param_groups[0]["regularizer"] == R.L2(0.5)


def test_sam_applies_the_regularizer_in_its_second_step() -> None:
    found = []
    for regularizer in R.L2(0.25), None:
        w = np.array([2.0, -1.0])
        sam = fo.SAM(fo.SGD([{"params": [w], "regularizer": R.L2(0.25)}], lr=1.0))
        if regularizer is None:
            sam.param_groups[0].pop("regularizer")
        sam.first_step(np.ones(2))
        sam.second_step(np.zeros(2), regularizer=R.L2(0.125))
        found.append(w.tolist())
    # From the parameters before the first step.
    assert found == [[1.0, -0.5], [1.5, -0.75]]
