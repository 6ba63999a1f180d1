"""An optimizer whose state is divided among ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastoptim._checks import flag
from fastoptim._core import crc32
from fastoptim.checkpoint.adapters import register
from fastoptim.checkpoint.sharded import ShardedAdapter
from fastoptim.distributed.bundles import Bundles
from fastoptim.distributed.partition import divided
from fastoptim.distributed.team import Agreement, Team, team_of
from fastoptim.optim._base import Grads, Optimizer, Params, StepInfo
from fastoptim.optim._state_dict import checked, saved_groups
from fastoptim.params.flat_buffer import FlatBuffer
from fastoptim.params.structure import Array, all_arrays, reiterable


class ShardedOptimizer:
    r"""An optimizer that divides its state among the ranks of a communicator (ZeRO, stage 1).

    Every rank has all parameters, computes the gradients of its own samples, and has the state of
    1/n of the elements. A step sums the gradients, so that each rank has the sums of its part
    (reduce-scatter), updates that part, and collects the parameters (all-gather). It sends as many
    bytes as `average_gradients`, and needs 1/n of the memory for the state.

    The results are bitwise equal to those of ``cls`` in one process with the same summed or
    averaged gradients, for any number of ranks: the global norm, trust ratios and estimates are
    sums over fixed blocks, whichever ranks have them. Arrays are cut at multiples of 4096 elements;
    `Muon` and `Adafactor` update whole arrays, so their parts may be less equal.

    Parameters
    ----------
    cls : type
        A class of `fastoptim.optim`, except `SAM` and the searches.
    params : FlatBuffer, array, sequence, mapping or list of groups
        As for ``cls``, with the same values on all ranks. Parts of a `FlatBuffer` are sent without
        copies; for other forms a buffer of the size of the parameters is allocated.
    comm : mpi4py.MPI.Intracomm
        The communicator, of which a duplicate is used.
    average : bool, default True
        Divides the summed gradients by the number of ranks.
    **kw
        The other arguments of ``cls``, the same on all ranks.

    Raises
    ------
    TypeError
        ``cls`` is not such a class, ``comm`` is not a communicator, or as for ``cls``.
    ValueError
        The parameters or the arguments differ between ranks, or as for ``cls``.

    Notes
    -----
    All methods and ``fo.save`` and ``fo.load`` are collective. After an error on any rank all ranks
    raise, and nothing has changed. If communication itself fails, or is interrupted, the job ends.

    References
    ----------
    Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models",
    2020.

    Examples
    --------
    On one rank:

    >>> import numpy as np
    >>> import fastoptim as fo
    >>> from fastoptim.distributed import ShardedOptimizer
    >>> from mpi4py import MPI
    >>> params = fo.FlatBuffer.from_arrays({"w": np.ones(2)})
    >>> opt = ShardedOptimizer(fo.SGD, params, MPI.COMM_WORLD, lr=0.5)
    >>> opt.step(np.array([3.0, 4.0]), max_norm=np.inf)
    StepInfo(applied=True, grad_norm=5.0)
    >>> params["w"]
    array([-0.5, -1. ])
    """

    def __init__(
        self, cls: type[Optimizer], params: Params, comm: Any, *, average: bool = True, **kw: Any
    ) -> None:
        self._team = team = team_of(comm)
        with team.agreement() as agreement:
            if not (isinstance(cls, type) and issubclass(cls, Optimizer)) or cls is Optimizer:
                raise TypeError(f"cls must be a class of fastoptim.optim, got {cls!r}")
            self._average = flag("average", average)
            given = reiterable(params)
            _, arrays = all_arrays(given)
            sizes = [array.size if isinstance(array, np.ndarray) else 0 for array in arrays]
            parts = divided(sizes, team.size, whole=cls._works_by_shape)
            self._bundles = Bundles(team, parts)
            self._parts = parts[team.rank]
            self._optimizer = optimizer = cls.__new__(cls)
            optimizer._parts = self._parts
            optimizer.__init__(given, **kw)  # type: ignore[misc]
            self._arrays = arrays
            agreement.meet(self._identity(average))

    def _identity(self, average: bool) -> dict[str, Any]:
        """Return what must be the same on all ranks."""
        optimizer = self._optimizer
        pairs = zip(optimizer._names, self._arrays, strict=True)
        values = {
            f"params[{name!r}]": (
                array.dtype.name,
                array.shape,
                crc32(array.reshape(-1).view("u1")),
            )
            for name, array in pairs
        }
        return {
            "cls": type(optimizer).__name__,
            "names": optimizer._names,
            "average": average,
            "storage": tuple(optimizer._storage),
            **self._hyperparameters(),
            **values,
        }

    def _hyperparameters(self) -> dict[str, Any]:
        """Return the values in force."""
        optimizer = self._optimizer
        groups = saved_groups(optimizer.param_groups, optimizer._engine.steps)
        return {
            f"{key} of group {index}": value
            for index, group in enumerate(groups)
            for key, value in group.items()
            if key not in ("params", "param_names")
        }

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of the part of this rank; its methods are not collective."""
        return self._optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups, as in ``cls``; set hyperparameters to the same values on all ranks."""
        return self._optimizer.param_groups

    @property
    def params(self) -> Any:
        """The parameters in the form in which they were given."""
        return self._optimizer.params

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """The state of the part of this rank; arrays that are divided are 1-D."""
        return self._optimizer.state

    def current(self, name: str, group: int = 0) -> Any:
        """Return the value of a hyperparameter in the next step, as in ``cls``."""
        return self._optimizer.current(name, group)

    def step(self, grads: Grads, **step_options: Any) -> StepInfo:
        """Update the parameters by the sum, or the average, of the gradients of all ranks.

        Parameters
        ----------
        grads : FlatBuffer, array, iterable or mapping
            The gradients of this rank, as for ``cls``. A parameter has a gradient on all ranks or
            on none.
        **step_options
            The options of ``cls.step``, the same on all ranks. They act on the summed gradients;
            ``zero_grad`` sets those of this rank to 0. ``ema`` and ``copy_to`` are updated on all
            ranks.

        Returns
        -------
        StepInfo
            The same on all ranks.

        Raises
        ------
        ValueError
            The options, the hyperparameters or the dtypes of the gradients differ between ranks, or
            as for ``cls``.
        TypeError, FloatingPointError, RuntimeError
            As for ``cls``.

        An error on one rank raises on all of them, and nothing has changed then.
        """
        optimizer = self._optimizer
        with self._team.agreement() as agreement:
            # Functions of the step are evaluated here as well, where their errors reach all ranks.
            subject = self._hyperparameters() | _alike(step_options)
            outputs = self._outputs(step_options)
            optimizer._exchange = _Exchange(self, agreement, subject, outputs)
            try:
                return optimizer.step(grads, **step_options)
            finally:
                optimizer._exchange = None

    def _outputs(self, options: Mapping[str, Any]) -> list[Array | Sequence[Array]]:
        """Return the arrays that a step updates besides the parameters."""
        optimizer = self._optimizer
        found: list[Array | Sequence[Array]] = []
        ema, copy = options.get("ema"), options.get("copy_to")
        if ema is not None:
            (averages, _), _ = optimizer._averages(ema)
            flat = _flat_of(ema.shadow, optimizer)
            found.append(averages if flat is None else flat)
        if copy is not None:
            flat = _flat_of(copy, optimizer)
            targets: Any = optimizer._targets(copy) if flat is None else flat
            found.append(targets)
        return found

    def zero_grad(self, grads: Grads) -> None:
        """Set every gradient of this rank to 0; it is not collective."""
        self._optimizer.zero_grad(grads)

    def train(self) -> None:
        """Call ``train`` of a schedule-free optimizer."""
        self._move("train")

    def eval(self) -> None:
        """Call ``eval`` of a schedule-free optimizer."""
        self._move("eval")

    def _move(self, method: str) -> None:
        with self._team.agreement() as agreement:
            if not hasattr(self._optimizer, method):
                raise AttributeError(f"{type(self._optimizer).__name__} has no {method}()")
            getattr(self._optimizer, method)()
            agreement.meet()
            self._collect([])

    def _collect(self, outputs: Sequence[Array | Sequence[Array]]) -> None:
        """Collect the parameters and other arrays from the parts of all ranks."""
        flat = self._optimizer._flat
        try:
            for arrays in [self._arrays if flat is None else flat.flat, *outputs]:
                self._bundles.collect(arrays)
        except BaseException:
            self._team.abort()

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all state on all ranks, in the layout of ``cls``.

        It can be loaded on any number of ranks, and into ``cls``.
        """
        optimizer = self._optimizer
        with self._team.agreement() as agreement:
            entries = optimizer._engine.snapshot()
            saved = optimizer._state_dict(entries)
            agreement.meet()
            wholes = iter(self._whole([array for _, array in _slots(entries)], entries))
        for (index, slot), _ in _slots(entries):
            saved["state"][index][slot] = next(wholes)
        return saved

    def _whole(
        self, parts: Sequence[Array], entries: Sequence[Any], root: int | None = None
    ) -> list[Array]:
        """Join state arrays from the parts of all ranks."""
        optimizer = self._optimizer
        expected = optimizer._engine.expected(optimizer.param_groups, optimizer._engine.steps)
        shapes = [{name: tuple(shape) for name, _, shape, *_ in slots} for _, slots in expected]
        try:
            slots = [place for place, _ in _slots(entries)]
            wanted = [shapes[index][slot] for index, slot in slots]
            # All ranks have the whole state of an array without elements, which may have some.
            sent = [
                part if self._team.rank == 0 or self._arrays[index].size else part.reshape(-1)[:0]
                for (index, _), part in zip(slots, parts, strict=True)
            ]
            return self._team.gathered(sent, wanted, root)
        except BaseException:
            self._team.abort()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state that ``state_dict`` returned, here, on other ranks or in ``cls``.

        Every rank takes its part; all give the whole state.

        Raises
        ------
        CheckpointError
            The dict is not a state of this optimizer with these parameters.
        """
        optimizer = self._optimizer
        with self._team.agreement() as agreement:
            groups, state, steps, averaged = checked(optimizer, state_dict, any_values=False)
            counts = [(count, numbers, sorted(arrays)) for count, numbers, arrays in state]
            agreement.meet({"state": counts, "steps": steps, "averaged": averaged})
            optimizer._engine.restore(
                groups, state, steps, averaged, optimizer._group_updates(groups)
            )

    def __repr__(self) -> str:
        team = self._team
        return f"{self._optimizer!r} on rank {team.rank} of {team.size}"


class _Exchange:
    """The communication of one step, which the core calls after its checks."""

    def __init__(
        self,
        sharded: ShardedOptimizer,
        agreement: Agreement,
        subject: dict[str, Any],
        outputs: Sequence[Array | Sequence[Array]],
    ) -> None:
        self._sharded = sharded
        self._team: Team = sharded._team
        self._agreement = agreement
        self._subject = subject
        self._outputs = outputs

    def begin(self, grads: Array | Sequence[Array | None]) -> Array | list[Array | None]:
        """Meet the other ranks, and return the summed gradients of the parts of this rank."""
        given = grads if isinstance(grads, np.ndarray) else list(grads)
        kinds = [None if one is None else one.dtype.name for one in _listed(given)]
        sharded = self._sharded
        self._agreement.meet({**self._subject, "dtypes of grads": kinds})
        try:
            return sharded._bundles.summed(given, average=sharded._average)
        except BaseException:
            self._team.abort()

    def sum(self, numbers: Array) -> None:
        """Add numbers of all ranks."""
        self._combine(numbers, self._team.mpi.SUM)

    def max(self, numbers: Array) -> None:
        """Take the largest of the numbers of all ranks."""
        self._combine(numbers, self._team.mpi.MAX)

    def _combine(self, numbers: Array, operation: Any) -> None:
        try:
            self._team.comm.Allreduce(self._team.mpi.IN_PLACE, numbers, operation)
        except BaseException:
            self._team.abort()

    def finish(self) -> None:
        """Collect the parameters and the outputs of the step."""
        self._sharded._collect(self._outputs)


def _listed(grads: Array | list[Array | None]) -> list[Array | None]:
    """Return gradients as a list; those of a buffer are one array."""
    return [grads] if isinstance(grads, np.ndarray) else grads


def _alike(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a step that must be the same on all ranks: arrays are only named."""
    arrays = ("ema", "copy_to")
    return {
        key: (value is not None) if key in arrays else value
        for key, value in sorted(options.items())
    }


def _flat_of(arrays: Any, optimizer: Optimizer) -> Array | None:
    """Return the elements of a buffer with the layout of the parameters, if both are buffers."""
    if optimizer._flat is None:
        return None
    if isinstance(arrays, FlatBuffer):
        return arrays.flat if arrays._has_layout_of(optimizer._flat) else None
    return arrays if isinstance(arrays, np.ndarray) else None


def _slots(entries: Sequence[Any]) -> list[tuple[tuple[int, str], Array]]:
    """Return the arrays of the state, with the index of the parameter and the name."""
    return [
        ((index, slot), array)
        for index, entry in enumerate(entries)
        if entry is not None
        for slot, array in entry[2]
    ]


register(ShardedAdapter, ShardedOptimizer)
