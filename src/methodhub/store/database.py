"""An open database: what the stores ask of it, whatever its kind. Knows no row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Executable, Row

from methodhub.store.engines.lanes import Lanes, Result, Work
from methodhub.store.engines.sqlite import open_sqlite


class Database:
    """The database behind the stores. Every method is one transaction, and raises StoreUnavailable.

    `dialect` is its name, for the few statements that cannot be the same; `now` an expression, the database's clock in
    seconds since 1970; `insert` builds an INSERT that knows ON CONFLICT; `targets` is a table of keys to join
    (`device_id`, `module_id`), and `parameters_of(targets)` what binds it.
    """

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self.dialect = lanes.dialect.name
        self.insert = lanes.dialect.insert
        self.now = lanes.dialect.now
        self.targets = lanes.dialect.targets
        self.parameters_of = lanes.dialect.parameters_of

    async def rows(self, query: Executable, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
        return await self._lanes.readers.run(lambda connection: connection.execute(query, parameters).all())

    async def execute(self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> int:
        """Run one statement, or with a sequence of parameters one for each. The number of rows touched by one."""
        return await self._lanes.writer.run(lambda connection: connection.execute(statement, parameters).rowcount)

    async def write(self, work: Work[Result]) -> Result:
        """What `work` returns. It may be run anew from its beginning, and so touches nothing but the connection."""
        return await self._lanes.writer.run(work)

    async def query(self, work: Work[Result], seconds: float) -> Result:
        """What `work` returns, which reads only and may take long: on one of a few connections of its own.

        Raises QueryTooSlow if none of these gets free in so many seconds, or a statement takes longer.
        """
        return await self._lanes.queries.query(work, seconds)

    async def close(self) -> None:
        """End when what was begun is done. Afterwards each call raises StoreError."""
        for lane in dict.fromkeys((self._lanes.queries, self._lanes.readers, self._lanes.writer)):
            await lane.close()


async def open_database(where: Path | str | None) -> Database:
    """Open the SQLite file, created if need be; a `postgresql://` URL; or with None a database in memory. Its schema
    is brought up to date.

    Raises StoreError.
    """
    if not isinstance(where, str):
        return Database(await open_sqlite(where))
    from methodhub.store.engines.postgresql import open_postgresql  # noqa: PLC0415 - SQLAlchemy's dialect is slow to import

    return Database(await open_postgresql(where))
