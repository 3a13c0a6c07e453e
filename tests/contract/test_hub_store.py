"""What every HubStore does, whatever it is made of."""

from __future__ import annotations

import asyncio

import pytest

from methodhub.core.access import ALL_RIGHTS, Policy, Right, default_policies
from methodhub.core.certificates.rules import CertificateAuthority
from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.ports import HubStore, IdentityStore, Session

METHODS = Session((("$iothub/methods/POST/#", 0), ("$iothub/twin/res/#", 1)))


def identity(target: Target, generation: str = "g1") -> Identity:
    return Identity(target, generation, "e1", Authentication())


async def test_policies_come_back_in_the_order_of_their_names(hub: HubStore) -> None:
    assert await hub.policies() == []
    policies = default_policies()
    await hub.insert_policies(policies)
    assert await hub.policies() == sorted(policies, key=lambda policy: policy.name)


@pytest.mark.parametrize("rights", [Right(0), *Right, ALL_RIGHTS, Right.REGISTRY_WRITE | Right.DEVICE_CONNECT])
async def test_rights_are_kept(hub: HubStore, rights: Right) -> None:
    policy = Policy("it's 100% #1", rights, "cDE=", "cDI=")
    await hub.insert_policies([policy])
    assert await hub.policies() == [policy]


async def test_a_policy_that_is_there_stays(hub: HubStore) -> None:
    first = Policy("device", Right.DEVICE_CONNECT, "cDE=", "cDI=")
    await hub.insert_policies([first])
    twin, other = (Policy(name, Right.SERVICE_CONNECT, "eA==", "eQ==") for name in ("Device", "device"))
    await hub.insert_policies(policy for policy in (other, twin))
    assert await hub.policies() == [twin, first]
    await hub.insert_policies([])
    assert await hub.policies() == [twin, first]


async def test_two_nodes_that_start_at_once_agree_on_the_policies(hub: HubStore) -> None:
    sets = [default_policies() for _ in range(4)]
    await asyncio.gather(*(hub.insert_policies(policies) for policies in sets))
    stored = await hub.policies()
    assert any(stored == sorted(policies, key=lambda policy: policy.name) for policies in sets)


async def test_ca_certificates_are_kept_by_name(hub: HubStore) -> None:
    assert await hub.authorities() == []
    first = CertificateAuthority("b", "-----BEGIN 'ü' ;--", verified=False, verification_code="AB12")
    twin = CertificateAuthority("B", "pem", verified=True)
    assert await hub.insert_authority(first)
    assert await hub.insert_authority(twin)
    assert not await hub.insert_authority(CertificateAuthority("b", "other", verified=True))
    assert await hub.authorities() == [twin, first]
    changed = CertificateAuthority("b", "new", verified=True)
    assert await hub.replace_authority(changed)
    assert not await hub.replace_authority(CertificateAuthority("c", "new", verified=True))
    assert await hub.authorities() == [twin, changed]
    await hub.delete_authority("b")
    await hub.delete_authority("c")
    assert await hub.authorities() == [twin]


async def test_of_two_that_take_a_name_one_gets_it(hub: HubStore) -> None:
    rivals = [CertificateAuthority("a", str(number), verified=False) for number in range(4)]
    results = await asyncio.gather(*(hub.insert_authority(rival) for rival in rivals))
    assert await hub.authorities() == [rivals[results.index(True)]]
    assert sum(results) == 1


@pytest.mark.parametrize("target", [Target("d"), Target("d", "m"), Target("$'", "%#*")])
@pytest.mark.parametrize("session", [METHODS, Session(()), Session((("ü'\"", 1),))])
async def test_a_session_comes_back(identities: IdentityStore, hub: HubStore, target: Target, session: Session) -> None:
    await identities.insert(identity(target.device))
    await identities.insert(identity(target))
    assert await hub.session(target, "g1") is None
    await hub.save_session(target, "g1", METHODS)
    await hub.save_session(target, "g1", session)
    assert await hub.session(target, "g1") == session
    await hub.delete_session(target)
    assert await hub.session(target, "g1") is None
    await hub.delete_session(target)


async def test_device_and_module_have_sessions_of_their_own(identities: IdentityStore, hub: HubStore) -> None:
    targets = [Target("d"), Target("d", "m"), Target("d", "M"), Target("D"), Target("D", "m")]
    for number, target in enumerate(targets):
        await identities.insert(identity(target))
        await hub.save_session(target, "g1", Session((("f", number),)))
    for number, target in enumerate(targets):
        assert await hub.session(target, "g1") == Session((("f", number),))
    await hub.delete_session(Target("d"))
    assert [await hub.session(target, "g1") is None for target in targets] == [True, *[False] * 4]


async def test_a_session_belongs_to_one_generation(identities: IdentityStore, hub: HubStore) -> None:
    """[HUB-session] Deleted and created again, a device starts without what it had subscribed to."""
    await identities.insert(identity(Target("d"), "g1"))
    await hub.save_session(Target("d"), "g1", METHODS)
    assert await hub.session(Target("d"), "G1") is None
    await identities.delete(Target("d"), None)
    await identities.insert(identity(Target("d"), "g2"))
    assert await hub.session(Target("d"), "g1") is None
    assert await hub.session(Target("d"), "g2") is None


async def test_a_late_save_neither_hurts_the_new_generation_nor_outlives_the_old(
    identities: IdentityStore, hub: HubStore
) -> None:
    await hub.save_session(Target("d"), "g1", METHODS)
    assert await hub.session(Target("d"), "g1") is None
    await identities.insert(identity(Target("d"), "g2"))
    await hub.save_session(Target("d"), "g2", METHODS)
    await hub.save_session(Target("d"), "g1", Session(()))
    assert await hub.session(Target("d"), "g1") is None
    assert await hub.session(Target("d"), "g2") == METHODS


async def test_a_change_of_the_generation_replaces_the_session(identities: IdentityStore, hub: HubStore) -> None:
    await identities.insert(identity(Target("d"), "g1"))
    await hub.save_session(Target("d"), "g1", METHODS)
    await identities.replace(identity(Target("d"), "g2"), None)
    assert await hub.session(Target("d"), "g2") is None
    await hub.save_session(Target("d"), "g2", Session(()))
    assert await hub.session(Target("d"), "g2") == Session(())
    assert await hub.session(Target("d"), "g1") is None
