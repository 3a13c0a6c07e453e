"""Pages: each row once, whatever comes and goes meanwhile; TOP over pages; what a query costs and when it is cut."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from sqlalchemy import Connection, Table, delete, insert, select, text
from sqlalchemy.dialects import postgresql as postgresql_dialect

from methodhub.core.identity import Target
from methodhub.core.ports import QueryTooSlow
from methodhub.core.query.page import OutOfRange, Page
from methodhub.core.query.parser import parse_condition, parse_query
from methodhub.core.twins.model import Twin
from methodhub.store.query import queries
from methodhub.store.query.documents import DOCUMENTS
from methodhub.store.query.expressions import Expressions
from methodhub.store.query.queries import Pages, SqlQueries
from methodhub.store.tables import device_jobs, identities, jobs
from tests.store.query.world import Stored, World, identity

ALL = parse_query("SELECT * FROM devices")


def stored(device_id: str, module_id: str = "", **tags: object) -> Stored:
    target = Target(device_id, module_id)
    return identity(*target), Twin(target, 2, tags)


def ids(page: Page) -> list[str]:
    return [str(row[0].target) for row in page.rows if isinstance(row, tuple)]


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_stay_come_once_while_others_come_and_go(world: World, seed: int) -> None:
    """[HUB-query-pages]"""
    chance = random.Random(seed)
    staying = [f"s{number:02}" for number in range(0, 60, 2)]
    others = {f"s{number:02}": False for number in range(1, 60, 2)}
    world.fill([stored(device_id, kept=True) for device_id in staying])
    seen: list[str] = []
    page = world.page(ALL, None, 4)
    while True:
        seen += ids(page)
        if page.next is None:
            break
        for device_id in chance.sample(sorted(others), 6):
            if others[device_id]:
                world.remove(Target(device_id))
            else:
                world.add([stored(device_id)])
            others[device_id] = not others[device_id]
        page = world.page(ALL, page.next, 4)
    assert len(seen) == len(set(seen))
    assert [each for each in seen if each in staying] == staying
    assert seen == sorted(seen)


def test_the_row_a_page_ended_with_may_be_gone(world: World) -> None:
    """[HUB-query-pages]"""
    world.fill([stored(name) for name in "abcd"])
    page = world.page(ALL, None, 2)
    world.remove(Target("b"))
    assert ids(world.page(ALL, page.next, 2)) == ["c", "d"]


def test_modules_come_in_the_order_of_both_ids(world: World) -> None:
    world.fill([stored("a"), stored("b"), *(stored(one, two) for one in "ab" for two in "zyx")])
    query = parse_query("SELECT * FROM devices.modules")
    first = world.page(query, None, 4)
    assert ids(first) == ["a/x", "a/y", "a/z", "b/x"]
    assert ids(world.page(query, first.next, 4)) == ["b/y", "b/z"]


def test_groups_come_page_by_page(world: World) -> None:
    world.fill([stored(f"d{number}", kind=[None, True, 2, "x"][number % 4]) for number in range(8)] + [stored("e")])
    query = parse_query("SELECT tags.kind, count() AS n FROM devices GROUP BY tags.kind")
    wanted = [
        {"n": 1},
        {"kind": None, "n": 2},
        {"kind": True, "n": 2},
        {"kind": 2, "n": 2},
        {"kind": "x", "n": 2},
    ]
    for limit in (1, 2, 5):
        assert world.rows(query, limit) == wanted
    page = world.page(query, None, 2)
    world.add([stored("f", kind=False), stored("g", kind="y")])
    assert world.page(query, page.next, 9).rows == [{"kind": False, "n": 1}, *wanted[2:], {"kind": "y", "n": 1}]


@pytest.mark.parametrize(("top", "limit", "sizes"), [(5, 2, [2, 2, 1]), (4, 2, [2, 2]), (2, 5, [2]), (9, 3, [3, 3])])
def test_top_counts_over_pages(world: World, top: int, limit: int, sizes: list[int]) -> None:
    world.fill([stored(name) for name in "abcdef"])
    query = parse_query(f"SELECT TOP {top} * FROM devices")
    found, page = [], world.page(query, None, limit)
    found.append(len(page.rows))
    while page.next is not None:
        page = world.page(query, page.next, limit)
        found.append(len(page.rows))
    assert found == sizes


def any_row(table: Table, **values: Any) -> dict[str, Any]:
    """With something in each column that must have something."""
    fillers = {str: "x", int: 0, float: 0.0, bool: False, bytes: b"{}"}
    filled = {column.name: fillers[column.type.python_type] for column in table.c if not column.nullable}
    return filled | values


def fill_jobs(world: World) -> None:
    part = {"module_id": "", "status": "completed", "created_time": 1_717_243_200.5, "error_code": None}
    done = part | {"outcome_status": 200, "outcome_payload": b'{"a":1}'}
    failed = part | {
        "status": "failed",
        "outcome_status": None,
        "outcome_payload": None,
        "error_code": "DeviceNotOnline",
    }
    parts = [
        any_row(device_jobs, **done, job_id="j", device_id="d1"),
        any_row(device_jobs, **(done | {"module_id": "m"}), job_id="j", device_id="d1"),
        any_row(device_jobs, **failed, job_id="j", device_id="d2"),
        any_row(device_jobs, **(done | {"status": "pending"}), job_id="k", device_id="d1"),
    ]

    def work(connection: Connection) -> None:
        connection.execute(delete(jobs))
        for job_id in "jk":
            connection.execute(insert(jobs), any_row(jobs, job_id=job_id, type="scheduleDeviceMethod"))
        for row in parts:
            connection.execute(insert(device_jobs), {"outcome_status": None, "outcome_payload": None, **row})

    world.run(world.database.write(work))


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("devices.jobs.jobId = 'j'", ["j/d1", "j/d1/m", "j/d2"]),
        ("jobId = 'j' AND status = 'failed'", ["j/d2"]),
        ("devices.jobs.deviceId = 'd1' AND jobType = 'scheduleDeviceMethod'", ["j/d1", "j/d1/m", "k/d1"]),
        (
            "createdTimeUtc > '2024-06-01' AND createdDateTimeUtc < '2024-06-01T12:00:01Z'",
            ["j/d1", "j/d1/m", "j/d2", "k/d1"],
        ),
        ("outcome.deviceMethodResponse.status = 200 AND jobId = 'j'", ["j/d1", "j/d1/m"]),
        ("error.code = 'DeviceNotOnline'", ["j/d2"]),
        ("IS_DEFINED(endTimeUtc) OR tags.a = 1", []),
        ("moduleId = 'm'", ["j/d1/m"]),
    ],
)
def test_device_jobs(world: World, where: str, wanted: list[str]) -> None:
    fill_jobs(world)
    query = parse_query(f"SELECT * FROM devices.jobs WHERE {where}")
    for limit in (1, 10):
        found = world.rows(query, limit)
        assert [f"{row.job_id}/{row.target}" for row in found if not isinstance(row, dict | tuple)] == wanted


def plan(world: World, where: str) -> str:
    """How the database would look for the targets."""

    def work(connection: Connection) -> str:
        condition = parse_condition(where)
        pages = Pages(Expressions(DOCUMENTS[connection.dialect.name], condition.collection))
        query = pages.behind(select(identities.c.device_id, identities.c.module_id), condition, ()).limit(100)
        dialect = connection.dialect if connection.dialect.name == "sqlite" else postgresql_dialect.dialect()  # type: ignore[no-untyped-call]
        rendered = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        return "\n".join(str(row) for row in connection.exec_driver_sql(f"{explain} {rendered}"))

    return world.run(world.database.query(work, 10))


@pytest.mark.parametrize("where", ["deviceId = 'd7'", "STARTSWITH(deviceId, 'd7')", "devices.deviceId IN ['a', 'b']"])
def test_ids_are_looked_up_in_the_primary_key(world: World, where: str) -> None:
    """[HUB-query-prefix]"""
    world.fill([stored(f"d{number}") for number in range(1000)])
    world.run(world.database.write(lambda connection: connection.execute(text("ANALYZE"))))
    found = plan(world, where)
    if world.database.dialect == "sqlite":
        assert "SEARCH identities USING" in found and "(device_id" in found, found
    else:
        assert "Index Cond" in found and "device_id" in found.split("Index Cond")[1].split("\n")[0], found


def test_a_page_ends_when_it_is_large(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """[HUB-query-bytes] After the part that brought it there; TOP counts over all pages."""
    monkeypatch.setattr(queries, "PART", 3)
    monkeypatch.setattr(queries, "MAX_PAGE_BYTES", 4_000)
    world.fill([stored(f"d{number:02}", text="x" * 1_000) for number in range(20)])
    for query, total in ((ALL, 20), (parse_query("SELECT TOP 8 * FROM devices"), 8)):
        sizes, seen = [], []
        page = world.page(query, None, 100)
        while True:
            sizes.append(len(page.rows))
            seen += ids(page)
            if page.next is None:
                break
            page = world.page(query, page.next, 100)
        assert seen == [f"d{number:02}" for number in range(total)]
        assert max(sizes) == 6
    assert len(world.page(ALL, None, 4).rows) == 4
    monkeypatch.setattr(queries, "MAX_PAGE_BYTES", 10**9)
    assert len(world.page(ALL, None, 100).rows) == 20


def test_a_slow_query_is_cut(world: World, runner: asyncio.Runner) -> None:
    """[HUB-query-cut]"""
    world.fill([stored(f"d{number:04}", text="a" * 500) for number in range(2000)])
    slow = " AND ".join([f"NOT CONTAINS(tags.text, 'a{number}')" for number in range(150)])
    query = parse_query(f"SELECT count() FROM devices WHERE {slow}")
    with pytest.raises(QueryTooSlow):
        runner.run(SqlQueries(world.database, 0.02).run(query, None, 100))
    assert world.count(parse_condition("*")) == 2000


def test_a_sum_out_of_range_is_told(world: World) -> None:
    world.fill([stored(f"d{number}", n=1.5e308) for number in range(2)])
    with pytest.raises(OutOfRange):
        world.rows(parse_query("SELECT sum(tags.n) FROM devices"))
