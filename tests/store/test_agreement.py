"""Random operations give the same on SQLite as on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from methodhub.core.access import Policy, Right
from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from methodhub.core.ports import (
    ConnectionRecord,
    DeleteIdentity,
    HubStore,
    IdentityStore,
    InsertIdentity,
    ReplaceIdentity,
    ReplaceTwin,
    Session,
)
from methodhub.core.twins.model import Section, Twin
from methodhub.store.database import open_database
from methodhub.store.hub import SqlHubStore
from methodhub.store.identities import SqlIdentityStore
from methodhub.store.tables import metadata


@dataclass(frozen=True)
class Operation:
    method: str
    arguments: tuple[Any, ...]


# PostgreSQL's text holds no NUL. No route lets one in.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
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
OBJECTS = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT | st.lists(TEXT), max_size=2)
SECTIONS = st.builds(Section, OBJECTS, OBJECTS, st.integers(1, 3))
TWINS = st.builds(Twin, TARGETS, st.integers(1, 3), OBJECTS, SECTIONS, SECTIONS, st.none() | TEXT)
CHANGES = st.one_of(
    st.builds(InsertIdentity, IDENTITIES),
    st.builds(ReplaceIdentity, IDENTITIES, st.none() | ETAGS),
    st.builds(DeleteIdentity, TARGETS, st.none() | ETAGS),
    st.builds(ReplaceTwin, TWINS, st.integers(1, 2)),
)


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
    operation("apply", st.lists(CHANGES, max_size=12)),
    operation("statistics"),
    operation("save_twins", st.lists(st.tuples(TWINS, st.integers(1, 2)), max_size=4)),
    operation("twins", st.lists(TARGETS, max_size=4)),
    st.builds(
        lambda policy, key: Operation("replace_policy", (policy, replace(policy, primary_key=key))), POLICIES, TEXT
    ),
    operation("delete_policy", IDS),
    operation("insert_policies", st.lists(POLICIES, max_size=3)),
    operation("save_session", TARGETS, GENERATIONS, SESSIONS),
    operation("session", TARGETS, GENERATIONS),
    operation("delete_session", TARGETS),
)


Stores = tuple[IdentityStore, HubStore]


@pytest.fixture(scope="module")
def url(postgresql: Callable[[], str]) -> str:
    """One database for all examples: they empty it."""
    return postgresql()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPERATIONS, max_size=30))
def test_both_databases_agree(url: str, operations: list[Operation]) -> None:
    asyncio.run(compare(url, operations))


async def compare(url: str, operations: list[Operation]) -> None:
    embedded, server = await open_database(None), await open_database(url)
    try:
        for table in reversed(metadata.sorted_tables):
            await server.execute(table.delete(), {})
        one, other = ((SqlIdentityStore(each), SqlHubStore(each)) for each in (embedded, server))
        for step in operations:
            assert await result(one, step) == await result(other, step)
        assert await everything(one) == await everything(other)
    finally:
        await embedded.close()
        await server.close()


async def result(stores: Stores, step: Operation) -> object:
    store = next(store for store in stores if hasattr(store, step.method))
    call: Callable[..., Awaitable[object]] = getattr(store, step.method)
    try:
        return await call(*step.arguments)
    except LookupError:
        return LookupError


async def everything(stores: Stores) -> list[object]:
    identities, hub = stores
    rows = await identities.page_devices("", 1000)
    for device in list(rows):
        rows += await identities.modules(device.target.device_id)
    sessions = [await hub.session(row.target, row.generation_id) for row in rows]
    twins = await hub.twins([row.target for row in rows])
    return [rows, sessions, twins, await hub.policies(), await identities.statistics()]
