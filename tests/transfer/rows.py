"""Rows of every table, drawn at random but such that one refers to another; and all rows that a database holds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, Table, insert, select

from methodhub.store.database import open_database
from methodhub.store.tables import device_jobs, device_sessions, identities, jobs, twins
from methodhub.store.transfer.tables import TABLES

Rows = dict[str, list[dict[str, Any]]]

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ids = st.text(st.sampled_from("aAbZ09-.:+%_*?!(),=@;$'"), min_size=1, max_size=4)
OF_TARGETS = (twins, device_sessions)


def cells(column: Column[Any]) -> st.SearchStrategy[Any]:
    kind: st.SearchStrategy[Any]
    if isinstance(column.type, Boolean):
        kind = st.booleans()
    elif isinstance(column.type, Integer):
        kind = st.integers(0, 2**31 - 1)
    elif isinstance(column.type, Float):
        kind = st.floats(allow_nan=False, allow_infinity=False)
    elif isinstance(column.type, LargeBinary):
        kind = st.binary(max_size=40)
    else:
        kind = texts
    return st.none() | kind if column.nullable else kind


def row(draw: st.DrawFn, table: Table, **fixed: Any) -> dict[str, Any]:
    return {column.name: fixed[column.name] if column.name in fixed else draw(cells(column)) for column in table.c}


@st.composite
def hubs(draw: st.DrawFn) -> Rows:
    found: Rows = {table.name: [] for table in TABLES}
    targets = []
    for device_id in draw(st.sets(ids, max_size=4)):
        for module_id in ("", *draw(st.sets(ids, max_size=2))):
            targets.append((device_id, module_id))
            key = {"device_id": device_id, "module_id": module_id, "parent_module_id": "" if module_id else None}
            found["identities"].append(row(draw, identities, **key))
    for table in OF_TARGETS:
        for device_id, module_id in targets:
            if draw(st.booleans()):
                found[table.name].append(row(draw, table, device_id=device_id, module_id=module_id))
    for job_id in draw(st.sets(ids, max_size=2)):
        found["jobs"].append(row(draw, jobs, job_id=job_id))
        for device_id, module_id in draw(st.sets(st.tuples(ids, ids), max_size=3)):
            key = {"job_id": job_id, "device_id": device_id, "module_id": module_id}
            found["device_jobs"].append(row(draw, device_jobs, **key))
    for name in ("policies", "certificate_authorities", "secrets"):
        table = next(table for table in TABLES if table.name == name)
        found[name] = [row(draw, table, name=each) for each in draw(st.sets(ids, max_size=2))]
    return found


async def _fill(where: Path | str, found: Rows) -> None:
    database = await open_database(where)
    try:
        for table in TABLES:
            if found[table.name]:
                await database.execute(insert(table), found[table.name])
    finally:
        await database.close()


def fill(where: Path | str, found: Rows) -> None:
    asyncio.run(_fill(where, found))


async def _rows_in(where: Path | str) -> Rows:
    database = await open_database(where)
    try:
        found = {}
        for table in TABLES:
            rows = await database.rows(select(table).order_by(*table.primary_key), {})
            found[table.name] = [dict(each._mapping) for each in rows]
        return found
    finally:
        await database.close()


def rows_in(where: Path | str) -> Rows:
    return asyncio.run(_rows_in(where))
