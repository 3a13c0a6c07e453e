"""SQLite, in a file or in memory: one connection that writes, a few that read. Knows no row."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Double, FromClause, Text, bindparam, event, func, literal_column, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from methodhub.core.identity import Target
from methodhub.store.engines.lanes import Dialect, Fault, Lane, Lanes
from methodhub.store.schema import StoreError, migrate, prepare

READERS = 4
QUERIES = 2
BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process's lock: a back-up, or the command line beside a starting hub."""

STEPS = 10_000
"""Of SQLite's machine, between two looks at the clock of a limited query: about a millisecond."""


async def open_sqlite(path: Path | None) -> Lanes:
    """Open the file, created if need be, or with None a database in memory. Raises StoreError."""
    try:
        if path is not None:
            protect(path)
        return await open_lanes(path)
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


async def open_lanes(path: Path | None) -> Lanes:
    engine = writing_engine(path)
    try:
        async with engine.begin() as connection:
            is_old = await connection.run_sync(prepare)
        if is_old:
            await migrate_sqlite(path)
    except BaseException:
        await engine.dispose()
        raise
    writer = Lane(engine, DIALECT, 1, commits=True)
    if path is None:
        return Lanes(DIALECT, writer, writer, writer)
    readers, queries = (
        Lane(reading_engine(path, connections), DIALECT, connections, commits=False)
        for connections in (READERS, QUERIES)
    )
    return Lanes(DIALECT, writer, readers, queries)


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


def reading_engine(path: Path, connections: int) -> AsyncEngine:
    # No BEGIN, no ROLLBACK: a reading method is one statement, which sees one state of the database by itself.
    return sqlite_engine(path, connections, "PRAGMA query_only=ON", transactions=False)


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


def judge(error: Exception) -> Fault | None:
    if not isinstance(error, OperationalError):
        return None
    return Fault.CUT if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT else Fault.AWAY


@contextmanager
def limit(connection: Connection, seconds: float) -> Iterator[None]:
    driver: Any = connection.connection.dbapi_connection
    end = time.monotonic() + seconds
    driver.run_async(lambda raw: raw.set_progress_handler(lambda: time.monotonic() > end, STEPS))
    try:
        yield
    finally:
        driver.run_async(lambda raw: raw.set_progress_handler(None, 0))


def json_targets() -> FromClause:
    pairs = func.json_each(bindparam("targets", type_=Text)).table_valued("value")
    device_id, module_id = (func.json_extract(pairs.c.value, f"$[{place}]", type_=Text()) for place in range(2))
    return select(device_id.label("device_id"), module_id.label("module_id")).subquery("targets")


def parameters_of(targets: Iterable[Target]) -> dict[str, Any]:
    return {"targets": json.dumps(list(targets))}


DIALECT = Dialect(
    name="sqlite",
    insert=sqlite.insert,
    # unixepoch('subsec') came with SQLite 3.42; many systems have an older one.
    now=literal_column("((julianday('now') - 2440587.5) * 86400.0)", Double()),
    targets=json_targets(),
    parameters_of=parameters_of,
    judge=judge,
    limit=limit,
)
