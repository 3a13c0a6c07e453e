"""The two databases: opened once, emptied by each test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from methodhub.store.database import open_database
from tests.postgres import running_server
from tests.store.query.world import World


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def sqlite(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    database = runner.run(open_database(tmp_path_factory.mktemp("query") / "hub.db"))
    yield World(runner, database)
    runner.run(database.close())


@pytest.fixture(scope="session")
def postgresql(runner: asyncio.Runner) -> Iterator[World]:
    with running_server() as server:
        database = runner.run(open_database(server.fresh()))
        yield World(runner, database)
        runner.run(database.close())


@pytest.fixture(scope="session")
def worlds(sqlite: World, postgresql: World) -> list[World]:
    return [sqlite, postgresql]


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest) -> World:
    """Each of them, empty."""
    world: World = request.getfixturevalue(request.param)
    world.fill([])
    return world
