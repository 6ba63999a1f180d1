"""The optimizers."""

from fastoptim.optim._base import Optimizer, StepInfo
from fastoptim.optim._hyperparameter import Hyperparameter
from fastoptim.optim._storage import Storage
from fastoptim.optim.adadelta import Adadelta
from fastoptim.optim.adafactor import Adafactor
from fastoptim.optim.adagrad import Adagrad
from fastoptim.optim.adam import Adam, AdamW
from fastoptim.optim.adamax import Adamax
from fastoptim.optim.ademamix import AdEMAMix
from fastoptim.optim.asgd import ASGD
from fastoptim.optim.lamb import LAMB
from fastoptim.optim.lars import LARS
from fastoptim.optim.lion import Lion
from fastoptim.optim.muon import Muon
from fastoptim.optim.nadam import NAdam
from fastoptim.optim.prodigy import Prodigy
from fastoptim.optim.radam import RAdam
from fastoptim.optim.rmsprop import RMSprop
from fastoptim.optim.rprop import Rprop
from fastoptim.optim.sam import SAM
from fastoptim.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from fastoptim.optim.search import RandomLocalSearch, RandomSearch
from fastoptim.optim.sgd import SGD

__all__ = [
    "ASGD",
    "LAMB",
    "LARS",
    "SAM",
    "SGD",
    "AdEMAMix",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Hyperparameter",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "RandomLocalSearch",
    "RandomSearch",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "StepInfo",
    "Storage",
]


def __dir__() -> list[str]:
    return __all__
