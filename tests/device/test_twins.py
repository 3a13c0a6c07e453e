"""Twin requests of a connection: in their order, bounded, never older than what was pushed, and over with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from methodhub.core.connections import Attachment
from methodhub.core.identity import Target
from methodhub.core.ports import DesiredChanged
from methodhub.core.twins.model import Section, Twin
from methodhub.device.twins import MAX_WAITING, TwinAnswer, TwinRequests, keep_model_id
from tests.contract.lines import line_services
from tests.rooms.world import World

D = Target("d")
NO_VALUES = b'{"desired":{"$version":1},"reported":{"$version":1}}'


class Room:
    """Requests of the device d, and what they were answered."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.services = line_services(world)
        self.attachment: Attachment = world.connect(D).attachment
        self.answers: list[tuple[int, TwinAnswer]] = []
        self.requests: TwinRequests[int] = TwinRequests(
            self.services, self.attachment, lambda tag, answer: self.answers.append((tag, answer))
        )
        self.before_read: Callable[[], Any] = lambda: None
        read = world.hub_store.twins

        async def twins(targets: Sequence[Target]) -> list[Twin]:
            found = await read(targets)
            self.before_read()
            await asyncio.sleep(0)
            return found

        monkeypatch.setattr(world.hub_store, "twins", twins)

    def serve(self, *steps: Callable[[], None]) -> None:
        """Take the requests, then answer them all."""

        async def run() -> None:
            for step in steps:
                step()
            if self.requests._task is not None:
                await self.requests._task

        self.world.run(run())


@pytest.fixture
def room(world: World, monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(world, monkeypatch)


def test_requests_are_answered_in_their_order(room: Room) -> None:
    room.serve(
        lambda: room.requests.get(1),
        lambda: room.requests.patch(2, b'{"a":1}'),
        lambda: room.requests.patch(3, b'{"a b":1}'),
        lambda: room.requests.get(4),
    )
    assert [(tag, answer.status, answer.version) for tag, answer in room.answers] == [
        (1, 200, None),
        (2, 204, 2),
        (3, 400, None),
        (4, 200, None),
    ]
    assert room.answers[0][1].body == NO_VALUES
    assert b'"reported":{"a":1,"$version":2}' in room.answers[3][1].body
    assert room.world.metrics.twin_requests == 4
    assert room.requests._task is None


def test_one_too_many_is_answered_429_at_once(room: Room) -> None:
    """[HUB-twin-waiting]"""
    room.serve(*[lambda tag=tag: room.requests.get(tag) for tag in range(MAX_WAITING + 2)])
    assert [(tag, answer.status) for tag, answer in room.answers[:2]] == [(MAX_WAITING, 429), (MAX_WAITING + 1, 429)]
    assert [(tag, answer.status) for tag, answer in room.answers[2:]] == [(tag, 200) for tag in range(MAX_WAITING)]


def test_a_large_request_alone_is_taken(room: Room) -> None:
    """[HUB-twin-waiting] The bound is on what waits behind another."""
    large = b'{"a":1' + b" " * 300_000 + b"}"
    room.serve(lambda: room.requests.patch(1, large), lambda: room.requests.patch(2, large))
    assert [(tag, answer.status) for tag, answer in room.answers] == [(2, 429), (1, 204)]


def test_what_is_read_is_never_older_than_what_was_pushed(room: Room) -> None:
    """[HUB-twin-order] A change overtakes the first read, and is pushed: the twin is read once more."""
    reads: list[int] = []

    def overtake() -> None:
        reads.append(1)
        if len(reads) == 1:
            values = Section({"a": 1}, {}, 2)
            room.world.hub_store._tables.twins[D] = Twin(D, 2, desired=values)
            room.world.table.push_desired(DesiredChanged(D, 2, b"{}"))

    room.before_read = overtake
    room.serve(lambda: room.requests.get(1))
    assert len(reads) == 2
    assert b'"desired":{"a":1,"$version":2}' in room.answers[0][1].body


def test_after_the_end_nothing_is_answered(room: Room) -> None:
    room.serve(lambda: room.requests.patch(1, b'{"a":1}'), lambda: room.requests.get(2), room.attachment.end)
    assert room.answers == []


def test_a_model_that_cannot_be_kept_does_not_keep_the_device_out(room: Room) -> None:
    room.world.run(keep_model_id(room.services, D, None))
    room.world.run(keep_model_id(room.services, D, "dtmi:x;1"))
    assert room.world.run(room.services.twins.read(D)).model_id == "dtmi:x;1"
    room.world.run(keep_model_id(room.services, Target("nobody"), "dtmi:x;1"))
