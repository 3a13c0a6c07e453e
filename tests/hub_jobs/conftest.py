"""A hub with devices that answer, and a back end that runs jobs on them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clock import ManualClock
from tests.harness import RunningHub
from tests.hub.peers import Caller
from tests.hub_jobs.peers import BackEnd, close_devices


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub whose time begins now and moves only when the test says so."""
    with RunningHub(tmp_path / "hub", ManualClock(wall=float(int(time.time())))) as running:
        yield running


@pytest.fixture
def back_end(timed: RunningHub) -> Iterator[BackEnd]:
    with Caller(timed, "service") as caller:
        yield BackEnd(timed, caller)


@pytest.fixture(autouse=True)
def _devices() -> Iterator[None]:
    """Those of a test are gone after it."""
    yield
    close_devices()
