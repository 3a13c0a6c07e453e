"""What is special to PostgreSQL: its schema, its restarts, its locks, and that nothing tells its password."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, select, text

from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.ports import StoreUnavailable
from methodhub.store.database import Database, open_database
from methodhub.store.engines.postgresql import first_that_answers, hosts_of
from methodhub.store.identities import SqlIdentityStore
from methodhub.store.schema import StoreError
from methodhub.store.tables import SCHEMA_VERSION, schema_version
from tests.postgres import PostgresServer, running_server

COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable, collation_name, column_default
    FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2
"""
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
CONSTRAINTS = """
    SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n' ORDER BY 1
"""


def device(device_id: str) -> Identity:
    return Identity(Target(device_id), "g", "e", Authentication())


def run(url: str, work: Callable[[Database], Coroutine[Any, Any, None]]) -> None:
    async def scenario() -> None:
        database = await open_database(url)
        try:
            await work(database)
        finally:
            await database.close()

    asyncio.run(scenario())


def schema(server: PostgresServer, url: str) -> list[str]:
    return [server.sql(query, name_of(url)) for query in (COLUMNS, INDEXES, CONSTRAINTS)]


def name_of(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may end."""
    with running_server() as server:
        yield server


# --- the schema ------------------------------------------------------------------------------------------------------


def test_the_migrations_lead_to_the_tables(postgres_server: PostgresServer, postgresql: Callable[[], str]) -> None:
    created, migrated = postgresql(), postgres_server.fresh()
    postgres_server.sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)", name_of(migrated))
    postgres_server.sql(
        "ALTER TABLE alembic_version ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)", name_of(migrated)
    )

    async def is_migrated(database: Database) -> None:
        assert (await database.rows(select(schema_version.c.version_num), {}))[0][0] == SCHEMA_VERSION

    run(migrated, is_migrated)
    assert schema(postgres_server, migrated) == schema(postgres_server, created)


def test_nodes_that_start_at_once_make_the_schema_once(postgres_server: PostgresServer) -> None:
    url = postgres_server.fresh()

    async def scenario() -> None:
        databases = await asyncio.gather(*(open_database(url) for _ in range(4)))
        for database in databases:
            await database.close()

    asyncio.run(scenario())


def test_another_programs_database_and_a_newer_one_are_refused(postgres_server: PostgresServer) -> None:
    url = postgres_server.fresh()
    postgres_server.sql("CREATE TABLE songs (title TEXT)", name_of(url))
    with pytest.raises(StoreError, match="another program"):
        asyncio.run(open_database(url))
    newer = postgres_server.fresh()
    postgres_server.sql(
        "CREATE TABLE alembic_version (version_num VARCHAR(32)); INSERT INTO alembic_version VALUES ('0999')",
        name_of(newer),
    )
    with pytest.raises(StoreError, match=r"newer MethodHub \(schema 0999"):
        asyncio.run(open_database(newer))


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://hub:s3cret@127.0.0.1:1/hub?password=s3cret",
        "postgresql://hub:s3cret@/missing?host={socket}",
        "postgresql://nobody:s3cret@/postgres?host={socket}",
        "postgresql://hub:s3cret@/postgres?host={socket}&sslmode=s3cret",
        "postgresql://hub:s3cret@127.0.0.1:port/hub",
        "postgresql://hub:s3cret/1@127.0.0.1/hub",
        "postgresql://hub:s3cret?1@127.0.0.1/hub",
        "postgresql://hub:s3cret#1@127.0.0.1/hub",
        "postgresql://hub:s3cret@1@127.0.0.1:1/hub",
    ],
)
def test_what_cannot_be_opened_is_told_without_its_password(postgres_server: PostgresServer, url: str) -> None:
    """[HUB-no-keys]"""
    with pytest.raises(StoreError, match="cannot be used") as caught:
        asyncio.run(open_database(url.format(socket=postgres_server.folder)))
    assert "s3cret" not in str(caught.value).replace("sslmode", "")
    assert caught.value.__cause__ is None


def test_without_its_driver_it_is_told_what_to_install(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "sys.modules['asyncpg'] = None\n"
        "from methodhub.store.database import open_database\n"
        "asyncio.run(open_database('postgresql://localhost/hub'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert re.search(r"StoreError: .*pip install 'methodhub\[cluster\]'", done.stderr)


# --- its life --------------------------------------------------------------------------------------------------------


def test_a_restart_of_the_server_heals_by_itself(own_server: PostgresServer) -> None:
    """[HUB-database-restart] While it is away each call says so; afterwards each works, the first one too."""

    async def work(database: Database) -> None:
        store = SqlIdentityStore(database)

        async def all_lanes() -> None:
            await asyncio.gather(*(store.get(Target("d0")) for _ in range(20)))
            await asyncio.gather(*(store.replace(device("d0"), None) for _ in range(20)))
            await asyncio.gather(*(database.query(lambda one: one.scalar(text("SELECT 1")), 5.0) for _ in range(4)))

        await store.insert(device("d0"))
        await all_lanes()
        await asyncio.to_thread(own_server.stop)
        for attempt in (store.get(Target("d0")), store.insert(device("d1")), store.delete(Target("d0"), None)):
            with pytest.raises(StoreUnavailable):
                await attempt
        await asyncio.to_thread(own_server.start)
        await all_lanes()
        await asyncio.to_thread(own_server.stop)
        await asyncio.to_thread(own_server.start)
        await all_lanes()

    run(own_server.fresh(), work)


def test_a_connection_that_is_ended_under_its_statement_is_no_answer(postgresql: Callable[[], str]) -> None:
    async def work(database: Database) -> None:
        with pytest.raises(StoreUnavailable, match="terminating connection"):
            await database.write(
                lambda connection: connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            )
        assert await SqlIdentityStore(database).insert(device("d"))

    run(postgresql(), work)


@pytest.mark.parametrize("sqlstate", ["25P03", "25P04", "25006"])
def test_a_connection_that_the_server_gave_up_is_away_and_not_used_again(
    postgresql: Callable[[], str], sqlstate: str
) -> None:
    async def work(database: Database) -> None:
        raising = f"DO $$ BEGIN RAISE EXCEPTION USING errcode = '{sqlstate}'; END $$"
        own = "SELECT pg_backend_pid()"
        before = await database.write(lambda connection: connection.execute(text(own)).scalar_one())
        with pytest.raises(StoreUnavailable):
            await database.write(lambda connection: connection.execute(text(raising)))
        assert await database.write(lambda connection: connection.execute(text(own)).scalar_one()) != before

    run(postgresql(), work)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://h/db", ["postgresql://h/db"]),
        (
            "postgres://u:p%2C@one,two:5433/db?a=1,2",
            ["postgres://u:p%2C@one/db?a=1,2", "postgres://u:p%2C@two:5433/db?a=1,2"],
        ),
        ("postgresql://[::1]:1,b", ["postgresql://[::1]:1", "postgresql://b"]),
        ("postgresql:///db?host=/run/pg", ["postgresql:///db?host=/run/pg"]),
    ],
)
def test_a_url_may_name_several_hosts(url: str, hosts: list[str]) -> None:
    assert hosts_of(url) == hosts


def test_of_several_hosts_the_last_good_one_is_asked_first() -> None:
    """[HUB-database-hosts]"""
    hosts = ["a", "b", "c"]
    asked: list[str] = []

    async def connect(host: str) -> str:
        asked.append(host)
        if host != good:
            raise TimeoutError(host)
        return host

    for good, order in (("b", "ab"), ("b", "b"), ("c", "bac")):
        asked.clear()
        assert asyncio.run(first_that_answers(hosts, connect)) == good
        assert "".join(asked) == order
    good = "nobody"
    with pytest.raises(TimeoutError, match="a"):
        asyncio.run(first_that_answers(hosts, connect))


def test_who_waits_too_long_for_a_lock_is_told_so(postgresql: Callable[[], str]) -> None:
    async def work(database: Database) -> None:
        store = SqlIdentityStore(database)
        await store.insert(device("d"))

        def wait(connection: Connection) -> None:
            connection.execute(text("SET LOCAL lock_timeout = '20ms'"))
            connection.execute(text("UPDATE identities SET etag = 'e2'"))

        async def hold() -> None:
            connection = await asyncpg.connect(url)
            async with connection.transaction():
                await connection.execute("SELECT * FROM identities FOR UPDATE")
                with pytest.raises(StoreUnavailable, match="lock timeout"):
                    await database.write(wait)
            await connection.close()

        await hold()
        assert await store.replace(device("d"), "e")

    url = postgresql()
    run(url, work)


def test_of_a_deadlock_both_ends_are_done(postgresql: Callable[[], str]) -> None:
    """The database ends one of the two; that one begins anew."""

    async def work(database: Database) -> None:
        store = SqlIdentityStore(database)
        await store.insert(device("a"))
        await store.insert(device("b"))
        begun: list[str] = []

        def lock(first: str, second: str) -> Callable[[Connection], None]:
            def steps(connection: Connection) -> None:
                connection.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
                statement = text("UPDATE identities SET etag = etag || :d WHERE device_id = :d")
                connection.execute(statement, {"d": first})
                begun.append(first)
                # Both hold their first row when they ask for the second.
                while len(begun) < 2:
                    connection.execute(text("SELECT"))
                connection.execute(statement, {"d": second})

            return steps

        await asyncio.gather(database.write(lock("a", "b")), database.write(lock("b", "a")))
        assert len(begun) == 3
        found = [identity.etag for identity in await store.page_devices("", 10)]
        assert found == ["eaa", "ebb"]

    run(postgresql(), work)
