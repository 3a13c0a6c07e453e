"""Fixtures of the tests that run a whole hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.clock import ManualClock
from tests.harness import RunningHub

# How long an example takes says more about the machine than about the code.
settings.register_profile("methodhub", deadline=None)
settings.load_profile("methodhub")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub on real time."""
    with RunningHub(tmp_path / "hub") as running:
        yield running


@pytest.fixture
def timed_hub(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub whose time moves only when the test says so."""
    with RunningHub(tmp_path / "hub", ManualClock()) as running:
        yield running
