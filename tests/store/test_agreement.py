"""Random operations give the same on SQLite as on plain dictionaries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from methodhub.core.access import Policy, Right
from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from methodhub.core.ports import ConnectionRecord, HubStore, IdentityStore, Session
from methodhub.store.database import open_database
from methodhub.store.hub import SqlHubStore
from methodhub.store.identities import SqlIdentityStore
from tests.memory import MemoryHubStore, MemoryIdentityStore, MemoryTables


@dataclass(frozen=True)
class Operation:
    method: str
    arguments: tuple[Any, ...]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TIMES = st.floats(0, 4e9)
IDS = st.sampled_from(["a", "A", "a%", "*", "'", "#", "$'", "_"])
TARGETS = st.builds(Target, IDS, st.sampled_from(["", "", "a", "A", "%", "'"]))
ETAGS = st.sampled_from(["e1", "e2", "E1"])
GENERATIONS = st.sampled_from(["g1", "g2"])
AUTHENTICATIONS = st.builds(
    Authentication,
    st.sampled_from(AuthenticationType),
    st.none() | TEXT,
    st.none() | TEXT,
    st.none() | TEXT,
    st.none() | TEXT,
)
IDENTITIES = st.builds(
    Identity,
    target=TARGETS,
    generation_id=GENERATIONS,
    etag=ETAGS,
    authentication=AUTHENTICATIONS,
    enabled=st.booleans(),
    status_reason=st.none() | TEXT,
    status_updated_time=st.none() | TIMES,
    iot_edge=st.booleans(),
    device_scope=st.none() | TEXT,
    parent_scopes=st.lists(TEXT, max_size=2).map(tuple),
    managed_by=st.none() | TEXT,
    connected=st.booleans(),
    connection_updated_time=st.none() | TIMES,
    last_activity_time=st.none() | TIMES,
)
RECORDS = st.builds(ConnectionRecord, TARGETS, st.booleans(), TIMES, TIMES)
RIGHTS = st.integers(0, 15).map(Right)
POLICIES = st.builds(Policy, IDS, RIGHTS, TEXT, TEXT)
SESSIONS = st.builds(Session, st.lists(st.tuples(TEXT, st.integers(0, 1)), max_size=3).map(tuple))


def operation(method: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.builds(Operation, st.just(method), st.tuples(*arguments))


OPERATIONS = st.one_of(
    operation("insert", IDENTITIES),
    operation("insert", IDENTITIES),
    operation("replace", IDENTITIES, st.none() | ETAGS),
    operation("delete", TARGETS, st.none() | ETAGS),
    operation("get", TARGETS),
    operation("page_devices", st.just("") | IDS, st.integers(1, 5)),
    operation("modules", IDS),
    operation("record_connections", st.lists(RECORDS, max_size=4)),
    operation("disconnect_all", TIMES),
    operation("insert_policies", st.lists(POLICIES, max_size=3)),
    operation("save_session", TARGETS, GENERATIONS, SESSIONS),
    operation("session", TARGETS, GENERATIONS),
    operation("delete_session", TARGETS),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(OPERATIONS, max_size=30))
def test_both_stores_agree(operations: list[Operation]) -> None:
    asyncio.run(compare(operations))


async def compare(operations: list[Operation]) -> None:
    tables = MemoryTables()
    plain = (MemoryIdentityStore(tables), MemoryHubStore(tables))
    database = await open_database(None)
    stored = (SqlIdentityStore(database), SqlHubStore(database))
    try:
        for step in operations:
            assert await result(stored, step) == await result(plain, step)
        assert await everything(stored) == await everything(plain)
    finally:
        await database.close()


async def result(stores: tuple[IdentityStore, HubStore], step: Operation) -> object:
    store = next(store for store in stores if hasattr(store, step.method))
    call: Callable[..., Awaitable[object]] = getattr(store, step.method)
    try:
        return await call(*step.arguments)
    except LookupError:
        return LookupError


async def everything(stores: tuple[IdentityStore, HubStore]) -> list[object]:
    identities, hub = stores
    rows = await identities.page_devices("", 1000)
    for device in list(rows):
        rows += await identities.modules(device.target.device_id)
    sessions = [await hub.session(row.target, row.generation_id) for row in rows]
    return [rows, sessions, await hub.policies()]
