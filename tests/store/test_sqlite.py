"""What is special to SQLite: the file, its locks, its life through a kill, and that look-ups use an index."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

import methodhub
from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.ports import ConnectionRecord
from methodhub.store import hub, identities, rows
from methodhub.store.database import open_database
from methodhub.store.engines.sqlite import DIALECT
from methodhub.store.identities import SqlIdentityStore
from methodhub.store.schema import StoreError
from methodhub.store.tables import device_sessions, metadata
from methodhub.store.tables import identities as table
from methodhub.store.twins import of_targets

WRITER = """
import asyncio, sys
from pathlib import Path
from methodhub.core.identity import Authentication, Identity, Target
from methodhub.store.database import open_database
from methodhub.store.identities import SqlIdentityStore

async def write(store, task):
    number = 0
    while True:
        device_id = f"{task}-{number}"
        assert await store.insert(Identity(Target(device_id), "g", "e", Authentication()))
        print(device_id, flush=True)
        number += 1

async def main():
    store = SqlIdentityStore(await open_database(Path(sys.argv[1])))
    await asyncio.gather(*(write(store, task) for task in range(4)))

asyncio.run(main())
"""


def device(device_id: str) -> Identity:
    return Identity(Target(device_id), "g", "e", Authentication())


def test_a_kill_loses_no_acknowledged_write(tmp_path: Path) -> None:
    """[HUB-durable] kill -9 while identities are written: each that was told to be there is there."""
    path = tmp_path / "hub.db"
    source = Path(methodhub.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(source)},
    ) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(100)]
        os.kill(writer.pid, signal.SIGKILL)
        told += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    ids = [line.strip() for line in told if line.endswith("\n")]
    assert len(ids) >= 100

    async def reopen() -> None:
        database = await open_database(path)
        store = SqlIdentityStore(database)
        for device_id in ids:
            assert await store.get(Target(device_id)) == device(device_id)
        assert await store.insert(device("one more"))
        await database.close()

    asyncio.run(reopen())
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_rows_are_there_after_a_close(tmp_path: Path) -> None:
    async def scenario() -> None:
        for number in range(3):
            database = await open_database(tmp_path / "hub.db")
            store = SqlIdentityStore(database)
            assert len(await store.page_devices("", 10)) == number
            await store.insert(device(f"d{number}"))
            await database.close()

    asyncio.run(scenario())
    assert [path.name for path in tmp_path.iterdir()] == ["hub.db"]


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    path.touch(0o666)

    async def scenario() -> None:
        database = await open_database(path)
        await SqlIdentityStore(database).insert(device("d"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        assert modes == {"hub.db": 0o600, "hub.db-wal": 0o600, "hub.db-shm": 0o600}
        await database.close()

    before = os.umask(0)
    try:
        asyncio.run(scenario())
        path.unlink()
        asyncio.run(scenario())
    finally:
        os.umask(before)


def test_two_processes_wait_for_each_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        databases = [await open_database(tmp_path / "hub.db") for _ in range(2)]
        stores = [SqlIdentityStore(database) for database in databases]
        await stores[0].insert(device("shared"))
        records = [ConnectionRecord(Target("shared"), True, 1.0, 2.0)]
        await asyncio.gather(
            *(store.insert(device(f"d{which}-{n}")) for which, store in enumerate(stores) for n in range(50)),
            *(store.record_connections(records) for store in stores for _ in range(20)),
        )
        assert len(await stores[0].page_devices("", 1000)) == 101
        # A delete reads before it writes: without the write lock from its start it would fail in between.
        deletes = [
            store.delete(Target(f"d{which}-{n}"), None) for n in range(50) for store in stores for which in (0, 1)
        ]
        deleted = [gone for gone in await asyncio.gather(*deletes) if gone is not None]
        assert len(deleted) == 100
        assert len(await stores[0].page_devices("", 1000)) == 1
        for database in databases:
            await database.close()

    asyncio.run(scenario())


def test_the_settings_that_keep_what_was_acknowledged(tmp_path: Path) -> None:
    """[HUB-durable] A commit is on the disk before it is acknowledged."""

    async def scenario() -> None:
        database = await open_database(tmp_path / "hub.db")

        def settings(connection: Any) -> list[object]:
            names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

        full = 2
        assert await database.write(settings) == ["wal", full, 1, 10_000]
        await database.close()

    asyncio.run(scenario())


def test_a_closed_database_says_so(tmp_path: Path) -> None:
    async def scenario(path: Path | None) -> None:
        database = await open_database(path)
        store = SqlIdentityStore(database)
        begun = asyncio.ensure_future(store.insert(device("d")))
        await asyncio.sleep(0)
        await database.close()
        assert await begun
        with pytest.raises(StoreError, match="closed"):
            await store.get(Target("d"))
        with pytest.raises(StoreError, match="closed"):
            await store.insert(device("e"))

    asyncio.run(scenario(None))
    asyncio.run(scenario(tmp_path / "hub.db"))


def test_a_failed_transaction_leaves_nothing_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = await open_database(tmp_path / "hub.db")
        store = SqlIdentityStore(database)

        def fail(connection: Any) -> None:
            connection.exec_driver_sql("INSERT INTO policies VALUES ('half', 'ServiceConnect', 'cDE=', 'cDI=')")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await database.write(fail)
        assert await hub.SqlHubStore(database).policies() == []
        assert await store.insert(device("d"))
        await database.close()

    asyncio.run(scenario())


STATEMENTS: list[Executable] = [
    of_targets(table.select(), table, DIALECT.targets),
    of_targets(device_sessions.select(), device_sessions, DIALECT.targets),
    identities.MODULES,
    identities.MODULE_IDS,
    identities.PAGE,
    rows.REPLACE.values(etag="e"),
    identities.REPLACE_IF.values(etag="e"),
    identities.LOCK,
    rows.DELETE,
    identities.RECORD,
    identities.DISCONNECT_ALL,
    hub.DELETE_SESSION,
    hub.NEW_SESSION,
]

# What SQLite itself asks when a device or an identity goes.
FOREIGN_KEY_LOOKUPS = [
    "SELECT 1 FROM identities WHERE device_id = ? AND parent_module_id = ?",
    "SELECT 1 FROM device_sessions WHERE device_id = ? AND module_id = ?",
]


def test_no_statement_reads_a_whole_table(tmp_path: Path) -> None:
    """Look-ups stay flat to a million identities, and pages need no sorting."""
    asyncio.run(create(tmp_path / "hub.db"))
    texts = [str(statement.compile(dialect=sqlite.dialect())) for statement in STATEMENTS]  # type: ignore[attr-defined]  # not in the protocol Executable
    connection = sqlite3.connect(tmp_path / "hub.db")
    for text in texts + FOREIGN_KEY_LOOKUPS:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?")).fetchall()
        steps = [step for *_, step in plan]
        resets = "identities_connected" in steps[0]  # reads a whole index, which holds only the connected
        steps = [
            step for step in steps if "VIRTUAL TABLE" not in step and not step.startswith("USE TEMP B-TREE")
        ]  # the keys
        assert all(step.startswith("SEARCH") or (resets and "INDEX" in step) for step in steps), (text, steps)
    connection.close()


def test_the_reset_at_a_start_reads_only_who_was_connected(tmp_path: Path) -> None:
    asyncio.run(create(tmp_path / "hub.db"))
    connection = sqlite3.connect(tmp_path / "hub.db")
    text = str(identities.DISCONNECT_ALL.compile(dialect=sqlite.dialect()))
    plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?")).fetchall()
    assert "identities_connected" in plan[0][-1]
    text = str(identities.STATISTICS.compile(dialect=sqlite.dialect()))
    plan = connection.execute(f"EXPLAIN QUERY PLAN {text}").fetchall()
    assert [step for *_, step in plan] == ["SCAN identities USING COVERING INDEX identities_devices"]
    text = str(identities.EXPECTS_CERTIFICATES.compile(dialect=sqlite.dialect()))
    plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", [None] * text.count("?")).fetchall()
    assert "identities_certificates" in plan[0][-1]
    connection.close()


def test_postgresql_can_speak_the_statements_and_tables() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    for statement in STATEMENTS:
        statement.compile(dialect=dialect)  # type: ignore[attr-defined]  # not in the protocol Executable
    tables = "".join(str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables)
    for id_column in ("device_id", "module_id", "name"):
        assert f'{id_column} TEXT COLLATE "C" NOT NULL' in tables
    indexes = {
        str(index.name): str(CreateIndex(index).compile(dialect=dialect))
        for table in metadata.sorted_tables
        for index in table.indexes
    }
    assert indexes.keys() >= {"identities_connected", "identities_certificates"}
    assert "WHERE connected IS true" in indexes["identities_connected"]
    types = "authentication_type IN ('certificateAuthority', 'selfSigned')"
    assert f"WHERE {types}" in indexes["identities_certificates"]


async def create(path: Path) -> None:
    await (await open_database(path)).close()
