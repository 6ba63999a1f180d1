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
from fastoptim.params.structure import Grads

__all__ = ["GradScaler"]


@dataclass(frozen=True)
class _Progress:
    """What one optimizer has done since the last update. It keeps its id from being given anew."""

    opt: Optimizer | SAM
    # For which gradients: of `step`, or of the first step of SAM.
    unscaled: frozenset[str] = frozenset()
    stepped: bool = False
    found_inf: bool = False


class GradScaler:
    r"""Multiplies the loss by the largest factor that keeps its gradients finite.

    Gradients of float16 below 6e-8 become 0. Scaling the loss moves all of them up, and `step`
    divides them again in the sweep of the step. Where they hold an infinity or a NaN the step is
    skipped:

    .. math::
        \text{scale} \leftarrow \begin{cases}
            \text{backoff} \cdot \text{scale} & \text{after a skipped step} \\
            \text{growth} \cdot \text{scale} & \text{after as many good steps in a row as the
                interval} \\
            \text{scale} & \text{otherwise}
        \end{cases}

    These are PyTorch's rules, arithmetic (float32) and ``state_dict``, so that a scaler can be
    moved both ways. It differs where the scale would leave the normal numbers (PyTorch's goes on to
    0), where the interval is made shorter than the present row of good steps (PyTorch's scale never
    grows again), and in the digits of float64 gradients, which PyTorch multiplies by a float32.
    bfloat16 has the range of float32 and needs no scaling.

    Parameters
    ----------
    init_scale : float, default 65536.0
        The first scale; a power of two changes no digit of a gradient. Positive and normal in
        float32, in which it is kept.
    growth_factor : float, default 2.0
        Finite and > 1.
    backoff_factor : float, default 0.5
        In (0, 1).
    growth_interval : int, default 2000
        Good steps in a row until the scale grows, >= 1.
    enabled : bool, default True
        Otherwise the scale is 1, `step` is the step of the optimizer, and all else does nothing.

    Raises
    ------
    TypeError, ValueError
        An argument is of another type or out of range.

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
            An array comes back as a new one of its dtype, infinite where that overflows.
        """
        if not self._enabled:
            return x
        if not isinstance(x, np.ndarray):
            return number("x", x) * self._scale
        if x.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
            raise TypeError(f"x must be of floating point numbers, got {x.dtype}")
        wide = np.float64 if x.dtype == np.float64 else np.float32
        with np.errstate(over="ignore"):
            return np.asarray(np.multiply(x, self._scale, dtype=wide)).astype(x.dtype, copy=False)

    def unscale_(self, opt: Optimizer | SAM, grads: Grads) -> None:
        """Divide gradients by the scale in place, to look at them or to change them before `step`.

        ``step(max_norm=..., clip_value=...)`` clips what is unscaled without this extra pass.

        Parameters
        ----------
        opt : Optimizer or SAM
            Whose gradients they are; of `SAM` those of ``first_step`` before it, and then those of
            ``second_step``.
        grads : FlatBuffer, array, sequence or mapping
            As for its ``step``. Infinities and NaNs among them are remembered. Those in 16 bits are
            divided in float32 and rounded to nearest: in float16 a quotient below 6e-8 becomes 0,
            which `step` by scaled gradients avoids.

        Raises
        ------
        TypeError, ValueError
            As ``step`` does, and for a gradient that is read-only. Nothing has changed then.
        RuntimeError
            A second time for these gradients since the last `update`, or after the `step`.
        """
        if not self._enabled:
            return
        progress = self._of(opt)
        if progress.stepped:
            raise RuntimeError("unscale_ comes before step, which was called since the last update")
        turn = "first_step" if isinstance(opt, SAM) and not opt._perturbed else "step"
        if turn in progress.unscaled:
            raise RuntimeError("unscale_ was called for this optimizer since the last update")
        names = [name for group in opt.param_groups for name in group["param_names"]]
        params = [array for group in opt.param_groups for array in group["params"]]
        ordered = _base(opt)._in_order(grads)
        finite = math.isfinite(_core.total_norm(ordered, names, math.inf))
        found_inf = progress.found_inf or not finite
        done = replace(progress, unscaled=progress.unscaled | {turn}, found_inf=found_inf)
        noted = [(self._progress.update, {id(opt): done})]
        _core.unscale(names, params, ordered, self._scale, noted)

    def step(self, opt: Optimizer | SAM, grads: Grads, **options: Any) -> StepInfo:
        """Make a step by gradients that are scaled, or were until `unscale_`.

        Parameters
        ----------
        opt : Optimizer or SAM
            What makes the step; of `SAM` the second, after ``first_step(grads,
            loss_scale=get_scale())``. It is skipped, and the parameters are brought back, where
            the gradients of either step are not finite.
        grads : FlatBuffer, array, sequence or mapping
            As for its ``step``.
        **options
            As for its ``step``; ``loss_scale`` and ``nonfinite`` are the scaler's.

        Returns
        -------
        StepInfo
            Of a skipped step, too.

        Raises
        ------
        TypeError, ValueError
            As ``step`` does. Nothing has changed then.
        RuntimeError
            A second time for this optimizer since the last `update`, or ``first_step`` of `SAM` has
            not been called.
        """
        progress = self._of(opt)
        step = opt.second_step if isinstance(opt, SAM) else opt.step
        if not self._enabled:
            return step(grads, **options)
        if progress.stepped:
            raise RuntimeError("step was called for this optimizer since the last update")
        base = _base(opt)
        steps = base._engine.steps
        moved = opt if isinstance(opt, SAM) and opt._perturbed else None

        def action() -> StepInfo:
            given = base._in_order(grads) if progress.found_inf else grads
            if progress.found_inf and math.isfinite(get_total_norm(given, math.inf)):
                # What unscale_ found was mended, or zeroed. It was not the gradient of the loss.
                if isinstance(opt, SAM):
                    opt._return()
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
            # A step of SAM that is skipped brings the parameters back.
            if applied or (moved is not None and not moved._perturbed):
                note(applied)

        return _core.attempt(action, settle)

    def update(self, new_scale: float | None = None) -> None:
        """Adapt the scale to what the steps since the last update have found.

        Parameters
        ----------
        new_scale : float, optional
            Set this instead.

        Raises
        ------
        RuntimeError
            There was neither `step` nor `unscale_` since the last update.
        """
        if not self._enabled:
            return
        scale, tracker = self._scale, self._growth_tracker
        if new_scale is not None:
            scale = _checked_scale("new_scale", new_scale)
        elif not self._progress:
            raise RuntimeError("update comes after step: nothing was checked since the last update")
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
        """Tell whether anything is scaled."""
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
        """Return the state under PyTorch's keys; nothing when disabled. Call it after `update`."""
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
        """Continue from a state of this or of PyTorch's class; does nothing when disabled.

        Raises
        ------
        CheckpointError
            It has other keys (none, of a scaler that was disabled), or a value that the constructor
            would refuse. Nothing has changed then.
        """
        _core.call_all(self._loading(state_dict))

    def _loading(self, state_dict: Any) -> list[Call]:
        """Check a state, and return the calls that take it over."""
        if not self._enabled:
            return []
        expected = self.state_dict().keys()
        if not isinstance(state_dict, Mapping) or state_dict.keys() != expected:
            raise CheckpointError(f"the state of a GradScaler has {sorted(expected)}")
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
            raise RuntimeError("a scaler can be copied or pickled after update, not before")
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
    """Return a new scale, or the same where that would be 0 or infinite, or lose digits."""
    multiplied = _single(scale * factor)
    return multiplied if _is_normal(multiplied) else scale


def _single(x: float) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(x))


def _is_normal(x: float) -> bool:
    limits = np.finfo(np.float32)
    return bool(limits.tiny <= x <= limits.max)
