"""Penalties on the size of the parameters, to be added to a loss."""

from fastoptim.params.regularizers import L1, L2, ElasticNet, Regularizer

__all__ = ["L1", "L2", "ElasticNet", "Regularizer"]


def __dir__() -> list[str]:
    return __all__
