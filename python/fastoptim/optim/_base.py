"""The base class of the optimizers: groups, state, and forms of gradients."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

from numpy import ndarray

from fastoptim import _core
from fastoptim._checks import flag, integer, number, word
from fastoptim._commit import Call, setting
from fastoptim.optim._checkpoint import INT8_CODES
from fastoptim.optim._state_dict import checked, saved_groups
from fastoptim.optim._storage import Storage
from fastoptim.optim._torch import as_tensor
from fastoptim.params.ema import EMA
from fastoptim.params.flat_buffer import FlatBuffer
from fastoptim.params.regularizers import Regularizer
from fastoptim.params.structure import (
    Array,
    Arrays,
    Grads,
    Params,
    by_name,
    chosen_names,
    is_groups,
    is_ordered,
    listed,
    named_arrays,
    pieces,
    reiterable,
)

Nonfinite: TypeAlias = Literal["propagate", "skip", "raise"]

__all__ = ["Array", "Grads", "Optimizer", "Params", "StepInfo", "Storage"]


class StepInfo(NamedTuple):
    """The result of one step.

    Attributes
    ----------
    applied : bool
        Whether the parameters were updated.
    grad_norm : float or None
        The global norm that clipping used, or None if ``max_norm`` was not given.
    """

    applied: bool
    grad_norm: float | None


_APPLIED = StepInfo(True, None)

# Keys of a group that are not hyperparameters.
_OTHER_KEYS = ("param_names", "initial_lr", "regularizer")


class Optimizer:
    """The base class of the optimizers; it cannot be used directly.

    Attributes
    ----------
    param_groups : list of dict
        One dict per group, with ``"params"`` (a tuple of arrays), ``"param_names"`` and every
        hyperparameter. Hyperparameters are read at each step; each may be a function of the number
        of steps applied so far, which must not call the optimizer. Add groups with
        `add_param_group`; if groups were removed or reordered, or their parameters replaced, the
        next call raises an error.

    Notes
    -----
    An optimizer executes one call at a time. A call that begins during another one, in another
    thread or in a hyperparameter function, raises a RuntimeError. A process forked during a step of
    another thread can use its copy of the optimizer; that step is not counted there, and may have
    updated only a part of the parameters and the state.
    """

    # `help` shows the text of slots, and unlike properties they do not slow down a step.
    __slots__ = {
        "__dict__": "",
        "param_groups": "The groups: a list of dicts with the parameters and hyperparameters.",
    }

    _kind: ClassVar[str]
    # Hyperparameters that define the class: loading a state does not change them.
    _fixed: ClassVar[frozenset[str]] = frozenset()
    # Scalars of the state that estimate a hyperparameter.
    _estimates: ClassVar[tuple[str, ...]] = ()
    # Whether the state has a step count for each parameter in PyTorch, too.
    _counted: ClassVar[bool] = True
    # Whether the update of an array depends on its shape, or on all of its elements at once.
    _works_by_shape: ClassVar[bool] = False
    # The elements of each parameter that this process updates, and the communication of a step, if
    # the parameters are divided among processes.
    _parts: Sequence[tuple[int, int]] | None = None
    _exchange: Any = None

    param_groups: list[dict[str, Any]]

    def __init__(self, params: Params, defaults: dict[str, Any], storage: Storage) -> None:
        self._defaults = defaults
        self._storage = storage
        storage.check()
        self._engine = _core.Engine(self._kind, *storage, self._parts)
        self._names: list[str] = []
        self._buffers: list[FlatBuffer | None] = []
        self._single = isinstance(params, ndarray)
        self.param_groups = []
        params = reiterable(params)
        if is_groups(params):
            for group in params:
                self.add_param_group(group)
        else:
            self.add_param_group({"params": params})

    @property
    def _flat(self) -> FlatBuffer | None:
        """The buffer that holds all parameters, or None."""
        return self._buffers[0] if len(self._buffers) == 1 else None

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group of parameters with its own hyperparameters.

        Parameters
        ----------
        param_group : mapping
            ``"params"`` in any form that the constructor accepts, and optionally ``"param_names"``
            and any hyperparameters. A ``"regularizer"``, which may be None, replaces that of
            `step`; regularizers are immutable, but another one may be assigned later.

        Raises
        ------
        ValueError
            A name or an array is in a group already, a hyperparameter is unknown or out of range,
            or a regularizer is proximal and the optimizer does not support that.
        """
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise TypeError('param_group must be a dict with "params"')
        params = param_group["params"]
        names, arrays = named_arrays(params, start=len(self._names))
        chosen = chosen_names(param_group.get("param_names", names), names)
        group = {"params": tuple(arrays), "param_names": chosen, **self._defaults}
        for key, value in param_group.items():
            if key == "params":
                continue
            if key not in self._defaults and key not in _OTHER_KEYS:
                raise ValueError(f"unknown hyperparameter {key!r} of {type(self).__name__}")
            if key != "param_names":
                group[key] = value
        self._add(group, params if isinstance(params, FlatBuffer) else None)

    def _add(self, group: dict[str, Any], buffer: FlatBuffer | None) -> None:
        names = list(group["param_names"])
        added: list[Call] = [
            (self._names.extend, names),
            (self._buffers.append, buffer),
            setting(self, _single=self._single and not self.param_groups),
            (self.param_groups.append, group),
        ]
        self._engine.check_groups(self.param_groups)
        arrays = list(group["params"])
        self._engine.add_group(group, names, arrays, buffer is not None, added)

    @property
    def params(self) -> Any:
        """The parameters in the form in which they were given.

        With groups, a mapping over all names, or a list if no parameter was given a name.
        """
        if self._flat is not None:
            return self._flat
        arrays = [array for group in self.param_groups for array in group["params"]]
        names = [name for group in self.param_groups for name in group["param_names"]]
        if names != [str(index) for index in range(len(arrays))]:
            return dict(zip(names, arrays, strict=True))
        return arrays[0] if self._single else arrays

    def step(
        self,
        grads: Grads,
        *,
        loss_scale: float = 1.0,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Nonfinite = "propagate",
        regularizer: Regularizer | None = None,
        ema: EMA | None = None,
        copy_to: Arrays | None = None,
        zero_grad: bool = False,
    ) -> StepInfo:
        """Update the parameters in one sweep, together with the optional operations below.

        The order is: unscale, finite check, regularizer, clip by value, clip by norm, update,
        proximal operator, average, copy, zero.

        Parameters
        ----------
        grads : FlatBuffer, array, iterable or mapping
            Gradients in the structure and the dtypes of the parameters; for float32 parameters also
            bfloat16 or float16. None means that a parameter has no gradient: its value, state and
            step count do not change, but ``ema`` and ``copy_to`` are updated.
        loss_scale : float, default 1.0
            The gradients are divided by this first.
        max_norm : float, optional
            The maximum global 2-norm of the gradients; infinity only computes the norm.
        clip_value : float, optional
            Clips every element to ``-clip_value..clip_value``, before the norm is computed.
        nonfinite : {"propagate", "skip", "raise"}, default "propagate"
            The treatment of infinite and NaN gradients: "propagate" uses them in the update, "skip"
            leaves everything unchanged and does not count the step, and "raise" raises a
            FloatingPointError that names the first parameter. The last two need one more pass over
            the gradients, as ``max_norm`` does; together they share it.
        regularizer : Regularizer, optional
            Its gradient is added regardless of ``maximize``, and a proximal term is applied after
            the update instead. Groups that have their own ``"regularizer"`` do not use it.
        ema : EMA, optional
            A moving average with the same names, to update with the new parameters.
        copy_to : FlatBuffer, array, sequence or mapping, optional
            bfloat16 or float16 arrays in the structure of the parameters, which receive a copy
            rounded to nearest.
        zero_grad : bool, default False
            Sets the gradients to 0 after the update.

        Returns
        -------
        StepInfo
            Whether the step was applied, and the norm if ``max_norm`` was given.

        Raises
        ------
        TypeError
            The dtype of a gradient does not match its parameter, or it is not a plain array.
        ValueError
            A shape, layout or range is invalid, or arrays share memory.
        FloatingPointError
            A gradient is not finite, and ``nonfinite`` is "raise".
        RuntimeError
            Another thread is using the same memory or this optimizer, or a hyperparameter function
            called the optimizer.

        After an error nothing has changed, including ``ema`` and ``copy_to``.

        Examples
        --------
        >>> import numpy as np
        >>> import fastoptim as fo
        >>> w, g = np.ones(2), np.array([3.0, 4.0])
        >>> opt, average = fo.SGD(w, lr=0.5), fo.EMA(w, decay=0.5)
        >>> opt.step(g, max_norm=1.0, nonfinite="skip", ema=average, zero_grad=True)
        StepInfo(applied=True, grad_norm=5.0)
        >>> w.round(3).tolist(), average.shadow.flat.round(3).tolist(), g.tolist()
        ([0.7, 0.6], [0.85, 0.8], [0.0, 0.0])
        """
        if type(loss_scale) is not float:
            loss_scale = number("loss_scale", loss_scale)
        if max_norm is not None:
            max_norm = number("max_norm", max_norm)
        if clip_value is not None:
            clip_value = number("clip_value", clip_value)
        if type(nonfinite) is not str:
            word("nonfinite", nonfinite, get_args(Nonfinite))
        if zero_grad is not False:
            flag("zero_grad", zero_grad)
        average, then = (None, None) if ema is None else self._averages(ema)
        kind = type(grads)
        if kind is not ndarray and kind is not list:  # A call takes a tenth of a small step.
            grads = self._given(grads)
        done = self._engine.step(
            self.param_groups,
            grads,
            loss_scale,
            max_norm,
            clip_value,
            nonfinite,
            regularizer,
            average,
            None if copy_to is None else self._targets(copy_to),
            zero_grad,
            then,
            self._exchange,
        )
        return _APPLIED if done is None else StepInfo(*done)

    def _averages(self, ema: Any) -> tuple[tuple[list[Array], float], list[Call]]:
        """Return the averages in parameter order, their weight, and the calls to make."""
        if not isinstance(ema, EMA):
            raise TypeError(f"ema must be a fastoptim.EMA, got {type(ema).__name__}")
        (averages, weight), then = ema._begin()
        if list(ema.shadow) != self._names:
            by_name(self._names, ema.shadow, "ema")
            averages = [ema.shadow[name] for name in self._names]
        return (averages, weight), then

    def _targets(self, arrays: Arrays) -> Sequence[Array | None]:
        """Return the arrays of ``copy_to`` in the order of the parameters."""
        if isinstance(arrays, Mapping):
            return by_name(self._names, arrays, "copy_to")
        if self._flat is not None and isinstance(arrays, ndarray):
            return pieces(self._flat, arrays, "copy_to")
        return named_arrays(arrays, called="copy_to")[1]

    def zero_grad(self, grads: Grads) -> None:
        """Set every gradient to 0.

        Parameters
        ----------
        grads : FlatBuffer, array, sequence or mapping
            As for `step`; all are checked before the first is written.

        Raises
        ------
        TypeError, ValueError
            As for `step`, or a gradient is read-only.
        """
        self._engine.zero_grad(self._given(grads))

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """The state of each parameter: views of arrays under PyTorch's names, and ``step``."""
        return {
            name: {
                "step": self._engine.parameter_step(index),
                **dict(self._engine.scalars(index)),
                **{slot: array for slot, array, _ in self._engine.state(index)},
            }
            for index, name in enumerate(self._names)
        }

    def state_dict(self, *, tensors: bool = False) -> dict[str, Any]:
        """Return a copy of all state in PyTorch's layout.

        Parameters are numbered in order; ``param_names`` in each group has their names. A
        hyperparameter that is a function is saved as its current value, and a regularizer as a dict
        of its class and coefficients.

        Parameters
        ----------
        tensors : bool, default False
            Return PyTorch tensors instead of arrays, for ``load_state_dict`` of PyTorch's optimizer
            of the same name.

        Raises
        ------
        ValueError
            ``tensors`` is True, and moments are in int8, which PyTorch does not support.
        """
        if flag("tensors", tensors) and self._storage.state_dtype == "int8":
            raise ValueError(
                'tensors must be False for state_dtype="int8", which PyTorch does not have'
            )
        self._engine.check_groups(self.param_groups)
        return self._state_dict(self._engine.snapshot(), tensors=tensors)

    def _state_dict(self, entries: Sequence[Any], *, tensors: bool = False) -> dict[str, Any]:
        """Return the state of all parameters in PyTorch's layout."""
        state = {}
        for index, entry in enumerate(entries):
            if entry is not None:
                step, scalars, arrays = entry
                found = {name: as_tensor(array) if tensors else array for name, array in arrays}
                state[index] = {"step": step, **dict(scalars), **found}
        saved = {
            "state": state,
            "param_groups": saved_groups(self.param_groups, self._engine.steps),
            "steps": self._engine.steps,
            "averaged": self._engine.averaged,
        }
        if self._storage.state_dtype == "int8":
            saved["int8_codes"] = INT8_CODES
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state that ``state_dict`` returned, here or in PyTorch.

        Everything is validated before anything changes. Parameters are matched by name if the state
        has names, and by position otherwise. A hyperparameter that is a function here stays a
        function, and one that defines the class does not change: AdamW decouples its decay even
        with a state of Adam. The regularizer of a group is replaced by the saved one, or kept if
        the state has no entry for it. States of the packages prodigyopt and schedulefree are
        accepted, too.

        Raises
        ------
        CheckpointError
            The dict is not a state of this optimizer with these parameters.
        """
        self._load(state_dict, any_values=False)

    def _load(self, state_dict: Mapping[str, Any], *, any_values: bool) -> None:
        groups, state, steps, averaged = checked(self, state_dict, any_values=any_values)
        self._engine.restore(groups, state, steps, averaged, self._group_updates(groups))

    def _group_updates(self, groups: Sequence[dict[str, Any]]) -> list[Call]:
        """Return the calls that update the groups from those of a state."""
        return [(mine.update, new) for mine, new in zip(self.param_groups, groups, strict=True)]

    def _given(self, grads: Grads) -> Array | Sequence[Array | None]:
        """Return the gradients as one array or one sequence over all groups."""
        if isinstance(grads, (list, ndarray)):
            return grads
        if isinstance(grads, FlatBuffer):
            if self._flat is not None and grads._has_layout_of(self._flat):
                return grads.flat
            return by_name(self._names, grads)
        if isinstance(grads, Mapping):
            return by_name(self._names, grads)
        if is_ordered(grads) and isinstance(grads, Sequence):
            return grads
        return listed("grads", grads, len(self._names))

    def current(self, name: str, group: int = 0) -> Any:
        """Return the value of a hyperparameter in the next step.

        ``param_groups`` has the number or the function that was set; this method evaluates the
        function. Changes of the value inside an update rule (``lr_decay``, ``warmup_steps``, bias
        correction) are not included.

        Parameters
        ----------
        name : str
            The name of a hyperparameter, such as ``"lr"``; for `Prodigy` also ``"d"``, its
            estimate.
        group : int, default 0
            The index of the group in ``param_groups``.

        Raises
        ------
        TypeError
            ``name`` is not a string, or ``group`` not an integer.
        ValueError
            There is no hyperparameter of this name.
        IndexError
            There is no such group.

        Examples
        --------
        >>> import numpy as np
        >>> import fastoptim as fo
        >>> w = np.ones(2)
        >>> opt = fo.SGD(w, lr=lambda step: 0.5**step)
        >>> opt.current("lr")
        1.0
        >>> opt.step(w.copy()).applied, opt.current("lr")
        (True, 0.5)
        """
        if not isinstance(name, str):
            raise TypeError(f'name must be a string such as "lr", got {name!r}')
        index = integer("group", group)
        if not 0 <= index < len(self.param_groups):
            raise IndexError(f"group must be from 0 to {len(self.param_groups) - 1}, got {group}")
        excluded = ("params", "param_names")
        known = {k: v for k, v in self.param_groups[index].items() if k not in excluded}
        if name in known:
            value = known[name]
            return value(self._engine.steps) if callable(value) else value
        if name in self._estimates:
            first = sum(len(before["params"]) for before in self.param_groups[:index])
            return dict(self._engine.scalars(first))[name]
        names = ", ".join([*known, *self._estimates])
        raise ValueError(f"name must be one of {names}; got {name!r}")

    @property
    def _noise(self) -> tuple[int, int] | None:
        """The seed and the step of stochastic rounding; None for rounding to nearest."""
        if self._storage.rounding == "nearest":
            return None
        return operator.index(self._storage.seed), self._engine.steps

    def _in_order(self, grads: Grads) -> list[Array | None]:
        """Return the gradients as one list over all groups."""
        self._engine.check_groups(self.param_groups)
        given = self._given(grads)
        if isinstance(given, ndarray):
            return [given] if self._flat is None else pieces(self._flat, given)
        return list(given)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for index, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {index}")
            lines += [f"    {k}: {v}" for k, v in sorted(group.items()) if k != "params"]
        return "\n".join([*lines, ")"])

    def __getstate__(self) -> dict[str, Any]:
        state = self.state_dict()
        groups = [
            group if buffer is None else {**group, "params": None}
            for group, buffer in zip(self.param_groups, self._buffers, strict=True)
        ]
        return {
            "defaults": self._defaults,
            "storage": self._storage,
            "groups": groups,
            "buffers": self._buffers,
            "single": self._single,
            "state": state,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._defaults = state["defaults"]
        self._storage = state["storage"]
        self._engine = _core.Engine(self._kind, *self._storage)
        self._names = []
        self._buffers = []
        self._single = state["single"]
        self.param_groups = []
        for group, buffer in zip(state["groups"], state["buffers"], strict=True):
            params = group["params"] if buffer is None else buffer.views
            self._add({**group, "params": params}, buffer)
        self._load(state["state"], any_values=True)
