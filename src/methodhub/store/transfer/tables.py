"""Rows out of a database and into an empty one, through memory of bounded size. Knows no file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, event, func, insert, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from methodhub.core.ports import StoreUnavailable
from methodhub.store.database import Database, open_database
from methodhub.store.engines.lanes import text_of
from methodhub.store.schema import StoreError
from methodhub.store.tables import (
    SCHEMA_VERSION,
    certificate_authorities,
    device_jobs,
    device_sessions,
    identities,
    jobs,
    policies,
    schema_version,
    secrets,
    twins,
)
from methodhub.store.transfer.lines import Reader, TransferError, Writer

TABLES = (identities, twins, device_sessions, policies, certificate_authorities, jobs, device_jobs, secrets)
"""What makes a hub, each behind the tables that it refers to. Nodes stay: they are those of the other place, and so a
device job that one of them has leased is for the next node to settle, as after a crash."""

BUS = "bus"
"""The secret that tells a hub from others on its NATS, also from the one that it was copied from."""
AUTHORITY = "authority"
"""The secret that travels in the header: to a hub without nodes it is a pair of files."""
EXPORTED: dict[Table, Any] = {secrets: secrets.c.name.not_in((AUTHORITY, BUS))}

BATCH = 500


def _select(table: Table, *columns: Any) -> Any:
    query = select(*(columns or (table,))).select_from(table)
    return query.where(EXPORTED[table]) if table in EXPORTED else query


def write_rows(connection: Connection, start: Callable[[dict[str, int], str | None], Writer]) -> dict[str, int]:
    """All rows of a snapshot. `start` is given how many each table has, and the authority if the database holds it.
    Identities come in the order of their keys: a device before its modules. Returns the counts.

    Raises StoreError for a database of another version.
    """
    stored = connection.execute(select(schema_version.c.version_num)).scalar()
    if stored != SCHEMA_VERSION:
        raise StoreError(
            f"The database has the schema {stored}, and this MethodHub the schema {SCHEMA_VERSION}: export it with the "
            "version that runs on it, or stop that one and try again."
        )
    authority = connection.execute(select(secrets.c.value).where(secrets.c.name == AUTHORITY)).scalar()
    counts = {table.name: connection.execute(_select(table, func.count())).scalar_one() for table in TABLES}
    writer = start(counts, None if authority is None else bytes(authority).decode())
    for table in TABLES:
        writer.begin(table)
        query = _select(table).order_by(*table.primary_key).execution_options(yield_per=BATCH)
        for rows in connection.execute(query).partitions():
            writer.rows(rows)
    writer.end()
    return counts


def read_rows(connection: Connection, reader: Reader) -> None:
    """Insert all rows. Raises TransferError, after which the transaction must be rolled back."""
    for table in TABLES:
        if connection.execute(select(func.count()).select_from(table)).scalar_one():
            raise TransferError(
                f"the database is not empty: it holds {table.name.replace('_', ' ')}. Import into one that no hub was "
                "ever started on"
            )
    if reader.header.counts.keys() != {table.name for table in TABLES}:
        raise TransferError("it is damaged: its first line names other tables than a hub has")
    try:
        for table, rows in reader.batches(TABLES, BATCH):
            connection.execute(insert(table), rows)
    except DBAPIError as error:
        sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
        if sqlstate.startswith(("22", "23")) or "IntegrityError" in type(error).__name__:
            raise TransferError(f"the database refuses a row: {text_of(error)}") from error
        raise


async def put(database: Database, read: Callable[[Connection], None]) -> None:
    """Run `read` in one transaction. Raises TransferError, StoreError."""
    try:
        await database.write(read)
    except StoreUnavailable as error:
        raise StoreError(f"The database cannot be used: {error}.") from error


async def update_schema(where: Path | str) -> None:
    """Of a database that no older version may be running on. Raises StoreError."""
    await (await open_database(where)).close()


@asynccontextmanager
async def snapshot(where: Path | str) -> AsyncIterator[Callable[[Callable[[Connection], Any]], Any]]:
    """[HUB-export-snapshot] Reads of one state of the database, beside a hub that goes on writing: SQLite's read
    transaction, PostgreSQL's REPEATABLE READ. Raises StoreError."""
    engine = _sqlite(where) if isinstance(where, Path) else _postgresql(where)
    try:
        async with engine.connect() as connection:
            yield connection.run_sync
    except (SQLAlchemyError, OSError) as error:
        raise StoreError(f"The database cannot be read: {text_of(error)}.") from None
    finally:
        await engine.dispose()


def _sqlite(path: Path) -> AsyncEngine:
    from methodhub.store.engines.sqlite import sqlite_engine  # noqa: PLC0415 - as its counterpart

    if not path.exists():
        raise StoreError(f"There is no database {path}.")
    engine = sqlite_engine(path, 1, "PRAGMA query_only=ON")

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _postgresql(url: str) -> AsyncEngine:
    from methodhub.store.engines.postgresql import pool  # noqa: PLC0415 - SQLAlchemy's dialect is slow to import

    options = {"postgresql_readonly": True}
    return pool(url, 1, patient=True, isolation_level="REPEATABLE READ", execution_options=options)
