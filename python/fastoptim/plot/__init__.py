"""Plots, as matplotlib Axes; they require matplotlib, which the extra ``plot`` installs."""

from fastoptim.plot.history import history
from fastoptim.plot.landscape import landscape
from fastoptim.plot.loss import focal, losses
from fastoptim.plot.lr_finder import lr_finder
from fastoptim.plot.schedule import schedule

__all__ = ["focal", "history", "landscape", "losses", "lr_finder", "schedule"]


def __dir__() -> list[str]:
    return __all__
