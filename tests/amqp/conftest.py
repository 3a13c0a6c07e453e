"""Fixtures of the tests that speak AMQP to a running hub."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clock import ManualClock
from tests.harness import RunningHub


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """One hub for the tests of a module, each with identities of its own."""
    with RunningHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub whose time begins now and moves only when the test says so."""
    with RunningHub(tmp_path / "hub", ManualClock(wall=float(int(time.time())))) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_unexpected(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No peer's input may end in an exception that nobody expected."""
    yield
    assert "Traceback" not in "".join(capfd.readouterr()) + caplog.text
