"""The loss around a point: along lines, over planes, and its sharpness.

Plot the results with `fastoptim.plot.landscape`.

References
----------
Goodfellow, Vinyals and Saxe, "Qualitatively characterizing neural network optimization problems",
2015 (lines between solutions). Li et al., "Visualizing the Loss Landscape of Neural Nets", 2018
(planes, directions normalized by filters, trajectories).
"""

from fastoptim.landscape.directions import (
    coordinates,
    difference,
    principal_directions,
    random_direction,
)
from fastoptim.landscape.evaluation import Line, Plane, line, plane
from fastoptim.landscape.sharpness import sharpness

__all__ = [
    "Line",
    "Plane",
    "coordinates",
    "difference",
    "line",
    "plane",
    "principal_directions",
    "random_direction",
    "sharpness",
]


def __dir__() -> list[str]:
    return __all__
