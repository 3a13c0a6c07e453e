"""What every database does: its clock, its queries that are cut, and keys as a table."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import Connection, select, text

from methodhub.core.access import default_policies
from methodhub.core.identity import Target
from methodhub.core.ports import QueryTooSlow
from methodhub.store.database import Database
from methodhub.store.hub import SqlHubStore

ENDLESS = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")


async def test_the_clock_is_the_time_of_day(database: Database) -> None:
    before = time.time()
    found = (await database.rows(select(database.now), {}))[0][0]
    assert isinstance(found, float)
    assert before - 0.01 <= found <= time.time() + 0.01


async def test_the_keys_of_a_statement_come_in_their_order(database: Database) -> None:
    targets = [Target("b"), Target("a", "'"), Target("ü", "%"), Target("a")]
    parameters = database.parameters_of(targets)
    keys = select(database.targets.c.device_id, database.targets.c.module_id)
    assert [Target(*row) for row in await database.rows(keys, parameters)] == targets
    assert await database.rows(keys, database.parameters_of([])) == []


async def test_a_query_is_cut_and_the_next_one_is_served(database: Database) -> None:
    """[HUB-query-time]"""
    for _ in range(3):
        with pytest.raises(QueryTooSlow):
            await database.query(lambda connection: connection.execute(ENDLESS).scalar(), 0.05)
    assert await database.query(lambda connection: connection.scalar(text("SELECT 7")), 5.0) == 7
    slow = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT max(i) FROM n")
    assert (await database.rows(slow, {}))[0][0] == 20000


async def test_more_queries_than_connections_are_cut_as_well(database: Database) -> None:
    def endless(connection: Connection) -> object:
        return connection.execute(ENDLESS).scalar()

    outcomes = await asyncio.gather(*(database.query(endless, 0.1) for _ in range(6)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {QueryTooSlow}


@pytest.mark.parametrize("adapter", ["sqlite", "postgresql"])
async def test_endless_queries_hold_up_neither_reads_nor_writes(database: Database) -> None:
    """Those in memory share the one connection that there is."""
    store = SqlHubStore(database)
    endless = [
        asyncio.ensure_future(database.query(lambda connection: connection.execute(ENDLESS).scalar(), 1.0))
        for _ in range(2)
    ]
    policies = default_policies()
    await store.insert_policies(policies)
    assert len(await store.policies()) == len(policies)
    assert not any(each.done() for each in endless)
    assert {type(each) for each in await asyncio.gather(*endless, return_exceptions=True)} == {QueryTooSlow}


@pytest.mark.parametrize("adapter", ["sqlite", "postgresql"])
async def test_a_query_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match=r"readonly|read-only"):
        await database.query(lambda connection: connection.execute(text("DELETE FROM policies")), 5.0)
