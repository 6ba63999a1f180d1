"""Averages of parameters: the formula, every form, swaps, saves, and invalid input."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastoptim as fo
from snapshot import snapshot

SHAPES = [(7, 5), (), (0, 3), (4097,), (70_001,)]


def numbers(seed: int, dtype: Any = "f8") -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {f"p{i}": np.asarray(rng.standard_normal(s), dtype) for i, s in enumerate(SHAPES)}


def decay_of(decay: float, warmup: bool, t: int) -> float:
    return min(decay, (1 + t) / (10 + t)) if warmup else decay


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9999])
def test_the_formula(decay: float, warmup: bool, dtype: str) -> None:
    start = numbers(0, dtype)
    ema = fo.EMA(start, decay, warmup)
    exact = {name: w.astype("f8") for name, w in start.items()}
    kernel = copy.deepcopy(start)
    for t in range(30):
        params = numbers(t + 1, dtype)
        ema.update(params)
        d = decay_of(decay, warmup, t)
        for name, w in params.items():
            exact[name] = d * exact[name] + (1 - d) * w.astype("f8")
            s, weight = kernel[name], kernel[name].dtype.type(1 - d)
            kernel[name] = s + weight * (w - s) if weight != 1 else w.copy()
    assert ema.updates == 30
    for name, s in ema.shadow.items():
        np.testing.assert_allclose(s, exact[name], rtol=0, atol=2e-6 if dtype == "f4" else 2e-14)
        # The same operations in the same order, as the sweep of a step makes them.
        assert s.tobytes() == kernel[name].tobytes()


def test_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model = torch.nn.Linear(5, 3)
    theirs = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    # The first update of torch copies.
    theirs.update_parameters(model)
    params = [p.detach().numpy() for p in model.parameters()]
    mine = fo.EMA(params, decay=0.9)
    for _ in range(20):
        with torch.no_grad():
            for p in model.parameters():
                p += torch.randn_like(p)
        theirs.update_parameters(model)
        mine.update(params)
    for s, p in zip(mine.shadow.values(), theirs.module.parameters(), strict=True):
        np.testing.assert_allclose(s, p.detach().numpy(), rtol=1e-5, atol=1e-6)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10**6))
def test_warm_up_only_lowers_the_decay(decay: float, t: int) -> None:
    ema = fo.EMA(np.zeros(1), decay, warmup=True)
    ema.updates = t
    ema.update(np.ones(1))
    assert ema.shadow["0"][0] == 1.0 - min(decay, (1 + t) / (10 + t))


def test_the_average_of_a_noisy_line_fits_better_than_its_last_step() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1000, 5))
    true = np.arange(1.0, 6.0)
    y = x @ true + rng.standard_normal(1000)
    w = np.zeros(5)
    opt, ema = fo.SGD(w, lr=0.1), fo.EMA(w, decay=0.99, warmup=True)
    for i in rng.integers(0, 1000, 2000):
        opt.step((x[i] @ w - y[i]) * x[i])
        ema.update(w)
    assert np.linalg.norm(ema.shadow["0"] - true) < 0.5 * np.linalg.norm(w - true)


FORMS: dict[str, Any] = {
    "buffer": lambda x: fo.FlatBuffer.from_arrays(x),
    "mapping": lambda x: x,
    "list": lambda x: list(x.values()),
    "tuple": lambda x: tuple(x.values()),
    "generator": lambda x: (array for array in x.values()),
    "group": lambda x: [{"params": x}],
    "groups": lambda x: [{"params": {name: array}, "lr": 0.1} for name, array in x.items()],
    "groups of arrays": lambda x: [{"params": array} for array in x.values()],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_bits(form: str) -> None:
    expected = fo.EMA(numbers(0), 0.9)
    ema = fo.EMA(FORMS[form](numbers(0)), 0.9)
    for t in range(1, 4):
        expected.update(numbers(t))
        ema.update(FORMS[form](numbers(t)))
        # By order, regardless of the names.
        ema.update(list(numbers(t).values()))
        expected.update(numbers(t))
    if form == "buffer":
        ema.update(FORMS[form](numbers(4)).flat)
        expected.update(numbers(4))
    assert ema.shadow.flat.tobytes() == expected.shadow.flat.tobytes()
    named = form in ("buffer", "mapping", "group", "groups")
    assert list(ema.shadow) == (list(numbers(0)) if named else [*"01234"])


def test_arrays_are_matched_by_name_not_by_order() -> None:
    a, b = np.zeros(2), np.ones(2)
    ema = fo.EMA({"a": a, "b": b}, decay=0.0)
    ema.update({"b": b, "a": a})
    ema.update([{"params": {"b": b}}, {"params": {"a": a}}])
    assert [s.tolist() for s in ema.shadow.values()] == [[0.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("shape", [(12,), (3, 4), ()])
def test_a_single_array(shape: tuple[int, ...]) -> None:
    w = np.ones(shape)
    ema = fo.EMA(w, decay=0.5)
    w[...] = 3.0
    ema.update(w)
    assert (ema.shadow["0"] == 2.0).all()
    assert ema.shadow["0"].shape == shape


def test_the_shadow_does_not_share_memory() -> None:
    params = fo.FlatBuffer.from_arrays(numbers(0))
    ema = fo.EMA(params)
    before = snapshot(ema.shadow)
    params.flat[...] = 7.0
    assert snapshot(ema.shadow) == before
    assert ema.shadow.dtype == params.dtype


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("form", FORMS)
def test_two_swaps_bring_everything_back_to_the_bit(form: str, dtype: str) -> None:
    params, averages = numbers(0, dtype), numbers(1, dtype)
    params["p0"][0] = [math.nan, math.inf, -0.0, 1e-42, -math.inf]
    ema = fo.EMA(averages)
    ema.update(averages)
    before = snapshot([params, ema.shadow])
    kept = fo.FlatBuffer.from_arrays(params) if form == "buffer" else params
    as_given = (lambda x: x) if form == "buffer" else FORMS[form]
    ema = fo.EMA(as_given(averages))
    ema.swap(as_given(kept))
    assert ema.swapped
    assert [x.tobytes() for x in kept.values()] == [x.tobytes() for x in averages.values()]
    ema.swap(as_given(kept))
    assert not ema.swapped
    found = dict(zip(params, ema.shadow.values(), strict=True))
    assert snapshot([dict(kept), found]) == before


def test_a_swapped_average_is_neither_updated_nor_saved() -> None:
    w = np.ones(3)
    ema = fo.EMA(w)
    saved = ema.state_dict()
    ema.swap(w)
    before = snapshot([w, ema.shadow])
    for call in (
        lambda: ema.update(w),
        lambda: fo.SGD(w).step(np.ones(3), ema=ema),
        ema.state_dict,
        lambda: ema.load_state_dict(saved),
    ):
        with pytest.raises(RuntimeError, match="swap it back first"):
            call()
    assert snapshot([w, ema.shadow]) == before
    assert ema.updates == 0
    twin = copy.deepcopy(ema)
    twin.swap(w)
    assert not twin.swapped
    twin.update(w)


@pytest.mark.parametrize("dtype", ["f2", ml_dtypes.bfloat16, "f4", "f8"])
@pytest.mark.parametrize("skip", [False, True])
def test_a_step_updates_the_average_as_update_does(optimizer: Any, dtype: Any, skip: bool) -> None:
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape) for shape in [(3, 4), (50, 7), (130, 131)]]
    pairs = []
    for _ in range(2):
        params = [w.astype(dtype) for w in start]
        pairs.append((params, optimizer(params, lr=0.1), fo.EMA(params, 0.9, warmup=True)))
    (params, fused, ema), (others, after, expected) = pairs
    free = isinstance(fused, fo.ScheduleFreeSGD | fo.ScheduleFreeAdamW)
    for t in range(5):
        grads: list[Any] = [rng.standard_normal(w.shape).astype(dtype) for w in start]
        if skip and t % 2:
            grads[1][0] = math.nan
        elif t == 3:
            # A parameter without a gradient is averaged, too.
            grads[0] = None
        info = fused.step(grads, nonfinite="skip", ema=ema)
        assert info == after.step(grads, nonfinite="skip")
        if info.applied:
            if free:
                after.eval()
            expected.update(others)
            if free:
                after.train()
        assert snapshot(params) == snapshot(others) or free
        assert ema.updates == expected.updates == t + 1 - (skip * (t + 1) // 2)
    exact = snapshot(ema.shadow) == snapshot(expected.shadow)
    assert exact or free
    # The averaged iterate is not rounded to the dtype of the parameters first.
    atol = {2: 0.05, 4: 1e-5, 8: 1e-13}[params[0].itemsize]
    for mine, theirs in zip(ema.shadow.values(), expected.shadow.values(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)


def test_a_parameter_without_gradient_is_averaged_once(optimizer: Any) -> None:
    # The other is large enough that rules with two passes make both.
    idle, large = np.ones((2, 3)), np.ones((1000, 300))
    opt, ema = optimizer([idle, large]), fo.EMA([3 * idle, large], decay=0.5)
    opt.step([None, large.copy()], ema=ema)
    assert (ema.shadow["0"] == 2.0).all()


def test_a_decay_of_zero_copies_in_a_step() -> None:
    w, start = np.array([1e-30, 1.0]), np.array([1e30, math.nan])
    ema = fo.EMA(start, decay=0.0)
    fo.SGD(w, lr=0.0).step(np.zeros(2), ema=ema)
    assert ema.shadow["0"].tolist() == [1e-30, 1.0]


def test_a_step_refuses_an_average_of_other_parameters() -> None:
    w = [np.ones((2, 3)), np.ones(3)]
    opt = fo.AdamW(w)
    averages = {
        ValueError: [[w[0]], [w[0], w[1], np.ones(1)], [w[1], w[0]], [w[0].ravel(), w[1]]],
        TypeError: [[array.astype("f4") for array in w]],
    }
    before = snapshot(opt)
    for error, wrong in averages.items():
        for params in wrong:
            ema = fo.EMA(params)
            kept = snapshot(ema.state_dict())
            with pytest.raises(error, match="ema"):
                opt.step(w_like(w), ema=ema)
            assert (snapshot(opt), snapshot(ema.state_dict())) == (before, kept)
    # The average itself is not a parameter.
    ema = fo.EMA(w)
    for own in fo.SGD(ema.shadow), fo.SGD(list(ema.shadow.views)):
        with pytest.raises(ValueError, match="share memory"):
            own.step(w_like(w), ema=ema)


def w_like(arrays: list[Any]) -> list[Any]:
    return [np.full_like(array, 0.5) for array in arrays]


HALVES = ["f2", ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtypes", [["f2"], [ml_dtypes.bfloat16], ["f4", *HALVES]])
@pytest.mark.parametrize("form", ["list", "mapping", "buffer"])
def test_parameters_of_16_bits(form: str, dtypes: list[Any]) -> None:
    if form == "buffer" and len(dtypes) > 1:
        pytest.skip("a buffer has one dtype")
    rng = np.random.default_rng(0)
    named = {str(i): rng.standard_normal((40, 500)).astype(dtype) for i, dtype in enumerate(dtypes)}
    params: Any = FORMS[form](named)
    arrays = params if form == "list" else list(params.values())
    ema = fo.EMA(params, decay=0.99)
    exact = [w.astype("f8") for w in arrays]
    for _ in range(20):
        for i, w in enumerate(arrays):
            w[...] = rng.standard_normal(w.shape).astype(w.dtype)
            exact[i] += (1 - 0.99) * (w.astype("f8") - exact[i])
        ema.update(params)
    assert ema.shadow.dtype == np.float32
    for s, e in zip(ema.shadow.values(), exact, strict=True):
        np.testing.assert_allclose(s, e, rtol=0, atol=1e-6)
    before, averages = snapshot(arrays), [s.copy() for s in ema.shadow.values()]
    ema.swap(params)
    for w, s in zip(arrays, averages, strict=True):
        assert w.tobytes() == s.astype(w.dtype).tobytes()
    for own in params, copy.deepcopy(params):
        # A copy made while swapped can restore the parameters, too.
        twin = copy.deepcopy(ema)
        if own is params:
            ema.swap(own)
        else:
            twin.swap(own)
    assert snapshot(arrays) == before
    assert [s.tobytes() for s in ema.shadow.values()] == [s.tobytes() for s in averages]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("form", ["buffer", "list"])
def test_copies_continue_equally_and_independently(copied: Any, form: str) -> None:
    ema = fo.EMA(FORMS[form](numbers(0)), 0.9, warmup=True)
    ema.update(FORMS[form](numbers(1)))
    twin = copied(ema)
    assert repr(twin) == repr(ema)
    twin.update(FORMS[form](numbers(2)))
    assert snapshot(twin.shadow) != snapshot(ema.shadow)
    ema.update(FORMS[form](numbers(2)))
    if form == "buffer":
        ema.update(FORMS[form](numbers(3)).flat)
        twin.update(FORMS[form](numbers(3)).flat)
    assert snapshot(twin.shadow) == snapshot(ema.shadow)
    assert snapshot(twin.state_dict()) == snapshot(ema.state_dict())


def test_a_saved_average_continues_bit_for_bit() -> None:
    ema = fo.EMA(numbers(0), 0.9, warmup=True)
    ema.update(numbers(1))
    saved = ema.state_dict()
    kept = snapshot(saved)
    other = fo.EMA(numbers(5))
    other.load_state_dict(saved)
    for t in range(2, 5):
        ema.update(numbers(t))
        other.update(numbers(t))
    assert snapshot(other.state_dict()) == snapshot(ema.state_dict())
    assert snapshot(saved) == kept


SAVED = fo.EMA({"w": np.ones((2, 3)), "b": np.zeros(3)}, 0.9).state_dict()
SHADOW = SAVED["shadow"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (None, "state of an EMA"),
        ({}, "state of an EMA"),
        ({**SAVED, "more": 1}, "state of an EMA"),
        ({**SAVED, "decay": 1.0}, "decay"),
        ({**SAVED, "decay": math.nan}, "decay"),
        ({**SAVED, "decay": "0.9"}, "decay"),
        ({**SAVED, "warmup": 1}, "warmup"),
        ({**SAVED, "updates": -1}, "updates"),
        ({**SAVED, "updates": 1.5}, "updates"),
        ({**SAVED, "updates": 2**64}, "updates"),
        ({**SAVED, "shadow": None}, "shadow"),
        ({**SAVED, "shadow": {"w": SHADOW["w"]}}, "shadow"),
        ({**SAVED, "shadow": {**SHADOW, "x": SHADOW["b"]}}, "shadow"),
        ({**SAVED, "shadow": {**SHADOW, "b": np.zeros(4)}}, "shadow of 'b'"),
        ({**SAVED, "shadow": {**SHADOW, "b": np.zeros(3, "f4")}}, "shadow of 'b'"),
        ({**SAVED, "shadow": {**SHADOW, "b": np.full(3, math.nan)}}, "NaN"),
        ({**SAVED, "shadow": {**SHADOW, "b": "text"}}, "shadow of 'b'"),
        ({**SAVED, "shadow": {**SHADOW, "b": [[1.0], [1.0, 2.0]]}}, "EMA"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change: Any, match: str) -> None:
    ema = fo.EMA({"w": np.ones((2, 3)), "b": np.zeros(3)}, 0.5, warmup=True)
    ema.update({"w": np.ones((2, 3)), "b": np.ones(3)})
    before = snapshot(ema.state_dict())
    with pytest.raises(fo.CheckpointError, match=match):
        ema.load_state_dict(change)
    assert snapshot(ema.state_dict()) == before


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, math.nan, math.inf, 10**400])
def test_a_decay_out_of_range(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        fo.EMA(np.ones(1), decay)
    ema = fo.EMA(np.ones(1))
    with pytest.raises(ValueError, match="decay"):
        ema.decay = decay
    assert ema.decay == 0.999


@pytest.mark.parametrize("bad", ["0.9", None, 1j, [0.5]])
def test_arguments_of_other_types(bad: Any) -> None:
    with pytest.raises(TypeError, match="decay"):
        fo.EMA(np.ones(1), bad)
    with pytest.raises(TypeError, match="warmup"):
        fo.EMA(np.ones(1), warmup=bad)


W, B = np.ones((2, 3)), np.ones(3)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ([], ValueError),
        ({}, ValueError),
        (fo.FlatBuffer({}), ValueError),
        ([{"params": {"w": W}}, {"params": {"w": B}}], ValueError),
        ([W, B.astype("f4")], TypeError),
        ([W, None], TypeError),
        (None, TypeError),
        ("w", TypeError),
        (5, TypeError),
        ({1: W}, TypeError),
        ([{"lr": 0.1}], TypeError),
    ],
)
def test_bad_forms_to_start_from(params: Any, error: type[Exception]) -> None:
    for cls in fo.EMA, fo.GradAccumulator:
        with pytest.raises(error, match="param"):
            cls(params)


@pytest.mark.parametrize("call", ["update", "swap"])
@pytest.mark.parametrize(
    ("params", "error"),
    [
        ([W], ValueError),
        ([W, B, B], ValueError),
        ([B, W], ValueError),
        ({"w": W}, ValueError),
        ({"w": W, "c": B}, ValueError),
        ([{"params": {"w": W}}], ValueError),
        (np.ones(8), ValueError),
        (np.ones(9, "f4"), TypeError),
        (fo.FlatBuffer({"w": (2, 3), "b": (3,)}), TypeError),
        ([W, None], TypeError),
        ({"w": W, "b": None}, TypeError),
        (None, TypeError),
        ("wb", TypeError),
    ],
)
def test_bad_forms_change_nothing(params: Any, error: type[Exception], call: str) -> None:
    ema = fo.EMA(fo.FlatBuffer.from_arrays({"w": 2 * W, "b": 2 * B}))
    before = snapshot([params, ema.state_dict()])
    with pytest.raises(error, match="params"):
        getattr(ema, call)(params)
    assert snapshot([params, ema.state_dict()]) == before
    assert not ema.swapped


def test_memory_that_is_shared() -> None:
    ema = fo.EMA({"w": W, "b": B})
    before = snapshot([W, B, ema.state_dict()])
    own = dict(ema.shadow)
    for call in lambda: ema.update(own), lambda: ema.swap(own), lambda: ema.swap([W, W[0]]):
        with pytest.raises(ValueError, match="share memory"):
            call()
    locked = W.copy()
    locked.flags.writeable = False
    ema.update([locked, B])
    with pytest.raises(ValueError, match="read-only"):
        ema.swap([locked, B])
    ema.load_state_dict({**ema.state_dict(), "updates": 0})
    assert snapshot([W, B, ema.state_dict()]) == before


@pytest.mark.parametrize("flat", [False, True])
def test_a_step_pairs_averages_by_name(flat: bool) -> None:
    params: Any = {"a": np.full(2, 4.0), "b": np.full(2, 6.0)}
    ema = fo.EMA({"b": np.zeros(2), "a": np.zeros(2)}, decay=0.5)
    ema.update(params)
    assert [ema.shadow[name][0] for name in "ab"] == [2.0, 3.0]
    if flat:
        params = fo.FlatBuffer.from_arrays(params)
    for form in params, [{"params": {"b": params["b"]}}, {"params": {"a": params["a"]}}]:
        fused = fo.EMA({"b": np.zeros(2), "a": np.zeros(2)}, decay=0.5)
        opt = fo.SGD(form, lr=0.0)
        opt.step({"a": np.ones(2), "b": None}, ema=fused)
        assert snapshot(fused.shadow) == snapshot(ema.shadow)


@pytest.mark.parametrize("names", ["ac", "a", "abc", "01"])
def test_a_step_refuses_an_average_with_other_names(names: str) -> None:
    params = {"a": np.ones(2), "b": np.ones(2)}
    opt, ema = fo.SGD(params), fo.EMA({name: np.zeros(2) for name in names})
    before = snapshot([opt.state_dict(), params, ema.state_dict()])
    with pytest.raises(ValueError, match=r"ema: missing names .* unexpected names"):
        opt.step({"a": np.ones(2), "b": np.ones(2)}, ema=ema)
    assert snapshot([opt.state_dict(), params, ema.state_dict()]) == before
