"""The learning rate range test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastoptim._checks import CheckedAttributes, Checks, function, integer, number
from fastoptim._commit import restored
from fastoptim.optim import SAM, Optimizer
from fastoptim.tools.objective import loss_and_grads
from fastoptim.tools.progress import progress

__all__ = ["LRFinder", "LRFinderResult"]

Numbers = NDArray[np.float64]

# The weight of a new loss in the running mean, and the multiple of the best mean that counts as
# divergence, as in torch-lr-finder. fastai uses a weight of 0.02 and a multiple of 4.
_WEIGHT = 0.05
_DIVERGED = 5.0
# The fractions of the sweep that are discarded at its two ends, as in fastai, because the means
# there contain few losses.
_FIRST, _LAST = 0.1, 0.05
# The fraction of the sweep over which the weights of the smoothed curve decay to 1/e. With 0.05 the
# steepest descent was a decade too low more often, for batches of 1 to 64.
_REACH = 0.03
# The smallest confidence with which a rate is suggested.
_SURE = 0.95


@dataclass(frozen=True)
class LRFinderResult:
    """The result of a sweep; draw it with `fastoptim.plot.lr_finder`.

    Attributes
    ----------
    lrs : array of float64
        The rates tried, until the loss diverged.
    losses : array of float64
        The loss before the step at each rate.
    smoothed : array of float64
        Averages of neighbouring losses, with weights that decay exponentially on both sides.
    suggestion : float or None
        The rate with the steepest descent of the smoothed loss over the logarithm of the rate, in
        the lower half of the descent to the minimum. None if the loss does not decrease, or not by
        more than its noise explains; use larger batches or more rates then.
    confidence : float
        The confidence that the loss decreases, from 0 to 1: 1 minus the probability that losses
        with the same noise around a constant level would be as low. A rate is suggested from 0.95
        on.
    """

    lrs: Numbers
    losses: Numbers
    smoothed: Numbers
    suggestion: float | None
    confidence: float


def _optimizer(name: str, value: Any) -> Optimizer | SAM:
    if not isinstance(value, (Optimizer, SAM)):
        raise TypeError(f"{name} must be an optimizer, got {type(value).__name__}")
    return value


class LRFinder(CheckedAttributes):
    """Tries rates from small to large for one step each, to find a rate for training.

    The loss hardly changes at very small rates, and diverges at very large ones. The rate of the
    steepest descent between them is a good initial rate, or the highest rate of a schedule. The
    result is valid for this optimizer, batch size and starting point.

    Parameters
    ----------
    opt : Optimizer or SAM
        The optimizer; all groups use the same rate, which also replaces schedules.
    objective : function
        ``objective(params) -> (loss, grads)``, on a new batch at each call. ``params`` has the form
        given to the optimizer: with groups, a dict over all names, or a list if there are no names.

    Raises
    ------
    TypeError
        ``opt`` is not an optimizer.

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", 2017. Gugger, "How Do You Find A
    Good Learning Rate", 2018 (the exponential average with its bias corrected).

    Examples
    --------
    >>> import numpy as np
    >>> import fastoptim as fo
    >>> w = np.array([1.0, -1.0])  # The loss |w|^2 diverges above a rate of 1.
    >>> found = fo.LRFinder(fo.SGD(w), lambda w: (float(w @ w), 2 * w)).run()
    >>> 0.01 < found.suggestion < 1, w
    (True, array([ 1., -1.]))
    """

    _checks: ClassVar[Checks] = {"opt": _optimizer, "objective": function}

    def __init__(self, opt: Optimizer | SAM, objective: Callable[[Any], tuple[float, Any]]) -> None:
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
        """Increase the rate exponentially, with one step at each, until the loss diverges.

        The sweep ends early if the exponential average of the losses exceeds 5 times its minimum
        (for negative losses, by 4 times its absolute value), or if a loss is not finite. The
        minimum is taken after a tenth of the rates, so that a single low loss does not count.
        Afterwards parameters, state, groups and counts are restored bit for bit, also if the
        objective raises an error.

        Parameters
        ----------
        start_lr, end_lr : float
            The first and the last rate, ``0 < start_lr < end_lr``.
        num_iter : int, default 100
            The number of rates, at least 2.
        quiet : bool, default False
            Shows no progress bar; otherwise there is one if standard error is a terminal or
            notebook.

        Returns
        -------
        LRFinderResult
            The rates, the losses and the suggestion.

        Raises
        ------
        TypeError
            The objective does not return a pair of loss and gradients.
        ValueError
            An argument or a hyperparameter is out of range, or the first loss is not finite.
        """
        start, end = number("start_lr", start_lr), number("end_lr", end_lr)
        if not 0 < start < end < math.inf:
            raise ValueError(f"rates must be 0 < start_lr < end_lr, got {start_lr} and {end_lr}")
        num_iter = integer("num_iter", num_iter, least=2)
        lrs = np.geomspace(start, end, num_iter)
        first = max(1, round(_FIRST * num_iter))
        rates = progress(lrs, len(lrs), "learning rates", quiet=quiet)
        losses = restored(lambda: self._sweep(rates, first), _restoring(_base(self.opt)))
        return _result(lrs[: len(losses)], np.array(losses), num_iter)

    def _sweep(self, lrs: Iterable[np.float64], first: int) -> list[float]:
        """Make a step at each rate until the loss diverges, and return the losses.

        The minimum of the mean is taken from step ``first`` on.
        """
        losses: list[float] = []
        mean, best = 0.0, math.inf
        for lr in lrs:
            loss = self._step(float(lr))
            if not math.isfinite(loss):
                break
            losses.append(loss)
            mean += _WEIGHT * (loss - mean)
            if len(losses) < first:
                continue
            unbiased = mean / (1 - (1 - _WEIGHT) ** len(losses))
            best = min(unbiased, best)
            if unbiased > best + (_DIVERGED - 1) * abs(best):
                break
        if not losses:
            raise ValueError(f"the first loss must be finite, got {loss}")
        return losses

    def _step(self, lr: float) -> float:
        """Make a step at a rate, and return the loss before it."""
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
    """Return a function that restores the current optimizer and parameters."""
    arrays = [array for group in opt.param_groups for array in group["params"]]
    saved = [array.copy() for array in arrays]
    groups = [dict(group) for group in opt.param_groups]
    engine, steps, averaged = opt._engine, opt._engine.steps, opt._engine.averaged
    engine.expected(opt.param_groups, steps)  # Refuse groups that cannot be restored.
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


def _result(lrs: Numbers, losses: Numbers, num_iter: int) -> LRFinderResult:
    """Find the steepest descent of the losses, and the confidence that they decrease."""
    weights = _weights(len(losses), reach=max(1.0, _REACH * num_iter))
    smoothed: Numbers = weights @ losses
    lowest = int(smoothed.argmin())
    if lowest == 0:
        return LRFinderResult(lrs, losses, smoothed, None, 0.0)
    # The initial level is the mean of at most the first third, where rates are too small.
    early = max(1, min(lowest, len(losses) // 3))
    start = float(losses[:early].mean())
    confidence = _confidence(losses, smoothed, weights, lowest, early, start)
    if confidence < _SURE:
        return LRFinderResult(lrs, losses, smoothed, None, confidence)
    # The lower half of the descent, which noise around the initial level seldom reaches.
    half = (start + float(smoothed[lowest])) / 2
    above = np.flatnonzero(smoothed[:lowest] >= half)
    begin = max(int(above[-1]) if len(above) else 0, round(_FIRST * num_iter))
    begin = min(begin, lowest)
    end = min(lowest, len(losses) - 1 - round(_LAST * num_iter))
    slopes = np.gradient(smoothed, np.log(lrs))[begin : max(end, begin) + 1]
    suggestion = float(lrs[begin + int(slopes.argmin())])
    return LRFinderResult(lrs, losses, smoothed, suggestion, confidence)


def _weights(n: int, reach: float) -> Numbers:
    """Return the weights of ``n`` losses in each of their averages.

    They decay exponentially on both sides, and each average is divided by the sum of its weights,
    which corrects the bias at the ends. A one-sided average that is long enough to suppress noise
    would lag behind the losses by decades of rates.
    """
    steps = np.arange(n)
    weights = np.exp(-np.abs(steps[:, None] - steps) / reach)
    normalized: Numbers = weights / weights.sum(axis=1, keepdims=True)
    return normalized


def _confidence(
    losses: Numbers, smoothed: Numbers, weights: Numbers, lowest: int, early: int, start: float
) -> float:
    """Compare the descent from the initial level to the minimum with the noise of the losses."""
    before = slice(lowest + 1)
    squares = float(((losses - smoothed)[before] ** 2).sum())
    # A loss is included in its own average, which makes the residual smaller.
    noise = math.sqrt(squares / float((1 - weights.diagonal()[before]).sum()))
    # Averages of equal losses differ by rounding.
    noise = max(noise, 8 * float(np.finfo(float).eps) * float(np.abs(losses[before]).max()))
    share = float((weights[lowest] ** 2).sum())
    error = noise * math.sqrt(share + 1 / early)
    if error == 0:
        return 0.0
    chance = 0.5 * math.erfc((start - float(smoothed[lowest])) / error / math.sqrt(2))
    # The Bonferroni correction, since the minimum is taken over all averages.
    return max(0.0, 1 - len(losses) * chance)
