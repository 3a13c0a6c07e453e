"""Devices are told of desired properties in order, and of what they missed."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterator, Sequence

import pytest

from methodhub.core.identity import Target
from methodhub.core.ports import DesiredChanged, StoreUnavailable
from methodhub.core.twins.model import Section, Twin
from methodhub.core.twins.pushes import CHUNK, DesiredPushes
from tests.memory import MemoryHubStore, MemoryTables
from tests.rooms.world import FakeDevice, World

D, E = Target("d"), Target("e")


class Store(MemoryHubStore):
    """`meanwhile` happens while it reads."""

    def __init__(self, tables: MemoryTables) -> None:
        super().__init__(tables)
        self.is_away = False
        self.reads: list[int] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def twins(self, targets: Sequence[Target]) -> list[Twin]:
        if self.is_away:
            raise StoreUnavailable("the test says so")
        self.reads.append(len(targets))
        found = await super().twins(targets)
        self.meanwhile()
        return found


class Room:
    def __init__(self, world: World) -> None:
        self.world = world
        self.store = Store(world.hub_store._tables)
        self.spawned: list[Coroutine[object, object, None]] = []
        self.pushes = DesiredPushes(world.table, self.store, self.spawned.append)

    def device(self, target: Target, *, known: int = 0) -> FakeDevice:
        self.world.create(target)
        device = self.world.connect(target)
        device.wants_desired = True
        device.attachment.known_desired = known
        return device

    def write(self, target: Target, version: int) -> None:
        self.world.hub_store._tables.twins[target] = Twin(target, version, desired=Section({"a": version}, {}, version))

    def hear(self, target: Target, version: int) -> None:
        """The event of a change; what it makes begin is done."""
        self.pushes.hear(DesiredChanged(target, version, b"%d" % version))
        self.work()

    def work(self) -> None:
        while self.spawned:
            self.world.run(self.spawned.pop(0))


@pytest.fixture
def room() -> Iterator[Room]:
    with World() as world:
        yield Room(world)


def test_each_change_is_pushed_as_it_comes(room: Room) -> None:
    device = room.device(D, known=4)
    for version in (5, 6):
        room.hear(D, version)
    room.hear(E, 7)
    assert device.told == [(5, b"5"), (6, b"6")]
    assert room.store.reads == []


def test_the_first_change_after_a_connect_has_no_gap(room: Room) -> None:
    device = room.device(D)
    room.hear(D, 9)
    assert device.told == [(9, b"9")]


def test_a_change_that_comes_before_an_earlier_one_brings_everything(room: Room) -> None:
    """[HUB-twin-order] Of two nodes' changes, 5 and 6, the second is heard first."""
    device = room.device(D, known=4)
    room.write(D, 6)
    for version in (6, 5, 7):
        room.hear(D, version)
    assert [version for version, _ in device.told] == [6, 7]
    assert json.loads(device.told[0][1]) == {"a": 6, "$version": 6}


def test_what_was_missed_is_told(room: Room) -> None:
    """[HUB-one-truth] Only to those that want to know, and lack something."""
    behind, fresh, deaf = room.device(D, known=4), room.device(E, known=4), room.device(Target("f"), known=4)
    deaf.wants_desired = False
    for target, version in ((D, 5), (E, 4), (Target("f"), 5)):
        room.write(target, version)
    room.pushes.missed()
    room.work()
    assert [version for version, _ in behind.told] == [5]
    assert fresh.told == deaf.told == []
    assert room.store.reads == [2]


def test_many_are_read_in_chunks(room: Room) -> None:
    devices = [room.device(Target(f"d{number}"), known=1) for number in range(CHUNK + 1)]
    for device in devices:
        room.write(device.target, 2)
    room.pushes.missed()
    room.work()
    assert all([version for version, _ in device.told] == [2] for device in devices)
    assert room.store.reads == [CHUNK, 1]


def test_what_could_not_be_read_is_read_later(room: Room) -> None:
    device = room.device(D, known=4)
    room.write(D, 6)
    room.store.is_away = True
    room.pushes.missed()
    room.work()
    room.store.is_away = False
    room.pushes.catch_up()
    room.work()
    room.pushes.catch_up()
    assert [version for version, _ in device.told] == [6]
    assert room.spawned == []


def test_a_change_while_the_store_is_read_is_not_lost(room: Room) -> None:
    device = room.device(D, known=4)
    room.write(D, 6)

    def meanwhile() -> None:
        room.store.meanwhile = lambda: None
        room.write(D, 8)
        room.pushes.hear(DesiredChanged(D, 8, b"8"))

    room.store.meanwhile = meanwhile
    room.hear(D, 6)
    assert [version for version, _ in device.told] == [6, 8]


def test_a_device_that_has_gone_meanwhile_is_told_nothing(room: Room) -> None:
    device = room.device(D, known=4)
    room.write(D, 6)
    room.store.meanwhile = device.drop
    room.hear(D, 6)
    room.pushes.missed()
    room.work()
    assert device.told == []
