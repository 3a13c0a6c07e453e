"""A world per test, checked for leftovers when the test is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rooms.world import World


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world
        for caller in list(world.methods.open):
            caller.cancel()
        assert world.is_idle()
