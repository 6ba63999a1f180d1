"""The learning rate range test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastoptim._checks import integer, number
from fastoptim._commit import restored
from fastoptim.optim import SAM, Optimizer
from fastoptim.tools.objective import loss_and_grads
from fastoptim.tools.progress import progress

__all__ = ["LRFinder", "LRFinderResult"]

Numbers = NDArray[np.float64]

# The weight of a new loss in the running mean, and how many times the best mean is divergence:
# those of torch-lr-finder. fastai weighs by 0.02 and stops at 4 times.
_WEIGHT = 0.05
_DIVERGED = 5.0
# The part of the sweep on each side that the smoothed curve averages over. Unlike a running mean,
# which lags behind by a decade of rates, it shifts nothing.
_REACH = 0.05


@dataclass(frozen=True)
class LRFinderResult:
    """What a sweep found; draw it with `fastoptim.plot.lr_finder`.

    Attributes
    ----------
    lrs : array of float64
        The rates tried, up to where the loss diverged.
    losses : array of float64
        The loss before the step at each rate, as the objective gave it.
    smoothed : array of float64
        The losses averaged over their neighbours.
    suggestion : float or None
        The rate at which the smoothed loss falls most steeply over the logarithm of the rate; None
        where it never falls.
    """

    lrs: Numbers
    losses: Numbers
    smoothed: Numbers
    suggestion: float | None


class LRFinder:
    """Tries rates from small to large for one step each, to find the one to train with.

    Much too small rates leave the loss as it is, much too large ones make it explode. In between it
    falls; where it falls fastest is a good rate to start from, or the highest one of a schedule.
    The result is for this optimizer, batch size and starting point.

    Parameters
    ----------
    opt : Optimizer or SAM
        All of its groups get the same rate, in place of schedules too.
    objective : function
        ``objective(params) -> (loss, grads)``, on a new batch at each call where there are batches.
        ``params`` has the form that the optimizer was given: for groups, a dict over all names, or
        a list where there are none.

    Raises
    ------
    TypeError
        ``opt`` is no optimizer.

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([1.0, -1.0])  # The loss |w|^2 diverges above a rate of 1.
    >>> found = fo.LRFinder(fo.SGD(w), lambda w: (float(w @ w), 2 * w)).run()
    >>> 0.01 < found.suggestion < 1, w
    (True, array([ 1., -1.]))
    """

    def __init__(self, opt: Optimizer | SAM, objective: Callable[[Any], tuple[float, Any]]) -> None:
        if not isinstance(opt, (Optimizer, SAM)):
            raise TypeError(f"opt must be an optimizer, got {type(opt).__name__}")
        self.opt = opt
        self.objective = objective

    def run(
        self,
        start_lr: float = 1e-7,
        end_lr: float = 10,
        num_iter: int = 100,
        *,
        quiet: bool = False,
    ) -> LRFinderResult:
        """Sweep the rate exponentially, one step at each, until the loss diverges.

        The sweep ends early where the running mean of the losses has risen to 5 times its best (for
        losses below zero, by 4 times its size), or a loss is not finite. Afterwards everything is
        as before, to the byte, also when the objective raises: parameters, state, groups, counts.

        Parameters
        ----------
        start_lr, end_lr : float
            The first rate and the last: ``0 < start_lr < end_lr``.
        num_iter : int, default 100
            How many rates, at least 2.
        quiet : bool, default False
            Shows no progress bar.

        Returns
        -------
        LRFinderResult
            The rates, the losses and the suggestion.

        Raises
        ------
        TypeError
            The objective returns no pair of loss and gradients.
        ValueError
            An argument or a hyperparameter is out of range, or the first loss is not finite.
        """
        start, end = number("start_lr", start_lr), number("end_lr", end_lr)
        if not 0 < start < end < math.inf:
            raise ValueError(f"rates must be 0 < start_lr < end_lr, got {start_lr} and {end_lr}")
        integer("num_iter", num_iter, least=2)
        lrs = np.geomspace(start, end, num_iter)
        rates = progress(lrs, len(lrs), "learning rates", quiet=quiet)
        losses = restored(lambda: self._sweep(rates), _restoring(_base(self.opt)))
        lrs = lrs[: len(losses)]
        smoothed = _smoothed(np.array(losses), reach=max(1, round(_REACH * num_iter)))
        return LRFinderResult(lrs, np.array(losses), smoothed, _steepest(lrs, smoothed))

    def _sweep(self, lrs: Iterable[np.float64]) -> list[float]:
        """Step at one rate after the other until the loss diverges, and give the losses."""
        losses: list[float] = []
        mean = best = math.inf
        for lr in lrs:
            loss = self._step(float(lr))
            if not math.isfinite(loss):
                break
            mean = mean + _WEIGHT * (loss - mean) if losses else loss
            best = min(mean, best)
            losses.append(loss)
            if mean > best + (_DIVERGED - 1) * abs(best):
                break
        if not losses:
            raise ValueError(f"the first loss must be finite, got {loss}")
        return losses

    def _step(self, lr: float) -> float:
        """Make a step at a rate, and give the loss before it."""
        base = _base(self.opt)
        for group in base.param_groups:
            group["lr"] = lr

        def closure() -> tuple[float, Any]:
            return loss_and_grads("objective", self.objective(base.params))

        if isinstance(self.opt, SAM):
            return self.opt.step(closure)
        loss, grads = closure()
        if math.isfinite(loss):
            self.opt.step(grads)
        return loss


def _base(opt: Optimizer | SAM) -> Optimizer:
    return opt.base if isinstance(opt, SAM) else opt


def _restoring(opt: Optimizer) -> Callable[[], None]:
    """Return the function that brings an optimizer and its parameters back to where they are."""
    arrays = [array for group in opt.param_groups for array in group["params"]]
    saved = [array.copy() for array in arrays]
    groups = [dict(group) for group in opt.param_groups]
    engine, steps, averaged = opt._engine, opt._engine.steps, opt._engine.averaged
    engine.expected(opt.param_groups, steps)  # Groups that could not be restored are refused now.
    states = [
        (entry[0], [value for _, value in entry[1]], dict(entry[2]))
        if entry is not None
        else (0, [value for _, value in engine.scalars(index)], {})
        for index, entry in enumerate(engine.snapshot())
    ]

    def restore() -> None:
        for array, copy in zip(arrays, saved, strict=True):
            array[...] = copy
        for group, items in zip(opt.param_groups, groups, strict=True):
            group.clear()
            group.update(items)
        engine.restore(opt.param_groups, states, steps, averaged)

    return restore


def _smoothed(losses: Numbers, reach: int) -> Numbers:
    """Average over neighbours with weights that fall to both sides, fewer at the ends."""
    weights = np.hanning(2 * reach + 3)[1:-1]
    sums, totals = (np.convolve(x, weights) for x in (losses, np.ones_like(losses)))
    result: Numbers = (sums / totals)[reach : reach + len(losses)]
    return result


def _steepest(lrs: Numbers, smoothed: Numbers) -> float | None:
    """Give the rate of the steepest fall, which comes before the lowest point."""
    end = int(smoothed.argmin()) + 1
    if end < 2:
        return None
    slopes = np.gradient(smoothed[:end], np.log(lrs[:end]))
    return float(lrs[slopes.argmin()])
