"""Requirements for running the tests in several processes."""

from __future__ import annotations

import re

import pytest


def test_identifiers_are_the_same_in_every_process(request: pytest.FixtureRequest) -> None:
    """Parallel workers must collect the same tests."""
    names = [item.nodeid for item in request.session.items]
    assert not [name for name in names if re.search(r"\b0x[0-9a-f]+", name)]
