"""Brings a database to the newest schema. Alembic, slow to import, is left out where nothing is to migrate."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select

from methodhub.store.tables import SCHEMA_VERSION, metadata, schema_version


class StoreError(Exception):
    """The database cannot be used. The text says why and what to do."""


def prepare(connection: Connection) -> bool:
    """Create the tables in an empty database. True if an older schema is there, which `migrate` must lift.

    Raises StoreError if the database is of a newer MethodHub, or none of MethodHub's.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        metadata.create_all(connection, checkfirst=False)
        schema_version.create(connection, checkfirst=False)
        connection.execute(insert(schema_version).values(version_num=SCHEMA_VERSION))
        return False
    if schema_version.name not in tables:
        raise StoreError("The database holds tables of another program. Choose another file.")
    stored = connection.execute(select(schema_version.c.version_num)).scalar() or ""
    if stored > SCHEMA_VERSION:
        raise StoreError(
            f"The database was written by a newer MethodHub (schema {stored}; this one knows schemas up to "
            f"{SCHEMA_VERSION}). Install the newer MethodHub again, or restore a backup."
        )
    return stored < SCHEMA_VERSION


def migrate(connection: Connection) -> None:
    """Run the missing migrations, on SQLite with foreign keys off: tables are altered by writing them anew."""
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    # Alembic's options are a format string.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
