"""The adapters of optimizers, which store state and hyperparameters, but not the parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastoptim._commit import setting
from fastoptim.checkpoint.adapters import Adapter, Moment, check_names, register
from fastoptim.checkpoint.dtypes import numpy_dtype
from fastoptim.checkpoint.plan import Array, EnginePlan, Plan, Saved
from fastoptim.checkpoint.values import decode, encode
from fastoptim.errors import CheckpointError
from fastoptim.optim._base import Optimizer
from fastoptim.optim._checkpoint import INT8_CODES
from fastoptim.optim._state_dict import checked, saved_groups
from fastoptim.optim.sam import SAM


class OptimizerAdapter(Adapter[Optimizer]):
    """An optimizer; state arrays are tensors named after the state and the parameter."""

    def __init__(self, name: str, thing: Optimizer) -> None:
        super().__init__(name, thing)
        self.optimizer = thing

    def memory(self) -> list[Array]:
        return [array for group in self.optimizer.param_groups for array in group["params"]]

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        assert moment is not None
        opt = self.optimizer
        steps, averaged, entries = moment
        state: dict[str, Any] = {}
        arrays: dict[str, Array] = {}
        for name, entry in zip(opt._names, entries, strict=True):
            if entry is None:
                continue
            step, numbers, views = entry
            slots = [slot for slot, _ in views]
            state[name] = {"step": step, "numbers": dict(numbers), "arrays": slots}
            arrays |= {f"{self.name}.{slot}.{name}": view for slot, view in views}
        data = {
            "storage": opt._storage._asdict(),
            "params": self._layout(),
            "param_groups": saved_groups(opt.param_groups, steps),
            "steps": steps,
            "averaged": averaged,
            "int8_codes": INT8_CODES if opt._storage.state_dtype == "int8" else None,
        }
        # Names of parameters may be any text, so they cannot be keys of the encoded objects.
        entries_by_name = [[name, encode(entry, self.name, {})] for name, entry in state.items()]
        return {**encode(data, self.name, {}), "state": entries_by_name}, arrays

    def _layout(self) -> list[list[Any]]:
        """Return the name, dtype and shape of each parameter."""
        pairs = zip(self.optimizer._names, self.memory(), strict=True)
        return [[name, array.dtype.name, list(array.shape)] for name, array in pairs]

    def plan(self, saved: Saved) -> Plan:
        saved.check_kind(self.kind)
        opt = self.optimizer
        self._check_fixed(saved)
        if opt._storage.state_dtype == "bfloat16":
            numpy_dtype("BF16")  # Raises an error without ml_dtypes, before anything is written.
        state = {name: decode(entry, str) for name, entry in saved.data["state"]}
        groups = decode(saved.data["param_groups"], str)
        names = [name for group in groups for name in group["param_names"]]
        as_dict = {
            "param_groups": groups,
            "state": {
                index: self._entry(saved, name, state[name])
                for index, name in enumerate(names)
                if name in state
            },
            "steps": saved.data["steps"],
            "averaged": saved.data["averaged"],
            "int8_codes": saved.data["int8_codes"],
        }
        new, entries, steps, averaged = checked(opt, as_dict, any_values=True)
        tensors = [
            {slot: f"{self.name}.{slot}.{name}" for slot in arrays}
            for name, (_, _, arrays) in zip(opt._names, entries, strict=True)
        ]
        engine = EnginePlan(opt._engine, new, entries, steps, averaged, tensors)
        return Plan(calls=lambda _: opt._group_updates(new), engine=engine)

    def _check_fixed(self, saved: Saved) -> None:
        """Refuse a state whose constructor arguments or parameters differ."""
        theirs, mine = saved.data["params"], self._layout()
        check_names(self.optimizer._names, [name for name, _, _ in theirs])
        by_name = {name: layout for name, *layout in mine}
        for name, dtype, shape in theirs:
            if [dtype, shape] != by_name[name]:
                expected, dims = by_name[name]
                raise CheckpointError(
                    f"parameter {name!r} was {dtype} of shape {tuple(shape)}, "
                    f"expected {expected} of shape {tuple(dims)}"
                )
        storage, own = saved.data["storage"], self.optimizer._storage._asdict()
        low = own["state_dtype"] not in (None, "float32") or any(
            array.dtype.itemsize == 2 for array in self.memory()
        )
        # The seed has no effect in full precision, as nothing is rounded.
        for key in ("state_dtype", "rounding", "seed") if low else ("state_dtype",):
            if storage[key] != own[key]:
                raise CheckpointError(f"its {key} was {storage[key]!r}, expected {own[key]!r}")

    def _entry(self, saved: Saved, name: str, entry: Any) -> dict[str, Any]:
        """Return the state of one parameter, with arrays that have only a dtype and shape."""
        arrays = {}
        for slot in entry["arrays"]:
            tensor = saved.tensor(f"{self.name}.{slot}.{name}")
            zero = np.zeros((), numpy_dtype(tensor.dtype))
            arrays[slot] = np.broadcast_to(zero, tensor.shape)
        return {"step": entry["step"], **entry["numbers"], **arrays}


class SAMAdapter(OptimizerAdapter):
    """SAM; the tensors have the same names as those of the base optimizer alone."""

    def __init__(self, name: str, thing: SAM) -> None:
        super().__init__(name, thing.base)
        self.sam = thing

    @property
    def kind(self) -> str:
        return f"SAM of {type(self.optimizer).__name__}"

    def check_ready(self) -> None:
        if self.sam._perturbed:
            raise RuntimeError(f"{self.name} is between first_step and second_step")

    def describe(self, moment: Moment | None) -> tuple[dict[str, Any], dict[str, Array]]:
        data, arrays = super().describe(moment)
        return {**data, "rho": self.sam.rho, "adaptive": self.sam.adaptive}, arrays

    def plan(self, saved: Saved) -> Plan:
        plan = super().plan(saved)
        try:
            loaded = SAM(self.optimizer, saved.data["rho"], saved.data["adaptive"])
        except (TypeError, ValueError) as error:
            raise CheckpointError(str(error)) from None
        base, own = plan.calls, setting(self.sam, rho=loaded.rho, adaptive=loaded.adaptive)
        plan.calls = lambda read: [*base(read), own]
        return plan


register(OptimizerAdapter, Optimizer)
register(SAMAdapter, SAM)
