"""What tests go over: every public optimizer."""

import fastoptim as fo

OPTIMIZERS = [
    found
    for found in (getattr(fo.optim, name) for name in fo.optim.__all__)
    if issubclass(found, fo.optim.Optimizer) and found is not fo.optim.Optimizer
]
