"""One claim of a target at a time, the newest, on whichever node it is."""

from __future__ import annotations

import asyncio
from collections import Counter

from methodhub.bus.claims import FIRST_SID
from methodhub.bus.messages import RollCalled, encode_message
from methodhub.bus.nats import NatsBus
from methodhub.core.identity import Target
from methodhub.wire.nats.protocol import Message
from tests.bus.nodes import Cluster
from tests.bus.peers import LIMIT, Caller, D, Device, until
from tests.bus.proxy import Proxy
from tests.clock import ManualClock
from tests.nats_server import RunningNats


async def test_of_two_claims_at_once_the_newer_stays(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-takeover] On all nodes, in whichever order they are made; no call is handed over twice."""
    cluster = Cluster(nats.server)
    handed = Counter[str]()
    async with cluster.node("a") as a, cluster.node("b") as b, cluster.node("c") as c:
        for number in range(20):
            target = Target(f"d{number}")
            newer, older = Device("newer", handed), Device("older", handed)
            first, second = (a, b) if number % 2 else (b, a)
            pairs: list[tuple[NatsBus, Device, int]] = [(first, newer, 2), (second, older, 1)]
            if number % 4 > 1:
                pairs.reverse()
            async with asyncio.TaskGroup() as group:
                for bus, device, generation in pairs:
                    group.create_task(bus.claim(target, device.answer, device.lose, generation))
            async with asyncio.timeout(LIMIT):
                await older.lost.wait()
            assert (newer.times_lost, older.times_lost) == (0, 1)
            for bus in (a, b, c):
                assert await Caller(bus, f"{number} of {bus.node}", target).end() == "newer"
    assert set(handed.values()) == {1}
    assert len(handed) == 60


async def test_calls_go_on_while_a_device_moves_to_and_fro(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-moved] Each is handed over once, to one of the two; none is told that the device is offline."""
    cluster = Cluster(nats.server)
    handed = Counter[str]()
    async with cluster.node("a") as a, cluster.node("b") as b, cluster.node("c") as c:
        device = Device("0", handed)
        await a.claim(D, device.answer, device.lose)
        ended = asyncio.Event()
        told: list[str] = []

        async def call(caller: int) -> None:
            number = 0
            while not ended.is_set():
                number += 1
                told.append(await Caller(c, f"{caller}.{number}").end())

        async with asyncio.TaskGroup() as group:
            for caller in range(8):
                group.create_task(call(caller))
            for number in range(1, 41):
                older, device = device, Device(str(number), handed)
                await (a, b)[number % 2].claim(D, device.answer, device.lose)
                assert older.times_lost == 1
                assert await Caller(c, f"after {number}").end() == str(number)
            ended.set()
        assert set(told) <= {str(number) for number in range(41)}
        assert set(handed.values()) == {1}
        assert len(handed) == len(told) + 40


async def test_a_claim_made_while_a_question_is_judged(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-roll-call] The server may have missed a claim that moved just then: a call that hears of one asks again."""
    cluster = Cluster(nats.server)
    async with (
        Proxy(nats.server) as proxy,
        cluster.node("a") as a,
        cluster.node("b", server=proxy.server, clock=ManualClock()) as b,  # its roll calls have no end
    ):
        device = Device("d1")
        assert await Caller(b, "before").end() == "not claimed"
        call = Caller(b, "question")
        await proxy.passed_up(b"question")
        proxy.hold(down=False)
        await call.came_back()
        await proxy.kept(b"RollCalled", down=False)
        claim = asyncio.create_task(a.claim(D, device.answer, device.lose))
        await proxy.kept(b"Acknowledged", down=False)
        proxy.release()
        assert await call.end() == "d1"
        await claim


async def test_a_node_announces_its_claims_before_it_is_present(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-roll-call] Those as well that wait a moment for others to be announced with."""
    cluster = Cluster(nats.server)
    async with Proxy(nats.server) as proxy, cluster.node("a", server=proxy.server) as a:
        device = Device("d1")
        claim = asyncio.create_task(a.claim(D, device.answer, device.lose))
        await asyncio.sleep(0)
        roll_call = encode_message(RollCalled("b", 1, wants_calls=False))
        a.received(Message(a._subjects.all, FIRST_SID - 1, b"", 0, roll_call))
        await claim
        await proxy.passed_up(b"Present")
        assert proxy.went_up.index(b"SUB") < proxy.went_up.index(b"Announced") < proxy.went_up.index(b"Present")


async def test_a_device_that_comes_again_to_its_node(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-takeover] Its newer connection takes the older one's place at the server; only the newest gives it up."""
    cluster = Cluster(nats.server)
    async with Proxy(nats.server) as proxy, cluster.node("a", server=proxy.server) as a, cluster.node("b") as b:
        devices = [Device(str(number)) for number in range(3)]
        claims = [await a.claim(D, device.answer, device.lose) for device in devices]
        claims[0].release()
        claims[1].release()
        assert await Caller(b, "call").end() == "2"
        claims[2].release()
        claims[2].release()
        assert await Caller(b, "after").end() == "not claimed"
        subject = a._subjects.call(D)
        assert (proxy.went_up.count(b"SUB " + subject), proxy.went_up.count(b"UNSUB")) == (1, 1)
        assert (a.claims.held, a.claims.by_sid) == ({}, {})


async def test_a_claim_that_was_taken_over_during_a_partition(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-takeover] The node that was cut off hears of it when it is back, and ends the older connection."""
    cluster = Cluster(nats.server)
    async with Proxy(nats.server) as proxy, cluster.node("a", server=proxy.server) as a, cluster.node("b") as b:
        older, newer = Device("older"), Device("newer")
        await a.claim(D, older.answer, older.lose)
        await proxy.cut()
        await until(lambda: not a.line.is_up)
        await b.claim(D, newer.answer, newer.lose)
        assert await Caller(a, "on its own").end() == "older"
        await proxy.heal()
        async with asyncio.timeout(LIMIT):
            await older.lost.wait()
        assert [await Caller(bus, "after").end() for bus in (a, b)] == ["newer", "newer"]
        assert (older.times_lost, newer.times_lost) == (1, 0)


async def test_claims_outlive_the_line(runner: asyncio.Runner, nats: RunningNats) -> None:
    """Those that were made while it was down come to be known as well; who waits for one is woken."""
    cluster = Cluster(nats.server)
    async with cluster.node("a") as a, cluster.node("b") as b:
        device = Device("d1")
        await a.claim(D, device.answer, device.lose)
        nats.end()
        await until(lambda: not a.line.is_up and not b.line.is_up)
        woken = asyncio.Event()
        b.wait_claimed(Target("e"), woken.set)
        await a.claim(Target("e"), device.answer, device.lose)  # gives up after a second
        (await a.claim(Target("f"), device.answer, device.lose)).release()
        assert not woken.is_set()
        await asyncio.get_running_loop().run_in_executor(None, nats.start)
        async with asyncio.timeout(LIMIT):
            await woken.wait()
        ends = [await Caller(b, name, Target(name)).end() for name in ("d", "e", "f")]
        assert ends == ["d1", "d1", "not claimed"]


async def test_claims_do_not_wait_long_for_a_node_that_is_away(runner: asyncio.Runner, nats: RunningNats) -> None:
    """For a second, and not again until it was heard."""
    cluster = Cluster(nats.server)
    cluster.live.add("away")
    loop = asyncio.get_running_loop()
    async with cluster.node("a") as a:
        times = [loop.time()]
        for name in ("d", "e", "f"):
            await a.claim(Target(name), Device("d1").answer, lambda: None)
            times.append(loop.time())
        assert 0.9 < times[1] - times[0] < 2
        assert times[3] - times[1] < 0.5


async def test_ten_thousand_claims(runner: asyncio.Runner, nats: RunningNats) -> None:
    """A thousand at once: they share announcements."""
    cluster = Cluster(nats.server)
    async with cluster.node("a") as a, cluster.node("b") as b:
        device = Device("d1")
        targets = [Target(f"d{number}") for number in range(10_000)]
        async with asyncio.timeout(LIMIT):
            for start in range(0, len(targets), 1_000):
                some = targets[start : start + 1_000]
                await asyncio.gather(*(a.claim(target, device.answer, device.lose) for target in some))
        assert a.claims._next_batch <= 22
        assert not a.claims._open
        for target in targets[::1000]:
            assert await Caller(b, str(target), target).end() == "d1"


async def test_a_claim_that_is_given_up_before_it_is_known_is_released(
    runner: asyncio.Runner, nats: RunningNats
) -> None:
    """Its connection ended meanwhile."""
    cluster = Cluster(nats.server)
    async with cluster.node("a") as a, cluster.node("b") as b:
        device = Device("d1")
        claiming = asyncio.create_task(a.claim(D, device.answer, device.lose, 1))
        await asyncio.sleep(0)
        assert D in a.claims.held
        claiming.cancel()
        await asyncio.wait([claiming])
        assert not a.claims.held
        assert await Caller(b, "1").end() != "d1"
