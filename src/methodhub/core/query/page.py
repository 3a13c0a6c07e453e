"""What queries answer, and who answers them: a part of the port `IdentityStore`, with connections of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from methodhub.core.identity import Identity, Target
from methodhub.core.jobs.model import DeviceJob
from methodhub.core.query.continuation import Position
from methodhub.core.query.tree import Condition, Query
from methodhub.core.twins.model import Twin

Row = tuple[Identity, Twin] | DeviceJob | dict[str, Any]
"""A twin with its identity, a device job, or a group: the values of the query's columns by their keys."""


class OutOfRange(Exception):
    """A calculation of the query left the range of numbers."""


class TooDeep(Exception):
    """The query is nested more deeply than the database can read."""


@dataclass(frozen=True, slots=True)
class Page:
    """`next` is where the page behind this one begins, None at the end."""

    rows: list[Row]
    next: Position | None


class Queries(Protocol):
    """[HUB-query-pages] Rows come in the order of their keys, and a page begins behind a key: what comes and goes
    between two pages makes no other row come twice or not at all."""

    async def run(self, query: Query, after: Position | None, limit: int) -> Page:
        """Up to `limit` rows behind `after`. Raises QueryTooSlow, OutOfRange, TooDeep."""
        ...

    async def select_targets(self, condition: Condition, after: Target | None, limit: int) -> list[Target]:
        """Up to `limit` targets behind `after`, in the order of their ids. Raises QueryTooSlow, OutOfRange, TooDeep."""
        ...

    async def count(self, condition: Condition) -> int:
        """Raises QueryTooSlow, OutOfRange, TooDeep."""
        ...
