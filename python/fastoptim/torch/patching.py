"""Replaces functions and steps of PyTorch by those of this package."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

import fastoptim.torch
from fastoptim.torch import _arrays, clip
from fastoptim.torch.losses import (
    _base,
    binary,
    classification,
    embedding,
    likelihood,
    multiclass,
    regression,
)

__all__ = ["patch", "patched", "unpatch"]

_OPTIMIZERS = (
    "SGD",
    "Adagrad",
    "RMSprop",
    "Adadelta",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "Rprop",
    "ASGD",
    "Adafactor",
    "Muon",
)

_MODULES = (binary, classification, embedding, likelihood, multiclass, regression)

# The numbers in the state that are float32 in PyTorch and float64 here.
_NUMBERS = ("step", "mu_product", "eta", "mu")

# The errors for arguments that this package does not take. The call is then left to PyTorch.
_REFUSALS = (TypeError, ValueError, IndexError)

# The calls that undo `patch`.
_undo: list[Callable[[], None]] = []

# The optimizers of this package, by the optimizers of PyTorch whose groups and state they share.
_twins: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def patch() -> None:
    """Replace the optimizers, losses and clipping of PyTorch for CPU tensors.

    Afterwards this package computes the steps of the optimizers in ``torch.optim``, the losses in
    ``torch.nn.functional`` and ``torch.nn``, and the clipping in ``torch.nn.utils``. Classes,
    subclasses, existing optimizers and checkpoints stay valid. Each call checks its arguments:
    tensors on other devices, sparse gradients, code under ``torch.compile`` and other arguments
    that this package does not take are left to PyTorch.

    Call it before you create schedulers for existing optimizers, because a scheduler keeps the
    ``step`` that it finds. A second call does nothing.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> fastoptim.torch.patch()
    >>> model = torch.nn.Linear(3, 2)
    >>> opt = torch.optim.AdamW(model.parameters())
    >>> loss = torch.nn.functional.cross_entropy(model(torch.ones(1, 3)), torch.tensor([1]))
    >>> loss.backward()
    >>> norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    >>> opt.step()
    >>> fastoptim.torch.unpatch()
    """
    if _undo:
        return
    for name, rule in _rules():
        _replace(torch.nn.functional, name, functools.partial(_loss, rule))
    utils = torch.nn.utils
    for name, function in (
        ("clip_grad_norm_", clip.clip_grad_norm_),
        ("clip_grad_value_", clip.clip_grad_value_),
        ("clip_grads_with_norm_", clip.clip_grads_with_norm_),
        ("get_total_norm", clip.get_total_norm),
    ):
        for module in (utils, utils.clip_grad):
            # PyTorch 2.4 lacks some, and `clip_grad` has private names.
            if hasattr(module, name):
                _replace(module, name, functools.partial(_clipping, function))
    for name in _OPTIMIZERS:
        # PyTorch 2.4 has no Adafactor or Muon.
        cls = getattr(torch.optim, name, None)
        if cls is not None and "step" in vars(cls):
            old = vars(cls)["step"]
            old = old.__wrapped__ if getattr(old, "hooked", False) else old
            new = _step(old)
            _replace_step(cls, old, new)
            _undo.append(functools.partial(_replace_step, cls, new, old))


def unpatch() -> None:
    """Undo `patch`. Optimizers continue in PyTorch with their state."""
    while _undo:
        _undo.pop()()
    for optimizer in list(_twins):
        _give_back(optimizer)


@contextmanager
def patched() -> Iterator[None]:
    """Call `patch` at the start of a block and `unpatch` at its end.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> with fastoptim.torch.patched():
    ...     torch.nn.MSELoss()(torch.ones(2), torch.zeros(2))
    tensor(1.)
    """
    inner = bool(_undo)
    patch()
    try:
        yield
    finally:
        if not inner:
            unpatch()


def _replace(module: Any, name: str, make: Callable[[Any], Any]) -> None:
    original = getattr(module, name)
    setattr(module, name, make(original))
    _undo.append(functools.partial(setattr, module, name, original))


def _rules() -> list[tuple[str, _base.Rule]]:
    """Return the losses that are also functions of PyTorch."""
    classes = [cls for module in _MODULES for cls in vars(module).values()]
    rules = [
        vars(cls)["_rule"]
        for cls in classes
        if isinstance(cls, type) and issubclass(cls, _base.Loss) and "_rule" in vars(cls)
    ]
    return [(rule.torch.__name__, rule) for rule in rules if rule.torch is not None]


def _loss(rule: _base.Rule, original: Any) -> Any:
    """Return a loss that this package computes if it takes the arguments."""
    parameters = inspect.signature(original).parameters
    names, count = list(parameters), len(rule.names)
    defaults = {name: p.default for name, p in list(parameters.items())[count:]}

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        tensors = [given.pop(name, None) for name in names[:count]]
        if not torch.compiler.is_compiling() and _takes(rule, tensors):
            arguments = {name: given.pop(name, defaults[name]) for name in rule.arguments}
            if all(value is defaults.get(name, value) for name, value in given.items()):
                try:
                    return _base.evaluate(rule, tensors, arguments)
                except _REFUSALS:
                    pass
        return original(*args, **kwargs)

    return function


def _takes(rule: _base.Rule, tensors: list[Any]) -> bool:
    """Return whether tensors pass the checks that are cheap; the loss itself makes the others."""
    first = tensors[0]
    return (
        _arrays.is_plain(first)
        and all(isinstance(x, torch.Tensor) and x.is_cpu for x in tensors)
        # PyTorch broadcasts and warns.
        and (rule.shape != "elements" or all(x.shape == first.shape for x in tensors[:2]))
    )


def _clipping(function: Any, original: Any) -> Any:
    """Return a clipping function that this package computes if it takes the gradients."""

    @functools.wraps(original)
    def wrapped(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return original(parameters, *args, **kwargs)
        if not isinstance(parameters, (torch.Tensor, list, tuple)):
            # A generator can be iterated over only once.
            parameters = list(parameters) or _nothing()
        try:
            return function(parameters, *args, **kwargs)
        except _REFUSALS:
            return original(parameters, *args, **kwargs)

    # Callers may pass the first argument by its name.
    first = next(iter(inspect.signature(original).parameters))

    @functools.wraps(original)
    def named(*args: Any, **kwargs: Any) -> Any:
        return wrapped(*args, **kwargs) if args else wrapped(kwargs.pop(first), **kwargs)

    return named


def _nothing() -> Iterator[torch.Tensor]:
    """Return an empty generator, for which PyTorch warns."""
    yield from ()


def _step(original: Any) -> Any:
    """Return the step of a class, which this package makes if it takes the tensors."""

    @functools.wraps(original)
    def step(self: Any, closure: Any = None) -> Any:
        if not _undo or not _is_ours(self):
            _give_back(self)
            return original(self, closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        ours: Any = fastoptim.torch
        twin = _twin(self)
        try:
            ours.Optimizer.step(twin)
        except _REFUSALS:
            _give_back(self)
            original(self)
        return loss

    return step


def _is_ours(optimizer: Any) -> bool:
    """Return whether an optimizer passes the checks that are cheap; the step makes the others."""
    groups = optimizer.param_groups
    first = next((p for group in groups for p in group["params"]), None)
    return (
        _arrays.is_plain(first)
        and not torch.compiler.is_compiling()
        and not any(group.get("capturable") or group.get("differentiable") for group in groups)
    )


def _twin(optimizer: Any) -> Any:
    """Return the optimizer of this package that shares the groups and the state of another."""
    twin = _twins.get(optimizer)
    if twin is None:
        kinds = (cls.__name__ for cls in type(optimizer).__mro__ if cls.__module__[:6] == "torch.")
        cls = getattr(fastoptim.torch, next(kind for kind in kinds if kind in _OPTIMIZERS))
        twin = _twins[optimizer] = cls([torch.zeros(1, 1, device="cpu")])
    twin.param_groups, twin.state = optimizer.param_groups, optimizer.state
    for name in ("grad_scale", "found_inf"):
        setattr(twin, name, getattr(optimizer, name, None))
    return twin


def _give_back(optimizer: Any) -> None:
    """Convert the state of an optimizer to the dtypes of PyTorch."""
    if _twins.pop(optimizer, None) is None:
        return
    for p, state in optimizer.state.items():
        for name, value in state.items() if isinstance(state, dict) else ():
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                continue
            if name in _NUMBERS and value.ndim == 0:
                state[name] = value.to(torch.get_default_dtype())
            elif p.dtype.itemsize == 2:
                state[name] = value.to(p.dtype)


def _replace_step(cls: Any, old: Any, new: Any) -> None:
    """Replace a step in a class and in the subclasses that have a copy of it.

    PyTorch wraps the step of a class with its hooks when the first optimizer is created.
    """
    step = vars(cls).get("step")
    if step is old:
        cls.step = new
    elif getattr(step, "hooked", False) and step.__wrapped__ is old:
        cls.step = torch.optim.Optimizer.profile_hook_step(new)
        cls.step.hooked = True
    for subclass in cls.__subclasses__():
        _replace_step(subclass, old, new)
