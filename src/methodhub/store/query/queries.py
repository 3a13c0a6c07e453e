"""Runs queries on the database, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, tuple_
from sqlalchemy.exc import DBAPIError

from methodhub.core.identity import Target
from methodhub.core.jobs.model import DeviceJob
from methodhub.core.query.continuation import Position
from methodhub.core.query.page import OutOfRange, Page, TooDeep
from methodhub.core.query.tree import UNDEFINED, Aggregate, Collection, Condition, Path, Query
from methodhub.core.twins.model import Twin
from methodhub.store.database import Database
from methodhub.store.jobs.rows import device_job_of
from methodhub.store.query import groups
from methodhub.store.query.documents import DOCUMENTS
from methodhub.store.query.expressions import Expressions
from methodhub.store.query.properties import rows_of
from methodhub.store.rows import identity_of
from methodhub.store.tables import device_jobs, identities, jobs, twins
from methodhub.store.twins import twin_of

QUERY_SECONDS = 30.0
PART = 250
"""Rows that are read at once."""
MAX_PAGE_BYTES = 8 * 1024 * 1024
"""Of twins; a page that has more ends after the part that brought it there."""
NUMERIC_VALUE_OUT_OF_RANGE = "22003"
"""PostgreSQL's word for it; SQLite goes on with an infinite number."""

TOO_DEEP = ("parser stack overflow", "Expression tree is too large")
"""SQLite's words for it."""

TWIN_COLUMNS = [column for column in twins.c if column.name not in {"device_id", "module_id"}]
DEVICE_JOB_COLUMNS = [*device_jobs.c, jobs.c.type]


class SqlQueries:
    """The protocol `Queries` on a database."""

    def __init__(self, database: Database, seconds: float = QUERY_SECONDS) -> None:
        self._database = database
        self._seconds = seconds

    async def run(self, query: Query, after: Position | None, limit: int) -> Page:
        """`after` is how many rows TOP has had, and the last row's key."""
        taken, *key = after or (0,)
        assert isinstance(taken, int)
        if query.top is not None:
            limit = min(limit, query.top - taken)
        pages = self._pages(query.condition)
        rows: list[Row[Any]] = []
        compiled: dict[Any, Any] = {}
        # [HUB-query-bytes] Groups are made anew for each part, and small.
        part = limit if query.is_grouped else PART
        size, more = 0, True
        while more and len(rows) < limit and size < MAX_PAGE_BYTES:
            wanted = min(part, limit - len(rows))
            behind = pages.key(query, rows[-1]) if rows else tuple(key)
            some = await self._rows(partial(pages.of, query, behind, wanted + 1), compiled)
            rows += some[:wanted]
            size += sum(map(size_of, some[:wanted]))
            more = len(some) > wanted
        found = [pages.row(query, row) for row in rows]
        taken += len(rows)
        if not more or taken == query.top:
            return Page(found, None)
        return Page(found, (taken, *pages.key(query, rows[-1])))

    async def select_targets(self, condition: Condition, after: Target | None, limit: int) -> list[Target]:
        pages = self._pages(condition)
        last = () if after is None else after if condition.collection is Collection.MODULES else after[:1]
        ids = select(identities.c.device_id, identities.c.module_id)
        rows = await self._rows(lambda: pages.behind(ids, condition, last).limit(limit))
        return [Target(*row) for row in rows]

    async def count(self, condition: Condition) -> int:
        pages = self._pages(condition)
        ((count,),) = await self._rows(lambda: pages.chosen(select(func.count()), condition))
        return int(count)

    def _pages(self, condition: Condition) -> Pages:
        return Pages(Expressions(DOCUMENTS[self._database.dialect], condition.collection))

    async def _rows(
        self, build: Callable[[], Select[Any]], compiled: dict[Any, Any] | None = None
    ) -> Sequence[Row[Any]]:
        """`compiled` keeps statements for those that differ in their values only."""
        # A long one takes half a second to build: the loop has better to do.
        statement = await asyncio.to_thread(build)

        def work(connection: Connection) -> Sequence[Row[Any]]:
            try:
                # Not kept compiled: there are as many as there are texts, and a long one has a megabyte.
                return connection.execute(statement, execution_options={"compiled_cache": compiled}).all()
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) == NUMERIC_VALUE_OUT_OF_RANGE:
                    raise OutOfRange from error
                if any(words in str(error.orig) for words in TOO_DEEP):
                    raise TooDeep from error
                raise

        return await self._database.query(work, self._seconds)


def size_of(row: Row[Any]) -> int:
    return sum(len(value) for value in row if isinstance(value, str | bytes))


class Pages:
    """The statements of queries on one collection, and what their rows mean."""

    def __init__(self, expressions: Expressions) -> None:
        self._expressions = expressions

    def of(self, query: Query, key: Position, limit: int) -> Select[Any]:
        if query.is_grouped:
            return self._groups(query, key).limit(limit)
        is_job = query.condition.collection is Collection.JOBS
        columns = DEVICE_JOB_COLUMNS if is_job else [*identities.c, *TWIN_COLUMNS]
        return self.behind(select(*columns), query.condition, key).limit(limit)

    def chosen(self, columns: Select[Any], condition: Condition) -> Select[Any]:
        tables, always, _ = rows_of(condition.collection)
        chosen = columns.select_from(tables)
        if always is not None:
            chosen = chosen.where(always)
        if condition.where is not None:
            chosen = chosen.where(self._expressions.condition(condition.where))
        return chosen

    def behind(self, columns: Select[Any], condition: Condition, key: Position | Target) -> Select[Any]:
        """The rows behind a key, in the order of keys."""
        _, _, order = rows_of(condition.collection)
        chosen = self.chosen(columns, condition).order_by(*order)
        if not key:
            return chosen
        return chosen.where(order[0] > key[0] if len(order) == 1 else tuple_(*order) > tuple_(*key))

    def _groups(self, query: Query, key: Position) -> Select[Any]:
        inner: list[Any] = []
        for at, path in enumerate(query.group_by):
            parts = groups.columns_of(self._expressions.documents, self._expressions.path(path))
            inner += [part.label(f"key_{at}_{number}") for number, part in enumerate(parts)]
        width = len(inner)
        aggregates = self._aggregates(query)
        for at, aggregate in enumerate(aggregates):
            found = None if aggregate.path is None else self._expressions.path(aggregate.path).number
            inner.append((func.nullif(0, 0) if found is None else found).label(f"value_{at}"))
        documents = self.chosen(select(*inner, func.length("").label("one")), query.condition).subquery()
        columns = list(documents.c)
        keys = columns[:width]
        made = [
            func.count() if aggregate.name == "count" else getattr(func, aggregate.name)(columns[width + at])
            for at, aggregate in enumerate(aggregates)
        ]
        grouped = select(*keys, *made).select_from(documents).group_by(*keys).order_by(*keys)
        return grouped.where(tuple_(*keys) > tuple_(*key)) if key else grouped

    def _aggregates(self, query: Query) -> list[Aggregate]:
        return [column.value for column in query.columns or () if isinstance(column.value, Aggregate)]

    def row(self, query: Query, row: Row[Any]) -> Any:
        if query.is_grouped:
            return self._group(query, row)
        if query.condition.collection is Collection.JOBS:
            found: DeviceJob = device_job_of(row)
            return found
        identity = identity_of(row)
        return identity, twin_of(row) if row.version is not None else Twin(identity.target)

    def _group(self, query: Query, row: Row[Any]) -> dict[str, Any]:
        width = groups.WIDTH * len(query.group_by)
        values: dict[Any, Any] = dict(zip(query.group_by, groups.values_of(tuple(row[:width])), strict=True))
        numbers = iter(row[width:])
        found: dict[str, Any] = {}
        for column in query.columns or ():
            if isinstance(column.value, Path):
                value = values[column.value]
            else:
                number = next(numbers)
                value = UNDEFINED if number is None else groups.number_of(number)
            if value is not UNDEFINED:
                found[column.key] = value
        return found

    def key(self, query: Query, row: Row[Any]) -> Position:
        if query.is_grouped:
            return tuple(row[: groups.WIDTH * len(query.group_by)])
        if query.condition.collection is Collection.JOBS:
            return (row.job_id, row.device_id, row.module_id)
        return (row.device_id, row.module_id) if query.condition.collection is Collection.MODULES else (row.device_id,)
