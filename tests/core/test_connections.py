"""One live connection per target: takeover, claims that outlive nobody, limits, and ids that nobody can guess."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from methodhub.core.access import KeyCredential
from methodhub.core.calls import RID_START_LIMIT, MethodRequest, Outcome
from methodhub.core.connections import Attachment, DeviceLimits
from methodhub.core.identity import Target
from methodhub.core.ports import NOT_CLAIMED, Answer, Claim, CloseReason, DesiredChanged
from tests.rooms.world import ALL, KEY, World

D = Target("d")
REQUEST = MethodRequest("reboot", b"{}", 30, 0)


@pytest.fixture
def world() -> Iterator[World]:
    with World(DeviceLimits(open_calls=2, unsent_bytes=100)) as world:
        world.create(D)
        yield world


def test_ids_start_at_random_below_the_limit(world: World) -> None:
    """[HUB-rid] An answer to an earlier connection meets no call of a later one."""
    starts = set()
    for _ in range(64):
        device = world.connect(D, ALL)
        world.call(D)
        world.call(D)
        first, second = (rid for rid, _ in device.delivered)
        assert second == first + 1
        starts.add(first)
    assert len(starts) == 64
    assert max(starts) < RID_START_LIMIT == 2**31
    assert max(starts) > 2**27  # 64 times below it has a chance of 2 to the minus 256


def test_the_newer_connection_stays_whatever_the_older_does(world: World) -> None:
    """[HUB-takeover]"""
    older = world.connect(D, ALL)
    newer = world.connect(D, ALL)
    assert (older.closed, newer.closed) == ([CloseReason.TAKEN_OVER], [])
    older.drop()
    older.drop()
    world.run(older.attachment.claim())  # its SUBSCRIBE was still under way
    assert world.table.get(D) is newer.attachment
    caller = world.call(D)
    assert (len(older.delivered), len(newer.delivered)) == (0, 1)
    newer.answer()
    assert caller.code == 0
    assert len(world.table) == 1


def test_changes_are_told_in_an_order_that_leaves_the_target_connected(world: World) -> None:
    told: list[tuple[Attachment, bool]] = []
    world.table.on_change = lambda attachment, connected: told.append((attachment, connected))
    older = world.connect(D, ALL)
    newer = world.connect(D, ALL)
    assert told == [(older.attachment, True), (newer.attachment, True)]
    newer.drop()
    newer.drop()
    assert told[2:] == [(newer.attachment, False)]
    assert world.table.get(D) is None


def test_a_claim_that_comes_after_the_end_is_released() -> None:
    """The bus may take its time; the connection may end meanwhile."""

    class SlowBus:
        def __init__(self) -> None:
            self.claimed = asyncio.Event()
            self.released = 0

        async def claim(
            self, target: Target, answer: Answer, lost: Callable[[], None], generation: int | None = None
        ) -> Claim:
            await self.claimed.wait()
            return self

        def release(self) -> None:
            self.released += 1

        def renew(self) -> None: ...

    with World() as world:
        world.create(D)
        device = world.connect(D)
        bus = SlowBus()
        world.table.bus = bus  # type: ignore[assignment]

        async def end_meanwhile() -> None:
            claiming = asyncio.create_task(device.attachment.claim())
            await asyncio.sleep(0)
            device.attachment.end()
            assert bus.released == 0
            bus.claimed.set()
            await claiming

        world.run(end_meanwhile())
        assert bus.released == 1
        assert device.attachment._claim is None


def test_a_claim_that_is_lost_to_another_node_ends_the_connection(world: World) -> None:
    """[HUB-takeover] As a newer connection here would; the claim carries the connection's generation."""
    told: list[tuple[Callable[[], None], int | None]] = []
    claim = world.table.bus.claim

    async def spied(target: Target, answer: Answer, lost: Callable[[], None], generation: int | None = None) -> Claim:
        told.append((lost, generation))
        return await claim(target, answer, lost, generation)

    world.table.bus.claim = spied  # type: ignore[method-assign]
    device = world.connect(D, ALL)
    caller = world.call(D)
    ((lost, generation),) = told
    assert generation is None
    lost()
    assert device.closed == [CloseReason.TAKEN_OVER]
    assert caller.code == 400027
    assert world.table.get(D) is None
    assert world.call(D).code == 404103


def test_an_ended_or_unsubscribed_connection_declines(world: World) -> None:
    device = world.connect(D, "reboot")
    outcomes: list[Outcome] = []
    assert device.attachment.answer(MethodRequest("other", None, 30, 0), outcomes.append) is NOT_CLAIMED
    device.drop()
    assert device.attachment.answer(REQUEST, outcomes.append) is NOT_CLAIMED
    assert not outcomes
    assert not device.delivered


@pytest.mark.parametrize(
    ("unsent", "payload", "code"), [(0, 200, -1), (50, 50, -1), (50, 51, 403800), (101, 0, 403800)]
)
def test_so_many_bytes_may_be_unread(world: World, unsent: int, payload: int, code: int) -> None:
    device = world.connect(D, ALL)
    device.unsent = unsent
    assert world.call(D, payload=b"1" * payload).code == code
    assert len(device.delivered) == (code == -1)


def test_so_many_calls_may_be_open(world: World) -> None:
    device = world.connect(D, ALL)
    callers = [world.call(D) for _ in range(3)]
    assert [caller.code for caller in callers] == [-1, -1, 403800]
    device.answer()
    assert world.call(D).code == -1
    assert world.call(D).code == 403800


def test_close_ends_and_tells_the_connection(world: World) -> None:
    world.create(Target("e"))
    devices = [world.connect(target, ALL) for target in (D, Target("e"))]
    caller = world.call(D)
    world.table.close(Target("nobody"), CloseReason.DELETED)
    world.table.close_all(CloseReason.STOPPING)
    assert [device.closed for device in devices] == [[CloseReason.STOPPING]] * 2
    assert caller.code == 404104
    assert len(world.table) == 0


def test_a_late_answer_is_counted(world: World) -> None:
    """[HUB-late-answer]"""
    device = world.connect(D, ALL)
    caller = world.call(D)
    device.answer()
    device.answer()
    device.answer(device.rid + 1)
    device.answer(-1)
    assert caller.code == 0
    assert world.metrics.late_answers == 3


def test_it_knows_since_when_and_who(world: World) -> None:
    device = world.connect(D)
    attachment = device.attachment
    assert (attachment.since, attachment.heard) == (world.clock.wall(), world.clock.monotonic())
    assert attachment.credential == KeyCredential(None, KEY)
    assert attachment.connection is device
    assert list(world.table) == [attachment]


def test_devices_are_told_desired_properties_in_the_order_of_versions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[HUB-twin-order] What comes late, from another node, is dropped; a new connection begins anew."""
    told: list[int] = []
    for _ in range(2):
        device = world.connect(D)
        monkeypatch.setattr(device, "push_desired", lambda version, patch: told.append(version))
        for version in (3, 2, 3, 5):
            world.table.push_desired(DesiredChanged(D, version, b"{}"))
    world.table.push_desired(DesiredChanged(Target("nobody"), 1, b"{}"))
    assert told == [3, 5, 3, 5]
