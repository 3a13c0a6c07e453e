"""The schema's life: created, migrated, refused."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

import methodhub
from methodhub.core.identity import Authentication, Identity, Target
from methodhub.store.database import open_database
from methodhub.store.identities import SqlIdentityStore
from methodhub.store.schema import StoreError, migrate
from methodhub.store.tables import SCHEMA_VERSION


def schema(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: " ".join(sql.split()) for name, sql in rows}


def run_sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def version(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")]


async def open_and_close(path: Path) -> None:
    await (await open_database(path)).close()


def test_the_migrations_lead_to_the_tables(tmp_path: Path) -> None:
    """A new database is created from the tables, an old one migrated: both must be the same."""
    created, migrated = tmp_path / "created.db", tmp_path / "migrated.db"
    asyncio.run(open_and_close(created))
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.begin() as connection:
        migrate(connection)
    engine.dispose()
    assert schema(migrated) == schema(created)
    assert version(migrated) == version(created) == [SCHEMA_VERSION]


def test_an_older_database_is_migrated_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "hub %20.db"
    run_sql(path, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    identity = Identity(Target("d"), "g", "e", Authentication())

    async def scenario() -> None:
        database = await open_database(path)
        assert await SqlIdentityStore(database).insert(identity)
        await database.close()

    asyncio.run(scenario())
    assert version(path) == [SCHEMA_VERSION]


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    asyncio.run(open_and_close(path))
    run_sql(path, "UPDATE alembic_version SET version_num = '0999'")
    before = schema(path)
    with pytest.raises(StoreError, match=r"newer MethodHub \(schema 0999"):
        asyncio.run(open_and_close(path))
    assert schema(path) == before
    assert version(path) == ["0999"]


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    run_sql(path, "CREATE TABLE songs (title TEXT)")
    with pytest.raises(StoreError, match="another program"):
        asyncio.run(open_and_close(path))
    assert list(schema(path)) == ["songs"]


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, however long it goes on. " * 100)
    with pytest.raises(StoreError, match="not a database"):
        asyncio.run(open_and_close(text))
    with pytest.raises(StoreError, match="No such file or directory"):
        asyncio.run(open_and_close(tmp_path / "missing" / "hub.db"))
    with pytest.raises(StoreError, match="Is a directory"):
        asyncio.run(open_and_close(tmp_path))


def test_a_start_does_not_import_alembic(tmp_path: Path) -> None:
    """Neither on a new database nor on an up-to-date one: the import alone takes longer than the rest."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(methodhub.__file__).parents[1])!r})\n"
        "from methodhub.store.database import open_database\n"
        "async def main():\n"
        "    for _ in range(2):\n"
        f"        await (await open_database(Path({str(tmp_path / 'hub.db')!r}))).close()\n"
        "asyncio.run(main())\n"
        "sys.exit('alembic' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("release", ["0.1.0", "0.2.0", "0.3.0"])
def test_the_data_of_every_release_is_lifted_to_the_same_schema(tmp_path: Path, release: str) -> None:
    created, kept = tmp_path / "created.db", tmp_path / "kept.db"
    asyncio.run(open_and_close(created))
    kept.write_bytes((Path(__file__).parents[1] / "upgrade" / release / "data" / "methodhub.db").read_bytes())
    assert version(kept) < [SCHEMA_VERSION]
    asyncio.run(open_and_close(kept))
    assert schema(kept) == schema(created)
    assert version(kept) == [SCHEMA_VERSION]
