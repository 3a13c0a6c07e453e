"""Back to the version before, and forth again: the newest migration only adds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from methodhub.store.database import open_database
from methodhub.store.tables import SCHEMA_VERSION
from tests.transfer.rows import rows_in
from tests.upgrade.make_data import make

ROOT = Path(__file__).parents[2]
STATEMENT = "UPDATE alembic_version SET version_num = '0003'"


async def run_sql(where: Path | str, *statements: str) -> None:
    database = await open_database(where)
    for statement in statements:
        await database.execute(text(statement), {})
    await database.close()


def test_the_page_says_how() -> None:
    assert STATEMENT in (ROOT / "docs" / "how-to" / "upgrade.md").read_text()
    assert SCHEMA_VERSION == "0004", "tell in upgrade.md how the new schema is gone back from, and try it here"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_forth_again_loses_nothing(kind: str, tmp_path: Path, postgresql: Callable[[], str]) -> None:
    """[HUB-rollback] What an older version writes has no node; its row is the same for the rest."""
    make(tmp_path / "data")
    where: Path | str = tmp_path / "data" / "methodhub.db" if kind == "sqlite" else postgresql()
    if isinstance(where, str):
        asyncio.run(run_sql(where, "INSERT INTO policies VALUES ('mine', 'RegistryRead', 'a', 'b')"))
    before = rows_in(where)
    asyncio.run(run_sql(where, STATEMENT))
    assert rows_in(where) == before
