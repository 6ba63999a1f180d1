"""Pictures, as matplotlib Axes: ``pip install fastoptim[plot]``."""

from fastoptim.plot.schedule import schedule

__all__ = ["schedule"]
