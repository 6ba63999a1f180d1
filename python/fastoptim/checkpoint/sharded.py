"""The adapter of optimizers whose state is divided among processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastoptim import _core
from fastoptim._commit import Call
from fastoptim.checkpoint.adapters import Moment
from fastoptim.checkpoint.optimizers import OptimizerAdapter
from fastoptim.checkpoint.plan import Array, EnginePlan, Plan, Saved
from fastoptim.checkpoint.reader import Reader


class ShardedAdapter(OptimizerAdapter):
    """A sharded optimizer, stored as the optimizer of one process."""

    def __init__(self, name: str, thing: Any) -> None:
        super().__init__(name, thing.optimizer)
        self.sharded = thing
        self.team = thing._team

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        assert moment is not None
        self._entries = moment[2]
        return super().describe(moment)

    def collect(self, arrays: dict[str, Array]) -> None:
        names = [
            f"{self.name}.{slot}.{name}"
            for name, entry in zip(self.optimizer._names, self._entries, strict=True)
            if entry is not None
            for slot, _ in entry[2]
        ]
        parts = [arrays[name] for name in names]
        wholes = self.sharded._whole(parts, self._entries, root=0)
        arrays.update(zip(names, wholes, strict=False))

    def plan(self, saved: Saved) -> Plan:
        plan = super().plan(saved)
        assert plan.engine is not None
        plan.engine = PartPlan(**vars(plan.engine), parts=self.sharded._parts)
        return plan


@dataclass
class PartPlan(EnginePlan):
    """The part of a state to load; whole arrays are read and verified, and their parts copied.

    ``parts`` has the bounds of the elements of each parameter.
    """

    parts: Sequence[tuple[int, int]]

    def filling(self, reader: Reader) -> list[Call]:
        places = [
            (index, slot, tensors[slot], view)
            for index, tensors in enumerate(self.tensors)
            for slot, view, _ in self.engine.state(index)
            if slot in tensors
        ]
        largest = max((reader.entries[name].nbytes for _, _, name, _ in places), default=0)
        memory = np.empty(largest, np.uint8)
        calls: list[Call] = []
        for index, slot, name, view in places:
            whole = memory[: reader.entries[name].nbytes]
            start = self.parts[index][0] if view.nbytes < whole.nbytes else 0
            if slot.endswith("_scale"):
                start //= _core.SCALED
            own = whole.view(view.dtype)[start : start + view.size]
            calls += [*reader.filling({name: whole}), (np.copyto, view.reshape(-1), own)]
        return calls
