"""Sharpness-aware minimization around any optimizer of PyTorch or of this package."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fastoptim import _core
from fastoptim._checks import flag, non_negative, positive
from fastoptim._commit import setting
from fastoptim.optim import StepInfo
from fastoptim.torch.optim import _tensors
from fastoptim.torch.optim._base import Optimizer, Params


class SAM(torch.optim.Optimizer):
    r"""Sharpness-aware minimization: finds flat minima, with two gradients per step.

    .. math::
        e = \rho \frac{g}{\lVert g \rVert + 10^{-12}}, \qquad
        p = \text{base}(p, \nabla L(p + e))

    The norm is that of all parameters of all groups. Adaptive, :math:`e = \rho\, p^2 g / \lVert p g
    \rVert`, which does not depend on the scale of the parameters. The parameters come back from a
    saved copy, to the bit, before the base optimizer steps.

    Parameters
    ----------
    params : iterable of tensors, of names and tensors, or of groups
        Dense CPU tensors in float32, float64, bfloat16 or float16, updated in place.
    base_optimizer : class
        The class of the optimizer that makes the step, of this package or of ``torch.optim``.
    rho : float, default 0.05
        The size of the neighbourhood; finite and >= 0. A group may have its own.
    adaptive : bool, default False
        Scales the neighbourhood by the parameters; use a ``rho`` about 10 times larger. The groups
        must agree.
    **kwargs
        Arguments of the base optimizer.

    Attributes
    ----------
    base_optimizer : torch.optim.Optimizer
        The base optimizer, to which groups and state belong.

    References
    ----------
    Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", 2021.
    Kwon et al., "ASAM: Adaptive Sharpness-Aware Minimization", 2021.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> opt = fastoptim.torch.SAM([w], fastoptim.torch.SGD, rho=0.5, lr=0.1)
    >>> (w @ w).backward()
    >>> opt.first_step(zero_grad=True)
    >>> (w @ w).backward()
    >>> opt.second_step(zero_grad=True)
    >>> w.detach()
    tensor([2.3400, 3.1200])
    """

    def __init__(
        self,
        params: Params,
        base_optimizer: Callable[..., torch.optim.Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
        **kwargs: Any,
    ) -> None:
        self._saved: list[torch.Tensor] = []
        self._perturbed = False
        self._by_closure = False
        # Whether the gradients of the first step were finite, and whether a step was skipped then.
        self._finite = True
        self._skipped = False
        super().__init__(params, {"rho": rho, "adaptive": adaptive, **kwargs})
        self.base_optimizer = base_optimizer(self.param_groups, **kwargs)
        self.defaults.update(self.base_optimizer.defaults)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the base optimizer."""
        base = self.__dict__.get("base_optimizer")
        return self.__dict__["param_groups"] if base is None else base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.__dict__["param_groups"] = groups

    @property
    def state(self) -> Any:
        """The state of the base optimizer."""
        base = self.__dict__.get("base_optimizer")
        return self.__dict__["state"] if base is None else base.state

    @state.setter
    def state(self, state: Any) -> None:
        self.__dict__["state"] = state

    @property
    def last_info(self) -> StepInfo | None:
        """The result of the last step of the base optimizer, if it has one."""
        if self._skipped:
            return StepInfo(False, None)
        return getattr(self.base_optimizer, "last_info", None)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with its own hyperparameters."""
        for key in ("rho", "adaptive"):
            param_group.setdefault(key, self.defaults[key])
        _checked(param_group)
        base = self.__dict__.get("base_optimizer")
        if base is None:
            super().add_param_group(param_group)
        else:
            base.add_param_group(param_group)

    def _pairs(self) -> tuple[list[torch.Tensor], list[torch.Tensor], list[float]]:
        """Return the parameters that have gradients, their gradients, and the factors."""
        params, grads, factors = [], [], []
        for group in self.param_groups:
            rho, _ = _checked(group)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    params.append(parameter)
                    grads.append(parameter.grad)
                    factors.append(-rho if group.get("maximize") else rho)
        return params, grads, factors

    def first_step(self, zero_grad: bool = False, *, loss_scale: float = 1.0) -> None:
        """Save the parameters and move them to the perturbed point.

        Parameters
        ----------
        zero_grad : bool, default False
            Clears the gradients afterwards.
        loss_scale : float, default 1.0
            The divisor of the gradients; finite and > 0.

        Raises
        ------
        RuntimeError
            They are at the perturbed point already.
        """
        self._refuse_perturbed()
        loss_scale = positive("loss_scale", loss_scale)
        adaptive = {_checked(group)[1] for group in self.param_groups}
        if len(adaptive) > 1:
            raise ValueError("adaptive must be the same in all groups")
        scaled = adaptive.pop()
        params, grads, factors = self._pairs()
        norm = _core.tensor_norm(_tensors, params, grads, scaled)
        # The norm includes the scale, so the constant is multiplied by it.
        factors = [factor / (norm + 1e-12 * loss_scale) for factor in factors]
        finite = math.isfinite(norm) or all(bool(g.isfinite().all()) for g in grads)
        saved = [
            parameter.detach().clone(memory_format=torch.preserve_format) for parameter in params
        ]
        pairs = list(zip(params, saved, strict=True))
        moved = setting(self, _perturbed=True, _finite=finite, _saved=pairs)
        _core.perturb_tensors(_tensors, params, grads, factors, scaled, self._noise(), [moved])
        if zero_grad:
            self.zero_grad()

    def _noise(self) -> tuple[int, int] | None:
        """Return the seed and the step of stochastic rounding, or None without it."""
        base = self.base_optimizer
        if not isinstance(base, Optimizer) or base._storage.rounding == "nearest":
            return None
        return operator.index(base._storage.seed), base._engine.steps

    def second_step(self, zero_grad: bool = False, **options: Any) -> None:
        """Restore the parameters and step with the gradients at the perturbed point.

        Parameters
        ----------
        zero_grad : bool, default False
            Clears the gradients afterwards.
        **options
            Arguments of the ``step`` of the base optimizer. If ``nonfinite`` is "skip" or "raise",
            it also applies to the gradients of `first_step`.

        Raises
        ------
        RuntimeError
            ``first_step`` has not been called.
        """
        if not self._perturbed:
            raise RuntimeError("call first_step before second_step")
        lost = not self._finite and options.get("nonfinite", "propagate") != "propagate"
        if lost and options["nonfinite"] == "raise":
            raise FloatingPointError("the gradients of first_step were not finite")
        params = [pair[0] for pair in self._saved]
        versions: list[int] = []

        def action() -> None:
            self._exchange(perturbed=False)
            versions.extend([parameter._version for parameter in params])
            self._skipped = lost
            if not lost:
                self.base_optimizer.step(**options)

        def settle() -> None:
            # A step that was applied has incremented the versions.
            stepped = versions and versions != [parameter._version for parameter in params]
            if not self._perturbed and not stepped:
                self._exchange(perturbed=True)

        _core.attempt(action, settle)
        self._saved = []
        if zero_grad:
            self.zero_grad()

    def step(self, closure: Callable[[], Any] | None = None, **options: Any) -> Any:
        """Make both steps.

        Parameters
        ----------
        closure : function
            Computes the loss and the gradients, and returns the loss. It is called at the perturbed
            point, and before that at the parameters, unless they have gradients already, as in
            ``loss.backward(); opt.step(closure)``. If it or a step raises, the parameters are
            restored.
        **options
            Arguments of the ``step`` of the base optimizer.

        Returns
        -------
        The loss of the first call.
        """
        if closure is None:
            raise TypeError("SAM needs a closure, or first_step and second_step")
        self._refuse_perturbed()
        found = []
        if not self._pairs()[0]:
            self._by_closure = True
        with torch.enable_grad():
            if self._by_closure:
                self.zero_grad()
                found.append(closure())

            def action() -> None:
                self.first_step(zero_grad=True)
                found.append(closure())
                self.second_step(**options)

            def settle() -> None:
                if self._perturbed:
                    self._exchange(perturbed=False)

            _core.attempt(action, settle)
        return found[0]

    def _refuse_perturbed(self) -> None:
        if self._perturbed:
            raise RuntimeError("call second_step before the next first_step")

    def _exchange(self, *, perturbed: bool) -> None:
        """Swap the parameters with the saved values."""
        params, saved = [pair[0] for pair in self._saved], [pair[1] for pair in self._saved]
        then = [setting(self, _perturbed=perturbed)]
        _core.exchange_tensors(_tensors, params, saved, then)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the base optimizer."""
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        saved = self.base_optimizer.state_dict()
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            changed = post_hook(self, saved)
            saved = saved if changed is None else changed
        return saved

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a result of ``state_dict`` of this or of the base optimizer."""
        saved = dict(state_dict)
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = pre_hook(self, saved)
            saved = saved if changed is None else changed
        self.base_optimizer.load_state_dict(saved)
        for group in self.param_groups:
            group.setdefault("rho", self.defaults["rho"])
            group.setdefault("adaptive", self.defaults["adaptive"])
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "defaults": self.defaults,
            "base_optimizer": self.base_optimizer,
            "_saved": self._saved,
            "_perturbed": self._perturbed,
            "_by_closure": self._by_closure,
            "_finite": self._finite,
            "_skipped": self._skipped,
        }


def _checked(group: Mapping[str, Any]) -> tuple[float, bool]:
    """Return the size of the neighbourhood of a group, and whether it is adaptive."""
    return non_negative("rho", group["rho"]), flag("adaptive", group["adaptive"])
