"""An open database: one connection that writes, a few that read. Knows SQLite's settings and no row."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Executable, FromClause, Row, Text, bindparam, event, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from methodhub.core.identity import Target
from methodhub.core.ports import StoreUnavailable
from methodhub.store.schema import StoreError, migrate, prepare

READERS = 4
BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process's lock: a back-up, or the command line beside a starting hub."""

Result = TypeVar("Result")
Work = Callable[[Connection], Result]
"""What is done within one transaction. Written without `await`: no transaction waits for anything but its database."""


class Lane:
    """Connections of one kind. Who finds none free waits its turn; work that has begun ends, cancelled or not."""

    def __init__(self, engine: AsyncEngine, connections: int, *, commits: bool) -> None:
        self._engine = engine
        self._open = engine.begin if commits else engine.connect
        self._connections = connections
        self._free = asyncio.Semaphore(connections)
        self._closed = False

    async def run(self, work: Work[Result]) -> Result:
        """What `work` returns, done in one transaction. Raises StoreUnavailable."""
        await self._free.acquire()
        # SQLAlchemy drops the connection of a cancelled statement; a database in memory would go with it.
        return await asyncio.shield(asyncio.ensure_future(self._run(work)))

    async def _run(self, work: Work[Result]) -> Result:
        try:
            if self._closed:
                raise StoreError("The database is closed.")
            async with self._open() as connection:
                return await connection.run_sync(work)
        except OperationalError as error:
            raise StoreUnavailable(str(error.orig)) from error
        finally:
            self._free.release()

    async def close(self) -> None:
        for _ in range(self._connections):
            await self._free.acquire()
        self._closed = True
        await self._engine.dispose()
        for _ in range(self._connections):
            self._free.release()


def json_targets() -> FromClause:
    pairs = func.json_each(bindparam("targets")).table_valued("value")
    columns = [func.json_extract(pairs.c.value, f"$[{i}]", type_=Text) for i in range(2)]
    return select(columns[0].label("device_id"), columns[1].label("module_id")).subquery("targets")


class Database:
    """The database behind `SqlIdentityStore` and `SqlHubStore`. Every method is one transaction.

    `insert` builds an INSERT that knows ON CONFLICT: the one construct that each database spells by itself.
    """

    insert = staticmethod(sqlite.insert)
    targets = json_targets()
    """A table of keys within a statement, bound by `parameters_of`."""

    @staticmethod
    def parameters_of(targets: Iterable[Target]) -> dict[str, Any]:
        return {"targets": json.dumps(list(targets))}

    def __init__(self, writer: Lane, readers: Lane) -> None:
        self._writer = writer
        self._readers = readers

    async def rows(self, query: Executable, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
        return await self._readers.run(lambda connection: connection.execute(query, parameters).all())

    async def execute(self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> int:
        """Run one statement, or with a sequence of parameters one for each. The number of rows touched."""
        return await self._writer.run(lambda connection: connection.execute(statement, parameters).rowcount)

    async def write(self, work: Work[Result]) -> Result:
        return await self._writer.run(work)

    async def close(self) -> None:
        """End when what was begun is done. Afterwards each call raises StoreError."""
        await self._readers.close()
        if self._writer is not self._readers:
            await self._writer.close()


async def open_database(path: Path | None) -> Database:
    """Open the SQLite file, created if need be, or with None a database in memory. Its schema is brought up to date.

    Raises StoreError.
    """
    try:
        if path is not None:
            protect(path)
        return await open_sqlite(path)
    except OSError as error:
        raise StoreError(f"The database {path} cannot be opened: {error.strerror}.") from error
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StoreError(f"The database {path} cannot be used: {cause}.") from error


def protect(path: Path) -> None:
    """Let only the owner read the file: it holds keys. SQLite gives new side files the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if file.exists():
            file.chmod(0o600)


async def open_sqlite(path: Path | None) -> Database:
    engine = writing_engine(path)
    try:
        async with engine.begin() as connection:
            is_old = await connection.run_sync(prepare)
        if is_old:
            await migrate_sqlite(path)
    except BaseException:
        await engine.dispose()
        raise
    writer = Lane(engine, 1, commits=True)
    return Database(writer, writer if path is None else Lane(reading_engine(path), READERS, commits=False))


async def migrate_sqlite(path: Path | None) -> None:
    engine = writing_engine(path, foreign_keys=False)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(migrate)
            broken = (await connection.exec_driver_sql("PRAGMA foreign_key_check")).all()
            if broken:
                raise StoreError(f"The migration of {path} would orphan {len(broken)} rows.")
    finally:
        await engine.dispose()


def writing_engine(path: Path | None, *, foreign_keys: bool = True) -> AsyncEngine:
    # [HUB-durable] synchronous=FULL: in WAL mode anything less may lose an acknowledged commit when the power fails.
    engine = sqlite_engine(
        path,
        1,
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}",
    )

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that takes the write lock only at its first write can fail there, without a wait.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(path: Path) -> AsyncEngine:
    # No BEGIN, no ROLLBACK: a reading method is one statement, which sees one state of the database by itself.
    return sqlite_engine(path, READERS, "PRAGMA query_only=ON", transactions=False)


def sqlite_engine(path: Path | None, connections: int, *settings: str, transactions: bool = True) -> AsyncEngine:
    """An engine whose connections are in SQLite's own autocommit mode: a transaction is what says BEGIN."""
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=":memory:" if path is None else str(path)),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_reset_on_return=None,
        hide_parameters=True,  # [HUB-no-keys] in the text of an error, which is logged
        skip_autocommit_rollback=not transactions,
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for setting in settings:
            cursor.execute(setting)
        cursor.close()

    return engine
