"""What every HubStore does with twins, secrets and policies that change."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from methodhub.core.access import Policy, Right
from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.ports import HubStore, IdentityStore
from methodhub.core.twins.model import FRESH_VERSION, Section, Twin

ODD = {"ü \U0001f600": [1, 2.5, None, True, "\u2028 'quoted' \\ \u0000"], "$x": {"": {}}, "big": 2**63}
A, B = Target("a"), Target("a", "b")
FULL = Twin(
    A,
    2**60,
    ODD,
    Section(ODD, {"$lastUpdated": "t"}, 7),
    Section({"r": 1}, {"r": {"$lastUpdated": "u"}}, 9),
    "dtmi:a;1",
)


async def fill(identities: IdentityStore, *targets: Target) -> None:
    for target in targets:
        assert await identities.insert(Identity(target, "g", "e", Authentication()))


async def test_a_twin_comes_back_as_it_was_saved(identities: IdentityStore, hub: HubStore) -> None:
    await fill(identities, A, B)
    other = replace(FULL, target=B, version=2, model_id=None)
    assert await hub.save_twins([(FULL, FRESH_VERSION), (other, FRESH_VERSION)]) == [True, True]
    assert await hub.twins([B, A, Target("never"), A]) == [other, FULL, Twin(Target("never")), FULL]
    assert await hub.twins([]) == []
    assert await hub.save_twins([]) == []


async def test_a_twin_is_saved_over_the_expected_version_only(identities: IdentityStore, hub: HubStore) -> None:
    await fill(identities, A, B)
    assert await hub.save_twins([(Twin(A, 2), 2), (Twin(B, 2), FRESH_VERSION)]) == [False, True]
    assert await hub.save_twins([(Twin(A, 2), FRESH_VERSION), (Twin(B, 3), FRESH_VERSION)]) == [True, False]
    assert await hub.save_twins([(Twin(A, 3), 2), (Twin(A, 4), 2), (Twin(A, 4), 3)]) == [True, False, True]
    assert await hub.twins([A, B]) == [Twin(A, 4), Twin(B, 2)]


async def test_a_twin_needs_an_identity_and_goes_with_it(identities: IdentityStore, hub: HubStore) -> None:
    await fill(identities, A)
    assert await hub.save_twins([(Twin(B, 2), FRESH_VERSION), (FULL, FRESH_VERSION)]) == [False, True]
    await identities.delete(A, None)
    await fill(identities, A)
    assert await hub.twins([A]) == [Twin(A)]


async def test_of_those_who_save_at_once_one_is_told_it_did(identities: IdentityStore, hub: HubStore) -> None:
    await fill(identities, A, B)
    for before in (FRESH_VERSION, 2):
        pairs = [(Twin(target, before + 1, {"n": n}), before) for n in range(8) for target in (A, B)]
        attempts = [pairs[n : n + 2] if n % 4 else pairs[n : n + 2][::-1] for n in range(0, 16, 2)]
        results = await asyncio.gather(*(hub.save_twins(attempt) for attempt in attempts))
        assert sum(sum(held) for held in results) == 2


async def test_thousands_of_twins(identities: IdentityStore, hub: HubStore) -> None:
    targets = [Target(f"d{number:04}") for number in range(2000)]
    await fill(identities, *targets[:100])
    assert await hub.save_twins([(Twin(each, 2), 1) for each in targets]) == [True] * 100 + [False] * 1900
    assert [twin.version for twin in await hub.twins(targets)] == [2] * 100 + [1] * 1900


async def test_a_secret_stays_what_it_was_at_first(hub: HubStore) -> None:
    """[HUB-secret] Nodes that start at once end up with the same one."""
    found = await asyncio.gather(*(hub.secret("queries", bytes([0, 255, number])) for number in range(4)))
    assert len(set(found)) == 1
    assert await hub.secret("queries", b"later") == found[0]
    assert await hub.secret("Queries", b"another") == b"another"


async def test_policies_are_replaced_and_deleted(hub: HubStore) -> None:
    first, second = (Policy(name, Right.SERVICE_CONNECT, "cDE=", "cDI=") for name in ("a", "b"))
    await hub.insert_policies([first, second])
    changed = replace(first, rights=Right.DEVICE_CONNECT, primary_key="eA==", secondary_key="eQ==")
    assert await hub.replace_policy(first, changed)
    assert not await hub.replace_policy(first, replace(first, secondary_key="eg=="))
    assert not await hub.replace_policy(replace(first, name="nobody"), first)
    assert await hub.policies() == [changed, second]
    assert await hub.delete_policy("a")
    assert await hub.delete_policy("nobody")
    assert await hub.policies() == [second]


async def test_of_all_policies_that_are_deleted_at_once_one_stays(hub: HubStore) -> None:
    names = ["a", "b", "c"]
    await hub.insert_policies([Policy(name, Right.SERVICE_CONNECT, "cDE=", "cDI=") for name in names])
    deleted = await asyncio.gather(*map(hub.delete_policy, names))
    assert sorted(deleted) == [False, True, True]
    assert [policy.name for policy in await hub.policies()] == [names[deleted.index(False)]]
