"""What every IdentityStore does, whatever it is made of."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from methodhub.core.ports import ConnectionRecord, HubStore, IdentityStore, Session

ODD_IDS = [
    *("#", "$", "%", "'", "''", "*", "-", "%25", "a", "A", "aB", "Ab", "a%", "a_", "a'b", "$'", "Z", "z", "0"),
    "';DROP-TABLE-identities;--",
    "x" * 128,
]


def device(device_id: str, generation: str = "g1", etag: str = "e1") -> Identity:
    return Identity(Target(device_id), generation, etag, Authentication(primary_key="a2V5"))


def module(device_id: str, module_id: str) -> Identity:
    return replace(device(device_id), target=Target(device_id, module_id))


FULL = Identity(
    Target("full"),
    "638000000000000000",
    "ZXRhZw==",
    Authentication(AuthenticationType.SELF_SIGNED, "cDE=", "cDI=", "A" * 40, "B" * 64),
    enabled=False,
    status_reason="Ünder repair: 'quoted' \u2028 \U0001f600",
    status_updated_time=1700000000.123456,
    iot_edge=True,
    device_scope="ms-azure-iot-edge://full-1",
    parent_scopes=("ms-azure-iot-edge://a", "with, comma"),
    managed_by="edge",
    connected=True,
    connection_updated_time=1700000001.5,
    last_activity_time=0.0,
)


@pytest.mark.parametrize("identity", [FULL, replace(FULL, target=Target("plain", "m")), device("plain2")])
async def test_an_identity_comes_back_as_it_was_inserted(identities: IdentityStore, identity: Identity) -> None:
    await identities.insert(device("plain"))
    assert await identities.insert(identity)
    assert await identities.get(identity.target) == identity


@pytest.mark.parametrize("type_", AuthenticationType)
async def test_every_authentication_type_is_kept(identities: IdentityStore, type_: AuthenticationType) -> None:
    identity = replace(device("d"), authentication=Authentication(type_))
    await identities.insert(identity)
    assert await identities.get(identity.target) == identity


async def test_many_at_once_come_in_the_order_that_was_asked_for(identities: IdentityStore) -> None:
    for each in (FULL, device("a"), module("a", "m"), device("b")):
        await identities.insert(each)
    wanted = [Target("b"), Target("none"), Target("a", "m"), FULL.target, Target("a", "none")]
    assert await identities.get_many(wanted) == [device("b"), None, module("a", "m"), FULL, None]
    assert await identities.get_many([]) == []


async def test_modules_of_many_devices(identities: IdentityStore) -> None:
    for each in (device("a"), device("b"), device("c"), module("a", "m"), module("a", "n"), module("c", "m")):
        await identities.insert(each)
    assert sorted(await identities.modules_of({"a", "b", "none"})) == [Target("a", "m"), Target("a", "n")]
    assert await identities.modules_of(set()) == []


async def test_what_is_not_there_is_none(identities: IdentityStore) -> None:
    await identities.insert(device("d"))
    assert await identities.get(Target("D")) is None
    assert await identities.get(Target("d", "m")) is None
    assert await identities.modules("d") == []
    assert await identities.modules("other") == []


async def test_an_insert_over_an_identity_changes_nothing(identities: IdentityStore) -> None:
    await identities.insert(device("d"))
    assert not await identities.insert(device("d", "g2", "e2"))
    assert await identities.get(Target("d")) == device("d")
    await identities.insert(module("d", "m"))
    assert not await identities.insert(replace(module("d", "m"), etag="e2"))
    assert await identities.modules("d") == [module("d", "m")]


async def test_a_module_needs_its_device(identities: IdentityStore) -> None:
    await identities.insert(device("D"))
    with pytest.raises(LookupError):
        await identities.insert(module("d", "m"))
    assert await identities.get(Target("d", "m")) is None
    assert await identities.insert(device("d"))
    assert await identities.insert(module("d", "m"))


async def test_of_many_inserts_at_once_one_wins(identities: IdentityStore) -> None:
    won = await asyncio.gather(*(identities.insert(device("d", f"g{number}")) for number in range(20)))
    assert won.count(True) == 1
    stored = await identities.get(Target("d"))
    assert stored == device("d", f"g{won.index(True)}")


async def test_many_writers_and_readers_wait_for_each_other(identities: IdentityStore) -> None:
    await asyncio.gather(
        *(identities.insert(device(f"d{number:03}")) for number in range(100)),
        *(identities.page_devices("", 1000) for _ in range(100)),
    )
    assert len(await identities.page_devices("", 1000)) == 100


async def test_replace_keeps_the_state_of_the_connection(identities: IdentityStore) -> None:
    await identities.insert(device("full"))
    await identities.record_connections([ConnectionRecord(Target("full"), True, 5.25, 6.5)])
    changed = replace(FULL, connected=False, connection_updated_time=None, last_activity_time=None)
    assert await identities.replace(changed, None)
    assert await identities.get(FULL.target) == replace(
        changed, connected=True, connection_updated_time=5.25, last_activity_time=6.5
    )


async def test_replace_can_take_values_away(identities: IdentityStore) -> None:
    await identities.insert(FULL)
    assert await identities.replace(device("full"), FULL.etag)
    assert await identities.get(FULL.target) == replace(
        device("full"), connected=True, connection_updated_time=1700000001.5, last_activity_time=0.0
    )


async def test_replace_with_another_etag_changes_nothing(identities: IdentityStore) -> None:
    await identities.insert(device("d"))
    assert not await identities.replace(device("d", etag="e2"), "E1")
    assert await identities.get(Target("d")) == device("d")
    assert await identities.replace(device("d", etag="e2"), "e1")
    assert await identities.get(Target("d")) == device("d", etag="e2")


async def test_of_many_replaces_with_one_etag_one_wins(identities: IdentityStore) -> None:
    await identities.insert(device("d", etag="old"))
    won = await asyncio.gather(*(identities.replace(device("d", etag=f"e{n}"), "old") for n in range(10)))
    assert won.count(True) == 1
    assert await identities.get(Target("d")) == device("d", etag=f"e{won.index(True)}")


async def test_replace_touches_only_its_target(identities: IdentityStore) -> None:
    rows = [device("d"), module("d", "m"), module("d", "M"), device("D"), module("D", "m")]
    for row in rows:
        await identities.insert(row)
    assert await identities.replace(replace(module("d", "m"), etag="e2"), "e1")
    assert [await identities.get(row.target) for row in rows] == [
        replace(row, etag="e2") if row.target == Target("d", "m") else row for row in rows
    ]


async def test_replace_of_what_is_gone_is_false(identities: IdentityStore) -> None:
    assert not await identities.replace(device("d"), None)
    assert await identities.get(Target("d")) is None


async def test_delete_takes_the_modules_and_the_sessions_along(identities: IdentityStore, hub: HubStore) -> None:
    rows = [device("d"), module("d", "b"), module("d", "a"), device("D"), module("D", "a")]
    for row in rows:
        await identities.insert(row)
        await hub.save_session(row.target, "g1", Session((("f", 1),)))
    assert await identities.delete(Target("d"), None) == [Target("d"), Target("d", "a"), Target("d", "b")]
    for row in rows:
        kept = row.target.device_id == "D"
        assert await identities.get(row.target) == (row if kept else None)
        assert (await hub.session(row.target, "g1") is not None) == kept
    for row in rows:  # the same generation again: only a row that was left over could give a session
        await identities.insert(row)
        assert (await hub.session(row.target, "g1") is not None) == (row.target.device_id == "D")


async def test_delete_of_a_module_leaves_its_device(identities: IdentityStore, hub: HubStore) -> None:
    for row in (device("d"), module("d", "a"), module("d", "b")):
        await identities.insert(row)
        await hub.save_session(row.target, "g1", Session(()))
    assert await identities.delete(Target("d", "a"), "e1") == [Target("d", "a")]
    assert await identities.get(Target("d")) == device("d")
    assert await identities.modules("d") == [module("d", "b")]
    assert await hub.session(Target("d"), "g1") == Session(())
    assert await hub.session(Target("d", "a"), "g1") is None


async def test_delete_with_another_etag_deletes_nothing(identities: IdentityStore) -> None:
    await identities.insert(device("d"))
    await identities.insert(module("d", "m"))
    assert await identities.delete(Target("d"), "E1") is None
    assert await identities.modules("d") == [module("d", "m")]
    assert await identities.delete(Target("d"), "e1") == [Target("d"), Target("d", "m")]
    assert await identities.delete(Target("d"), None) is None
    assert await identities.delete(Target("d", "m"), None) is None


async def test_pages_go_on_where_the_last_one_ended(identities: IdentityStore) -> None:
    for device_id in ODD_IDS:
        await identities.insert(device(device_id))
        await identities.insert(module(device_id, "m"))
    seen: list[str] = []
    while page := await identities.page_devices(seen[-1] if seen else "", 4):
        assert len(page) == min(4, len(ODD_IDS) - len(seen))
        assert all(identity == device(identity.target.device_id) for identity in page)
        seen += [identity.target.device_id for identity in page]
    assert seen == sorted(ODD_IDS)
    assert await identities.page_devices("a", 1) == [device("a%")]


async def test_modules_are_listed_in_order(identities: IdentityStore) -> None:
    await identities.insert(device("d"))
    await identities.insert(device("d%"))
    await identities.insert(module("d%", "foreign"))
    for module_id in ODD_IDS:
        await identities.insert(module("d", module_id))
    assert await identities.modules("d") == [module("d", module_id) for module_id in sorted(ODD_IDS)]


@pytest.mark.parametrize("odd_id", ODD_IDS)
async def test_ids_are_taken_literally(identities: IdentityStore, hub: HubStore, odd_id: str) -> None:
    others = [device(other) for other in ODD_IDS if other != odd_id]
    for identity in (*others, device(odd_id), module(odd_id, odd_id)):
        assert await identities.insert(identity)
    await identities.record_connections([ConnectionRecord(Target(odd_id), True, 1.0, 2.0)])
    assert await identities.replace(device(odd_id, etag="e2"), "e1")
    changed = await identities.get(Target(odd_id))
    assert changed is not None
    assert (changed.connected, changed.etag) == (True, "e2")
    await hub.save_session(Target(odd_id), "g1", Session(((odd_id, 1),)))
    assert await hub.session(Target(odd_id), "g1") == Session(((odd_id, 1),))
    assert await identities.delete(Target(odd_id), None) == [Target(odd_id), Target(odd_id, odd_id)]
    assert await identities.page_devices("", 1000) == sorted(others, key=lambda identity: identity.target)


async def test_connections_are_recorded_in_batches(identities: IdentityStore) -> None:
    for row in (device("a"), module("a", "m"), device("b")):
        await identities.insert(row)
    await identities.record_connections(
        ConnectionRecord(target, True, 10.5, heard)
        for target, heard in (
            (Target("a", "m"), 11.0),
            (Target("gone"), 12.0),
            (Target("b"), 13.0),
            (Target("b"), 14.0),
        )
    )
    assert await identities.get(Target("a")) == device("a")
    assert await identities.get(Target("gone")) is None
    for row, heard in ((module("a", "m"), 11.0), (device("b"), 14.0)):
        assert await identities.get(row.target) == replace(
            row, connected=True, connection_updated_time=10.5, last_activity_time=heard
        )


async def test_no_records_are_a_batch_too(identities: IdentityStore) -> None:
    await identities.insert(device("d"))
    await identities.record_connections([])
    assert await identities.get(Target("d")) == device("d")


async def test_after_a_start_nobody_is_connected(identities: IdentityStore) -> None:
    for device_id in ("a", "b", "c"):
        await identities.insert(device(device_id))
    await identities.insert(module("a", "m"))
    await identities.record_connections(
        [
            ConnectionRecord(Target("a", "m"), True, 1.0, 2.0),
            ConnectionRecord(Target("b"), True, 3.0, 4.0),
            ConnectionRecord(Target("c"), False, 5.0, 6.0),
        ]
    )
    await identities.disconnect_all(100.5)

    async def state(target: Target) -> tuple[bool, float | None, float | None]:
        identity = await identities.get(target)
        assert identity is not None
        return identity.connected, identity.connection_updated_time, identity.last_activity_time

    assert await state(Target("a")) == (False, None, None)
    assert await state(Target("a", "m")) == (False, 100.5, 2.0)
    assert await state(Target("b")) == (False, 100.5, 4.0)
    assert await state(Target("c")) == (False, 5.0, 6.0)


async def test_a_call_that_is_cancelled_leaves_the_store_whole(identities: IdentityStore) -> None:
    await identities.insert(device("before"))
    for turns in range(12):  # each number of turns of the loop cancels the insert at another point
        write = asyncio.ensure_future(identities.insert(device(f"cancelled{turns}")))
        read = asyncio.ensure_future(identities.get(Target("before")))
        for _ in range(turns):
            await asyncio.sleep(0)
        write.cancel()
        read.cancel()
        await asyncio.gather(write, read, return_exceptions=True)
        assert await identities.get(Target("before")) == device("before")
        assert await identities.insert(device(f"after{turns}"))


@pytest.mark.parametrize("type_", AuthenticationType)
async def test_it_is_known_whether_any_identity_expects_certificates(
    identities: IdentityStore, type_: AuthenticationType
) -> None:
    await identities.insert(device("d"))
    assert not await identities.expects_certificates()
    other = replace(module("d", "m"), authentication=Authentication(type_))
    await identities.insert(other)
    assert await identities.expects_certificates() is type_.is_certificate
    await identities.replace(module("d", "m"), None)
    assert not await identities.expects_certificates()
    await identities.replace(other, None)
    await identities.delete(Target("d"), None)
    assert not await identities.expects_certificates()
