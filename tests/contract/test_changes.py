"""What every IdentityStore does with many changes at once, and what it counts."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.ports import (
    Change,
    DeleteIdentity,
    HubStore,
    IdentityStore,
    InsertIdentity,
    RegistryStatistics,
    ReplaceIdentity,
    ReplaceTwin,
)
from methodhub.core.twins.model import FRESH_VERSION, Twin


def device(device_id: str, etag: str = "e1", *, enabled: bool = True) -> Identity:
    return Identity(Target(device_id), "g1", etag, Authentication(primary_key="a2V5"), enabled=enabled)


def module(device_id: str, module_id: str) -> Identity:
    return replace(device(device_id), target=Target(device_id, module_id))


def tagged(target: Target, number: int, version: int = 2) -> Twin:
    return Twin(target, version, {"number": number})


async def test_each_change_is_judged_by_what_the_ones_before_it_left(identities: IdentityStore, hub: HubStore) -> None:
    a, b, c = Target("a"), Target("b"), Target("c")
    changes: list[tuple[Change, bool]] = [
        (InsertIdentity(module("a", "m")), False),  # its device comes only later
        (InsertIdentity(device("a"), tagged(a, 1)), True),
        (InsertIdentity(module("a", "m"), tagged(Target("a", "m"), 2)), True),
        (InsertIdentity(device("a", "e9"), tagged(a, 9)), False),
        (ReplaceIdentity(device("a", "e2"), "e1"), True),
        (ReplaceIdentity(device("a", "e3"), "e1"), False),
        (ReplaceIdentity(device("a", "e4"), "e2"), True),
        (ReplaceIdentity(device("nobody"), None), False),
        (ReplaceTwin(tagged(a, 3, 3), 2), True),
        (ReplaceTwin(tagged(a, 4, 4), 2), False),
        (ReplaceTwin(tagged(a, 5, 4), 3), True),
        (ReplaceIdentity(device("a", "e6"), "e1"), False),
        (ReplaceTwin(tagged(a, 6, 5), 4), False),  # with its identity, or not at all
        (ReplaceIdentity(device("a", "e4"), "e4"), True),
        (ReplaceTwin(tagged(b, 6), FRESH_VERSION), False),
        (InsertIdentity(device("b")), True),
        (ReplaceTwin(tagged(b, 7), FRESH_VERSION), True),
        (InsertIdentity(device("c")), True),
        (DeleteIdentity(c, "other"), False),
        (DeleteIdentity(c, "e1"), True),
        (DeleteIdentity(c, None), False),
        (InsertIdentity(device("c")), True),
        (DeleteIdentity(Target("a", "m"), None), True),
        (DeleteIdentity(a, "e4"), True),
        (DeleteIdentity(Target("a", "m"), None), False),
        (InsertIdentity(device("a", "e5")), True),
    ]
    assert await identities.apply([change for change, _ in changes]) == [held for _, held in changes]
    assert await identities.page_devices("", 10) == [device("a", "e5"), device("b"), device("c")]
    assert await identities.modules("a") == []
    assert await hub.twins([a, b, c]) == [Twin(a), tagged(b, 7), Twin(c)]


async def test_a_device_takes_its_modules_along_within_the_changes(identities: IdentityStore) -> None:
    await identities.apply([InsertIdentity(device("d")), InsertIdentity(module("d", "m"))])
    gone: list[Change] = [DeleteIdentity(Target("d"), None), DeleteIdentity(Target("d", "m"), None)]
    assert await identities.apply(gone) == [True, False]
    assert await identities.get(Target("d", "m")) is None


async def test_a_replaced_identity_keeps_the_state_of_its_connection(identities: IdentityStore) -> None:
    connected = replace(device("d"), connected=True, connection_updated_time=5.0, last_activity_time=6.0)
    await identities.insert(connected)
    await identities.apply([ReplaceIdentity(device("d", "e2"), "e1")])
    assert await identities.get(Target("d")) == replace(connected, etag="e2")


async def test_nothing_is_applied_to_nothing(identities: IdentityStore) -> None:
    assert await identities.apply([]) == []


async def test_thousands_of_changes(identities: IdentityStore) -> None:
    many = [InsertIdentity(device(f"d{number:04}")) for number in range(3000)]
    assert await identities.apply(many) == [True] * 3000
    assert await identities.apply(many) == [False] * 3000
    replaced = [ReplaceIdentity(device(f"d{number:04}", "e2"), "e1") for number in range(3000)]
    assert await identities.apply(replaced[::-1]) == [True] * 3000
    assert {each.etag for each in await identities.page_devices("", 5000)} == {"e2"}
    assert await identities.apply([DeleteIdentity(each.identity.target, "e2") for each in many]) == [True] * 3000
    assert await identities.statistics() == RegistryStatistics(0, 0, 0)


@pytest.mark.parametrize("times", [2, 5])
async def test_of_those_who_apply_the_same_at_once_one_succeeds(identities: IdentityStore, times: int) -> None:
    """In whatever order they come: nobody waits for ever, and nothing is done twice."""
    inserts = [InsertIdentity(device(f"d{number}")) for number in range(40)]
    turned = [inserts[::-1] if turn % 2 else inserts for turn in range(times)]
    outcomes = await asyncio.gather(*(identities.apply(changes) for changes in turned))
    assert sum(map(sum, outcomes)) == len(await identities.page_devices("", 100)) == 40
    replaces = [ReplaceIdentity(device(f"d{number}", "e2"), "e1") for number in range(40)]
    turned_back = [replaces[::-1] if turn % 2 else replaces for turn in range(times)]
    results = await asyncio.gather(*(identities.apply(changes) for changes in turned_back))
    assert sum(map(sum, results)) == 40


async def test_devices_are_counted_and_modules_are_not(identities: IdentityStore) -> None:
    """[HUB-statistics]"""
    assert await identities.statistics() == RegistryStatistics(0, 0, 0)
    for number in range(5):
        await identities.insert(device(f"d{number}", enabled=number < 3))
    await identities.insert(module("d0", "m"))
    assert await identities.statistics() == RegistryStatistics(5, 3, 2)
    await identities.replace(device("d0", enabled=False), None)
    await identities.delete(Target("d1"), None)
    assert await identities.statistics() == RegistryStatistics(4, 1, 3)
