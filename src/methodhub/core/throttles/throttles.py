"""All throttles of a hub: one for each kind of work that the original limits."""

from __future__ import annotations

from collections.abc import Callable

from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadlines
from methodhub.core.throttles.limits import ThrottleLimits
from methodhub.core.throttles.throttle import Throttle
from methodhub.metrics import Metrics

SHARE_INTERVAL = 1.0
"""Seconds between two looks at how many nodes spend the limits."""


class Throttles:
    """A hub without any has None in its place: nothing is looked up where nothing is limited.

    `share`: this node's part of each limit, from 0 to 1, as of now.
    """

    def __init__(
        self,
        limits: ThrottleLimits,
        deadlines: Deadlines,
        clock: Clock,
        metrics: Metrics,
        share: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._share = share
        self._taken = 1.0
        self.limits = limits
        self.methods = Throttle("method blocks", limits.method_blocks, deadlines, clock, metrics)
        self.registry = Throttle("registry operations", limits.registry, deadlines, clock, metrics)
        self.jobs = Throttle("job operations", limits.jobs, deadlines, clock, metrics)
        self.queries = Throttle("queries", limits.queries, deadlines, clock, metrics)
        self.twin_reads = Throttle("twin reads", limits.twin_reads, deadlines, clock, metrics)
        self.twin_writes = Throttle("twin writes", limits.twin_writes, deadlines, clock, metrics)
        self.connections = Throttle("new connections", limits.connections, deadlines, clock, metrics)
        self._all = (
            self.methods,
            self.registry,
            self.jobs,
            self.queries,
            self.twin_reads,
            self.twin_writes,
            self.connections,
        )

    async def take_share(self) -> None:
        """[HUB-throttle-share] To be called at each SHARE_INTERVAL, and before the first request."""
        share = self._share()
        if share != self._taken:
            self._taken = share
            for throttle in self._all:
                throttle.take_share(share)
