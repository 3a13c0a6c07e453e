"""What Methods decides alone: look-ups that fail, and what is counted. The whole of a call is in `tests/rooms`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from methodhub.core.calls import MethodRequest, Outcome
from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.methods import LOOK_UP_PATIENCE, CallLimits
from methodhub.core.ports import NOT_CLAIMED, CloseReason, NotClaimed, TargetRevoked
from tests.rooms.world import ALL, Caller, World

D = Target("d")


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def test_a_store_that_is_away_is_503001_for_nothing_was_delivered(world: World) -> None:
    class Away:
        async def get(self, target: Target) -> Identity | None:
            raise OSError("no disk")

    world.registry._store = Away()  # type: ignore[assignment]
    assert world.call(D).code == 503001
    assert world.is_idle()


@pytest.mark.parametrize("connect", [0, 30])
def test_a_store_that_hangs_is_not_waited_for_any_longer_than_the_bus(world: World, connect: int) -> None:
    """[HUB-registry-away]"""

    goes_on = asyncio.Event()

    class Hanging:
        async def get(self, target: Target) -> Identity | None:
            await goes_on.wait()
            return Identity(target, "", "", Authentication())

    async def call() -> Caller:
        return Caller(world, D, MethodRequest("m", b"1", 30, connect))

    world.methods.limits = CallLimits(1)
    world.registry._store = Hanging()  # type: ignore[assignment]
    caller = world.run(call())
    world.advance(LOOK_UP_PATIENCE - 0.1)
    assert not world.is_idle()
    world.advance(0.2)
    assert caller.code == 503001
    assert world.is_idle()
    another = world.run(call())
    world.advance(LOOK_UP_PATIENCE + 0.1)
    assert another.code == 503001
    assert world.run(call()).code == 429001  # two look-ups are left behind: no more than that
    goes_on.set()
    world.settle()
    assert world.is_idle()


def test_a_connected_target_is_called_without_the_store(world: World) -> None:
    world.create(D)
    device = world.connect(D, ALL)
    world.registry._store = None  # type: ignore[assignment]
    caller = world.call(D)
    device.answer()
    assert caller.code == 0


def test_a_claim_while_the_bus_still_looks_is_not_missed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bus may have looked before it was made, and tell so after it."""

    class Looking:
        def cancel(self) -> None: ...

    settles: list[Callable[[Outcome | NotClaimed], None]] = []

    def look(_: Target, __: MethodRequest, settle: Callable[[Outcome | NotClaimed], None]) -> Looking:
        settles.append(settle)
        return Looking()

    world.create(D)
    with monkeypatch.context() as patch:
        patch.setattr(world.bus, "call", look)
        caller = world.call(D, connect=20)
        device = world.connect(D, ALL)
    (settle,) = settles
    assert not device.delivered
    settle(NOT_CLAIMED)
    device.answer()
    assert caller.code == 0


def test_every_end_is_counted_with_its_duration(world: World) -> None:
    world.create(D)
    device = world.connect(D, ALL)
    world.call(D)
    world.clock.advance(0.02)
    device.answer()
    world.call(D, "reboot").invocation.cancel()
    device.drop()
    world.call(D)
    assert world.metrics.calls == {"ok": 1, "cancelled": 1, "DeviceNotOnline": 1}
    assert world.metrics.latency_sum == pytest.approx(0.02)


def test_a_call_that_ended_is_not_ended_again(world: World) -> None:
    world.create(D)
    device = world.connect(D, ALL)
    caller = world.call(D)
    device.answer()
    caller.invocation.cancel()
    caller.invocation.expired()
    assert caller.code == 0
    assert world.metrics.calls == {"ok": 1}


@pytest.mark.parametrize("reason", [CloseReason.DELETED, CloseReason.DISABLED])
def test_a_call_that_was_handed_over_ends_with_its_connection_alone(world: World, reason: CloseReason) -> None:
    """Wherever that is: to say 404001 of it would tell the caller that no device had it."""
    world.create(D)
    device = world.connect(D, ALL)
    caller = world.call(D)
    world.methods._on_event(TargetRevoked(D, reason))
    assert caller.code == -1
    device.drop()
    assert caller.code == 404104
