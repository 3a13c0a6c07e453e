"""Runs each contract test against every adapter of the port, in an event loop of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from methodhub.core.ports import HubStore, IdentityStore
from methodhub.store.database import Database, open_database
from methodhub.store.hub import SqlHubStore
from methodhub.store.identities import SqlIdentityStore


class Stores(NamedTuple):
    identities: IdentityStore
    hub: HubStore


ADAPTERS = ["sqlite", "sqlite in memory", "postgresql"]


@pytest.fixture
def database(
    adapter: str, runner: asyncio.Runner, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Database]:
    """An empty database of each kind."""
    where: Path | str | None = tmp_path / "hub.db" if adapter == "sqlite" else None
    if adapter == "postgresql":
        where = request.getfixturevalue("postgresql")()
    database = runner.run(open_database(where))
    yield database
    runner.run(database.close())


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def stores(database: Database) -> Stores:
    return Stores(SqlIdentityStore(database), SqlHubStore(database))


@pytest.fixture
def identities(stores: Stores) -> IdentityStore:
    return stores.identities


@pytest.fixture
def hub(stores: Stores) -> HubStore:
    return stores.hub


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is a coroutine runs in the loop of its fixtures."""
    runner = pyfuncitem.funcargs.get("runner")
    if not inspect.iscoroutinefunction(pyfuncitem.obj) or not isinstance(runner, asyncio.Runner):
        return None
    arguments = inspect.signature(pyfuncitem.obj).parameters
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in arguments})
    runner.run(test)
    return True
