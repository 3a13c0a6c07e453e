"""What every Bus does, whatever it is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from methodhub.bus.local import LocalBus
from methodhub.core.calls import MethodRequest, MethodResult, Outcome, Settle
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.ports import (
    NOT_CLAIMED,
    AuthoritiesChanged,
    Bus,
    CertificateExpected,
    CloseReason,
    DesiredChanged,
    Event,
    Handed,
    NotClaimed,
    PolicyChanged,
    TargetRevoked,
)
from tests.bus.nodes import Cluster
from tests.nats_server import RunningNats


@asynccontextmanager
async def local(_nats: RunningNats) -> AsyncIterator[Bus]:
    yield LocalBus()


@asynccontextmanager
async def one_node(nats: RunningNats) -> AsyncIterator[Bus]:
    async with Cluster(nats.server).node("a") as bus:
        yield bus


@asynccontextmanager
async def two_nodes(nats: RunningNats) -> AsyncIterator[Bus]:
    """Claims, and events, are made on one node; calls on another."""
    cluster = Cluster(nats.server)
    async with cluster.node("a") as a, cluster.node("b") as b:
        yield Far(a, b)


class Far:
    def __init__(self, near: Bus, far: Bus) -> None:
        self.claim, self.publish = near.claim, near.publish
        self.call, self.wait_claimed, self.subscribe = far.call, far.wait_claimed, far.subscribe


ADAPTERS: dict[str, Callable[[RunningNats], AbstractAsyncContextManager[Bus]]] = {
    "local": local,
    "NATS, one node": one_node,
    "NATS, two nodes": two_nodes,
}

ODD = [
    *(Target(name) for name in ("d", "D", "*", ">", "a.b", "a", "$'", "%2A", "#", "x" * 128)),
    *(Target("d", name) for name in ("m", "M", "*", ">")),
    Target("d.m"),
    Target("x" * 128, "y" * 128),
]


def never() -> None:
    raise AssertionError("no other node has claimed it")


PATIENCE = 5.0
"""Seconds until a test gives up waiting for what the bus owes."""

D = Target("d")
REQUEST = MethodRequest("reboot", b' {"a": "\xc3\xa4"} ', 30, 0)
OK = MethodResult(-1, b"[ 1]")


class Call:
    """A call over the bus; `end` is told with its outcome."""

    def __init__(self, bus: Bus, target: Target = D, request: MethodRequest = REQUEST) -> None:
        self.outcomes: list[Outcome | NotClaimed] = []
        self.end = asyncio.Event()
        self.handed = bus.call(target, request, self._settled)

    def _settled(self, outcome: Outcome | NotClaimed) -> None:
        self.outcomes.append(outcome)
        self.end.set()

    async def outcome(self) -> Outcome | NotClaimed:
        async with asyncio.timeout(PATIENCE):
            await self.end.wait()
        (outcome,) = self.outcomes
        return outcome


class Claimant:
    """Takes calls and answers them when it is told to, or declines."""

    def __init__(self, *, declines: bool = False) -> None:
        self.declines = declines
        self.taken: list[tuple[MethodRequest, Settle]] = []
        self.came = asyncio.Event()
        self.cancelled = asyncio.Event()

    def answer(self, request: MethodRequest, settle: Settle) -> Handed | NotClaimed | None:
        if self.declines:
            return NOT_CLAIMED
        self.taken.append((request, settle))
        self.came.set()
        return self

    def cancel(self) -> None:
        self.cancelled.set()

    async def settle(self, outcome: Outcome = OK) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.came.wait()
        self.came.clear()
        self.taken.pop(0)[1](outcome)


@pytest.fixture(scope="module")
def nats() -> Iterator[RunningNats]:
    with RunningNats() as running:
        yield running


@pytest.fixture(params=ADAPTERS)
def bus(request: pytest.FixtureRequest, runner: asyncio.Runner, nats: RunningNats) -> Iterator[Bus]:
    adapter = ADAPTERS[request.param](nats)
    yield runner.run(adapter.__aenter__())
    runner.run(adapter.__aexit__(None, None, None))


async def test_a_target_that_nobody_claims_is_not_claimed(bus: Bus, runner: asyncio.Runner) -> None:
    call = Call(bus)
    assert await call.outcome() is NOT_CLAIMED


async def test_a_call_reaches_the_claimant_and_its_outcome_the_caller(bus: Bus, runner: asyncio.Runner) -> None:
    claimant = Claimant()
    await bus.claim(D, claimant.answer, never)
    call = Call(bus)
    await claimant.came.wait()
    assert claimant.taken[0][0] == REQUEST
    assert not call.outcomes
    await claimant.settle()
    assert await call.outcome() == OK


async def test_an_error_is_an_outcome(bus: Bus, runner: asyncio.Runner) -> None:
    claimant = Claimant()
    await bus.claim(D, claimant.answer, never)
    call = Call(bus)
    await claimant.settle(HubError(ErrorCode.GatewayTimeout, "too late", info={"timeout": "00:00:05"}))
    outcome = await call.outcome()
    assert isinstance(outcome, HubError)
    assert (outcome.code, outcome.message, outcome.info) == (504101, "too late", {"timeout": "00:00:05"})


async def test_an_error_at_once_is_one_outcome(bus: Bus, runner: asyncio.Runner) -> None:
    def full(_: MethodRequest, settle: Settle) -> None:
        settle(HubError(ErrorCode.DeviceMaximumInflightMethodExceeded, "full"))

    await bus.claim(D, full, never)
    outcome = await Call(bus).outcome()
    assert isinstance(outcome, HubError)
    assert outcome.code == 403800


async def test_a_claimant_may_decline(bus: Bus, runner: asyncio.Runner) -> None:
    claimant = Claimant(declines=True)
    await bus.claim(D, claimant.answer, never)
    assert await Call(bus).outcome() is NOT_CLAIMED
    claimant.declines = False
    call = Call(bus)
    await claimant.settle()
    assert await call.outcome() == OK


async def test_a_released_target_is_not_claimed(bus: Bus, runner: asyncio.Runner) -> None:
    claim = await bus.claim(D, Claimant().answer, never)
    claim.release()
    claim.release()
    assert await Call(bus).outcome() is NOT_CLAIMED


async def test_calls_at_once_find_their_own_outcomes(bus: Bus, runner: asyncio.Runner) -> None:
    claimant = Claimant()
    await bus.claim(D, claimant.answer, never)
    calls = [Call(bus, request=MethodRequest(f"m{number}", None, 5, 0)) for number in range(20)]
    for _ in range(20):
        while not claimant.taken:
            claimant.came.clear()
            await claimant.came.wait()
        request, settle = claimant.taken.pop()
        settle(MethodResult(int(request.method_name[1:]), b""))
    assert [await call.outcome() for call in calls] == [MethodResult(number, b"") for number in range(20)]


async def test_the_newer_claim_takes_over_and_stays(bus: Bus, runner: asyncio.Runner) -> None:
    """[HUB-takeover] The older one's release, however late, erases nothing of the newer."""
    older, newer = Claimant(), Claimant()
    older_claim = await bus.claim(D, older.answer, never)
    newer_claim = await bus.claim(D, newer.answer, never)
    for _ in range(2):
        call = Call(bus)
        await newer.settle()
        assert await call.outcome() == OK
        older_claim.release()
    assert not older.taken
    newer_claim.release()
    assert await Call(bus).outcome() is NOT_CLAIMED


async def test_a_call_goes_on_after_its_claim_was_released(bus: Bus, runner: asyncio.Runner) -> None:
    claimant = Claimant()
    claim = await bus.claim(D, claimant.answer, never)
    call = Call(bus)
    await claimant.came.wait()
    claim.release()
    await claimant.settle()
    assert await call.outcome() == OK


async def test_a_call_can_be_forgotten(bus: Bus, runner: asyncio.Runner) -> None:
    claimant = Claimant()
    await bus.claim(D, claimant.answer, never)
    call = Call(bus)
    assert call.handed is not None
    await claimant.came.wait()
    call.handed.cancel()
    await claimant.cancelled.wait()
    assert not call.outcomes


async def test_every_target_is_its_own(bus: Bus, runner: asyncio.Runner) -> None:
    """Also those that look like a pattern of something."""
    claimants = {target: Claimant() for target in ODD}
    claims = []
    for number, target in enumerate(ODD):
        assert await Call(bus, target).outcome() is NOT_CLAIMED
        claims.append(await bus.claim(target, claimants[target].answer, never))
        for other in ODD[number + 1 :]:
            assert await Call(bus, other).outcome() is NOT_CLAIMED
    for number, target in enumerate(ODD):
        call = Call(bus, target)
        await claimants[target].settle(MethodResult(number, b""))
        assert await call.outcome() == MethodResult(number, b"")
    for claim in claims[1:]:
        claim.release()
    call = Call(bus, ODD[0])
    await claimants[ODD[0]].settle()
    assert await call.outcome() == OK


async def test_who_waits_is_woken_by_a_claim_and_by_its_renewal(bus: Bus, runner: asyncio.Runner) -> None:
    woken, others = asyncio.Queue[int](), list[int]()

    async def next_woken() -> int:
        async with asyncio.timeout(PATIENCE):
            return await woken.get()

    forget = [bus.wait_claimed(D, lambda number=number: woken.put_nowait(number)) for number in range(2)]  # type: ignore[misc]
    forget += [bus.wait_claimed(target, lambda: others.append(1)) for target in ODD if target != D]
    claim = await bus.claim(D, Claimant().answer, never)
    assert {await next_woken(), await next_woken()} == {0, 1}
    claim.renew()
    assert {await next_woken(), await next_woken()} == {0, 1}
    forget[0]()
    forget[0]()
    claim.renew()
    assert await next_woken() == 1
    claim.release()
    await bus.claim(D, Claimant().answer, never)
    assert await next_woken() == 1
    assert woken.empty()
    assert not others
    for each in forget:
        each()


async def test_a_claim_is_in_place_when_it_wakes(bus: Bus, runner: asyncio.Runner) -> None:
    claimant = Claimant()
    calls: list[Call] = []
    woken = asyncio.Event()

    def wake() -> None:
        calls.append(Call(bus))
        woken.set()

    forget = bus.wait_claimed(D, wake)
    await bus.claim(D, claimant.answer, never)
    await woken.wait()
    await claimant.settle()
    assert await calls[0].outcome() == OK
    forget()


async def test_one_that_is_woken_may_forget_the_others(bus: Bus, runner: asyncio.Runner) -> None:
    forgets: list[Callable[[], None]] = []
    woken, times = asyncio.Event(), list[int]()

    def wake() -> None:
        woken.set()
        times.append(1)
        for forget in forgets:
            forget()

    forgets += [bus.wait_claimed(D, wake) for _ in range(3)]
    await bus.claim(D, Claimant().answer, never)
    await woken.wait()
    await bus.claim(D, Claimant().answer, never)
    assert times == [1]


async def test_who_no_longer_waits_leaves_nothing(runner: asyncio.Runner) -> None:
    """Looks into the bus of one process."""
    bus = LocalBus()
    forgets = [bus.wait_claimed(target, lambda: None) for target in (D, D, Target("e"))]
    for forget in forgets:
        forget()
    again = bus.wait_claimed(D, lambda: None)
    for forget in forgets:
        forget()
    assert bus.waiters.targets() == {D}
    again()
    claim = await bus.claim(D, Claimant().answer, never)
    claim.release()
    assert not bus.waiters.targets()
    assert not bus._claims


async def test_events_reach_every_subscriber_in_their_order(bus: Bus, runner: asyncio.Runner) -> None:
    queues = [asyncio.Queue[Event](), asyncio.Queue[Event]()]
    for queue in queues:
        bus.subscribe(queue.put_nowait)
    events: list[Event] = [TargetRevoked(target, CloseReason.DELETED) for target in ODD]
    events += [PolicyChanged("a.*"), AuthoritiesChanged(), CertificateExpected(), DesiredChanged(D, 7, b'{"a":"\xc3"}')]
    for event in events:
        bus.publish(event)
    for queue in queues:
        async with asyncio.timeout(PATIENCE):
            assert [await queue.get() for _ in events] == events


@pytest.mark.parametrize("size", [0, 1, 128 * 1024])
async def test_payloads_of_any_size_come_through_both_ways(bus: Bus, runner: asyncio.Runner, size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    claimant = Claimant()
    await bus.claim(D, claimant.answer, never)
    call = Call(bus, request=MethodRequest("m", payload, 300, 300))
    await claimant.settle(MethodResult(2**31 - 1, payload))
    assert await call.outcome() == MethodResult(2**31 - 1, payload)
    call = Call(bus, request=MethodRequest("m", None, 5, 0))
    async with asyncio.timeout(PATIENCE):
        await claimant.came.wait()
    assert claimant.taken[0][0].payload is None
    await claimant.settle()
    await call.outcome()
