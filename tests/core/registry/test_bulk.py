"""Bulk changes where others are faster: between the reading and the writing of a request, rows come, change and go."""

from __future__ import annotations

import base64
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from methodhub.core.errors import HubError
from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from methodhub.core.ports import (
    CertificateExpected,
    Change,
    DesiredChanged,
    Event,
    IdentitiesChanged,
    RegistryStatistics,
    TargetRevoked,
)
from methodhub.core.registry.bulk import Bulk
from methodhub.core.registry.capacity import SHARE, Capacity
from methodhub.core.registry.identities import ATTEMPTS
from methodhub.core.registry.items import BulkItem, ImportMode
from methodhub.core.twins.rules import TwinUpdate
from methodhub.core.twins.twins import Twins
from tests.memory import MemoryHubStore, MemoryIdentityStore, MemoryTables
from tests.rooms.world import World

D, M = Target("d"), Target("d", "m")
KEY = base64.b64encode(b"k" * 32).decode()


class Raced(MemoryIdentityStore):
    """A store in which others act just before each of our transactions, as long as there is something to do."""

    def __init__(self, tables: MemoryTables) -> None:
        super().__init__(tables)
        self.others: list[Coroutine[Any, Any, Any]] = []
        self.sizes: list[int] = []

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        self.sizes.append(len(changes))
        if self.others:
            await self.others.pop(0)
        return await super().apply(changes)


class BulkWorld(World):
    def __enter__(self) -> BulkWorld:
        return self

    def __init__(self) -> None:
        super().__init__()
        tables = self.store._tables
        self.raced = Raced(tables)
        self.twins = Twins(self.hub_store, self.registry, self.bus, self.clock)
        self.other_node = Twins(MemoryHubStore(tables), self.registry, self.bus, self.clock)
        self.bulk = Bulk(self.registry, self.raced, self.hub_store, self.twins, self.clock)
        self.events: list[Event] = []
        self.bus.subscribe(self.events.append)

    def apply(self, *items: BulkItem) -> list[int]:
        """The number of each item's error; 0 for none."""
        return [0 if error is None else int(error.code) for error in self.run(self.bulk.apply(items))]

    def others(self, *steps: Coroutine[Any, Any, Any]) -> None:
        self.raced.others += steps

    def tags(self, target: Target = D) -> dict[str, Any]:
        return self.run(self.twins.read(target)).tags


@pytest.fixture
def world() -> Iterator[BulkWorld]:
    with BulkWorld() as world:
        yield world


def item(mode: ImportMode, target: Target = D, **more: Any) -> BulkItem:
    wanted = Identity(target, "", "", Authentication(primary_key=KEY, secondary_key=KEY))
    return BulkItem(target, mode, wanted, **more)


def test_a_request_is_one_transaction(world: BulkWorld) -> None:
    world.create(Target("old"))
    wanted = [
        item(ImportMode.CREATE, tags={"a": 1}),
        item(ImportMode.CREATE, M),
        item(ImportMode.UPDATE, Target("old"), tags={"b": 1}),
    ]
    assert world.apply(*wanted) == [0, 0, 0]
    assert world.raced.sizes == [4]


def test_without_anything_to_do_there_is_none(world: BulkWorld) -> None:
    assert world.apply(item(ImportMode.DELETE), item(ImportMode.UPDATE, M)) == [404001, 404001]
    world.create(D)
    assert world.apply(item(ImportMode.UPDATE_TWIN)) == [0]
    assert world.raced.sizes == []


@pytest.mark.parametrize(
    ("mode", "code"),
    [(ImportMode.CREATE, 409001), (ImportMode.UPDATE, 404001), (ImportMode.DELETE, 404001)],
)
def test_somebody_was_faster(world: BulkWorld, mode: ImportMode, code: int) -> None:
    if mode is ImportMode.CREATE:
        world.others(world.registry.create(Identity(D, "", "", Authentication())))
    else:
        world.create(D)
        world.others(world.registry.delete(D, None))
    assert world.apply(item(mode), item(ImportMode.CREATE, Target("other"))) == [code, 0]


THEIRS = Identity(D, "", "", Authentication(), status_reason="theirs")


def test_an_identity_that_was_changed_meanwhile_is_overwritten(world: BulkWorld) -> None:
    """Whoever asks for no etag is the last, and what it left out is as the other left it."""
    world.create(D)
    other = replace(THEIRS, authentication=Authentication(primary_key=KEY, secondary_key=KEY))
    world.others(world.registry.update(other, None))
    mine = replace(THEIRS, status_reason="mine")
    assert world.apply(BulkItem(D, ImportMode.UPDATE, mine, tags={"a": 1})) == [0]
    stored = world.run(world.registry.read(D))
    assert (stored.status_reason, stored.authentication.primary_key) == ("mine", KEY)
    assert world.tags() == {"a": 1}


def test_an_identity_of_a_certain_etag_that_was_changed_meanwhile_is_not_overwritten(world: BulkWorld) -> None:
    world.create(D)
    etag = world.run(world.registry.read(D)).etag
    world.others(world.registry.update(THEIRS, None))
    assert world.apply(item(ImportMode.UPDATE_IF_MATCH, etag=etag)) == [412001]
    assert world.run(world.registry.read(D)).status_reason == "theirs"


def test_keys_of_an_identity_that_was_changed_meanwhile(world: BulkWorld) -> None:
    world.create(D)
    before = world.run(world.registry.read(D)).authentication
    world.others(world.registry.update(THEIRS, None))
    (outcome,) = world.run(world.bulk.regenerate([D], ["primary_key"]))
    stored = world.run(world.registry.read(D))
    assert isinstance(outcome, Identity)
    assert outcome.authentication == stored.authentication
    assert stored.status_reason == "theirs"
    assert stored.authentication.primary_key != before.primary_key
    assert stored.authentication.secondary_key == before.secondary_key


def test_a_module_whose_device_went(world: BulkWorld) -> None:
    world.create(D)
    world.others(world.registry.delete(D, None))
    assert world.apply(item(ImportMode.CREATE, M)) == [404001]


def test_a_twin_that_another_node_changes_is_merged_once_more(world: BulkWorld) -> None:
    """Both changes are there; a condition on its etag is judged anew."""
    world.create(D)
    world.others(world.other_node.update(D, TwinUpdate({"theirs": 1})))
    assert world.apply(item(ImportMode.UPDATE_TWIN, tags={"ours": 1})) == [0]
    assert world.tags() == {"theirs": 1, "ours": 1}
    etag = world.run(world.twins.read(D)).etag
    world.others(world.other_node.update(D, TwinUpdate({"theirs": 2})))
    assert world.apply(item(ImportMode.UPDATE_TWIN_IF_MATCH, tags={"ours": 2}, twin_etag=etag)) == [412001]
    assert world.tags() == {"theirs": 2, "ours": 1}


def test_a_twin_that_is_changed_without_end(world: BulkWorld) -> None:
    world.create(D)
    world.others(*(world.other_node.update(D, TwinUpdate({"n": n})) for n in range(ATTEMPTS + 1)))
    assert world.apply(item(ImportMode.UPDATE_TWIN, tags={"ours": 1})) == [503001]


def test_a_twin_whose_device_went(world: BulkWorld) -> None:
    world.create(D)
    world.others(world.registry.delete(D, None))
    assert world.apply(item(ImportMode.UPDATE_TWIN, tags={"ours": 1})) == [404001]


def test_a_twin_that_may_not_be_so_stops_its_identity_too(world: BulkWorld) -> None:
    world.create(D)
    before = world.run(world.registry.read(D))
    assert world.apply(item(ImportMode.UPDATE, tags={"a.b": 1})) == [400004]
    assert world.run(world.registry.read(D)) == before


def test_memory_and_others_are_told(world: BulkWorld) -> None:
    """As after single changes: what a call sees is what was written last."""
    world.create(D, M)
    assert world.run(world.registry.find(Target("new"))) is None
    certificate = Authentication(AuthenticationType.CERTIFICATE_AUTHORITY)
    wanted = BulkItem(Target("new"), ImportMode.CREATE, Identity(Target("new"), "", "", certificate))
    change = item(ImportMode.UPDATE, desired={"a": 1})
    assert world.apply(wanted, change) == [0, 0]
    assert world.run(world.registry.find(Target("new"))) is not None
    found = world.run(world.registry.find(D))
    assert found is not None and found.authentication.primary_key == KEY
    told = [type(event) for event in world.events if not isinstance(event, IdentitiesChanged)]
    assert told == [CertificateExpected, TargetRevoked, DesiredChanged]
    assert {target for event in world.events if isinstance(event, IdentitiesChanged) for target in event.targets} == {
        D,
        M,
        Target("new"),
    }
    world.events.clear()
    assert world.apply(item(ImportMode.DELETE)) == [0]
    revoked = [event for event in world.events if not isinstance(event, IdentitiesChanged)]
    assert revoked == [TargetRevoked(each, "the identity was deleted") for each in (D, M)]  # type: ignore[arg-type]
    assert world.run(world.registry.find(M)) is None


def test_room_is_counted_rarely() -> None:
    """[HUB-max-devices] A count is good for a tenth of the room that it found; the last device is not exceeded."""

    class Counted(MemoryIdentityStore):
        total = counts = 0

        async def statistics(self) -> RegistryStatistics:
            self.counts += 1
            return RegistryStatistics(self.total, self.total, 0)

    def refused(step: Callable[[], None]) -> bool:
        try:
            step()
        except HubError as error:
            return int(error.code) == 403002
        return False

    with World() as world:
        store = Counted(MemoryTables())
        capacity = Capacity(store, 1_000)

        def create() -> None:
            world.run(capacity.take(1))
            store.total += 1

        for _ in range(1_000):
            create()
        assert store.counts < SHARE * 8
        assert refused(create)
        store.total -= 1
        create()
        assert refused(lambda: world.run(capacity.take(2)))
