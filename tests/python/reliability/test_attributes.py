"""An attribute refuses the same values as the constructor argument of the same name."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest

import fastoptim as fo
from calls import GOOD

BAD: list[Any] = ["x", None, -1, 2, True, math.nan, math.inf, 1j, [], [1.0, 2.0], object(), 10**400]


def attributes() -> list[tuple[str, str]]:
    """Every attribute of a public class that is named as an argument with a default."""
    cases = []
    for name, (call, arguments) in GOOD.items():
        thing: Any = fo
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)
        if not inspect.isclass(thing):
            continue
        made = call(**arguments)
        for parameter in inspect.signature(thing).parameters.values():
            given = parameter.name in arguments or parameter.default is not parameter.empty
            if given and hasattr(made, parameter.name):
                cases.append((name, parameter.name))
    return cases


ATTRIBUTES = attributes()


@pytest.mark.parametrize(("cls", "attribute"), ATTRIBUTES)
def test_values_that_the_constructor_refuses_cannot_be_set(cls: str, attribute: str) -> None:
    call, arguments = GOOD[cls]
    made = call(**arguments)
    before = repr(getattr(made, attribute))
    refused = 0
    for bad in BAD:
        try:
            call(**{**arguments, attribute: bad})
        except KeyError:  # A valid number of steps, but the optimizer has made none.
            assert attribute == "last_epoch"
        except (TypeError, ValueError):
            refused += 1
            # The last is the error of immutable objects.
            with pytest.raises((TypeError, ValueError, AttributeError), match=attribute):
                setattr(made, attribute, bad)
            assert repr(getattr(made, attribute)) == before
    assert refused > 3


def test_every_class_with_attributes_is_tested() -> None:
    classes = {cls.removeprefix("fastoptim.") for cls, _ in ATTRIBUTES}
    assert classes >= {"EMA", "SAM", "RandomSearch", "regularizers.L1", "schedules.cosine"}
    assert sum(cls.startswith("lr_scheduler") for cls in classes) == 15


def test_other_attributes_are_checked_too() -> None:
    w = np.ones(2)
    opt = fo.SGD(w)
    scheduler = fo.lr_scheduler.StepLR(opt, 3)
    objects: list[tuple[Any, str]] = [
        (fo.SAM(opt), "base"),
        (fo.LRFinder(opt, lambda w: (0.0, w)), "opt"),
        (fo.EMA(w), "updates"),
        (fo.GradAccumulator(w), "weight"),
        (scheduler, "base_lrs"),
        (fo.lr_scheduler.ReduceLROnPlateau(opt), "best"),
        (fo.lr_scheduler.ReduceLROnPlateau(opt), "num_bad_epochs"),
    ]
    for made, attribute in objects:
        before = repr(getattr(made, attribute))
        with pytest.raises(TypeError, match=attribute):
            setattr(made, attribute, "x")
        assert repr(getattr(made, attribute)) == before


def test_a_good_value_takes_effect() -> None:
    ema = fo.EMA(np.zeros(1))
    ema.decay = 0.5
    ema.update(np.ones(1))
    assert ema.shadow.flat.tolist() == [0.5]
    opt = fo.SGD(np.ones(1), lr=1.0)
    scheduler = fo.lr_scheduler.StepLR(opt, 1, gamma=0.5)
    scheduler.gamma = 0.25
    scheduler.step()
    assert scheduler.get_last_lr() == [0.25]
