"""Pictures, as matplotlib Axes: ``pip install fastoptim[plot]``."""

from fastoptim.plot.loss import focal, losses
from fastoptim.plot.schedule import schedule

__all__ = ["focal", "losses", "schedule"]
