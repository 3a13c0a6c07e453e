"""Runs each contract test against every adapter of the port, in an event loop of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from methodhub.core.ports import HubStore, IdentityStore
from methodhub.store.database import open_database
from methodhub.store.hub import SqlHubStore
from methodhub.store.identities import SqlIdentityStore
from tests.memory import MemoryHubStore, MemoryIdentityStore, MemoryTables


class Stores(NamedTuple):
    identities: IdentityStore
    hub: HubStore


@asynccontextmanager
async def in_memory(_directory: Path) -> AsyncIterator[Stores]:
    tables = MemoryTables()
    yield Stores(MemoryIdentityStore(tables), MemoryHubStore(tables))


@asynccontextmanager
async def sqlite_file(directory: Path) -> AsyncIterator[Stores]:
    database = await open_database(directory / "hub.db")
    yield Stores(SqlIdentityStore(database), SqlHubStore(database))
    await database.close()


@asynccontextmanager
async def sqlite_in_memory(_directory: Path) -> AsyncIterator[Stores]:
    database = await open_database(None)
    yield Stores(SqlIdentityStore(database), SqlHubStore(database))
    await database.close()


ADAPTERS: dict[str, Callable[[Path], AbstractAsyncContextManager[Stores]]] = {
    "memory": in_memory,
    "sqlite": sqlite_file,
    "sqlite in memory": sqlite_in_memory,
}


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=ADAPTERS)
def stores(request: pytest.FixtureRequest, runner: asyncio.Runner, tmp_path: Path) -> Iterator[Stores]:
    adapter = ADAPTERS[request.param](tmp_path)
    stores = runner.run(adapter.__aenter__())
    yield stores
    runner.run(adapter.__aexit__(None, None, None))


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
