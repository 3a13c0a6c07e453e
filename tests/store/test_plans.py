"""Look-ups stay flat to a million identities: PostgreSQL answers them from an index."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Executable, insert, text
from sqlalchemy.dialects import postgresql as dialect

from methodhub.core.identity import Authentication, Identity, Target
from methodhub.store import identities, rows
from methodhub.store.database import Database, open_database
from methodhub.store.engines.postgresql import DIALECT
from methodhub.store.tables import device_sessions, twins
from methodhub.store.tables import identities as table
from methodhub.store.twins import of_targets


@pytest.fixture(scope="module")
def url(postgresql: Callable[[], str]) -> Iterator[str]:
    """Of a database with so many rows that the planner would rather not read them all."""
    url = postgresql()

    async def fill() -> None:
        database = await open_database(url)
        many = [rows.row_of(Identity(Target(f"d{n:05}"), "g", "e", Authentication())) for n in range(10_000)]
        await database.execute(insert(table), many)
        await database.write(lambda connection: connection.execute(text("ANALYZE")))
        await database.close()

    asyncio.run(fill())
    yield url


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (of_targets(table.select(), table, DIALECT.targets), "identities_pkey"),
        (of_targets(device_sessions.select(), device_sessions, DIALECT.targets), "device_sessions_pkey"),
        (identities.PAGE, "identities_pkey"),
        (identities.MODULES, "identities_pkey"),
        (identities.LOCK, "identities_pkey"),
        (rows.REPLACE.values(etag="e"), "identities_pkey"),
        (rows.DELETE, "identities_pkey"),
        (identities.STATISTICS, "identities_devices"),
        (identities.DISCONNECT_ALL, "identities_connected"),
        (identities.EXPECTS_CERTIFICATES, "identities_certificates"),
        (of_targets(twins.select(), twins, DIALECT.targets), "twins_pkey"),
    ],
)
def test_a_statement_uses_its_index(url: str, statement: Executable, index: str) -> None:
    asyncio.run(explain(url, statement, index))


async def explain(url: str, statement: Executable, index: str) -> None:
    spoken: Any = dialect.asyncpg
    compiled: Any = statement.compile(dialect=spoken.dialect())  # type: ignore[attr-defined]  # not in the protocol Executable
    values = {
        "device": "d05000", "module": "", "after": "d05000", "limit": 100, "now": 1.0,
        "target_devices": ["d1", "d2"], "target_modules": ["", ""],
    }  # fmt: skip
    parameters = tuple(values.get(name, compiled.params.get(name)) for name in compiled.positiontup)

    def work(connection: Connection) -> Any:
        # The planner would count the rows of a table this small faster than those of its index.
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        return connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {compiled}", parameters).scalar()

    database: Database = await open_database(url)
    try:
        plan = json.dumps(await database.write(work))
    finally:
        await database.close()
    assert index in plan
    assert "Seq Scan" not in plan
