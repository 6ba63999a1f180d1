"""The base class of the optimizers over tensors: groups, state, steps, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias, get_args

import torch

from fastoptim import _core
from fastoptim._checks import flag, integer, number, word
from fastoptim.optim._base import Nonfinite, StepInfo, Storage
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.params.regularizers import Regularizer
from fastoptim.torch.optim import _tensors
from fastoptim.torch.optim._checkpoint import loaded_state, saved_groups, saved_state

Params: TypeAlias = (
    Iterable[torch.Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, torch.Tensor]]
)

# A number, which may be a tensor of one element.
Number: TypeAlias = Hyperparameter[float] | torch.Tensor

# Older versions of PyTorch do not take pairs of a name and a tensor.
_TAKES_NAMES = torch.__version__ >= (2, 6)

_APPLIED = StepInfo(True, None)
_SKIPPED = StepInfo(False, None)


class Optimizer(torch.optim.Optimizer):
    """The abstract base class of the optimizers over tensors.

    It is a ``torch.optim.Optimizer``: groups, state, hooks and schedulers work as in PyTorch.
    Parameters and gradients are dense CPU tensors of float32, float64, bfloat16 or float16 with any
    strides, and are updated in place.

    Attributes
    ----------
    param_groups : list of dict
        As in PyTorch, with every hyperparameter, read again in each step. Each may be a tensor of
        one element, or a function of the number of steps applied so far.
    state : dict
        The tensors of each parameter under PyTorch's names. A step uses and changes them, also
        those that the user has replaced. ``step`` and the other numbers are float64 tensors; arrays
        are float32 (float64 for float64 parameters) unless ``state_dtype`` says otherwise.
    last_info : StepInfo or None
        The result of the last step.

    Notes
    -----
    A step is one call into the core, which releases the interpreter. Other threads must not assign
    other memory to the tensors of a step while it runs.
    """

    _kind: ClassVar[str]
    # The hyperparameters that a saved state does not change.
    _fixed: ClassVar[Mapping[str, Any]] = {}
    # The numbers in the state that are estimates of hyperparameters.
    _estimates: ClassVar[tuple[str, ...]] = ()
    # Whether PyTorch has the number of steps in the state of each parameter.
    _counted: ClassVar[bool] = True
    # PyTorch's GradScaler passes `grad_scale` and `found_inf` to such optimizers.
    _step_supports_amp_scaling = True

    last_info: StepInfo | None

    def __init__(self, params: Params, defaults: dict[str, Any], storage: Storage) -> None:
        for key, value in defaults.items():
            defaults[key] = tuple(value) if isinstance(value, list) else value
        self._storage = storage
        storage.check()
        self._engine = self._new_engine(defaults)
        self.last_info = None
        # As in PyTorch, hyperparameters are checked before parameters.
        _check_flags(defaults)
        self._engine.check_groups([{**defaults, "params": []}])
        super().__init__(params, defaults)

    @property
    def state(self) -> Any:
        """The state of the parameters.

        The engine owns it, and checks it again after each access.
        """
        return self._engine.state

    @state.setter
    def state(self, state: Any) -> None:
        self._engine.set_state(state)

    def _new_engine(self, defaults: dict[str, Any]) -> _core.TensorEngine:
        return _core.TensorEngine(self._kind, *self._storage, defaults, self._counted, _tensors)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with its own hyperparameters.

        Parameters
        ----------
        param_group : dict
            ``"params"`` and any hyperparameters; other keys are kept.

        Raises
        ------
        ValueError
            A parameter is in a group already, or a hyperparameter is out of range.
        """
        count = len(self.param_groups)
        if not _TAKES_NAMES:
            _split_pairs(param_group)

        def action() -> None:
            super(Optimizer, self).add_param_group(param_group)
            _check_flags(self.param_groups[-1])
            self._check_group(self.param_groups[-1])
            self._engine.check_groups(self.param_groups)

        def settle() -> None:
            del self.param_groups[count:]

        _core.attempt(action, settle)

    def _state_type(self, parameter: torch.Tensor) -> torch.dtype:
        """Return the dtype of computation, which state arrays have by default."""
        return torch.float64 if parameter.dtype == torch.float64 else torch.float32

    def _check_group(self, group: dict[str, Any]) -> None:
        """Check a group for conditions of the class."""

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        loss_scale: float = 1.0,
        max_norm: float | None = None,
        clip_value: float | None = None,
        nonfinite: Nonfinite = "propagate",
        regularizer: Regularizer | None = None,
        ema: Any = None,
        copy_to: Sequence[torch.Tensor] | Mapping[str, torch.Tensor] | None = None,
        zero_grad: bool = False,
    ) -> Any:
        """Update the parameters in one pass, with all options fused in.

        The order is: unscale, finite check, regularizer, clip by value, clip by norm, update,
        shrink (of a proximal regularizer), average, copy, zero. The result of the step is in
        ``last_info``.

        Parameters
        ----------
        closure : function, optional
            Computes the loss and the gradients, and returns the loss.
        loss_scale : float, default 1.0
            The divisor of the gradients, in addition to the scale of a ``torch.amp.GradScaler``.
        max_norm : float, optional
            Clips the global 2-norm of the gradients; infinity only computes the norm.
        clip_value : float, optional
            Clips every element to ``-clip_value..clip_value``, before the norm is taken.
        nonfinite : {"propagate", "skip", "raise"}, default "propagate"
            The handling of infinite and NaN gradients: update the parameters with them, change and
            count nothing, or raise a FloatingPointError that names the first parameter.
        regularizer : Regularizer, optional
            Adds its gradient, independent of ``maximize``; proximal terms shrink the parameters
            after the update. For the groups that have no ``"regularizer"`` of their own.
        ema : EMA, optional
            The moving average to update with the new parameters.
        copy_to : sequence or mapping of tensors, optional
            bfloat16 or float16 tensors that receive the parameters, rounded to nearest: one for
            each parameter of all groups, in order or by name.
        zero_grad : bool, default False
            Sets the gradients to 0.

        Returns
        -------
        The loss that ``closure`` returned, or None.

        Raises
        ------
        TypeError
            A tensor is sparse, complex, quantized, on another device, of an unknown subclass or of
            another dtype than its parameter.
        ValueError
            A shape or range is wrong, or tensors share memory.
        FloatingPointError
            A gradient is not finite, and ``nonfinite`` is "raise".
        RuntimeError
            Another thread uses the same memory or is in a call of this optimizer.

        Nothing has been written in any of these cases.
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
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale = getattr(self, "grad_scale", None)
        if scale is not None:
            loss_scale = loss_scale * float(scale)
        found = getattr(self, "found_inf", None)
        if found is not None and float(found):
            self.last_info = _SKIPPED
            return loss
        average, then = (None, None) if ema is None else self._averages(ema)
        done = self._engine.step(
            self.param_groups,
            loss_scale,
            max_norm,
            clip_value,
            nonfinite,
            regularizer,
            average,
            None if copy_to is None else self._targets(copy_to),
            zero_grad,
            then,
        )
        self.last_info = _APPLIED if done is None else StepInfo(*done)
        return loss

    def _averages(self, ema: Any) -> Any:
        """Return the averages in the order of the parameters, their weight, and later calls."""
        if not hasattr(ema, "_begin_for"):
            raise TypeError(f"ema must be a fastoptim.torch.EMA, got {type(ema).__name__}")
        return ema._begin_for([p for group in self.param_groups for p in group["params"]])

    def _targets(
        self, tensors: Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return the targets of a copy in the order of the parameters."""
        if not isinstance(tensors, Mapping):
            return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        names = [
            name
            for group in self.param_groups
            for name in group.get("param_names", [None] * len(group["params"]))
        ]
        if None in names or sorted(names) != sorted(tensors):
            raise ValueError("copy_to must have the names of the parameters, or be a sequence")
        return [tensors[name] for name in names]

    def current(self, name: str, group: int = 0) -> Any:
        """Return the value of a hyperparameter in the next step.

        Parameters
        ----------
        name : str
            A key of a group, such as ``"lr"``; for `Prodigy` also ``"d"``, its estimate.
        group : int, default 0
            The index of the group in ``param_groups``.

        Raises
        ------
        ValueError
            There is no hyperparameter with this name.
        IndexError
            There is no group with this index.
        """
        index = integer("group", group)
        if not 0 <= index < len(self.param_groups):
            raise IndexError(f"group must be from 0 to {len(self.param_groups) - 1}, got {group}")
        known = self.param_groups[index]
        if name in known:
            value = known[name]
            return value(self._engine.steps) if callable(value) else value
        if name in self._estimates:
            entries = [self.state[p] for p in known["params"] if p in self.state]
            return float(entries[0][name]) if entries else known[f"{name}0"]
        names = ", ".join([*known, *self._estimates])
        raise ValueError(f"name must be one of {names}; got {name!r}")

    def state_dict(self) -> dict[str, Any]:
        """Return the state in PyTorch's layout, for this class or the class of PyTorch.

        Hyperparameters that are functions are saved as their current values, and 8-bit moments as
        float32.
        """
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        saved: dict[str, Any] = {
            "state": saved_state(self),
            "param_groups": saved_groups(self.param_groups, self._engine.steps),
        }
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            changed = post_hook(self, saved)
            if changed is not None:
                saved = changed
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a result of ``state_dict`` of this class or of PyTorch.

        Everything is checked before anything changes, and tensors are copied. Parameters are
        matched by position, as in PyTorch. Hyperparameters that are functions here, or that the
        class fixes, do not change.

        Raises
        ------
        CheckpointError
            The dict is not one of this optimizer with these parameters.
        """
        saved: Any = dict(state_dict)
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = pre_hook(self, saved)
            if changed is not None:
                saved = changed
        state, groups = loaded_state(self, saved)
        # One call, so that an interrupt finds all changes or none. The rest prepares the groups.
        _core.call_all(
            [
                (self._engine.set_steps, _most_steps(state)),
                (self._engine.set_state, state),
                (self.__dict__.update, {"param_groups": groups}),
            ]
        )
        self.__setstate__({"state": state, "param_groups": groups})
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {
            **super().__getstate__(),
            "_storage": self._storage,
            "_steps": self._engine.steps,
            "last_info": self.last_info,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        steps = state.pop("_steps", None)
        entries = state.pop("state")
        super().__setstate__(state)
        if "_engine" in self.__dict__:
            self._engine.forget()
        else:
            self._engine = self._new_engine(self.defaults)
        self._engine.set_state(entries)
        if steps is not None:
            self._engine.set_steps(steps)
        for group in self.param_groups:
            for key, value in self.defaults.items():
                group.setdefault(key, value)
            group.update(self._fixed)


def _split_pairs(group: Any) -> None:
    """Move the names of pairs in a group to ``"param_names"``, as PyTorch does."""
    params = group.get("params") if isinstance(group, dict) else None
    if params is None or isinstance(params, (torch.Tensor, set)):
        return
    group["params"] = params = list(params)
    if params and all(isinstance(item, tuple) and len(item) == 2 for item in params):
        names, tensors = zip(*params, strict=True)
        group["params"], group["param_names"] = list(tensors), list(names)


def _check_flags(group: Mapping[str, Any]) -> None:
    """Reject flags of PyTorch that have no meaning for CPU tensors."""
    for key, value in group.items():
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            raise ValueError(f"{key} must be a number, got a tensor of shape {tuple(value.shape)}")
    if group.get("fused") and group.get("foreach"):
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if group.get("capturable"):
        raise ValueError(
            "capturable=True is for graphs of accelerators, and the parameters are on the CPU"
        )
    if group.get("differentiable"):
        raise ValueError(
            "differentiable=True needs a step that autograd records: use the class in torch.optim"
        )


def _most_steps(state: Mapping[Any, Any]) -> int:
    """Return the largest number of steps of a parameter."""
    entries = [entry for entry in state.values() if isinstance(entry, Mapping)]
    return int(max((float(entry["step"]) for entry in entries if "step" in entry), default=0))
