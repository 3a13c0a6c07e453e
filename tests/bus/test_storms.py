"""Calls, moves and failures at random, with a checker that knows for each call what its device and its caller saw."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from methodhub.bus.nats import NatsBus
from methodhub.core.identity import Target
from tests.bus.nodes import Cluster
from tests.bus.peers import Caller, Device
from tests.bus.proxy import Proxy
from tests.nats_server import RunningNats

SECONDS, DEVICES, CALLERS = 12, 20, 8
NOT_DELIVERED = {"503001", "503101"}
PERHAPS = {"404104", "504101"}


class Storm:
    def __init__(self, seed: int, nodes: list[NatsBus], proxies: list[Proxy], nats: RunningNats) -> None:
        self.random = random.Random(seed)
        self.nodes, self.proxies, self.nats = nodes, proxies, nats
        self.handed = Counter[str]()
        self.told: dict[str, str] = {}
        self.is_over = False
        self.devices = [Target(f"d{number}") for number in range(DEVICES)]

    async def claim(self, target: Target) -> None:
        device = Device("ok", self.handed)
        await self.random.choice(self.nodes).claim(target, device.answer, device.lose)

    async def move(self) -> None:
        while not self.is_over:
            await self.claim(self.random.choice(self.devices))

    async def call(self, name: str) -> None:
        number = 0
        while not self.is_over:
            number += 1
            bus = self.random.choice(self.nodes)
            method = f"{name}.{number}"
            self.told[method] = await Caller(bus, method, self.random.choice(self.devices), 6).end()

    async def fail(self) -> None:
        """One failure after another; each is over when the next begins."""
        loop = asyncio.get_running_loop()
        end = loop.time() + SECONDS
        while loop.time() < end:
            kind, proxy = self.random.choice(("cut", "hold", "hold", "kill")), self.random.choice(self.proxies)
            if kind == "hold":
                proxy.hold(up=self.random.random() < 0.7, down=self.random.random() < 0.7)
                await asyncio.sleep(self.random.uniform(0.1, 3))
                proxy.release()
            elif kind == "cut":
                await proxy.cut()
                await asyncio.sleep(self.random.uniform(0, 1))
                await proxy.heal()
            else:
                self.nats.end()
                await loop.run_in_executor(None, self.nats.start)
            await asyncio.sleep(self.random.uniform(0, 0.5))
        self.is_over = True

    def check(self) -> None:
        assert max(self.handed.values()) == 1, "handed over twice"
        for method, told in self.told.items():
            if told == "ok":
                assert self.handed[method] == 1, method
            else:
                assert told in NOT_DELIVERED | PERHAPS, (method, told)
                assert told in PERHAPS or not self.handed[method], (method, told)


@pytest.mark.verify
@pytest.mark.parametrize("seed", range(3))
async def test_no_call_has_two_fates(runner: asyncio.Runner, nats: RunningNats, seed: int) -> None:
    cluster = Cluster(nats.server)
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(nats.server)) for _ in range(3)]
        nodes = [
            await stack.enter_async_context(cluster.node(name, server=proxy.server))
            for name, proxy in zip("abc", proxies, strict=True)
        ]
        storm = Storm(seed, nodes, proxies, nats)
        for target in storm.devices:
            await storm.claim(target)
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.fail())
            group.create_task(storm.move())
            for number in range(CALLERS):
                group.create_task(storm.call(str(number)))
        last = [Caller(bus, f"last {bus.node} {target}", target) for bus in nodes for target in storm.devices]
        assert {await call.end() for call in last} == {"ok"}
        await asyncio.sleep(0)
        storm.check()
        told = Counter(storm.told.values())
        assert told["ok"] > 100
        print(f"seed {seed}: {dict(told)}, moved {cluster.generation} times")
