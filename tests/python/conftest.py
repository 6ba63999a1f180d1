"""Fixtures and settings for all tests."""

from typing import Any

import pytest
from hypothesis import settings

from cases import OPTIMIZERS

# No deadline: the first call of a kernel starts threads, and test machines are shared.
settings.register_profile("fastoptim", deadline=None)
settings.load_profile("fastoptim")


@pytest.fixture(scope="session", params=OPTIMIZERS, ids=lambda cls: cls.__name__)
def optimizer(request: pytest.FixtureRequest) -> Any:
    """Every class of optimizer in turn."""
    return request.param
