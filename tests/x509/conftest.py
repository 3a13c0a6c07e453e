"""A hub whose devices have certificates."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.certificates import Issued, authority
from tests.clock import ManualClock
from tests.harness import RunningHub
from tests.x509.peers import add_authority


@pytest.fixture(scope="module")
def factory() -> Issued:
    return authority("Factory")


@pytest.fixture(scope="module")
def pending() -> Issued:
    return authority("Pending")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, factory: Issued, pending: Issued) -> Iterator[RunningHub]:
    """With one CA that vouches, and one that is not verified."""
    clock = ManualClock(wall=float(int(time.time())))
    with RunningHub(tmp_path_factory.mktemp("hub"), clock) as running:
        add_authority(running, "factory", factory)
        add_authority(running, "pending", pending, verified=False)
        yield running
