"""Fixtures and settings for all tests."""

from typing import Any

import pytest
from hypothesis import settings

from cases import OPTIMIZERS
from fastoptim._extras import has

# No deadline: the first call of a kernel starts threads, and test machines are shared.
settings.register_profile("fastoptim", deadline=None)
settings.load_profile("fastoptim")


@pytest.fixture(scope="session", params=OPTIMIZERS, ids=lambda cls: cls.__name__)
def optimizer(request: pytest.FixtureRequest) -> Any:
    """Every class of optimizer in turn."""
    return request.param


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the examples in docstrings that import mpi4py where it is not installed."""
    if has("mpi4py"):
        return
    for item in items:
        if isinstance(item, pytest.DoctestItem) and "mpi4py" in str(item.dtest.docstring):
            item.add_marker(pytest.mark.skip(reason="mpi4py is not installed"))
