"""Stored twins: changes of many writers, devices told in the order of versions, and what fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from methodhub.bus.local import LocalBus
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.ports import DesiredChanged, Event
from methodhub.core.registry import Registry
from methodhub.core.twins.model import Twin
from methodhub.core.twins.rules import TwinUpdate
from methodhub.core.twins.twins import ATTEMPTS, Twins
from tests.clock import ManualClock
from tests.memory import MemoryHubStore, MemoryIdentityStore, MemoryTables

D, E, NOBODY = Target("d"), Target("e"), Target("nobody")
M = Target("d", "m")


class SlowStore(MemoryHubStore):
    """Each step takes a turn of the loop; `before_save` happens between reading and writing."""

    def __init__(self, tables: MemoryTables) -> None:
        super().__init__(tables)
        self.saves: list[int] = []
        self.before_save: list[Any] = []

    async def twins(self, targets: Sequence[Target]) -> list[Twin]:
        found = await super().twins(targets)
        await asyncio.sleep(0)
        return found

    async def save_twins(self, twins: Sequence[tuple[Twin, int]]) -> list[bool]:
        self.saves.append(len(twins))
        if self.before_save:
            await self.before_save.pop(0)()
        await asyncio.sleep(0)
        return await super().save_twins(twins)


class Room:
    def __init__(self) -> None:
        tables = MemoryTables()
        self.store = SlowStore(tables)
        self.bus = LocalBus()
        self.clock = ManualClock()
        self.registry = Registry(MemoryIdentityStore(tables), self.bus, self.clock)
        self.twins = Twins(self.store, self.registry, self.bus, self.clock)
        self.others = Twins(self.store, self.registry, LocalBus(), self.clock)
        """Of another node: it shares the store, not the locks."""
        self.told: list[DesiredChanged] = []
        self.bus.subscribe(self._hear)

    def _hear(self, event: Event) -> None:
        if isinstance(event, DesiredChanged):
            self.told.append(event)

    async def create(self) -> None:
        for target in (D, E, M):
            await self.registry.create(Identity(target, "", "", Authentication()))


@pytest.fixture
def room() -> Room:
    made = Room()
    asyncio.run(made.create())
    return made


def desired(**values: Any) -> TwinUpdate:
    return TwinUpdate(desired=values)


def code_of(error: HubError | None) -> ErrorCode | None:
    return None if error is None else error.code


def test_many_writers_at_once_all_land(room: Room) -> None:
    """[HUB-twin-versions] On one node, and on another that shares the store; the device hears of each in order."""

    async def run() -> Twin:
        writers = [room.twins.update(D, desired(**{f"a{each}": each})) for each in range(10)]
        reports = [room.twins.report(D, {f"r{each}": each}) for each in range(10)]
        foreign = [room.others.update(D, TwinUpdate({f"t{each}": each})) for each in range(3)]
        await asyncio.gather(*writers, *reports, *foreign)
        return await room.twins.get(D)

    twin = asyncio.run(run())
    assert len(twin.desired.values) == len(twin.reported.values) == 10
    assert len(twin.tags) == 3
    assert (twin.version, twin.desired.version, twin.reported.version) == (24, 11, 11)
    assert [event.version for event in room.told] == list(range(2, 12))
    assert json.loads(room.told[0].patch) == {"a0": 0, "$version": 2}


def test_a_change_is_judged_by_the_etag_of_its_own_time(room: Room) -> None:
    async def run() -> list[Any]:
        etag = (await room.twins.get(D)).etag
        changes = [room.twins.update(D, desired(a=each), etag) for each in range(3)]
        return await asyncio.gather(*changes, return_exceptions=True)

    outcomes = asyncio.run(run())
    assert [getattr(each, "code", None) for each in outcomes] == [
        None,
        ErrorCode.PreconditionFailed,
        ErrorCode.PreconditionFailed,
    ]


@pytest.mark.parametrize(
    ("target", "code"),
    [(NOBODY, ErrorCode.DeviceNotFound), (Target("d", "nobody"), ErrorCode.ModuleNotFound)],
)
def test_there_is_no_twin_of_nobody(room: Room, target: Target, code: ErrorCode) -> None:
    async def run() -> None:
        for attempt in (room.twins.get(target), room.twins.update(target, desired(a=1)), room.twins.report(target, {})):
            with pytest.raises(HubError) as failed:
                await attempt
            assert failed.value.code is code

    asyncio.run(run())


def test_a_disabled_device_has_a_twin(room: Room) -> None:
    async def run() -> Twin:
        await room.registry.update(replace(await room.registry.get(D), enabled=False), None)
        await room.twins.update(D, desired(a=1))
        return await room.twins.get(D)

    assert asyncio.run(run()).desired.values == {"a": 1}


def test_a_change_that_never_gets_through_ends(room: Room) -> None:
    """Another node changes the twin each time between reading and writing."""

    async def run() -> HubError:
        async def meanwhile() -> None:
            [twin] = await room.store.twins([D])
            await MemoryHubStore.save_twins(room.store, [(replace(twin, version=twin.version + 1), twin.version)])

        room.store.before_save = [meanwhile] * ATTEMPTS
        with pytest.raises(HubError) as failed:
            await room.twins.update(D, desired(a=1))
        return failed.value

    assert asyncio.run(run()).code is ErrorCode.ServiceUnavailable
    assert room.told == []


def test_a_device_that_is_deleted_meanwhile_is_not_found(room: Room) -> None:
    async def run() -> HubError:
        room.store.before_save = [lambda: room.registry.delete(D, None)]
        with pytest.raises(HubError) as failed:
            await room.twins.report(D, {"a": 1})
        return failed.value

    assert asyncio.run(run()).code is ErrorCode.DeviceNotFound


def test_many_at_once_are_one_transaction_each_with_its_own_outcome(room: Room) -> None:
    async def run() -> dict[Target, HubError | None]:
        await room.twins.update(E, TwinUpdate({"full": "x" * 4_000, "more": "x" * 4_000}))
        room.store.saves.clear()
        batch = [D, NOBODY, E, M, D]
        return await room.twins.update_many(batch, TwinUpdate({"t": "y" * 400}, {"a": 1}))

    outcomes = asyncio.run(run())
    assert {target: code_of(error) for target, error in outcomes.items()} == {
        D: None,
        NOBODY: ErrorCode.DeviceNotFound,
        E: ErrorCode.ArgumentInvalid,
        M: None,
    }
    assert room.store.saves == [3], "NOBODY is seen when it is written"
    assert [event.target for event in room.told] == [D, M]


def test_two_batches_of_the_same_targets_do_not_wait_for_each_other_for_ever(room: Room) -> None:
    async def run() -> Twin:
        batches = [[D, E, M], [M, E, D]] * 5
        work = (room.twins.update_many(batch, desired(**{f"b{each}": 1})) for each, batch in enumerate(batches))
        await asyncio.wait_for(asyncio.gather(*work), 5)
        return await room.twins.get(E)

    assert len(asyncio.run(run()).desired.values) == 10


def test_the_model_is_kept_once(room: Room) -> None:
    async def run() -> Twin:
        for _ in range(2):
            await room.twins.set_model_id(D, "dtmi:x;1")
        return await room.twins.get(D)

    twin = asyncio.run(run())
    assert (twin.model_id, twin.version) == ("dtmi:x;1", 2)
