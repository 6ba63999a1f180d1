"""Every optimizer: the forms of its arguments, and the options of a step."""

from __future__ import annotations

import copy
import multiprocessing
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from cases import OPTIMIZERS


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_forms_of_params_and_grads_give_the_same_bits(cls: Any) -> None:
    rng = np.random.default_rng(1)
    start = {
        "w": rng.standard_normal((3, 4)).astype("f4"),
        "b": rng.standard_normal((1, 4)).astype("f4"),
    }
    g = {
        "w": rng.standard_normal((3, 4)).astype("f4"),
        "b": rng.standard_normal((1, 4)).astype("f4"),
    }
    buffer, grads = fo.FlatBuffer.from_arrays(start), fo.FlatBuffer.from_arrays(g)
    results = []
    for given in (grads, grads.flat, g):
        params = copy.deepcopy(buffer)
        opt = cls(params, lr=0.1)
        opt.step(given)
        opt.step(given)
        results.append(params.flat)
    expected = results[0]
    assert all(np.array_equal(result, expected) for result in results)
    arrays = [start["w"].copy(), start["b"].copy()]
    opt = cls(arrays, lr=0.1)
    opt.step(list(g.values()))
    opt.step(tuple(g.values()))
    assert np.array_equal(np.concatenate([a.ravel() for a in arrays]), expected)
    groups = [{"params": {"w": start["w"].copy()}}, {"params": {"b": start["b"].copy()}, "lr": 0.1}]
    opt = cls(groups, lr=0.1)
    opt.step(g)
    opt.step(g)
    parts = [a.ravel() for group in opt.param_groups for a in group["params"]]
    assert np.array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_a_parameter_without_gradient_does_not_change(cls: Any) -> None:
    a, b = np.ones((3, 1)), np.ones((3, 1))
    opt = cls([a, b], lr=0.1)
    opt.step([np.ones((3, 1)), None])
    assert np.array_equal(b, np.ones((3, 1)))
    assert [opt.state[name]["step"] for name in "01"] == [1, 0]


def test_clipping_in_the_step_is_clipping_before_it() -> None:
    rng = np.random.default_rng(2)
    g = rng.standard_normal(1000).astype("f4")
    a, b = np.ones(1000, "f4"), np.ones(1000, "f4")
    info = fo.AdamW(a).step(g, max_norm=1.0)
    clipped = g.copy()
    norm = fo.clip_grad_norm_(clipped, 1.0)
    fo.AdamW(b).step(clipped)
    assert info == fo.StepInfo(True, norm)
    assert np.array_equal(a, b)
    np.testing.assert_allclose(norm, np.linalg.norm(g.astype("f8")), rtol=1e-7)


def test_loss_scale_and_clip_value() -> None:
    g = np.array([8.0, -16.0, 1.0])
    w = np.zeros(3)
    info = fo.SGD(w, lr=1.0).step(g, loss_scale=4.0, clip_value=3.0, max_norm=float("inf"))
    assert np.array_equal(w, [-2.0, 3.0, -0.25])
    assert info.grad_norm == pytest.approx(np.sqrt(4 + 9 + 0.0625))


def test_a_hyperparameter_may_be_a_function_of_the_step() -> None:
    w = np.zeros(1)
    opt = fo.SGD(w, lr=lambda t: 1.0 + t)
    opt.step(np.ones(1))
    opt.step(np.ones(1))
    assert w[0] == -3.0


def test_momentum_switched_on_starts_as_on_a_first_step() -> None:
    w = np.zeros(1)
    opt = fo.SGD(w, lr=1.0, dampening=0.5)
    opt.step(np.ones(1))
    opt.param_groups[0]["momentum"] = 0.9
    opt.step(np.ones(1))
    assert w[0] == -2.0


def test_amsgrad_cannot_be_switched_on_later() -> None:
    opt = fo.Adam(np.zeros(1))
    opt.step(np.ones(1))
    opt.param_groups[0]["amsgrad"] = True
    with pytest.raises(ValueError, match="max_exp_avg_sq"):
        opt.step(np.ones(1))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_scalars_and_empty_arrays_work(cls: Any, shape: tuple[int, ...]) -> None:
    w = np.ones(shape)
    if cls is fo.Muon and len(shape) != 2:
        with pytest.raises(ValueError, match="Muon takes matrices"):
            cls(w)
        return
    assert cls(w, lr=0.1).step(np.ones(shape), max_norm=1.0).applied


@pytest.mark.parametrize("n", [1, 2, 3, 64])
def test_threads_change_no_bit(n: int) -> None:
    rng = np.random.default_rng(3)
    w, g = rng.standard_normal((2, 300_001)).astype("f4")
    alone = w.copy()
    with fo.num_threads(1):
        fo.AdamW(alone).step(g, max_norm=1.0)
    with fo.num_threads(n):
        fo.AdamW(w).step(g, max_norm=1.0)
    assert np.array_equal(w, alone)


def _child_step(queue: Any) -> None:
    w = np.ones(400_000, "f4")
    with fo.num_threads(2):
        fo.AdamW(w).step(np.ones(400_000, "f4"))
    queue.put(float(w.sum(dtype="f8")))


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the system has no fork"
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork.* was called:RuntimeWarning")  # JAX, if imported
def test_a_forked_child_steps_in_parallel() -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    w = np.ones(400_000, "f4")
    with fo.num_threads(2):
        fo.AdamW(w).step(np.ones(400_000, "f4"))
    child = context.Process(target=_child_step, args=(queue,))
    child.start()
    result = queue.get(timeout=30)
    child.join(30)
    assert child.exitcode == 0
    assert result == float(w.sum(dtype="f8"))
