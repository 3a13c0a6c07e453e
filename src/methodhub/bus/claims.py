"""The claims of this node: subscribed at NATS, announced to the other nodes, given up when a newer one is announced.

claim ─> SUB ─> Announced, with those of the same moment ─> every live node: Acknowledged ─> claimed
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from methodhub.bus.messages import Acknowledged, Announced, ClaimRow
from methodhub.bus.post import Post
from methodhub.bus.roster import Roster
from methodhub.bus.waiters import Waiters
from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadline, Deadlines
from methodhub.core.identity import Target
from methodhub.core.ports import Answer
from methodhub.wire.nats.protocol import subscribe, unsubscribe

log = structlog.get_logger()

QUEUE = b"claimant"
"""The queue group: of several claims of a target, one gets a call."""

GATHER = 0.001
"""Seconds that a claim waits for others to be announced with."""
BATCH = 500
"""Claims in one announcement, at most: with the longest ids 130 KB."""
ACKNOWLEDGE = 1.0
"""Seconds that nodes are waited for."""
FIRST_SID = 16
"""Subscriptions below are the bus's own."""


class NatsClaim:
    """`sid`: the node's subscription to the target, which a newer claim on the same node takes over."""

    __slots__ = ("_claims", "answer", "generation", "lost", "sid", "target")

    def __init__(
        self, claims: Claims, target: Target, answer: Answer, lost: Callable[[], None], generation: int, sid: int
    ) -> None:
        self._claims = claims
        self.target = target
        self.answer = answer
        self.lost = lost
        self.generation = generation
        self.sid = sid

    @property
    def row(self) -> ClaimRow:
        return (*self.target, self.generation)

    def renew(self) -> None:
        self._claims.renew(self)

    def release(self) -> None:
        self._claims.release(self)


class _Batch(Deadline):
    """An announcement and who has not acknowledged it yet. Ends by itself after ACKNOWLEDGE."""

    __slots__ = ("_roster", "claims", "done", "number", "waiting")

    def __init__(self, number: int, roster: Roster) -> None:
        super().__init__()
        self._roster = roster
        self.number = number
        self.claims: list[NatsClaim] = []
        self.waiting: set[str] = set()
        self.done = asyncio.Event()

    def expired(self) -> None:
        if self.waiting:
            log.warning("nodes did not acknowledge claims", nodes=sorted(self.waiting), claims=len(self.claims))
            self._roster.did_not_answer(self.waiting)
        self.done.set()

    def without(self, node: str) -> None:
        self.waiting.discard(node)
        if not self.waiting:
            self.done.set()


class Claims:
    def __init__(
        self,
        post: Post,
        roster: Roster,
        waiters: Waiters,
        clock: Clock,
        deadlines: Deadlines,
        next_generation: Callable[[], Awaitable[int]],
    ) -> None:
        self.held: dict[Target, NatsClaim] = {}
        self.by_sid: dict[int, NatsClaim] = {}
        self._post = post
        self._roster = roster
        self._waiters = waiters
        self._clock = clock
        self._deadlines = deadlines
        self._next_generation = next_generation
        self._next_sid = FIRST_SID
        self._next_batch = 1
        self._gathering: _Batch | None = None
        self._open: dict[int, _Batch] = {}

    async def claim(
        self, target: Target, answer: Answer, lost: Callable[[], None], generation: int | None
    ) -> NatsClaim:
        if generation is None:
            generation = await self._next_generation()
        older = self.held.get(target)
        sid = self._next_sid if older is None else older.sid
        claim = self.held[target] = self.by_sid[sid] = NatsClaim(self, target, answer, lost, generation, sid)
        if older is None:
            self._next_sid += 1
            self._post.line.send(subscribe(sid, self._post.subjects.call(target), QUEUE))
        batch = self._announce_soon(claim)
        self._waiters.wake(target)
        try:
            await batch.done.wait()
        except asyncio.CancelledError:
            self.release(claim)  # its connection has ended, and knows of no claim
            raise
        return claim

    def renew(self, claim: NatsClaim) -> None:
        if self.held.get(claim.target) is claim:
            self._announce_soon(claim)
            self._waiters.wake(claim.target)

    def release(self, claim: NatsClaim) -> None:
        """[HUB-takeover] Only the claim that is still in place goes; a newer one stays."""
        if self.held.get(claim.target) is claim:
            del self.held[claim.target], self.by_sid[claim.sid]
            self._post.line.send(unsubscribe(claim.sid))

    # Announcing

    def _announce_soon(self, claim: NatsClaim) -> _Batch:
        batch = self._gathering
        if batch is None:
            batch = self._gathering = _Batch(self._next_batch, self._roster)
            self._next_batch += 1
            asyncio.get_running_loop().call_later(GATHER, self._announce, batch)
        batch.claims.append(claim)
        if len(batch.claims) >= BATCH:
            self._announce(batch)
        return batch

    def announce_now(self) -> None:
        """What waits for others to be announced with."""
        if self._gathering is not None:
            self._announce(self._gathering)

    def _announce(self, batch: _Batch) -> None:
        if batch is not self._gathering:
            return
        self._gathering = None
        post, own = self._post, self._post.node
        self._open[batch.number] = batch
        self._deadlines.add(self._clock.monotonic() + ACKNOWLEDGE, batch)
        batch.waiting = self._roster.attentive() | {own}
        post.to_all(Announced(own, batch.number, [claim.row for claim in batch.claims]))
        post.line.ping(lambda: self._read(batch, own))

    def acknowledged(self, message: Acknowledged) -> None:
        batch = self._open.get(message.batch)
        for row in message.newer:
            self._heard_of(message.node, row)
        if batch is not None:
            self._read(batch, message.node)

    def _read(self, batch: _Batch, node: str) -> None:
        batch.without(node)
        self._end_if_done(batch)

    def _end_if_done(self, batch: _Batch) -> None:
        if batch.done.is_set():
            batch.cancel_deadline()
            self._open.pop(batch.number, None)

    def without(self, node: str) -> None:
        """The node is gone: nobody waits for its word."""
        for batch in list(self._open.values()):
            self._read(batch, node)

    def tidy(self) -> None:
        for batch in list(self._open.values()):
            self._end_if_done(batch)

    # What others announce

    def announced(self, message: Announced) -> None:
        newer = [row for row in message.claims if self._heard_of(message.node, row)]
        if message.batch or newer:
            own = self._post.node
            rows = [self.held[Target(device, module)].row for device, module, _ in newer]
            self._post.to(message.node, Acknowledged(own, message.batch, rows))
        for device, module, _ in message.claims:
            self._waiters.wake(Target(device, module))

    def _heard_of(self, node: str, row: ClaimRow) -> bool:
        """Another node claims the target: give up an older claim of ours. True if ours is the newer one."""
        target = Target(row[0], row[1])
        mine = self.held.get(target)
        if mine is None:
            return False
        if (mine.generation, self._post.node) > (row[2], node):
            return True
        self.release(mine)
        log.info("claim lost to a newer one", target=str(target), node=node)
        try:
            mine.lost()
        except Exception:
            log.exception("a lost claim could not be ended", target=str(target))
        return False

    # The line

    def subscriptions(self) -> list[bytes]:
        """All claims, for a new connection."""
        call = self._post.subjects.call
        return [subscribe(claim.sid, call(claim.target), QUEUE) for claim in self.held.values()]

    def announce_all(self) -> None:
        rows = [claim.row for claim in self.held.values()]
        for first in range(0, len(rows), BATCH):
            self._post.to_all(Announced(self._post.node, 0, rows[first : first + BATCH]))
