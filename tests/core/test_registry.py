"""The rules of identities, and their copies in memory: what a call sees is what was written last."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Iterator
from dataclasses import replace

import pytest

from methodhub.core.errors import HubError
from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from methodhub.core.ports import CloseReason, IdentitiesChanged, StoreUnavailable, TargetRevoked
from methodhub.core.registry import CACHE_SIZE, lost_a_credential
from tests.memory import MemoryIdentityStore, MemoryTables
from tests.rooms.world import World

D, M = Target("d"), Target("d", "m")
KEY, OTHER_KEY = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def identity(target: Target = D, authentication: Authentication | None = None, **changes: object) -> Identity:
    return replace(Identity(target, "", "", authentication or Authentication()), **changes)  # type: ignore[arg-type]


def create(world: World, wanted: Identity) -> Identity:
    return world.run(world.registry.create(wanted))


def update(world: World, wanted: Identity, if_match: str | None = None) -> Identity:
    return world.run(world.registry.update(wanted, if_match))


def code_of(world: World, step: object) -> int:
    with pytest.raises(HubError) as caught:
        world.run(step)  # type: ignore[arg-type]
    return int(caught.value.code)


def revoked(world: World) -> list[TargetRevoked]:
    events: list[TargetRevoked] = []
    world.bus.subscribe(lambda event: events.append(event) if isinstance(event, TargetRevoked) else None)
    return events


# --- creating ----------------------------------------------------------------------------------------------------


def test_a_new_identity_gets_keys_an_etag_and_a_generation(world: World) -> None:
    first = create(world, identity())
    assert all(len(base64.b64decode(key, validate=True)) == 32 for key in first.authentication.keys)
    assert len(set(first.authentication.keys)) == 2
    assert len(first.generation_id) == 18
    assert first.generation_id.isdecimal()
    assert first.etag
    world.delete(D)
    second = create(world, identity())
    assert second.generation_id != first.generation_id
    assert second.etag != first.etag
    assert not set(second.authentication.keys) & set(first.authentication.keys)


def test_given_keys_are_kept(world: World) -> None:
    made = create(world, identity(authentication=Authentication(primary_key=KEY, secondary_key=OTHER_KEY)))
    assert made.authentication.keys == (KEY, OTHER_KEY)


@pytest.mark.parametrize("kind", [kind for kind in AuthenticationType if kind is not AuthenticationType.SAS])
def test_only_a_sas_identity_has_keys(world: World, kind: AuthenticationType) -> None:
    wanted = Authentication(kind, KEY, OTHER_KEY, primary_thumbprint="A" * 40)
    assert create(world, identity(authentication=wanted)).authentication == Authentication(
        kind, primary_thumbprint="A" * 40
    )


@pytest.mark.parametrize(
    "bad",
    [
        identity(Target("a/b")),
        identity(Target("d", "x" * 129)),
        identity(status_reason="x" * 129),
        identity(managed_by="x" * 129),
        identity(authentication=Authentication(primary_key=KEY)),
        identity(authentication=Authentication(secondary_key=KEY)),
        identity(authentication=Authentication(primary_key="no base64", secondary_key=KEY)),
        identity(authentication=Authentication(primary_key=base64.b64encode(b"x" * 15).decode(), secondary_key=KEY)),
        identity(authentication=Authentication(primary_key=KEY, secondary_key=base64.b64encode(b"x" * 65).decode())),
        identity(authentication=Authentication(primary_thumbprint="A" * 41)),
        identity(authentication=Authentication(secondary_thumbprint="G" * 40)),
    ],
)
def test_what_breaks_a_rule_is_400004(world: World, bad: Identity) -> None:
    assert code_of(world, world.registry.create(bad)) == 400004


def test_the_bounds_themselves_are_allowed(world: World) -> None:
    least, most = (base64.b64encode(b"x" * size).decode() for size in (16, 64))
    create(world, identity(Target("x" * 128), Authentication(primary_key=least, secondary_key=most)))
    create(world, identity(status_reason="x" * 128, authentication=Authentication(primary_thumbprint="aB" * 32)))


def test_what_exists_is_not_created_again(world: World) -> None:
    create(world, identity())
    create(world, identity(M))
    assert code_of(world, world.registry.create(identity())) == 409001
    assert code_of(world, world.registry.create(identity(M))) == 409301
    assert code_of(world, world.registry.create(identity(Target("e", "m")))) == 404001


def test_a_device_has_room_for_so_many_modules(world: World) -> None:
    world.registry._modules_per_device = 2
    create(world, identity())
    for name in ("a", "b"):
        create(world, identity(Target("d", name)))
    assert code_of(world, world.registry.create(identity(Target("d", "c")))) == 413003
    assert [each.target.module_id for each in world.run(world.registry.modules("d"))] == ["a", "b"]


# --- reading -----------------------------------------------------------------------------------------------------


def test_what_is_missing_has_a_code_of_its_own(world: World) -> None:
    registry = world.registry
    assert code_of(world, registry.get(D)) == code_of(world, registry.get(M)) == 404001
    assert code_of(world, registry.active(M)) == code_of(world, registry.modules("d")) == 404001
    create(world, identity())
    assert code_of(world, registry.get(M)) == code_of(world, registry.active(M)) == 404010
    create(world, identity(M))
    assert world.run(registry.active(M)) == (world.run(registry.get(M)), world.run(registry.get(D)))


def test_a_disabled_device_is_not_found_nor_are_its_modules(world: World) -> None:
    world.create(D, M)
    world.enable(D, False)
    assert code_of(world, world.registry.active(D)) == code_of(world, world.registry.active(M)) == 404001
    assert not world.registry.is_known_active(M)
    world.enable(D)
    world.run(world.registry.active(M))
    assert world.registry.is_known_active(M)


def test_unknown_ids_are_remembered_until_they_are_created(world: World) -> None:
    assert world.run(world.registry.find(D)) is None
    assert world.registry.in_memory(D) is None
    create(world, identity())
    with pytest.raises(KeyError):
        world.registry.in_memory(D)
    assert world.run(world.registry.find(D)) is not None


def test_memory_is_bounded_but_connected_targets_stay(world: World) -> None:
    world.create(D)
    world.connect(D)
    for number in range(CACHE_SIZE + 10):
        world.registry._remember(Target(f"x{number}"), None)
    assert len(world.registry._cache) == CACHE_SIZE
    assert world.registry.is_known_active(D)
    with pytest.raises(KeyError):
        world.registry.in_memory(Target("x0"))


def test_a_connected_target_is_known_by_its_newest_version(world: World) -> None:
    world.create(D)
    device = world.connect(D)
    changed = update(world, replace(world.run(world.registry.get(D)), status_reason="new"))
    assert world.registry.in_memory(D) is changed
    device.drop()
    assert world.registry.in_memory(D) is changed
    assert D not in world.registry._pinned


class SlowStore(MemoryIdentityStore):
    """Answers a read only when the test lets it, with what it read before."""

    def __init__(self, tables: MemoryTables) -> None:
        super().__init__(tables)
        self.may_answer: asyncio.Event | None = None
        self.has_read = asyncio.Event()

    async def get(self, target: Target) -> Identity | None:
        found = await super().get(target)
        if self.may_answer is not None:
            waiting, self.may_answer = self.may_answer, None
            self.has_read.set()
            await waiting.wait()
        return found


@pytest.mark.parametrize("write", ["update", "delete", "create"])
def test_a_write_that_overtakes_a_read_is_what_memory_keeps(world: World, write: str) -> None:
    tables = MemoryTables()
    store = SlowStore(tables)
    registry = world.registry
    registry._store = store

    async def overtake() -> None:
        if write != "create":
            await registry.create(identity())
        store.may_answer = let = asyncio.Event()
        reading = asyncio.create_task(registry.find(D))
        await store.has_read.wait()
        if write == "create":
            await registry.create(identity())
        elif write == "update":
            await registry.update(replace(await registry.get(D), enabled=False), None)
        else:
            await registry.delete(D, None)
        let.set()
        await reading
        assert await registry.find(D) == await store.get(D)

    world.run(overtake())


# --- changing ----------------------------------------------------------------------------------------------------


def test_if_match_is_the_etag_or_none(world: World) -> None:
    """[HUB-if-match]"""
    first = create(world, identity())
    second = update(world, identity(status_reason="x"), first.etag)
    assert (second.generation_id, second.authentication) == (first.generation_id, first.authentication)
    for step in (world.registry.update(identity(), first.etag), world.registry.delete(D, first.etag)):
        assert code_of(world, step) == 412001
    update(world, identity(), None)
    assert code_of(world, world.registry.delete(D, second.etag)) == 412001
    world.delete(D)
    assert code_of(world, world.registry.update(identity(), None)) == 404001
    assert code_of(world, world.registry.delete(D, None)) == 404001


def test_a_write_that_loses_the_race_is_412001(world: World) -> None:
    create(world, identity())

    async def race() -> list[Identity | BaseException]:
        etag = (await world.registry.get(D)).etag
        return await asyncio.gather(
            *(world.registry.update(identity(status_reason=str(n)), etag) for n in range(5)), return_exceptions=True
        )

    codes = [int(each.code) if isinstance(each, HubError) else 0 for each in world.run(race())]
    assert sorted(codes) == [0, *[412001] * 4]


def test_writes_for_any_etag_lose_no_race(world: World) -> None:
    """[HUB-if-match] The last one stays; whoever deletes has deleted."""
    create(world, identity())

    async def race(*steps: Awaitable[object]) -> list[object]:
        return await asyncio.gather(*steps, return_exceptions=True)

    updates = (world.registry.update(identity(status_reason=str(n)), None) for n in range(12))
    assert all(isinstance(each, Identity) for each in world.run(race(*updates)))
    store = world.registry._store
    read = store.get

    async def overtaken(target: Target) -> Identity | None:
        found = await read(target)
        store.get = read  # type: ignore[method-assign]
        await world.registry.update(identity(status_reason="theirs"), None)
        return found

    store.get = overtaken  # type: ignore[method-assign]
    assert update(world, identity(status_reason="mine")).status_reason == "mine"
    store.get = overtaken  # type: ignore[method-assign]
    world.delete(D)
    assert code_of(world, world.registry.read(D)) == 404001


def test_a_write_for_any_etag_gives_up_where_others_are_always_faster(world: World) -> None:
    create(world, identity())

    async def never(*_: object) -> bool:
        return False

    world.registry._store.replace = never  # type: ignore[method-assign,assignment]
    assert code_of(world, world.registry.update(identity(), None)) == 503001


def test_the_status_has_a_time_of_its_own(world: World) -> None:
    create(world, identity())
    world.clock.advance(10)
    assert update(world, identity(status_reason="x")).status_updated_time is None
    assert update(world, identity(enabled=False)).status_updated_time == world.clock.wall()
    before = world.clock.wall()
    world.clock.advance(10)
    assert update(world, identity(enabled=False)).status_updated_time == before


def test_disabling_a_device_revokes_it_and_its_modules(world: World) -> None:
    world.create(D, M, Target("e"))
    events = revoked(world)
    world.enable(D, False)
    assert events == [TargetRevoked(D, CloseReason.DISABLED), TargetRevoked(M, CloseReason.DISABLED)]


def test_deleting_a_device_revokes_it_and_its_modules(world: World) -> None:
    world.create(D, M, Target("e"))
    events = revoked(world)
    world.delete(D)
    assert events == [TargetRevoked(D, CloseReason.DELETED), TargetRevoked(M, CloseReason.DELETED)]
    assert code_of(world, world.registry.get(M)) == 404001


def test_a_module_goes_alone(world: World) -> None:
    world.create(D, M)
    events = revoked(world)
    world.enable(M, False)
    world.delete(M)
    assert events == [TargetRevoked(M, CloseReason.DISABLED), TargetRevoked(M, CloseReason.DELETED)]
    world.run(world.registry.active(D))


def test_another_key_revokes_and_the_same_does_not(world: World) -> None:
    made = create(world, identity(authentication=Authentication(primary_key=KEY, secondary_key=OTHER_KEY)))
    events = revoked(world)
    update(world, made)
    update(world, identity(status_reason="x"))
    assert not events
    update(world, identity(authentication=Authentication(primary_key=OTHER_KEY, secondary_key=KEY)))
    assert not events  # both still let in
    update(world, identity(authentication=Authentication(primary_key=KEY, secondary_key=KEY)))
    assert events == [TargetRevoked(D, CloseReason.CREDENTIALS_CHANGED)]


THUMBPRINT = Authentication(AuthenticationType.SELF_SIGNED, primary_thumbprint="A" * 40)


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        (THUMBPRINT, THUMBPRINT, False),
        (THUMBPRINT, replace(THUMBPRINT, secondary_thumbprint="B" * 40), False),
        (THUMBPRINT, replace(THUMBPRINT, primary_thumbprint="B" * 40), True),
        (THUMBPRINT, Authentication(), True),
        (Authentication(primary_key=KEY), Authentication(primary_key=OTHER_KEY), True),
        (Authentication(), Authentication(primary_key=KEY), False),
    ],
)
def test_what_counts_as_a_lost_credential(old: Authentication, new: Authentication, lost: bool) -> None:
    assert lost_a_credential(old, new) is lost


def test_pages_and_modules_come_from_the_store(world: World) -> None:
    world.create(D, M, Target("a"))
    assert [each.target.device_id for each in world.run(world.registry.page_devices("", 10))] == ["a", "d"]
    assert [each.target for each in world.run(world.registry.modules("d"))] == [M]


@pytest.mark.parametrize("target", [Target("a\0b"), Target("d", "m\0"), Target("x" * 129), Target("a b")])
def test_the_store_is_not_asked_for_what_is_no_id(world: World, target: Target) -> None:
    """One of them would fail all that are read with it."""

    async def fail(_: Target) -> None:
        raise AssertionError("asked")

    world.registry._store.get = fail  # type: ignore[assignment]
    assert world.run(world.registry.find(target)) is None


def test_a_write_that_failed_and_yet_was_done_is_seen(world: World) -> None:
    """The database went away after it had written and before it said so."""
    assert code_of(world, world.registry.get(D)) == 404001
    insert = world.registry._store.insert

    async def done_and_gone(wanted: Identity) -> bool:
        await insert(wanted)
        raise StoreUnavailable("gone")

    world.registry._store.insert = done_and_gone  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailable):
        create(world, identity())
    assert world.run(world.registry.get(D)).target == D


def test_a_write_that_was_overtaken_is_not_remembered(world: World) -> None:
    """[HUB-one-truth] Another node disabled it after this one wrote, and was heard before the database's answer."""
    create(world, identity())
    store = world.registry._store
    replaced = store.replace

    async def overtaken(new: Identity, if_etag: str | None) -> bool:
        done = await replaced(new, if_etag)
        await replaced(replace(new, enabled=False, etag="theirs"), new.etag)
        world.bus.publish(IdentitiesChanged((D,)))
        return done

    store.replace = overtaken  # type: ignore[method-assign,assignment]
    update(world, identity(status_reason="mine"))
    assert not world.registry.is_known_active(D)
    assert code_of(world, world.registry.active(D)) == 404001


def test_a_delete_that_failed_and_yet_was_done_ends_the_connection_when_it_is_repeated(world: World) -> None:
    world.create(D)
    world.connect(D)
    events = revoked(world)
    assert world.run(world.registry._store.delete(D, None)) == [D]
    assert code_of(world, world.registry.delete(D, None)) == 404001
    assert events == [TargetRevoked(D, CloseReason.DELETED)]
    assert not world.registry.is_known_active(D)
