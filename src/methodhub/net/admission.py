"""What a peer may take before it has proved who it is: places, bytes and time. Knows streams only as things that
can be aborted."""

from __future__ import annotations

import asyncio
import resource
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import structlog

from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadline, Deadlines

LOG_INTERVAL = 1.0
"""Seconds between two lines about the same event: what strangers cause must not fill a disk."""

RESERVED_SOCKETS = 256
"""File descriptors kept for the database, the bus, logs and connections the hub opens itself."""


@dataclass(frozen=True, slots=True)
class PreAuthenticationLimits:
    """For each listener: seconds from accept to authenticated, bytes of one peer counted at the socket, and how
    many peers may be unauthenticated at once."""

    seconds: float = 30.0
    bytes: int = 65_536
    sockets: int = 2_000


class SocketBudget:
    """How many connections the process may hold. Listeners that share one share its limit."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @classmethod
    def of_process(cls, reserve: int = RESERVED_SOCKETS) -> SocketBudget:
        """The soft limit of open files less a reserve, at least half of it."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            soft = 1_048_576
        return cls(max(soft - reserve, soft // 2))


class Admitted(Protocol):
    """What admission needs of a stream."""

    _waiting: Waiting | None

    @property
    def address(self) -> str: ...

    def abort(self) -> None: ...


class Waiting(Deadline):
    """The place of one unauthenticated peer, and its clock."""

    __slots__ = ("_admission", "stream")

    def __init__(self, admission: Admission, stream: Admitted) -> None:
        super().__init__()
        self._admission = admission
        self.stream = stream

    def expired(self) -> None:
        self._admission.time_is_up(self.stream)


class Admission:
    """The caps of one listener and the count of what came of them. Counters are plain integers, read by metrics."""

    def __init__(
        self,
        name: str,
        limits: PreAuthenticationLimits,
        deadlines: Deadlines,
        clock: Clock,
        budget: SocketBudget,
        *,
        trusted: bool = False,
    ) -> None:
        self.limits = limits
        self.deadlines = deadlines
        self.clock = clock
        self.trusted = trusted
        self.streams: set[Admitted] = set()
        self.accepted = 0
        self.refused = 0
        self.dropped_oldest = 0
        self.timed_out = 0
        self.over_bytes = 0
        self.handshake_failures = 0
        self.tls_errors = 0
        self.not_proxied_headers = 0
        self._budget = budget
        # An OrderedDict, since a plain one takes ever longer to find its first entry as early ones leave.
        self._waiting: OrderedDict[Waiting, None] = OrderedDict()
        self._empty: asyncio.Event | None = None
        self._quiet_until: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}
        self._log = structlog.get_logger().bind(listener=name)

    @property
    def unauthenticated(self) -> int:
        return len(self._waiting)

    def admit(self, stream: Admitted) -> bool:
        """Give a place, the oldest stranger's if need be. False: the process is full, the stream must go at once."""
        self.accepted += 1
        self._budget.used += 1
        self.streams.add(stream)
        if self._budget.used > self._budget.limit:
            self.refused += 1
            self.note("connection_refused_full", stream, limit=self._budget.limit)
            return False
        if self.trusted:
            return True
        if len(self._waiting) >= self.limits.sockets:
            oldest = self._waiting.popitem(last=False)[0]
            oldest.cancel_deadline()
            self.dropped_oldest += 1
            self.note("oldest_unauthenticated_dropped", oldest.stream, limit=self.limits.sockets)
            oldest.stream.abort()
        waiting = Waiting(self, stream)
        self._waiting[waiting] = None
        stream._waiting = waiting
        self.deadlines.add(self.clock.monotonic() + self.limits.seconds, waiting)
        return True

    def release(self, stream: Admitted) -> None:
        """The peer is authenticated, or gone: its clock stops and its place is free."""
        waiting = stream._waiting
        if waiting is not None:
            stream._waiting = None
            waiting.cancel_deadline()
            self._waiting.pop(waiting, None)

    def lost(self, stream: Admitted) -> None:
        self.release(stream)
        self.streams.discard(stream)
        self._budget.used -= 1
        if not self.streams and self._empty is not None:
            self._empty.set()

    async def wait_empty(self) -> None:
        if self.streams:
            self._empty = asyncio.Event()
            await self._empty.wait()

    def time_is_up(self, stream: Admitted) -> None:
        self.timed_out += 1
        self.note("not_authenticated_in_time", stream, seconds=self.limits.seconds)
        stream.abort()

    def too_many_bytes(self, stream: Admitted) -> None:
        self.over_bytes += 1
        self.note("too_many_bytes_before_authentication", stream, limit=self.limits.bytes)
        stream.abort()

    def handshake_failed(self, stream: Admitted, reason: str) -> None:
        self.handshake_failures += 1
        self.note("tls_handshake_failed", stream, reason=reason)

    def tls_broken(self, stream: Admitted, reason: str) -> None:
        self.tls_errors += 1
        self.note("tls_broken", stream, reason=reason)

    def not_proxied(self, stream: Admitted, reason: str) -> None:
        self.not_proxied_headers += 1
        self.note("no_proxy_header", stream, reason=reason)

    def note(self, event: str, stream: Admitted, **facts: object) -> None:
        """One line per kind of event and second; the next one tells how many were left out."""
        now = self.clock.monotonic()
        if now < self._quiet_until.get(event, 0.0):
            self._suppressed[event] = self._suppressed.get(event, 0) + 1
            return
        self._quiet_until[event] = now + LOG_INTERVAL
        suppressed = self._suppressed.pop(event, 0)
        if suppressed:
            facts["not_logged"] = suppressed
        self._log.info(event, peer=stream.address, **facts)
