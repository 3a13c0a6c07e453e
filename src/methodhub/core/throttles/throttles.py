"""All throttles of a hub: one for each kind of work that the original limits."""

from __future__ import annotations

from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadlines
from methodhub.core.throttles.limits import ThrottleLimits
from methodhub.core.throttles.throttle import Throttle
from methodhub.metrics import Metrics


class Throttles:
    """A hub without any has None in its place: nothing is looked up where nothing is limited."""

    def __init__(self, limits: ThrottleLimits, deadlines: Deadlines, clock: Clock, metrics: Metrics) -> None:
        self.limits = limits
        self.methods = Throttle("method blocks", limits.method_blocks, deadlines, clock, metrics)
        self.registry = Throttle("registry operations", limits.registry, deadlines, clock, metrics)
        self.jobs = Throttle("job operations", limits.jobs, deadlines, clock, metrics)
        self.queries = Throttle("queries", limits.queries, deadlines, clock, metrics)
        self.twin_reads = Throttle("twin reads", limits.twin_reads, deadlines, clock, metrics)
        self.twin_writes = Throttle("twin writes", limits.twin_writes, deadlines, clock, metrics)
        self.connections = Throttle("new connections", limits.connections, deadlines, clock, metrics)
