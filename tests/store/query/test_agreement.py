"""SQL on both databases answers what a plain evaluator does on the documents."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from methodhub.core.identity import Target
from methodhub.core.query.columns import project
from methodhub.core.query.page import TooDeep
from methodhub.core.query.parser import parse_query
from methodhub.core.query.tree import (
    Arithmetic,
    Collection,
    Comparison,
    Condition,
    Expression,
    Literal,
    Membership,
    Not,
    Path,
    Query,
)
from methodhub.core.twins.model import Section, Twin
from methodhub.store.tables import twins
from tests.core.query.trees import KEYS, NUMBERS, TEXTS, TIMES, expressions, grouped, queries
from tests.store.query import naive
from tests.store.query.world import Stored, World, document, identity

scalars = st.one_of(st.sampled_from(TEXTS), st.sampled_from(NUMBERS), st.integers(-3, 3), st.booleans(), st.none())
scalars |= st.sampled_from(TIMES)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=4,
)
objects = st.dictionaries(st.sampled_from(KEYS), values, max_size=5)
metadata = st.sampled_from([{}, {"$lastUpdated": TIMES[2], "a": {"$lastUpdated": TIMES[1]}}])
sections = st.builds(Section, objects, metadata, st.integers(1, 3))
instants = st.sampled_from([None, 1704067200.0, 1717243200.123456, 1717243200.5])


@st.composite
def rows(draw: st.DrawFn, target: Target) -> Stored:
    owner = identity(
        *target,
        enabled=draw(st.booleans()),
        status_reason=draw(st.sampled_from([None, "", "a"])),
        status_updated_time=draw(instants),
        last_activity_time=draw(instants),
        iot_edge=draw(st.booleans()),
        connected=draw(st.booleans()),
        device_scope=draw(st.sampled_from([None, "", "a"])),
    )
    fresh = st.just(Twin(target))
    return owner, draw(
        fresh
        | st.builds(
            Twin,
            st.just(target),
            st.integers(3, 2**40),  # it counts what its sections count, and more
            objects,
            sections,
            sections,
            st.sampled_from([None, "", "a"]),
        )
    )


@st.composite
def fleets(draw: st.DrawFn) -> list[Stored]:
    """Some of a few devices with some of a few modules each, in the order of their ids."""
    found = []
    for device in draw(st.sets(st.sampled_from(["A", "a", "a'b", "ab", "b", "d-1", "z"]))):
        modules = draw(st.sets(st.sampled_from(["a", "m"]))) if draw(st.booleans()) else set()
        found += [draw(rows(Target(device, module))) for module in ("", *sorted(modules))]
    return sorted(found, key=lambda row: row[0].target)


def documents(query: Query, fleet: list[Stored]) -> list[dict[str, Any]]:
    is_module = query.condition.collection is Collection.MODULES
    return [document(row) for row in fleet if bool(row[0].target.module_id) == is_module]


def shown(query: Query, found: list[Any]) -> list[dict[str, Any]]:
    rows = [row if isinstance(row, dict) else document(row) for row in found]
    if query.columns is None or query.is_grouped:
        return rows
    return [project(row, query.columns) for row in rows]


def canonical(rows: list[dict[str, Any]]) -> list[str]:
    """As a bag. Every number is a double; sums are rounded, since they are not added up in the same order."""

    def plain(value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f"{float(value):.9g}"
        return value

    return sorted(json.dumps({key: plain(value) for key, value in row.items()}, sort_keys=True) for row in rows)


several = settings(max_examples=20, suppress_health_check=list(HealthCheck))


@several
@given(fleet=fleets(), asked=st.lists(queries(st.none() | expressions), min_size=4, max_size=8))
def test_rows_are_those_of_the_naive_evaluator(worlds: list[World], fleet: list[Stored], asked: list[Query]) -> None:
    """[HUB-query-types] [HUB-query-null] [HUB-query-nul]"""
    asked = [query for query in asked if query.condition.collection is not Collection.JOBS and not query.is_grouped]
    for world in worlds:
        world.fill(fleet)
        for query in asked:
            assert shown(query, world.rows(query)) == naive.answer(query, documents(query, fleet)), query


@several
@given(
    fleet=fleets(), asked=st.lists(grouped(st.none() | expressions), min_size=4, max_size=8), limit=st.integers(1, 3)
)
def test_groups_are_those_of_the_naive_evaluator(
    worlds: list[World], fleet: list[Stored], asked: list[Query], limit: int
) -> None:
    for world in worlds:
        world.fill(fleet)
        for query in asked:
            wanted = naive.answer(query, documents(query, fleet))
            found = shown(query, world.rows(replace(query, top=None), limit))
            assert canonical(found) == canonical(wanted), query
            if query.top is not None:
                assert world.rows(query, limit) == found[: query.top]


@several
@given(fleet=fleets(), where=expressions, limit=st.integers(1, 3))
def test_targets_are_those_of_the_rows(worlds: list[World], fleet: list[Stored], where: Expression, limit: int) -> None:
    for world in worlds:
        world.fill(fleet)
        for collection in (Collection.DEVICES, Collection.MODULES):
            query = parse_query(f"SELECT * FROM {collection}")
            condition = replace(query.condition, where=where)
            wanted = [
                Target(found["deviceId"], found.get("moduleId", ""))
                for found in naive.matching(where, documents(query, fleet))
            ]
            assert world.targets(condition, limit) == wanted
            assert world.count(condition) == len(wanted)


def test_an_escaped_backslash_before_a_nul_is_read_as_it_is(world: World) -> None:
    """[HUB-query-nul] The texts are what another writer may have written, too."""
    stored = r'{"a":"x\\u0000","b":"x\\\u0000","c":"\u00e9","\u00e9":"\u0041"}'
    target = Target("d")
    world.fill([(identity("d"), Twin(target, 2))])
    world.run(world.database.execute(update(twins).values(tags=stored), {}))
    for where in (r"tags.a = 'x\\u0000'", r"tags.b = 'x\\\u0000'", "tags.c = 'é'", "tags.é = 'A'"):
        assert len(world.rows(parse_query(f"SELECT * FROM devices WHERE {where}"))) == 1, where


def test_the_deepest_and_the_longest_query_run(world: World) -> None:
    """[HUB-query-nesting]"""
    world.fill([(identity("d"), Twin(Target("d"), 2, {"a": 1.0}))])
    for where in (
        " OR ".join(["tags.a=1"] * 150),
        " AND ".join(["tags.a=1"] * 150),
        " OR ".join(["deviceId='d'"] * 500),
        f"1 IN [{','.join('1' * 3500)}]",
        "NOT " * 12 + "tags.a = 1",
        "IS_BOOL(" * 13 + "tags.a" + ")" * 13,
        "- " * 12 + "tags.a = 1",
        " + ".join(["tags.a"] * 13) + " = 13",
        "(1 = 2) = (" * 6 + "tags.a = 1" + ")" * 6,
        "(" * 6 + "tags.a" + " != null)" * 6,
        "(tags.b = 1 OR (tags.c = 1 OR " * 3 + "tags.a = 1" + "))" * 3,
        "1 / (" * 6 + "tags.a" + ")" * 6 + " = 1",
        "tags" + ".a" * 12 + " = 1 OR tags.a = 1",
    ):
        query = parse_query(f"SELECT * FROM devices WHERE {where}")
        assert world.count(query.condition) == 1, where[:100]
        if len(where) > 4000:
            continue
        grouped = parse_query(f"SELECT count() FROM devices WHERE {where} GROUP BY tags.a, properties.reported.a")
        assert world.rows(grouped) == [{"count": 1}], where[:100]


def test_what_sqlite_cannot_read_is_refused(sqlite: World) -> None:
    nested: Expression = Literal(1.0)
    for _ in range(30):
        nested = Arithmetic("%", Literal(1.0), nested)
    with pytest.raises(TooDeep):
        sqlite.count(Condition(Collection.DEVICES, Comparison("=", nested, Literal(0.0))))


def test_the_negation_of_what_is_undefined_is_undefined(worlds: list[World]) -> None:
    """Here only PostgreSQL reads `NOT x IS NOT NULL` as SQLAlchemy wrote it, which is true."""
    where = Membership(Not(Path(("tags", "none"))), (None,), negated=True)
    for world in worlds:
        world.fill([(identity("A"), Twin(Target("A")))])
        assert world.rows(Query(Condition(Collection.DEVICES, where), None, (), None)) == []


@pytest.mark.parametrize(("choices", "is_meant"), [(("",), True), ((None, 1.0), False), ((1.0, True), True)])
def test_null_is_compared_with_each_choice(
    worlds: list[World], choices: tuple[str | float | None, ...], is_meant: bool
) -> None:
    """[HUB-query-null]"""
    where = Membership(Literal(None), choices, negated=True)
    for world in worlds:
        world.fill([(identity("A"), Twin(Target("A")))])
        assert bool(world.rows(Query(Condition(Collection.DEVICES, where), None, (), None))) == is_meant
