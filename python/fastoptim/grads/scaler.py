"""Loss scaling for low-precision gradients, compatible with PyTorch's ``torch.amp``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastoptim import _core
from fastoptim._checks import between, flag, integer, number
from fastoptim._commit import Call
from fastoptim.errors import CheckpointError
from fastoptim.grads.clip import get_total_norm
from fastoptim.optim._base import Optimizer, StepInfo
from fastoptim.optim.sam import SAM
from fastoptim.params.flat_buffer import DTYPES
from fastoptim.params.structure import Grads

__all__ = ["GradScaler"]


@dataclass(frozen=True)
class _Progress:
    """The calls for one optimizer since the last update; the reference keeps its id unique."""

    opt: Optimizer | SAM
    # Whether these are the gradients of `step` or of the first step of SAM.
    unscaled: frozenset[str] = frozenset()
    stepped: bool = False
    found_inf: bool = False


class GradScaler:
    r"""Scales the loss by a large factor for which the gradients are finite.

    float16 gradients below 6e-8 become 0. Scaling the loss increases all of them, and `step`
    divides them by the scale in its sweep. If a gradient is infinite or NaN, the step is skipped:

    .. math::
        \text{scale} \leftarrow \begin{cases}
            \text{backoff} \cdot \text{scale} & \text{after a skipped step} \\
            \text{growth} \cdot \text{scale} & \text{after as many consecutive finite steps as the
                interval} \\
            \text{scale} & \text{otherwise}
        \end{cases}

    The rules, the arithmetic (float32) and the ``state_dict`` are those of PyTorch, so states can
    be exchanged with it. There are three differences: the scale stays a normal number (PyTorch's
    may become 0), it still grows if the interval is set to less than the current number of finite
    steps (PyTorch's does not), and float64 gradients are divided in float64 (PyTorch multiplies by
    a float32). bfloat16 has the range of float32 and needs no scaling.

    Parameters
    ----------
    init_scale : float, default 65536.0
        The initial scale, a positive normal float32. Scaling by a power of two is exact.
    growth_factor : float, default 2.0
        Finite and > 1.
    backoff_factor : float, default 0.5
        In (0, 1).
    growth_interval : int, default 2000
        The number of consecutive finite steps until the scale grows, >= 1.
    enabled : bool, default True
        If False, the scale is 1, `step` is the step of the optimizer, and other methods do nothing.

    Raises
    ------
    TypeError, ValueError
        An argument has a wrong type or is out of range.

    References
    ----------
    Micikevicius et al., "Mixed Precision Training", 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([1.0, -2.0])
    >>> opt, scaler = fo.SGD(w, lr=0.5), fo.amp.GradScaler(init_scale=1024.0)
    >>> scaler.step(opt, scaler.scale(np.array([2.0, np.inf]))).applied
    False
    >>> scaler.update()
    >>> scaler.get_scale()
    512.0
    >>> scaler.step(opt, scaler.scale(np.array([2.0, -4.0])), max_norm=9.0).applied
    True
    >>> w
    array([0., 0.])
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._enabled = flag("enabled", enabled)
        self._scale = _checked_scale("init_scale", init_scale)
        self.set_growth_factor(growth_factor)
        self.set_backoff_factor(backoff_factor)
        self.set_growth_interval(growth_interval)
        self._growth_tracker = 0
        self._progress: dict[int, _Progress] = {}

    def scale(self, x: Any) -> Any:
        """Return a loss or a gradient times the scale.

        Losses scale their gradients at no cost: ``value_and_grad(..., loss_scale=get_scale())``.

        Parameters
        ----------
        x : float or array
            For an array, the result is a new array of its dtype, with infinity for overflow.
        """
        if not self._enabled:
            return x
        if not isinstance(x, np.ndarray):
            return number("x", x) * self._scale
        if x.dtype.name not in DTYPES:
            raise TypeError(f"x must have a floating dtype, got {x.dtype}")
        wide = np.float64 if x.dtype == np.float64 else np.float32
        with np.errstate(over="ignore"):
            return np.asarray(np.multiply(x, self._scale, dtype=wide)).astype(x.dtype, copy=False)

    def unscale_(self, opt: Optimizer | SAM, grads: Grads) -> None:
        """Divide gradients by the scale in place, to inspect or change them before `step`.

        ``step(max_norm=..., clip_value=...)`` clips unscaled gradients without this extra pass.

        Parameters
        ----------
        opt : Optimizer or SAM
            The optimizer of the gradients; for `SAM` the gradients of ``first_step`` before that
            call, and of ``second_step`` after it.
        grads : FlatBuffer, array, sequence or mapping
            As for its ``step``. Infinities and NaN are recorded. 16-bit gradients are divided in
            float32 and rounded to nearest: in float16 a quotient below 6e-8 becomes 0, unlike in a
            `step` with scaled gradients.

        Raises
        ------
        TypeError, ValueError
            As for ``step``, or a gradient is read-only. Nothing has changed then.
        RuntimeError
            It was called for these gradients since the last `update`, or after `step`.
        """
        if not self._enabled:
            return
        progress = self._of(opt)
        if progress.stepped:
            raise RuntimeError(
                "unscale_ must be called before step, which was called since the last update"
            )
        turn = "first_step" if isinstance(opt, SAM) and not opt._perturbed else "step"
        if turn in progress.unscaled:
            raise RuntimeError(
                "unscale_ was already called for this optimizer since the last update"
            )
        names = [name for group in opt.param_groups for name in group["param_names"]]
        params = [array for group in opt.param_groups for array in group["params"]]
        ordered = _base(opt)._in_order(grads)
        finite = math.isfinite(_core.total_norm(ordered, names, math.inf))
        found_inf = progress.found_inf or not finite
        done = replace(progress, unscaled=progress.unscaled | {turn}, found_inf=found_inf)
        noted = [(self._progress.update, {id(opt): done})]
        _core.unscale(names, params, ordered, self._scale, noted)

    def step(self, opt: Optimizer | SAM, grads: Grads, **options: Any) -> StepInfo:
        """Make a step with scaled gradients, or with gradients after `unscale_`.

        Parameters
        ----------
        opt : Optimizer or SAM
            The optimizer; for `SAM` this is the second step, after ``first_step(grads,
            loss_scale=get_scale())``. The step is skipped, and the parameters are restored, if
            gradients of either step are not finite.
        grads : FlatBuffer, array, sequence or mapping
            As for its ``step``.
        **options
            As for its ``step``, except ``loss_scale`` and ``nonfinite``, which the scaler sets.

        Returns
        -------
        StepInfo
            Also for a skipped step.

        Raises
        ------
        TypeError, ValueError
            As for its ``step``. Nothing has changed then.
        RuntimeError
            It was called for this optimizer since the last `update`, or ``first_step`` of `SAM` has
            not been called.
        """
        progress = self._of(opt)
        step = opt.second_step if isinstance(opt, SAM) else opt.step
        if not self._enabled:
            return step(grads, **options)
        if progress.stepped:
            raise RuntimeError("step was already called for this optimizer since the last update")
        base = _base(opt)
        steps = base._engine.steps
        moved = opt if isinstance(opt, SAM) and opt._perturbed else None

        def action() -> StepInfo:
            given = base._in_order(grads) if progress.found_inf else grads
            if progress.found_inf and math.isfinite(get_total_norm(given, math.inf)):
                # The user changed what unscale_ had found; it was not the gradient of the loss.
                if isinstance(opt, SAM):
                    opt._restore()
                info = StepInfo(False, None)
            else:
                scale = 1.0 if "step" in progress.unscaled else self._scale
                info = step(given, loss_scale=scale, nonfinite="skip", **options)
            note(info.applied)
            return info

        def note(applied: bool) -> None:
            done = replace(progress, stepped=True, found_inf=not applied)
            self._progress[id(opt)] = done

        def settle() -> None:
            applied = base._engine.steps != steps
            # A skipped step of SAM restores the parameters.
            if applied or (moved is not None and not moved._perturbed):
                note(applied)

        return _core.attempt(action, settle)

    def update(self, new_scale: float | None = None) -> None:
        """Adapt the scale to the gradients found since the last update.

        Parameters
        ----------
        new_scale : float, optional
            The new scale, instead of adapting it.

        Raises
        ------
        RuntimeError
            Neither `step` nor `unscale_` was called since the last update.
        """
        if not self._enabled:
            return
        scale, tracker = self._scale, self._growth_tracker
        if new_scale is not None:
            scale = _checked_scale("new_scale", new_scale)
        elif not self._progress:
            raise RuntimeError(
                "update must be called after step: no gradients were checked since the last update"
            )
        elif any(progress.found_inf for progress in self._progress.values()):
            scale, tracker = _multiplied(scale, self._backoff_factor), 0
        else:
            tracker += 1
            if tracker >= self._growth_interval:
                scale, tracker = _multiplied(scale, self._growth_factor), 0
        vars(self).update(_scale=scale, _growth_tracker=tracker, _progress={})

    def get_scale(self) -> float:
        """Return the scale."""
        return self._scale if self._enabled else 1.0

    def is_enabled(self) -> bool:
        """Return whether scaling is enabled."""
        return self._enabled

    def get_growth_factor(self) -> float:
        """Return the growth factor."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set the growth factor, finite and > 1."""
        self._growth_factor = between("growth_factor", new_factor, 1, math.inf, "()")

    def get_backoff_factor(self) -> float:
        """Return the backoff factor."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set the backoff factor, in (0, 1)."""
        self._backoff_factor = between("backoff_factor", new_factor, 0, 1, "()")

    def get_growth_interval(self) -> int:
        """Return the growth interval."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set the growth interval, >= 1."""
        self._growth_interval = integer("growth_interval", new_interval, least=1)

    def state_dict(self) -> dict[str, Any]:
        """Return the state with PyTorch's keys, empty if disabled. Call it after `update`."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state of this class or of PyTorch's; does nothing if disabled.

        Raises
        ------
        CheckpointError
            It has other keys (none if the scaler was disabled), or a value that the constructor
            would refuse. Nothing has changed then.
        """
        _core.call_all(self._loading(state_dict))

    def _loading(self, state_dict: Any) -> list[Call]:
        """Check a state, and return the calls that load it."""
        if not self._enabled:
            return []
        expected = self.state_dict().keys()
        if not isinstance(state_dict, Mapping) or state_dict.keys() != expected:
            raise CheckpointError(f"the state of a GradScaler must have {sorted(expected)}")
        try:
            loaded = GradScaler(
                state_dict["scale"],
                state_dict["growth_factor"],
                state_dict["backoff_factor"],
                state_dict["growth_interval"],
            )
            tracker = integer("_growth_tracker", state_dict["_growth_tracker"], least=0)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the state of a GradScaler: {error}") from None
        loaded._growth_tracker, loaded._progress = tracker, self._progress
        return [(self.__dict__.update, loaded.__dict__)]

    def _of(self, opt: Optimizer | SAM) -> _Progress:
        if not isinstance(opt, Optimizer | SAM):
            raise TypeError(f"opt must be an optimizer, got {type(opt).__name__}")
        return self._progress.get(id(opt), _Progress(opt))

    def __getstate__(self) -> dict[str, Any]:
        if self._progress:
            raise RuntimeError("a scaler can be copied or pickled only after update")
        return self.__dict__.copy()

    def __repr__(self) -> str:
        state = ", ".join(f"{key}={value!r}" for key, value in self.state_dict().items())
        return f"GradScaler({state})" if self._enabled else "GradScaler(enabled=False)"


def _base(opt: Optimizer | SAM) -> Optimizer:
    return opt.base if isinstance(opt, SAM) else opt


def _checked_scale(name: str, scale: Any) -> float:
    rounded = _single(number(name, scale))
    if not _is_normal(rounded):
        raise ValueError(f"{name} must be > 0 and a normal number of float32, got {scale!r}")
    return rounded


def _multiplied(scale: float, factor: float) -> float:
    """Return the product, or the same scale if the product is not a normal number."""
    multiplied = _single(scale * factor)
    return multiplied if _is_normal(multiplied) else scale


def _single(x: float) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(x))


def _is_normal(x: float) -> bool:
    limits = np.finfo(np.float32)
    return bool(limits.tiny <= x <= limits.max)
