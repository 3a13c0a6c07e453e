"""Who is connected: true when read, written behind, and kept after a write that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import pytest

from methodhub.core.identity import Identity, Target
from methodhub.core.ports import ConnectionRecord, StoreUnavailable
from methodhub.core.presence import Presence
from tests.rooms.world import World

D = Target("d")


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        world.create(D)
        yield world


@pytest.fixture
def presence(world: World) -> Presence:
    presence = Presence(world.table, world.store, world.clock, str)
    world.table.on_change = presence.changed
    return presence


def stored(world: World) -> Identity:
    identity = world.run(world.store.get(D))
    assert identity is not None
    return identity


def times(identity: Identity) -> tuple[bool, float | None, float | None]:
    return identity.connected, identity.connection_updated_time, identity.last_activity_time


def test_it_is_true_when_read_and_in_the_store_after_a_write(world: World, presence: Presence) -> None:
    start = world.clock.wall()
    device = world.connect(D)
    world.clock.advance(5)
    device.attachment.heard = world.clock.monotonic()
    world.clock.advance(2)
    assert times(presence.overlay(stored(world))) == (True, start, start + 5)
    assert times(stored(world)) == (False, None, None)
    world.run(presence.write())
    assert times(stored(world)) == (True, start, start)
    device.drop()
    assert times(presence.overlay(stored(world))) == (False, start + 7, start + 5)
    world.run(presence.write())
    assert times(stored(world)) == (False, start + 7, start + 5)
    assert times(presence.overlay(stored(world))) == (False, start + 7, start + 5)


def test_nobody_is_connected_because_the_store_says_so(world: World, presence: Presence) -> None:
    world.run(world.store.record_connections([ConnectionRecord(D, True, 1.0, 1.0)]))
    assert times(presence.overlay(stored(world))) == (False, 1.0, 1.0)


def test_a_takeover_leaves_the_target_connected(world: World, presence: Presence) -> None:
    older = world.connect(D)
    world.clock.advance(3)
    world.connect(D)
    older.drop()
    assert times(presence.overlay(stored(world))) == (True, world.clock.wall(), world.clock.wall())
    world.run(presence.write())
    assert stored(world).connected


def test_what_could_not_be_written_is_written_later(world: World, presence: Presence) -> None:
    class Broken:
        async def record_connections(self, records: Iterable[ConnectionRecord]) -> None:
            other.drop()  # changes while the write is under way are newer than what failed
            raise StoreUnavailable("disk full")

    world.create(Target("e"))
    world.connect(D)
    other = world.connect(Target("e"))
    presence._store, whole = Broken(), presence._store  # type: ignore[assignment]
    world.run(presence.write())
    presence._store = whole
    world.run(presence.write())
    assert stored(world).connected
    other_stored = world.run(world.store.get(Target("e")))
    assert other_stored is not None
    assert not other_stored.connected
    assert other_stored.connection_updated_time is not None


def test_a_write_ends_when_the_one_before_it_has(world: World, presence: Presence) -> None:
    """Whoever asks the store after a write sees all that was known, also what was being written already."""
    store, record, release = world.store, world.store.record_connections, asyncio.Event()

    async def slowly(records: Iterable[ConnectionRecord]) -> None:
        await release.wait()
        await record(records)

    async def overlapping() -> bool:
        first, second = (asyncio.create_task(presence.write()) for _ in range(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        early = second.done()
        release.set()
        await asyncio.gather(first, second)
        return early

    world.connect(D)
    store.record_connections = slowly  # type: ignore[method-assign]
    assert not world.run(overlapping())
    assert stored(world).connected


def test_without_changes_nothing_is_written(presence: Presence, world: World) -> None:
    presence._store = None  # type: ignore[assignment]
    world.run(presence.write())


def test_nothing_is_kept_of_a_device_that_was_deleted(world: World, presence: Presence) -> None:
    """One of its name that is made anew has never been connected."""
    device = world.connect(D)
    world.run(presence.write())
    device.drop()
    world.delete(D)
    presence.forget(D)
    world.create(D)
    assert times(presence.overlay(stored(world))) == (False, None, None)
    world.run(presence.write())
    assert times(stored(world)) == (False, None, None)
