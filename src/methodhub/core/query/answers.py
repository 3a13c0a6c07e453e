"""Answers queries: from their text and a continuation to a page. Knows no HTTP and no store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.ports import QueryTooSlow
from methodhub.core.query.continuation import Continuations
from methodhub.core.query.page import OutOfRange, Queries, Row, TooDeep
from methodhub.core.query.parser import parse_condition, parse_query
from methodhub.core.query.tree import Query


@dataclass(frozen=True, slots=True)
class Answer:
    """`continuation` is None at the end."""

    query: Query
    rows: list[Row]
    continuation: str | None


class Answers:
    """Texts are parsed in a thread: to load the parser, and to read a long text, takes a tenth of a second.

    Each raises 400004 for a wrong text, with line and column, and 400024 for a query that takes too long."""

    def __init__(self, queries: Queries, continuations: Continuations) -> None:
        self._queries = queries
        self._continuations = continuations

    async def page(self, text: str, continuation: str | None, limit: int) -> Answer:
        """Also raises 400004 for a continuation that is not of this text."""
        subject = f"query\n{text}"
        after = None if continuation is None else self._continuations.position(subject, continuation)
        query = await asyncio.to_thread(parse_query, text)
        with told():
            page = await self._queries.run(query, after, limit)
        next_ = None if page.next is None else self._continuations.token(subject, page.next)
        return Answer(query, page.rows, next_)

    async def targets(self, condition: str, after: Target, limit: int) -> list[Target]:
        """Those that a condition means (`parser.parse_condition`), behind `after` in the order of ids; `Target("")` is
        before all."""
        parsed = await asyncio.to_thread(parse_condition, condition)
        with told():
            return await self._queries.select_targets(parsed, after, limit)

    async def count(self, condition: str) -> int:
        parsed = await asyncio.to_thread(parse_condition, condition)
        with told():
            return await self._queries.count(parsed)


@contextmanager
def told() -> Iterator[None]:
    """What a caller is told of a query that could not be answered. [HUB-query-cut]"""
    try:
        yield
    except QueryTooSlow:
        raise HubError(
            ErrorCode.RequestTimedOut,
            "The query took longer than a query may. Ask for less: a narrower condition, or one on deviceId.",
        ) from None
    except OutOfRange:
        raise HubError(ErrorCode.ArgumentInvalid, "A calculation of the query leaves the range of numbers.") from None
    except TooDeep:
        raise HubError(ErrorCode.ArgumentInvalid, "The query is nested too deeply.") from None
