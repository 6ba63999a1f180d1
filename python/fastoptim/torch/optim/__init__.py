"""The optimizers over tensors of PyTorch."""

from fastoptim.torch.optim._base import Optimizer
from fastoptim.torch.optim.adadelta import Adadelta
from fastoptim.torch.optim.adafactor import Adafactor
from fastoptim.torch.optim.adagrad import Adagrad
from fastoptim.torch.optim.adam import Adam, AdamW
from fastoptim.torch.optim.adamax import Adamax
from fastoptim.torch.optim.ademamix import AdEMAMix
from fastoptim.torch.optim.asgd import ASGD
from fastoptim.torch.optim.lamb import LAMB
from fastoptim.torch.optim.lars import LARS
from fastoptim.torch.optim.lion import Lion
from fastoptim.torch.optim.muon import Muon
from fastoptim.torch.optim.nadam import NAdam
from fastoptim.torch.optim.prodigy import Prodigy
from fastoptim.torch.optim.radam import RAdam
from fastoptim.torch.optim.rmsprop import RMSprop
from fastoptim.torch.optim.rprop import Rprop
from fastoptim.torch.optim.sam import SAM
from fastoptim.torch.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from fastoptim.torch.optim.sgd import SGD

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
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
]


def __dir__() -> list[str]:
    return __all__
