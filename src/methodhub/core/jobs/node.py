"""This node's life as the store sees it, and whether its leases are surely still its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import structlog

from methodhub.core.clock import Clock, CommonClock
from methodhub.core.ports import JobStore

LIFE = 30.0
"""Seconds that a node lives on after it was last heard, by the database's clock."""

BEAT = 5.0
"""Seconds from one sign of life to the next."""

BEATS = 4
"""Signs of life that a node misses before it counts as gone for calls; its leases go on until the end of its life."""

MARGIN = 5.0
"""Seconds before its end at which a lease is not trusted any more."""

MUCH_SKEW = 5.0
"""Seconds that two clocks may differ before it is told: tokens, too, end by each node's own."""

LONGEST_LOOK = 1.0
"""Seconds that a look at the database's clock may take to be of use."""

log = structlog.get_logger()


class Node:
    """`name` is what other nodes call this one; `node_id`, under which it leases, begins with it."""

    def __init__(self, store: JobStore, clock: Clock, beat: float = BEAT, common: CommonClock | None = None) -> None:
        """`common` is kept at the database's time."""
        self._store = store
        self._clock = clock
        self._lives = 0
        self.name = secrets.token_hex(8)
        self.beat = beat
        self.node_id = ""
        self.on_enrolled: Callable[[], None] = lambda: None
        """Told when the node has another id than before."""
        self._sure_until = 0.0
        self._common = common

    async def enroll(self, *, alone: bool) -> None:
        """Under a new id: what an earlier life of this node had leased is not this one's."""
        await self._compare_clocks()
        begun = self._clock.monotonic()
        self._lives += 1
        node_id = f"{self.name}-{self._lives}"
        await self._store.enroll(node_id, LIFE, alone)
        self.node_id = node_id
        self._sure_until = begun + LIFE
        self.on_enrolled()

    async def renew(self) -> None:
        """Raises StoreUnavailable."""
        begun = self._clock.monotonic()
        if await self._store.renew(self.node_id, LIFE):
            self._sure_until = begun + LIFE
            await self._compare_clocks()
        else:
            await self.enroll(alone=False)

    async def _compare_clocks(self) -> None:
        """[HUB-common-clock] Whether a job is due, or its time is over, must not depend on the node that looks."""
        if self._common is None:
            return
        before = self._clock.wall()
        common = await self._store.clock()
        after = self._clock.wall()
        if after - before > LONGEST_LOOK:
            return  # the answer may be as old as that
        skew = common - (before + after) / 2
        if abs(skew) > MUCH_SKEW >= abs(self._common.skew):
            log.warning("this machine's clock is not the database's", seconds=round(skew, 1))
        self._common.skew = skew

    async def live_nodes(self) -> set[str]:
        """The names of those that gave a sign of life lately, by the database's clock. Raises StoreUnavailable."""
        live = await self._store.live_nodes(LIFE - self.beat * BEATS)
        return {node_id.partition("-")[0] for node_id in live}

    @property
    def is_sure(self) -> bool:
        """[HUB-job-lease] No other node can have taken this one for dead. By a clock that no one sets: the process
        may have been paused since it last asked the store."""
        return self._clock.monotonic() < self._sure_until - MARGIN

    async def make_sure(self) -> None:
        """Raises StoreUnavailable."""
        if not self.is_sure:
            await self.renew()
