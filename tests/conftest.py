"""Fixtures of the tests that run a whole hub."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from methodhub.store.database import open_database
from tests.clock import ManualClock
from tests.harness import RunningHub, log_to_output
from tests.postgres import PostgresServer, running_server

# How long an example takes says more about the machine than about the code.
settings.register_profile("methodhub", deadline=None)
settings.load_profile("methodhub")

log_to_output()


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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL, started for the first test that asks for it."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql(postgres_server: PostgresServer) -> Callable[[], str]:
    """Makes a database that holds the empty tables of a hub, and gives its URL."""
    template = postgres_server.fresh()

    async def fill() -> None:
        await (await open_database(template)).close()

    asyncio.run(fill())
    return lambda: postgres_server.fresh(template)
