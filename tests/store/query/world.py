"""Twins in a real SQLite and a real PostgreSQL, and queries on both."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete

from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.ports import InsertIdentity
from methodhub.core.query.page import Page, Row
from methodhub.core.query.tree import Condition, Query
from methodhub.core.twins.model import Twin
from methodhub.iothub.twin_json import twin_json
from methodhub.store.database import Database
from methodhub.store.identities import SqlIdentityStore
from methodhub.store.query.queries import SqlQueries
from methodhub.store.tables import identities

Stored = tuple[Identity, Twin]


def identity(device_id: str, module_id: str = "", **fields: Any) -> Identity:
    return Identity(Target(device_id, module_id), "g", "e", Authentication(), **fields)


def document(row: Stored) -> dict[str, Any]:
    return twin_json(*row)


class World:
    """One database and an event loop for it."""

    def __init__(self, runner: asyncio.Runner, database: Database) -> None:
        self.database = database
        self.run = runner.run
        self.identities = SqlIdentityStore(database)
        self.queries = SqlQueries(database)

    def fill(self, rows: Sequence[Stored]) -> None:
        """These and no others. A fresh twin gets no row."""
        self.run(self.database.execute(delete(identities), {}))
        self.add(rows)

    def add(self, rows: Sequence[Stored]) -> None:
        changes = [InsertIdentity(owner, None if twin == Twin(twin.target) else twin) for owner, twin in rows]
        assert all(self.run(self.identities.apply(changes)))

    def remove(self, target: Target) -> None:
        assert self.run(self.identities.delete(target, None))

    def page(self, query: Query, after: Any = None, limit: int = 1000) -> Page:
        return self.run(self.queries.run(query, after, limit))

    def rows(self, query: Query, limit: int = 1000) -> list[Row]:
        """Of all pages."""
        page = self.page(query, None, limit)
        rows = page.rows
        while page.next is not None:
            assert len(page.rows) == limit
            page = self.page(query, page.next, limit)
            rows += page.rows
        return rows

    def targets(self, condition: Condition, limit: int = 1000) -> list[Target]:
        """Of all pages."""
        found: list[Target] = []
        while part := self.run(self.queries.select_targets(condition, found[-1] if found else None, limit)):
            found += part
        return found

    def count(self, condition: Condition) -> int:
        return self.run(self.queries.count(condition))
