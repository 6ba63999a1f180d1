"""Exponential moving averages of tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, TypeAlias

import torch

from fastoptim import _core
from fastoptim._checks import between, flag
from fastoptim.torch import _arrays

Params: TypeAlias = torch.nn.Module | torch.Tensor | Iterable[Any]
_Call: TypeAlias = tuple[Callable[..., object], *tuple[Any, ...]]

_decay = partial(between, low=0, high=1, ends="[)")


class EMA(torch.nn.Module):
    r"""An exponential moving average of a model or of parameters, for evaluation.

    .. math::
        s \leftarrow s + (1 - d_t) (p - s), \qquad
        d_t = \text{decay}, \text{ or with warm-up } \min(\text{decay}, (1 + t) / (10 + t))

    ``step(ema=ema)`` of an optimizer updates it in the same pass as the parameters. It can replace
    ``torch.optim.swa_utils.AveragedModel``: it is called like the model, and has the
    ``update_parameters`` and the ``state_dict`` of that class.

    Parameters
    ----------
    params : module, tensor, or iterable of tensors or of names and tensors
        The initial values: dense CPU tensors. A module is copied.
    decay : float, default 0.999
        The weight of the old average in an update, in [0, 1); 0 copies the parameters.
    use_buffers : bool, default False
        Whether the buffers of a module are averaged. Otherwise they are copied.
    warmup : bool, default False
        Whether the decay of update t, counted from 0, is at most (1 + t) / (10 + t).

    Attributes
    ----------
    module : module or None
        The copy of the module, with the averaged parameters; None without a module.
    shadow : dict
        The average by the names of the parameters: float64 for float64, and float32 for all others,
        because an average in 16 bits would not change. It shares the memory of `module`.
    decay, use_buffers, warmup
        The arguments, which may be changed between updates.
    updates : int
        The number of updates so far; ``n_averaged`` is the same number as a tensor.
    swapped : bool
        Whether the parameters have the values of the average: see `swap`.

    References
    ----------
    Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.

    Examples
    --------
    >>> import torch
    >>> import fastoptim.torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> ema = fastoptim.torch.EMA(model, decay=0.75)
    >>> _ = torch.nn.init.constant_(model.weight, 5.0)
    >>> ema.update()
    >>> ema(torch.ones(1, 1)).item(), model(torch.ones(1, 1)).item()
    (2.0, 5.0)
    """

    n_averaged: torch.Tensor
    module: torch.nn.Module | None

    def __init__(
        self,
        params: Params,
        decay: float = 0.999,
        use_buffers: bool = False,
        *,
        warmup: bool = False,
    ) -> None:
        super().__init__()
        self.decay = _decay("decay", decay)
        self.use_buffers = flag("use_buffers", use_buffers)
        self.warmup = flag("warmup", warmup)
        self._names, tensors, _ = _listed(params)
        for name, tensor in zip(self._names, tensors, strict=True):
            _arrays.require(f"params[{name!r}]", tensor)
        is_module = isinstance(params, torch.nn.Module)
        self.module = deepcopy(params) if is_module else None
        self.register_buffer("n_averaged", torch.zeros((), dtype=torch.int64, device="cpu"))
        # The averages that are wider than the parameters of the module.
        self.wide = torch.nn.Module()
        for index, tensor in enumerate(tensors):
            if not is_module or tensor.dtype.itemsize == 2:
                dtype = torch.float64 if tensor.dtype is torch.float64 else torch.float32
                average = torch.empty_like(tensor.detach(), dtype=dtype).copy_(tensor.detach())
                self.wide.register_buffer(str(index), average)
        self._sources: list[weakref.ref[torch.Tensor]] = [weakref.ref(p) for p in tensors]
        self._model: Any = weakref.ref(params) if is_module else None
        # The memory that was exchanged with the parameters, while they are swapped.
        self._kept: list[torch.Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Weak references cannot be copied.
        return {**self.__dict__, "_sources": [], "_model": None}

    @property
    def shadow(self) -> dict[str, torch.Tensor]:
        """The average by the names of the parameters."""
        return {
            name: average.detach()
            for name, average in zip(self._names, self._averages(), strict=True)
        }

    @property
    def updates(self) -> int:
        """The number of updates so far."""
        return int(self.n_averaged)

    @property
    def swapped(self) -> bool:
        """Whether the parameters have the values of the average."""
        return self._kept is not None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output of the averaged module."""
        if self.module is None:
            raise RuntimeError("the average of parameters without a module cannot be called")
        return self.module(*args, **kwargs)

    def update(self, params: Params | None = None) -> None:
        """Move the average towards the parameters.

        Parameters
        ----------
        params : as for the constructor, optional
            The parameters, in the order of those given to the constructor, which are the default.

        Raises
        ------
        TypeError, ValueError
            A tensor does not fit the average. Nothing has changed then.
        RuntimeError
            The parameters are swapped, or another thread uses the same memory.
        """
        self._move(params, self._weight("update"))

    def update_parameters(self, model: Params) -> None:
        """Update the average; the first update copies the parameters, as in ``AveragedModel``.

        Parameters
        ----------
        model : as for the constructor
            The parameters, in the order of those given to the constructor.
        """
        weight = self._weight("update_parameters")
        self._move(model, weight if self.updates else 1.0)

    def swap(self, params: Params | None = None) -> None:
        """Exchange the parameters and the average; a second call restores both exactly.

        Averaged buffers are exchanged, too. 16-bit parameters get the average rounded to nearest.

        Parameters
        ----------
        params : as for the constructor, optional
            As for `update`.
        """
        with torch.no_grad():
            tensors, buffers = self._ordered(params)
            mine = self._kept
            if mine is None:
                mine = [
                    average if average.dtype is p.dtype else average.to(p.dtype)
                    for average, p in zip(self._averages(), tensors, strict=True)
                ]
            values = [_laid_out(p, kept) for p, kept in zip(tensors, mine, strict=True)]
            _core.exchange(
                [_arrays.flat(kept) for kept in mine],
                [_arrays.flat(value) for value in values],
                "params",
                self._names,
                [(setattr, self, "_kept", mine if self._kept is None else None)],
            )
            for p, value in zip(tensors, values, strict=True):
                if value is not p:
                    p.copy_(value)
            _arrays.changed([*mine, *tensors])
            if self.use_buffers:
                for average, buffer in zip(self._buffers_of(buffers), buffers, strict=True):
                    kept = average.clone()
                    average.copy_(buffer)
                    buffer.copy_(kept)

    def copy_to(self, params: Params | None = None) -> None:
        """Copy the average to the parameters and buffers.

        Parameters
        ----------
        params : as for the constructor, optional
            As for `update`.
        """
        with torch.no_grad():
            self._refuse_swapped("copy_to")
            tensors, buffers = self._ordered(params)
            for p, average in zip(tensors, self._averages(), strict=True):
                p.copy_(average)
            for buffer, average in zip(buffers, self._buffers_of(buffers), strict=True):
                buffer.copy_(average)

    def _begin_for(
        self, params: Sequence[torch.Tensor]
    ) -> tuple[tuple[list[torch.Tensor], float], list[_Call]]:
        """Return the arguments with which a step makes the next update.

        Returns
        -------
        tuple
            The averages of these parameters, and the weight of the parameters in them.
        list of calls
            The calls that the step makes after it.

        Raises
        ------
        ValueError
            There is no average of a parameter.
        RuntimeError
            The parameters are swapped.
        """
        weight = self._weight("step")
        sources = map(id, self._ordered(None)[0])
        averages = dict(zip(sources, self._averages(), strict=True))
        for index, p in enumerate(params):
            if id(p) not in averages:
                raise ValueError(
                    f"ema has no average of parameter {index} of the step: create it from the "
                    "model or from the parameters of the optimizer"
                )
        return ([averages[id(p)] for p in params], weight), [(self._follow, weight)]

    def _follow(self, weight: float) -> None:
        """Count an update that a step has made, and update the buffers."""
        self.n_averaged += 1
        model = None if self._model is None else self._model()
        self._finish([] if model is None else list(model.buffers()), weight)

    def _weight(self, call: str) -> float:
        """Return the weight of the parameters in the next update."""
        self._refuse_swapped(call)
        decay, t = _decay("decay", self.decay), self.updates
        return 1.0 - (min(decay, (1 + t) / (10 + t)) if self.warmup else decay)

    def _refuse_swapped(self, call: str) -> None:
        if self.swapped:
            raise RuntimeError(f"{call} while the average is swapped in: call swap() first")

    def _averages(self) -> list[torch.Tensor]:
        """Return the averages in the order of the parameters."""
        own: Any = [None] * len(self._names) if self.module is None else self.module.parameters()
        wide = self.wide._buffers
        return [wide.get(str(index), p) for index, p in enumerate(own)]

    def _buffers_of(self, buffers: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the buffers of the averaged module, if there are buffers to average."""
        return list(self.module.buffers()) if buffers and self.module is not None else []

    def _ordered(self, params: Params | None) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return parameters in the order of the averages, and their buffers."""
        if params is None:
            params = self._source()
        _, tensors, buffers = _listed(params)
        if len(tensors) != len(self._names):
            raise ValueError(
                f"params has {len(tensors)} tensors, but the average {len(self._names)}"
            )
        for name, p, average in zip(self._names, tensors, self._averages(), strict=True):
            _arrays.require(f"params[{name!r}]", p)
            if p.shape != average.shape:
                raise ValueError(
                    f"params[{name!r}] must have the shape {tuple(average.shape)}, got "
                    f"{tuple(p.shape)}"
                )
        return tensors, buffers

    def _source(self) -> Params:
        """Return the model or the parameters given to the constructor."""
        found: Any = [source() for source in self._sources]
        if self._model is not None:
            found = self._model()
        elif len(found) < len(self._names) or any(p is None for p in found):
            found = None
        if found is None:
            raise ValueError("the parameters given to the constructor no longer exist: pass params")
        return found

    def _move(self, params: Params | None, weight: float) -> None:
        tensors, buffers = self._ordered(params)
        averages = self._averages()
        values = [_laid_out(p, average) for p, average in zip(tensors, averages, strict=True)]
        _core.lerp(
            [_arrays.flat(average) for average in averages],
            [_arrays.flat(value) for value in values],
            weight,
            "params",
            self._names,
            [(self.n_averaged.add_, 1)],
        )
        _arrays.changed(averages)
        self._finish(buffers, weight)

    def _finish(self, buffers: Sequence[torch.Tensor], weight: float) -> None:
        """Copy the wider averages to the module, and average or copy the buffers."""
        with torch.no_grad():
            if self.module is None:
                return
            for index, p in enumerate(self.module.parameters()):
                wide = self.wide._buffers.get(str(index))
                if wide is not None:
                    p.copy_(wide)
            for average, buffer in zip(self._buffers_of(buffers), buffers, strict=True):
                if not self.use_buffers or weight == 1.0:
                    average.copy_(buffer)
                elif average.is_floating_point() or average.is_complex():
                    average.lerp_(buffer, weight)
                else:
                    # As in PyTorch, for integers.
                    average.copy_(average * (1.0 - weight) + buffer * weight)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # The state of an `AveragedModel` has no wider averages.
        for index, name in enumerate(self._names if self.module is not None else []):
            wide, narrow = f"{prefix}wide.{index}", f"{prefix}module.{name}"
            if str(index) in self.wide._buffers and wide not in state_dict and narrow in state_dict:
                state_dict[wide] = state_dict[narrow]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _listed(params: Params) -> tuple[list[str], list[torch.Tensor], list[torch.Tensor]]:
    """Return names, parameters and buffers."""
    if isinstance(params, torch.nn.Module):
        named = list(params.named_parameters())
        return [name for name, _ in named], [p for _, p in named], list(params.buffers())
    if isinstance(params, torch.Tensor):
        return ["0"], [params], []
    items = list(params.items() if isinstance(params, Mapping) else params)
    pairs = [
        item if isinstance(item, tuple) else (str(index), item) for index, item in enumerate(items)
    ]
    return [name for name, _ in pairs], [p for _, p in pairs], []


def _laid_out(p: torch.Tensor, average: torch.Tensor) -> torch.Tensor:
    """Return a parameter in the memory order of its average, a copy if necessary."""
    if p.stride() == average.stride() and _arrays.dense([p])[0] is not None:
        return p
    with torch.no_grad():
        return torch.empty_like(average, dtype=p.dtype).copy_(p)
