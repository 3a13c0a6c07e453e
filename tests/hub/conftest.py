"""Fixtures of the tests against a running hub."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clock import ManualClock
from tests.harness import RunningHub


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """One hub for the tests of a module that leave nothing behind but identities of their own."""
    with RunningHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub whose time begins now and moves only when the test says so."""
    with RunningHub(tmp_path / "hub", ManualClock(wall=float(int(time.time())))) as running:
        yield running


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """As `shared`, with a database in a file."""
    with RunningHub(tmp_path_factory.mktemp("kept"), in_memory=False) as running:
        yield running
