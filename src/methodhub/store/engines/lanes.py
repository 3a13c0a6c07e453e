"""Connections in lanes: who finds none free waits its turn. Knows neither a kind of database nor a row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, FromClause
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from methodhub.core.identity import Target
from methodhub.core.ports import QueryTooSlow, StoreUnavailable
from methodhub.store.schema import StoreError

ATTEMPTS = 4
"""How often a transaction is tried that stood in another's way: in a deadlock the database ends one of the two."""

Result = TypeVar("Result")
Work = Callable[[Connection], Result]
"""What is done within one transaction. Written without `await`: no transaction waits for anything but its database.
It may be run again, from its beginning."""


class Fault(Enum):
    """What an error of a database means; any other error is one of its caller's."""

    AGAIN = auto()  # rolled back in favour of another transaction
    AWAY = auto()  # cannot work at this time
    CUT = auto()  # took longer than it may


@dataclass(frozen=True, slots=True)
class Dialect:
    """What each kind of database spells by itself."""

    name: str
    """`sqlite` or `postgresql`."""
    insert: Callable[..., sqlite.Insert]
    """An INSERT that knows ON CONFLICT."""
    now: ColumnElement[float]
    """The database's clock: seconds since 1970, UTC."""
    targets: FromClause
    """A table of keys within a statement (`device_id`, `module_id`), bound by `parameters_of`."""
    parameters_of: Callable[[Iterable[Target]], dict[str, Any]]
    judge: Callable[[Exception], Fault | None]
    limit: Callable[[Connection, float], AbstractContextManager[None]]
    """Cuts statements after so many seconds."""


class Lane:
    """Connections of one kind. Work that has begun ends, cancelled or not."""

    def __init__(self, engine: AsyncEngine, dialect: Dialect, connections: int, *, commits: bool) -> None:
        self._engine = engine
        self._dialect = dialect
        self._open = engine.begin if commits else engine.connect
        self._connections = connections
        self._free = asyncio.Semaphore(connections)
        self._closed = False

    async def run(self, work: Work[Result]) -> Result:
        """What `work` returns, done in one transaction. Raises StoreUnavailable."""
        await self._free.acquire()
        return await self._shielded(work, StoreUnavailable)

    async def query(self, work: Work[Result], seconds: float) -> Result:
        """[HUB-query-time] As `run`, but no wait for a connection and no statement takes longer; else QueryTooSlow."""

        def limited(connection: Connection) -> Result:
            with self._dialect.limit(connection, seconds):
                return work(connection)

        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except TimeoutError:
            raise QueryTooSlow("too many queries run at this time") from None
        return await self._shielded(limited, QueryTooSlow)

    async def _shielded(self, work: Work[Result], if_cut: type[Exception]) -> Result:
        # SQLAlchemy drops the connection of a cancelled statement; a database in memory would go with it.
        return await asyncio.shield(asyncio.ensure_future(self._run(work, if_cut)))

    async def _run(self, work: Work[Result], if_cut: type[Exception]) -> Result:
        try:
            for _ in range(ATTEMPTS - 1):
                try:
                    return await self._once(work)
                except Exception as error:
                    if self._dialect.judge(error) is not Fault.AGAIN:
                        raise
            return await self._once(work)
        except Exception as error:
            fault = self._dialect.judge(error)
            if fault is None:
                raise
            raise (if_cut if fault is Fault.CUT else StoreUnavailable)(text_of(error)) from error
        finally:
            self._free.release()

    async def _once(self, work: Work[Result]) -> Result:
        if self._closed:
            raise StoreError("The database is closed.")
        async with self._open() as connection:
            try:
                return await connection.run_sync(work)
            except DBAPIError as error:
                # What is away may come back as another server, or as a primary: this connection would not know.
                if self._dialect.name == "postgresql" and self._dialect.judge(error) is Fault.AWAY:
                    await connection.invalidate()
                raise

    async def close(self) -> None:
        for _ in range(self._connections):
            await self._free.acquire()
        self._closed = True
        await self._engine.dispose()
        for _ in range(self._connections):
            self._free.release()


@dataclass(frozen=True, slots=True)
class Lanes:
    """An open database. Lanes may be one and the same."""

    dialect: Dialect
    writer: Lane
    readers: Lane
    queries: Lane


def text_of(error: Exception) -> str:
    """What the database says, in one line. [HUB-no-keys] The lines after it may quote a row."""
    cause: BaseException | None = error.orig if isinstance(error, DBAPIError) else error
    if cause is not None and type(cause.__cause__).__module__.startswith("asyncpg"):
        cause = cause.__cause__  # SQLAlchemy's own words put a class before it
    return next(iter(str(cause).splitlines()), "") or type(cause).__name__
