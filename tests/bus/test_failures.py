"""What callers and devices see when NATS, a node or the way between them fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from methodhub.core.identity import Target
from methodhub.core.ports import Event, PolicyChanged
from tests.bus.nodes import Cluster
from tests.bus.peers import LIMIT, Caller, D, Device, asked_in_vain, until
from tests.bus.proxy import Proxy
from tests.clock import ManualClock
from tests.cluster.nodes import free_ports
from tests.cluster.proxy import Proxy as Route
from tests.nats_server import RunningNats, pair

NONE, M = Target("none"), Target("d", "m")


async def test_calls_while_nats_is_killed_and_started_again(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-bus-lost] What was asked ends with 404104; what was not waits for the bus and is handed over once."""
    cluster = Cluster(nats.server)
    async with cluster.node("a") as a, cluster.node("b") as b:
        device = Device("d1", holds=True)
        await a.claim(D, device.answer, device.lose)
        asked = [Caller(b, f"asked{number}") for number in range(50)]
        await device.has(*(call.method for call in asked))
        nats.end()
        assert {await call.end() for call in asked} == {"404104"}
        device.holds = False
        waiting = [Caller(b, f"waiting{number}") for number in range(50)]
        local = Caller(a, "local")
        assert await local.end() == "d1"
        assert not any(call.outcomes for call in waiting)
        await asyncio.get_running_loop().run_in_executor(None, nats.start)
        assert {await call.end() for call in waiting} == {"d1"}
        for method in list(device.held):  # its answers to calls that are long over
            device.settle(method)
        assert await Caller(b, "after").end() == "d1"
        assert set(device.handed.values()) == {1}
        assert len(device.handed) == 102
        assert not device.times_lost
        assert all(len(call.outcomes) == 1 for call in asked)


async def test_a_call_gives_the_bus_five_seconds(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-bus-down] It reached no device, and will not."""
    clock = ManualClock()
    cluster = Cluster(nats.server)
    async with cluster.node("a") as a, cluster.node("b", clock=clock) as b:
        device = Device("d1", holds=True)
        await a.claim(D, device.answer, device.lose)
        first = Caller(b, "first")
        await device.has("first")
        nats.end()
        assert await first.end() == "404104"
        second, cancelled = Caller(b, "second"), Caller(b, "cancelled")
        assert cancelled.handed is not None
        cancelled.handed.cancel()
        clock.advance(4.9)
        await asyncio.sleep(0)
        assert not second.outcomes
        clock.advance(0.2)
        assert await second.end() == "503001"
        await asyncio.get_running_loop().run_in_executor(None, nats.start)
        device.holds = False
        assert await Caller(b, "third").end() == "d1"
        assert device.handed == Counter(first=1, third=1)
        assert not cancelled.outcomes


async def test_what_was_written_to_a_line_that_broke_is_not_sent_later(
    runner: asyncio.Runner, nats: RunningNats
) -> None:
    """[HUB-bus-down] Not from our own buffers, not from the kernel's."""
    cluster = Cluster(nats.server)
    async with Proxy(nats.server) as proxy, cluster.node("a") as a, cluster.node("b", server=proxy.server) as b:
        device = Device("d1")
        await a.claim(D, device.answer, device.lose)
        assert await Caller(b, "before").end() == "d1"
        proxy.hold()
        written = Caller(b, "written")
        b.publish(PolicyChanged("p"))
        assert await written.end() == "404104"  # two seconds of silence end the line
        while_down = Caller(b, "while-down")
        assert while_down.handed is not None
        while_down.handed.cancel()
        await proxy.cut()
        await proxy.heal()
        assert await Caller(b, "after").end() == "d1"
        assert device.handed == Counter(before=1, after=1)
        for text in (b"written", b"while-down", b"PolicyChanged"):
            assert text not in proxy.went_up


async def test_nothing_new_is_entrusted_to_a_line_that_is_silent(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-bus-down] Before it is given up, too: what is not written can be asked again."""
    cluster = Cluster(nats.server)
    async with Proxy(nats.server) as proxy, cluster.node("a") as a, cluster.node("b", server=proxy.server) as b:
        device = Device("d1")
        await a.claim(D, device.answer, device.lose)
        proxy.hold()
        written = Caller(b, "written", response_timeout=300)
        await until(lambda: not b.line.is_ready)
        assert not written.outcomes
        kept = Caller(b, "kept")
        proxy.release()
        assert [await kept.end(), await written.end()] == ["d1", "d1"]
        assert device.handed == Counter(written=1, kept=1)


async def test_a_device_of_a_node_that_is_cut_off_is_not_called_offline(
    runner: asyncio.Runner, nats: RunningNats
) -> None:
    """[HUB-roll-call] Nobody is subscribed, but a live node is missing: ask again until it is back."""
    cluster = Cluster(nats.server)
    async with Proxy(nats.server) as proxy, cluster.node("a", server=proxy.server) as a, cluster.node("b") as b:
        device = Device("d1")
        await a.claim(D, device.answer, device.lose)
        assert await Caller(b, "before").end() == "d1"
        assert await Caller(b, "none", NONE).end() == "not claimed"
        await proxy.cut()
        call, nobody = await asked_in_vain(b, "meanwhile"), Caller(b, "nobody", NONE)
        assert not call.outcomes
        assert not nobody.outcomes
        await proxy.heal()
        assert await call.end() == "d1"
        assert await nobody.end() == "not claimed"
        assert device.handed == Counter(before=1, meanwhile=1)


async def test_when_nobody_can_tell_the_caller_is_told_so(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-roll-call] 503101 while a node is missing; when the store says that it is gone, its devices are offline."""
    clock = ManualClock()
    cluster = Cluster(nats.server)
    async with (
        Proxy(nats.server) as proxy,
        cluster.node("a", server=proxy.server) as a,
        cluster.node("b", clock=clock) as b,
    ):
        device = Device("d1")
        await a.claim(D, device.answer, device.lose)
        await proxy.cut()
        call = await asked_in_vain(b, "unsure")
        clock.advance(5.1)
        assert await call.end() == "503101"
        last = Caller(b, "gone")
        cluster.live.discard("a")
        assert await last.end() == "not claimed"
        assert not device.handed


async def test_calls_of_a_node_that_is_gone_are_lost(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-lost-node] At once, whatever their response timeout; those that others hold go on."""
    cluster = Cluster(nats.server)
    async with (
        Proxy(nats.server) as proxy,
        cluster.node("a", server=proxy.server) as a,
        cluster.node("b") as b,
        cluster.node("c") as c,
    ):
        gone, stays = Device("d1", holds=True), Device("d2", holds=True)
        await a.claim(D, gone.answer, gone.lose)
        await c.claim(M, stays.answer, stays.lose)
        lost = Caller(b, "lost", response_timeout=300)
        kept = Caller(b, "kept", M, response_timeout=300)
        await gone.has("lost")
        await stays.has("kept")
        await proxy.cut()
        cluster.live.discard("a")
        assert await lost.end() == "404104"
        stays.settle("kept")
        assert await kept.end() == "d2"
        cluster.live.add("a")


async def test_calls_of_a_node_that_says_goodbye_are_lost(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-lost-node]"""
    cluster = Cluster(nats.server)
    async with cluster.node("b") as b:
        device = Device("d1", holds=True)
        async with cluster.node("a") as a:
            await a.claim(D, device.answer, device.lose)
            call = Caller(b, "lost", response_timeout=300)
            await device.has("lost")
        assert await call.end() == "404104"
        assert await Caller(b, "after").end() == "not claimed"


async def test_an_answer_that_was_lost_with_the_claimants_line(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-lost-node] The node is back and says what it still holds: what it does not is lost."""
    cluster = Cluster(nats.server)
    async with Proxy(nats.server) as proxy, cluster.node("a", server=proxy.server) as a, cluster.node("b") as b:
        device = Device("d1", holds=True)
        await a.claim(D, device.answer, device.lose)
        answered, open_ = (Caller(b, method, response_timeout=300) for method in ("answered", "open"))
        await device.has("answered", "open")
        await proxy.cut()
        device.settle("answered")
        await proxy.heal()
        assert await answered.end() == "404104"
        device.settle("open")
        assert await open_.end() == "d1"


async def test_requests_that_were_read_too_late_are_sent_back(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-stalled] The claimant's node had no turn for a second: whoever asked may have been answered. If not, it
    asks again, and the device is handed the call once."""
    clock = ManualClock()
    cluster = Cluster(nats.server)
    async with (
        Proxy(nats.server) as proxy,
        cluster.node("a", server=proxy.server, clock=clock) as a,
        cluster.node("b") as b,
    ):
        device = Device("d1")
        await a.claim(D, device.answer, device.lose)
        proxy.hold(up=False)
        still_waits, gave_up = Caller(b, "still-waits"), Caller(b, "gave-up")
        await proxy.kept(b"gave-up", down=True)
        assert gave_up.handed is not None
        gave_up.handed.cancel()
        clock.advance(1.1)
        proxy.release()
        assert await still_waits.end() == "d1"
        assert a.taken.sent_back == 2
        assert device.handed == {"still-waits": 1}
        assert await Caller(b, "after").end() == "d1"
        assert a.taken.sent_back == 2


async def test_events_that_may_be_lost_are_told_as_missed(runner: asyncio.Runner, nats: RunningNats) -> None:
    """By the node that lost its line, and by those that could not hear it meanwhile; not at a start."""
    cluster = Cluster(nats.server)
    told = {"a": asyncio.Event(), "b": asyncio.Event()}
    async with (
        Proxy(nats.server) as proxy,
        cluster.node("a", server=proxy.server, missed=told["a"].set) as a,
        cluster.node("b", missed=told["b"].set) as b,
    ):
        events = asyncio.Queue[Event]()
        b.subscribe(events.put_nowait)
        a.publish(PolicyChanged("first"))
        assert await events.get() == PolicyChanged("first")
        assert not told["a"].is_set()
        assert not told["b"].is_set()
        await proxy.cut()
        await until(lambda: not a.line.is_up)
        a.publish(PolicyChanged("lost"))
        await proxy.heal()
        async with asyncio.timeout(LIMIT):
            await told["a"].wait()
            await told["b"].wait()
        a.publish(PolicyChanged("last"))
        assert await events.get() == PolicyChanged("last")


async def test_a_call_without_an_answer_ends_in_time(runner: asyncio.Runner, nats: RunningNats) -> None:
    """The claimant's node is to end it a little earlier; this one is silent."""
    clock = ManualClock()
    cluster = Cluster(nats.server)
    async with cluster.node("a") as a, cluster.node("b", clock=clock) as b:
        device = Device("d1", holds=True)
        await a.claim(D, device.answer, device.lose)
        call = Caller(b, "silent", response_timeout=7)
        await device.has("silent")
        clock.advance(6.5)
        assert not call.outcomes
        clock.advance(0.5)
        assert await call.end() == "504101"
        device.settle("silent")
        assert await Caller(b, "none", NONE).end() == "not claimed"
        assert b._around.metrics.late_answers == 1


async def test_a_server_of_several_is_lost(runner: asyncio.Runner) -> None:
    """Nodes that were on it go to another; the others' calls to them wait, and none is handed over twice."""
    with pair() as (first, second):
        cluster = Cluster(first.server)
        async with (
            cluster.node("a", server=(first.server, second.server)) as a,
            cluster.node("b", server=(second.server, first.server)) as b,
        ):
            device = Device("d1", holds=True)
            await b.claim(D, device.answer, device.lose)
            before = Caller(a, "before")
            await device.has("before")
            second.end()
            device.holds = False
            await until(lambda: b.epoch == 2 and b.is_complete)
            assert await Caller(a, "after").end() == "d1"
            assert (a.epoch, b.epoch) == (1, 2)
            device.settle("before")
            assert await before.end() == "d1"  # its node has not lost it
            assert max(device.handed.values()) == 1


@contextmanager
def pair_with_a_route() -> Iterator[tuple[RunningNats, RunningNats, Route]]:
    """Two servers that are one NATS as long as the route between them is not cut; nodes do not see that."""
    here, there = free_ports(2)
    with Route(there) as route:
        text = f'cluster {{ name: "pair", listen: "127.0.0.1:{there}", no_advertise: true }}'
        routes = f'routes: ["nats://127.0.0.1:{route.port}"]'
        with RunningNats(text) as second:
            text = f'cluster {{ name: "pair", listen: "127.0.0.1:{here}", no_advertise: true, {routes} }}'
            with RunningNats(text) as first:
                yield first, second, route


async def test_the_servers_lose_each_other_and_nobody_is_called_offline(runner: asyncio.Runner) -> None:
    """[HUB-roll-call] A roll call that was not answered voids what was asked before."""
    with pair_with_a_route() as (first, second, route):
        cluster = Cluster(first.server)
        async with cluster.node("a", server=first.server) as a, cluster.node("b", server=second.server) as b:
            device = Device("d1")
            await b.claim(D, device.answer, device.lose)
            await until(lambda: a.roster.live() == {"b"} and b.roster.live() == {"a"})
            assert await Caller(a, "none", NONE).end() == "not claimed"
            assert await Caller(a, "before").end() == "d1"
            route.cut()
            await asyncio.sleep(0.3)  # the failure lasts
            route.heal()
            calls = []
            for number in range(200):
                calls.append(Caller(a, f"meanwhile{number}", response_timeout=10))
                await asyncio.sleep(0.01)
            assert {await call.end() for call in calls} <= {"d1", "404104"}
            assert (a.epoch, b.epoch) == (1, 1)


async def test_claims_that_the_other_server_missed_are_announced_again(runner: asyncio.Runner) -> None:
    """[HUB-takeover] The older connection ends when the servers have found each other, and who waits is woken."""
    with pair_with_a_route() as (first, second, route):
        cluster = Cluster(first.server)
        async with (
            cluster.node("a", server=first.server) as a,
            cluster.node("b", server=second.server) as b,
            cluster.node("c", server=first.server) as c,
        ):
            older, newer = Device("older"), Device("newer")
            await a.claim(D, older.answer, older.lose)
            woken = asyncio.Event()
            c.wait_claimed(M, woken.set)
            await until(lambda: b.roster.live() == {"a", "c"})
            route.cut()
            await asyncio.gather(*(b.claim(target, newer.answer, newer.lose) for target in (D, M)))
            assert not older.times_lost
            assert not woken.is_set()
            route.heal()
            async with asyncio.timeout(LIMIT):
                await older.lost.wait()
                await woken.wait()
            assert [await Caller(bus, f"after {bus.node}").end() for bus in (a, b, c)] == ["newer"] * 3
            assert not newer.times_lost
