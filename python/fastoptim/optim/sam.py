"""Sharpness-aware minimization around any optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from fastoptim import _core
from fastoptim._checks import CheckedAttributes, Checks, flag, non_negative, positive
from fastoptim._commit import setting
from fastoptim.grads.clip import get_total_norm
from fastoptim.optim._base import Array, Grads, Optimizer, StepInfo


def _optimizer(name: str, value: Any) -> Optimizer:
    if not isinstance(value, Optimizer):
        raise TypeError(f"{name} must be an optimizer, got {type(value).__name__}")
    return value


class SAM(CheckedAttributes):
    r"""Sharpness-aware minimization: prefers flat minima, with two gradients per step.

    .. math::
        e = \rho \frac{g}{\lVert g \rVert + 10^{-12}}, \qquad
        p = \text{base}(p, \nabla L(p + e))

    The norm is over all parameters of all groups. With ``adaptive``, :math:`e = \rho\, p^2 g /
    \lVert p g \rVert`, which does not depend on the scale of the parameters. The parameters are
    restored from a copy, bit for bit, before the base optimizer steps. Perturbed 16-bit parameters
    are rounded as in the base.

    Parameters
    ----------
    base : Optimizer
        The optimizer that makes the step, with its ``param_groups`` and ``maximize``.
    rho : float, default 0.05
        The size of the perturbation; finite and >= 0.
    adaptive : bool, default False
        Scales the perturbation by the parameters; use a ``rho`` about 10 times larger.

    References
    ----------
    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2021.
    Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization", 2021.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([3.0, 4.0])
    >>> opt = fo.SAM(fo.SGD(w, lr=0.1), rho=0.5)
    >>> opt.step(lambda: (float(w @ w), 2 * w))
    25.0
    >>> w.round(6)
    array([2.34, 3.12])
    """

    _checks: ClassVar[Checks] = {
        "base": _optimizer,
        "rho": non_negative,
        "adaptive": flag,
    }

    def __init__(self, base: Optimizer, rho: float = 0.05, adaptive: bool = False) -> None:
        self.base = base
        self.rho = rho
        self.adaptive = adaptive
        self._saved: list[Array] = []
        self._perturbed = False
        # Whether the gradients of the first step were finite.
        self._finite = True

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the base optimizer."""
        return self.base.param_groups

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """The state of the base optimizer."""
        return self.base.state

    def _params(self) -> list[Array]:
        return [array for group in self.param_groups for array in group["params"]]

    def current(self, name: str, group: int = 0) -> Any:
        """Return the value of a hyperparameter of the base optimizer in the next step."""
        return self.base.current(name, group)

    def first_step(self, grads: Grads, *, loss_scale: float = 1.0) -> None:
        """Save the parameters, and perturb them in the direction of largest loss.

        Parameters
        ----------
        grads : FlatBuffer, array, iterable or mapping
            As for the base optimizer.
        loss_scale : float, default 1.0
            The factor of the loss, and so of the gradients; finite and > 0.

        Raises
        ------
        RuntimeError
            The parameters are perturbed already.
        """
        self._refuse_perturbed()
        loss_scale = positive("loss_scale", loss_scale)
        params, ordered = self._params(), self.base._in_order(grads)
        norm = _core.sam_norm(params, ordered, self.adaptive)
        if len(self._saved) != len(params):
            self._saved = [np.empty_like(array) for array in params]
        for saved, array in zip(self._saved, params, strict=True):
            saved[...] = array
        # Gradients and norm contain the loss scale, which cancels; so the constant is scaled,
        # too.
        factor = self.rho / (norm + 1e-12 * loss_scale)
        factors = []
        for index, group in enumerate(self.param_groups):
            sign = -1.0 if self.base.current("maximize", index) else 1.0
            factors += [sign * factor] * len(group["params"])
        finite = math.isfinite(norm) or math.isfinite(get_total_norm(ordered, math.inf))
        moved = [setting(self, _perturbed=True, _finite=finite)]
        _core.sam_perturb(params, ordered, factors, self.adaptive, self.base._noise, moved)

    def second_step(self, grads: Grads, **options: Any) -> StepInfo:
        """Restore the parameters, and step by the gradients at the perturbed point.

        Parameters
        ----------
        grads : FlatBuffer, array, sequence or mapping
            As for the base optimizer.
        **options
            As for its ``step``. With ``nonfinite`` "skip" or "raise", the gradients of `first_step`
            must be finite, too, since they determine the perturbation.

        Returns
        -------
        StepInfo
            As of its ``step``. The parameters are restored if the step is skipped, too.

        Raises
        ------
        RuntimeError
            ``first_step`` has not been called.
        """
        self._refuse_unperturbed()
        steps = self.base._engine.steps
        lost = not self._finite and options.get("nonfinite", "propagate") != "propagate"
        if lost and options["nonfinite"] == "raise":
            raise FloatingPointError("the gradients of first_step were not finite")

        def action() -> StepInfo:
            self._exchange(perturbed=False)
            if lost:
                return StepInfo(False, None)
            return self.base.step(grads, **options)

        def settle() -> None:
            if not self._perturbed and self.base._engine.steps == steps:
                self._exchange(perturbed=True)

        return _core.attempt(action, settle)

    def step(self, closure: Callable[[], tuple[float, Grads]]) -> float:
        """Make both steps.

        Parameters
        ----------
        closure : function
            Returns the loss and the gradients at the parameters; called twice. If it or a step
            raises an error, the parameters are restored.

        Returns
        -------
        float
            The loss of the first call.
        """
        self._refuse_perturbed()
        loss, grads = closure()

        def action() -> None:
            self.first_step(grads)
            self.second_step(closure()[1])

        def settle() -> None:
            if self._perturbed:
                self._exchange(perturbed=False)

        _core.attempt(action, settle)
        return loss

    def _refuse_perturbed(self) -> None:
        if self._perturbed:
            raise RuntimeError("first_step was called already; call second_step next")

    def _refuse_unperturbed(self) -> None:
        if not self._perturbed:
            raise RuntimeError("second_step must be called after first_step")

    def _restore(self) -> None:
        """Restore the parameters without a step."""
        self._refuse_unperturbed()
        self._exchange(perturbed=False)

    def _exchange(self, *, perturbed: bool) -> None:
        """Swap the parameters and the saved copy, and set whether the parameters are perturbed."""
        _core.exchange(self._params(), self._saved, then=[setting(self, _perturbed=perturbed)])

    def zero_grad(self, grads: Grads) -> None:
        """Set every gradient to 0."""
        self.base.zero_grad(grads)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the base optimizer."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state that ``state_dict`` of this or of the base optimizer returned."""
        self.base.load_state_dict(state_dict)

    def __repr__(self) -> str:
        return f"SAM(rho={self.rho}, adaptive={self.adaptive}, base={self.base!r})"
