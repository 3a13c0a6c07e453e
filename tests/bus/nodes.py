"""Nodes of one cluster in one event loop, and what they share beside the bus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from methodhub.bus.line import Server
from methodhub.bus.nats import NatsBus, Surroundings
from methodhub.core.clock import Clock, SystemClock
from methodhub.core.deadlines import Deadlines
from methodhub.metrics import Metrics
from methodhub.server.background import Background


class Cluster:
    """`live` is what the store would say; `generations` its sequence."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.live: set[str] = set()
        self.generation = 0

    async def next_generation(self) -> int:
        self.generation += 1
        return self.generation

    async def live_nodes(self) -> set[str]:
        return set(self.live)

    @asynccontextmanager
    async def node(
        self,
        name: str,
        *,
        server: Server | tuple[Server, ...] | None = None,
        clock: Clock | None = None,
        missed: Callable[[], None] = lambda: None,
        prefix: str = "methodhub",
        open_calls: int = 100_000,
        patience: float = 5.0,
        hub: str = "",
    ) -> AsyncIterator[NatsBus]:
        clock = clock or SystemClock()
        deadlines = Deadlines(clock.monotonic())
        background = Background(clock, deadlines)
        background.run_clock()
        self.live.add(name)
        around = Surroundings(clock, deadlines, Metrics(), self.live_nodes, self.next_generation, missed, hub)
        server = server or self.server
        bus = NatsBus(server if isinstance(server, tuple) else (server,), name, around, prefix, open_calls)
        try:
            await bus.start(patience)
            yield bus
            await bus.stop()
        finally:
            self.live.discard(name)
            background.stop()
