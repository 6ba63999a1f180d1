"""The common part of the losses over tensors: the connection of the core to autograd."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch.autograd import forward_ad

from fastoptim import _core
from fastoptim.torch import _arrays

Tensors = Sequence[torch.Tensor]

# Returns whether the current backward pass keeps the graph.
_keeps_graph: Callable[[], bool] = getattr(
    torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True
)

# Returns whether a transform of torch.func is active.
_transforms_active: Callable[[], bool] = torch._C._are_functorch_transforms_active


@dataclass(frozen=True, eq=False)
class Rule:
    """A loss of the core, and the function of PyTorch for it."""

    # Its name in the core.
    name: str
    # The arguments that PyTorch's function takes, too.
    arguments: tuple[str, ...]
    # PyTorch's function of the same tensors and arguments.
    torch: Callable[..., Any] | None
    # The parts of the input with one value each: elements, rows of class scores, or vectors.
    shape: Literal["elements", "scores", "vectors"] = "elements"
    # The names of the tensors.
    names: tuple[str, ...] = ("input", "target")
    # For each tensor the index of its gradient in the core and a sign, or None without a gradient.
    gradients: tuple[tuple[int, int] | None, ...] = ((0, 1), None)
    # Further arguments of the core.
    others: Mapping[str, Any] = field(default_factory=dict)
    # Whether targets of scores may be probabilities.
    probabilities: bool = False

    @cached_property
    def signs(self) -> tuple[int, ...]:
        """The signs of the gradients of the tensors, 0 without a gradient."""
        return tuple(0 if gradient is None else gradient[1] for gradient in self.gradients)

    @cached_property
    def order(self) -> list[int]:
        """The tensors in the order in which gradients are scaled, some of them in place.

        Targets come first, because their gradients are those of inputs with the other sign.
        """
        return sorted(range(len(self.signs)), key=self.signs.__getitem__)


class Loss(torch.nn.Module):
    """A loss of the core as a module."""

    _rule: ClassVar[Rule]

    def _check(self) -> None:
        """Check the ranges of the arguments, which PyTorch does in each call."""
        numbers = {name: getattr(self, name) for name in self._rule.arguments}
        for name, value in numbers.items():
            if isinstance(value, torch.Tensor):
                numbers[name] = None
        _core.loss_arguments(self._rule.name, {**self._rule.others, **numbers})

    def _evaluate(self, *tensors: torch.Tensor, rule: Rule | None = None) -> torch.Tensor:
        rule = rule or self._rule
        return evaluate(rule, tensors, {name: getattr(self, name) for name in rule.arguments})


def evaluate(rule: Rule, tensors: Tensors, arguments: dict[str, Any]) -> torch.Tensor:
    """Return the value of a loss, and compute its gradient if a backward pass may need it."""
    compiling = torch.compiler.is_compiling()
    transformed = forward_ad._current_level >= 0 or _transforms_active()
    if not (compiling or transformed or arguments["reduction"] == "none"):
        found = _core.tensor_loss(
            rule.name,
            {**rule.others, **arguments} if rule.others else arguments,
            tuple(tensors),
            rule.signs,
            torch.is_grad_enabled(),
        )
        if found is not None:
            value: torch.Tensor = found[0]
            if found[1] is None:
                return value
            return _apply(Call(rule, arguments, tensors), found, *tensors)
    if rule.torch is not None and (compiling or _is_transformed(tensors)):
        return rule.torch(*tensors, **arguments)
    _require(rule, tensors)
    wanted = False
    if torch.is_grad_enabled():
        wanted = any(tensor.requires_grad for tensor in tensors)
        for name, tensor in _without_gradient(rule, tensors, arguments):
            if tensor.requires_grad:
                if rule.torch is not None:
                    return rule.torch(*tensors, **arguments)
                raise RuntimeError(f"there is no gradient by {name}: use {name}.detach()")
    tensors = _alike(rule, tensors)
    if wanted and arguments["reduction"] == "none":
        tensors = [
            _one_each(x, tensors[0], by) for x, by in zip(tensors, rule.gradients, strict=True)
        ]
    tensors, shape = _in_rows(rule, tensors)
    call = Call(rule, arguments, tensors)
    value, gradients = call.compute(tensors, wanted)
    if wanted:
        value = Differentiable.apply(call, (value, gradients), *tensors)
    return value if shape is None or value.ndim == 0 else value.view(shape)


def _is_transformed(tensors: Tensors) -> bool:
    """Return whether forward-mode derivatives or transforms are active."""
    return forward_ad._current_level >= 0 or any(
        isinstance(tensor, torch.Tensor) and _arrays.is_wrapped(tensor) for tensor in tensors
    )


def _require(rule: Rule, tensors: Tensors) -> None:
    """Check that the core takes the tensors."""
    for name, tensor, gradient in zip(rule.names, tensors, rule.gradients, strict=True):
        if gradient is not None and gradient[1] > 0:
            _arrays.require(name, tensor)
            continue
        _arrays.require(name, tensor, _arrays.NUMBERS)
        if rule.shape == "scores" and (
            tensor.dtype is torch.bool or (tensor.is_floating_point() and not rule.probabilities)
        ):
            raise TypeError(
                f"{name} must be class indices of an integer type, got {tensor.dtype}: "
                f"{name}.long() converts it"
            )


def _without_gradient(
    rule: Rule, tensors: Tensors, arguments: Mapping[str, Any]
) -> list[tuple[str, torch.Tensor]]:
    """Return the tensors without a gradient in the core, with their names."""
    named = zip(rule.names, tensors, rule.gradients, strict=True)
    found = [(name, tensor) for name, tensor, gradient in named if gradient is None]
    return found + [(n, x) for n, x in arguments.items() if isinstance(x, torch.Tensor)]


def _alike(rule: Rule, tensors: Tensors) -> list[torch.Tensor]:
    """Return the tensors in the dtype to which PyTorch promotes them; class indices are unchanged.

    Under autocast, losses are computed in float32.
    """
    dtype = tensors[0].dtype
    for tensor, gradient in zip(tensors, rule.gradients, strict=True):
        if tensor.dtype is not dtype and (rule.shape == "elements" or gradient is not None):
            dtype = torch.promote_types(dtype, tensor.dtype)
    if dtype.itemsize == 2 and torch.is_autocast_enabled("cpu"):
        dtype = torch.float32
    return [
        tensor.to(dtype)
        if tensor.dtype is not dtype
        and (rule.shape == "elements" or tensor.is_floating_point() or tensor.dtype is torch.bool)
        else tensor
        for tensor in tensors
    ]


def _one_each(
    x: torch.Tensor, first: torch.Tensor, gradient: tuple[int, int] | None
) -> torch.Tensor:
    """Return an input expanded to the shape of the first, so that each element has a gradient.

    Only a variance may have another shape. The core rejects all others.
    """
    if gradient is None or x.shape == first.shape or gradient[1] < 0:
        return x
    if x.shape == first.shape[:-1] and first.ndim:
        x = x.unsqueeze(-1)
    fits = x.ndim == 0 or x.shape == (*first.shape[:-1], 1)
    return x.expand_as(first) if fits else x


def _in_rows(rule: Rule, tensors: Tensors) -> tuple[Tensors, tuple[int, ...] | None]:
    """Return inputs as matrices, if that needs no copy, and the shape of the values.

    Vectors may have more than two dimensions, and scores may have their classes next to each other
    in memory although they are the second dimension, as in ``torch.channels_last``.
    """
    x = tensors[0]
    if rule.shape == "vectors" and x.ndim > 2:
        flat = [
            t.flatten(0, -1 if gradient is None else -2)
            for t, gradient in zip(tensors, rule.gradients, strict=True)
        ]
        return flat, tuple(x.shape[:-1])
    if rule.shape == "scores" and x.ndim > 2 and not x.is_contiguous():
        rows, target = x.movedim(1, -1), tensors[1]
        if rows.is_contiguous() and target.shape in (x.shape, rows.shape[:-1]):
            if target.ndim == x.ndim:
                target = target.movedim(1, -1).flatten(0, -2)
            else:
                target = target.flatten()
            return [rows.flatten(0, -2), target], tuple(rows.shape[:-1])
    return tensors, None


class Call:
    """One evaluation of a loss."""

    def __init__(self, rule: Rule, arguments: dict[str, Any], tensors: Tensors) -> None:
        self.rule = rule
        self.arguments = arguments
        self.input_shape = tuple(tensors[0].shape)
        self.dtype = tensors[0].dtype
        self.is_reduced = arguments["reduction"] != "none"
        self.scale = 1.0
        if self.dtype is torch.float16 and "mean" in str(arguments["reduction"]):
            # The gradient of a mean over many rows may underflow in float16. It is multiplied by a
            # power of two with which it does not overflow, until the backward pass scales it.
            self.scale = 2.0 ** min(max(math.prod(self.shape), 1).bit_length() - 1, 10)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values before the reduction."""
        shape = self.input_shape
        if self.rule.shape == "elements":
            return shape
        if self.rule.shape == "vectors":
            return shape[:-1]
        return shape[:1] + shape[2:] if len(shape) > 1 else ()

    def compute(self, tensors: Tensors, wanted: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the value and, if they are wanted, all gradients of the core.

        They are multiplied by `scale`. Without a reduction they are the gradients of the sum.
        """
        rule, tensors = self.rule, [_arrays.contiguous(x) for x in tensors]
        arguments = {**rule.others, **self.arguments}
        for name, value in self.arguments.items():
            if isinstance(value, torch.Tensor):
                arguments[name] = _arrays.array(self._weight(name, value))
        gradients: list[torch.Tensor] = []
        if wanted:
            signs = zip(tensors, rule.signs, strict=True)
            gradients = [_core.gradient_like(x) for x, sign in signs if sign > 0]
        values = None
        if not self.is_reduced:
            values = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        out = tuple(map(_arrays.array, gradients))
        value, _ = _core.compute_loss(
            rule.name,
            arguments,
            tuple(map(_arrays.array, tensors)),
            out if len(out) > 1 else out[0] if out else None,
            self.scale,
            bool(out),
            None if values is None else _arrays.array(values),
        )
        if values is None:
            values = _arrays.scalar(value, self.dtype)
        return values, gradients

    def _weight(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight in a dtype that the core takes with this input."""
        _arrays.require(name, weight)
        if torch.promote_types(self.dtype, weight.dtype) is self.dtype:
            return _arrays.contiguous(weight.to(self.dtype))
        if self.dtype.itemsize == 2 and weight.dtype is torch.float32:
            return _arrays.contiguous(weight)
        raise TypeError(
            f"{name} must be {self.dtype} as the input is, got {weight.dtype}: "
            f"{name}.to(input.dtype) converts it"
        )

    def by_torch(
        self, tensors: Tensors, wanted: Sequence[bool], upstream: torch.Tensor
    ) -> list[torch.Tensor | None]:
        """Return differentiable gradients, which PyTorch computes."""
        if self.rule.torch is None:
            raise RuntimeError(
                f"the gradient of the loss {self.rule.name} cannot be differentiated again, as "
                "create_graph=True requires"
            )
        with torch.enable_grad():
            value = self.rule.torch(*tensors, **self.arguments)
            by = [x for x, needed in zip(tensors, wanted, strict=True) if needed]
            found = iter(torch.autograd.grad(value, by, upstream, create_graph=True))
        return [next(found) if needed else None for needed in wanted]


class Differentiable(torch.autograd.Function):
    """The value of a call. Its gradient is computed with it; the backward pass scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        call: Call,
        found: tuple[torch.Tensor, list[torch.Tensor]],
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        """Return the value that was found, and save the gradients that are needed."""
        value, gradients = found
        if len(gradients) > 1:
            by = zip(call.rule.gradients, ctx.needs_input_grad[2:], strict=True)
            used = {gradient[0] for gradient, needed in by if gradient is not None and needed}
            ctx.save_for_backward(*(g if i in used else None for i, g in enumerate(gradients)))
        else:
            ctx.save_for_backward(*gradients)
        ctx.call = call
        # For second derivatives. PyTorch's losses save them, too.
        ctx.tensors = tensors
        ctx.versions = _versions(tensors)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients times that of the value, `upstream`."""
        gradients, call, wanted = ctx.saved_tensors, ctx.call, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            if ctx.versions != _versions(ctx.tensors):
                raise RuntimeError(
                    "an input of a loss was changed in place before its gradient was taken with "
                    "create_graph=True"
                )
            return None, None, *call.by_torch(ctx.tensors, wanted, upstream)
        keeps = _keeps_graph() or _arrays.is_wrapped(upstream)
        if not keeps:
            ctx.tensors = None
        results: list[torch.Tensor | None] = [None] * (2 + len(wanted))
        for index in call.rule.order:
            if wanted[index]:
                place, sign = call.rule.gradients[index]
                shared = sign < 0 and any(
                    needed and gradient == (place, 1)
                    for gradient, needed in zip(call.rule.gradients, wanted, strict=True)
                )
                results[2 + index] = _scaled(
                    gradients[place], upstream, sign / call.scale, call, keeps or shared
                )
        return tuple(results)


# `Differentiable.apply` without the search for wrappers of transforms.
_apply: Callable[..., torch.Tensor] = super(torch.autograd.Function, Differentiable).apply


def _versions(tensors: Tensors) -> list[int]:
    """Return the versions of the tensors, and 0 for those created under inference_mode."""
    return [0 if x.is_inference() else x._version for x in tensors]


def _scaled(
    gradient: torch.Tensor, upstream: torch.Tensor, factor: float, call: Call, keep: bool
) -> torch.Tensor:
    """Return a gradient times `upstream` and a factor, in its memory unless ``keep``."""
    if call.is_reduced and not _arrays.is_wrapped(upstream):
        factor *= upstream.item()
        if keep:
            return gradient * factor
        return gradient if factor == 1.0 else gradient.mul_(factor)
    if factor != 1.0:
        upstream = upstream * factor
    if not call.is_reduced and call.rule.shape != "elements":
        upstream = upstream.unsqueeze(
            1 if call.rule.shape == "scores" and gradient.ndim > 1 else -1
        )
    return gradient * upstream if keep else gradient.mul_(upstream)
