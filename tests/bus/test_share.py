"""Two nodes on one NATS: what each counts as its share of a throttle follows the roster."""

from __future__ import annotations

import asyncio
import time

from methodhub.bus.nats import NatsBus
from tests.bus.nodes import Cluster
from tests.nats_server import RunningNats


def share(bus: NatsBus) -> float:
    return 1 / (1 + len(bus.roster.live()))


async def until(bus: NatsBus, wanted: float) -> None:
    limit = time.monotonic() + 10
    while share(bus) != wanted:
        assert time.monotonic() < limit, f"{bus.node} sees {bus.roster.live()}"
        await asyncio.sleep(0.01)


async def test_a_share_follows_the_nodes_that_live(runner: object, nats: RunningNats) -> None:
    """[HUB-throttle-share]"""
    cluster = Cluster(nats.server)
    async with cluster.node("a") as a:
        assert share(a) == 1
        async with cluster.node("b") as b:
            assert share(b) == 1 / 2
            await until(a, 1 / 2)
            async with cluster.node("c") as c:
                assert share(c) == 1 / 3
                await until(a, 1 / 3)
                await until(b, 1 / 3)
        await until(a, 1)
