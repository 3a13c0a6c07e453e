"""The bus of many nodes, over NATS: claims are queue subscriptions, calls are requests, everything else is told to all.
Puts the parts together; each rule stands in the part that it concerns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from methodhub.bus.calls import Calls
from methodhub.bus.claims import FIRST_SID, Claims, NatsClaim
from methodhub.bus.line import PING_EVERY, Line, LineFailure, Server
from methodhub.bus.messages import (
    Acknowledged,
    Announced,
    Beat,
    Cancelled,
    Goodbye,
    Happened,
    MalformedMessage,
    NodeMessage,
    Present,
    RollCalled,
    Subjects,
    decode_message,
    event_of,
    happened,
)
from methodhub.bus.post import Post
from methodhub.bus.roster import Roster, Sign
from methodhub.bus.taken import TakenCalls
from methodhub.bus.waiters import Waiters
from methodhub.core.calls import MethodRequest, Outcome
from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadlines
from methodhub.core.identity import Target
from methodhub.core.ports import Answer, Event, Handed, NotClaimed
from methodhub.metrics import Metrics
from methodhub.wire.nats.protocol import Message, subscribe

log = structlog.get_logger()

TURN = PING_EVERY / 2
BEAT_EVERY = 2
"""Turns between two signs of life."""
LOOK_EVERY = 4
"""Turns between two looks at the store's list of nodes."""
_REPLIES, _OWN, _ALL = range(1, 4)
LOOK_AROUND = 0.25
"""Seconds in which another hub that is there by mistake makes itself known."""
STRANGER_WAIT = 5.0
MAX_STRANGERS = 1_000
ANOTHER_HUB = (
    "a hub with another database is on it, and each would take the other's calls; give one of them its own nats_prefix"
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the bus needs of its node. `live_nodes`: the nodes whose lease runs, by the store's clock, with or without
    this one; `next_generation`: from a sequence that all nodes share; `missed`: events may have been lost, so that
    whatever was kept on their strength is stale."""

    clock: Clock
    deadlines: Deadlines
    metrics: Metrics
    live_nodes: Callable[[], Awaitable[set[str]]]
    next_generation: Callable[[], Awaitable[int]]
    missed: Callable[[], None] = lambda: None
    hub: str = ""
    """Tells this hub from another one that uses the same NATS by mistake; empty where no other can."""


class NatsBus:
    """`node` is unique among all nodes and all their starts; `prefix` tells hubs apart that share a NATS. Both are
    tokens of a subject (`messages.TOKEN`), the prefix one or more with dots between. `open_calls` bounds the calls to
    other nodes, and those of other nodes to this one."""

    def __init__(
        self,
        servers: tuple[Server, ...],
        node: str,
        around: Surroundings,
        prefix: str = "methodhub",
        open_calls: int = 100_000,
    ) -> None:
        clock, deadlines = around.clock, around.deadlines
        self.node = node
        self.roster = Roster(node)
        self.waiters = Waiters()
        self.line = Line(servers, f"{prefix} {node}", clock, self)
        self._subjects = Subjects(prefix, node)
        self._post = post = Post(node, self._subjects, self.line)
        self.claims = Claims(post, self.roster, self.waiters, clock, deadlines, around.next_generation)
        self.calls = Calls(
            post, self.roster, self.waiters, clock, deadlines, around.metrics, open_calls, self.claims.held.get
        )
        self.taken = TakenCalls(post, open_calls)
        self.epoch = 0
        self.is_complete = False
        self._around = around
        self._subscribers: list[Callable[[Event], None]] = []
        self._turns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._completed = asyncio.Event()
        self._refusal = ""
        """Why not all that was subscribed on this connection is, or why the bus cannot be used at all."""
        self._strangers: set[str] = set()
        """Nodes of another hub."""

    async def start(self, patience: float = 5.0) -> None:
        """Returns when NATS is reached. Raises LineFailure after `patience` seconds; what `live_nodes` raises."""
        self.roster.stored(await self._around.live_nodes(), self._around.clock.monotonic())
        self.line.start()
        self._turn()
        try:
            async with asyncio.timeout(patience):
                await self._completed.wait()
        except TimeoutError:
            self._refusal = self._refusal or self.line.failure or "it does not answer"
        if self._refusal:
            await self.stop()
            raise LineFailure(self._refusal)

    async def stop(self) -> None:
        """Give up the claims, say goodbye and close. What is open ends as if the line were lost."""
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for claim in list(self.claims.held.values()):
            claim.release()
        # What was asked until now is still sent back; after the goodbye nobody expects that.
        await self._flush()
        self._post.to_all(Goodbye(self.node))
        await self.line.stop()
        self.calls.stop()

    async def _flush(self) -> None:
        if self.line.is_ready:
            flushed = asyncio.Event()
            self.line.ping(flushed.set)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TURN):
                    await flushed.wait()

    # The port

    async def claim(
        self, target: Target, answer: Answer, lost: Callable[[], None], generation: int | None = None
    ) -> NatsClaim:
        return await self.claims.claim(target, answer, lost, generation)

    def call(
        self, target: Target, request: MethodRequest, settle: Callable[[Outcome | NotClaimed], None]
    ) -> Handed | None:
        claim = self.claims.held.get(target)
        if claim is None:
            return self.calls.call(target, request, settle)
        handed = claim.answer(request, settle)
        if isinstance(handed, NotClaimed):
            settle(handed)
            return None
        return handed

    def wait_claimed(self, target: Target, wake: Callable[[], None]) -> Callable[[], None]:
        return self.waiters.add(target, wake)

    def publish(self, event: Event) -> None:
        """Local subscribers hear at once; other nodes do if the line is up, and otherwise know that they missed some
        when this node is back."""
        self._post.to_all(happened(self.node, event))
        self._tell(event)

    def subscribe(self, receive: Callable[[Event], None]) -> None:
        self._subscribers.append(receive)

    def _tell(self, event: Event) -> None:
        for receive in self._subscribers:
            receive(event)

    # The line

    def line_up(self) -> None:
        self.epoch += 1
        self.is_complete = False
        self._refusal = ""
        self.roster.state += 1
        subjects, epoch = self._subjects, self.epoch
        self.line.send(
            b"".join(
                (
                    subscribe(_REPLIES, subjects.replies),
                    subscribe(_OWN, subjects.own),
                    subscribe(_ALL, subjects.all),
                    *self.claims.subscriptions(),
                )
            )
        )
        self._beat()
        self.claims.announce_all()
        self.line.ping(lambda: self._subscribed(epoch))
        if epoch > 1:
            self._missed()
        self.calls.ask_again()

    def _subscribed(self, epoch: int) -> None:
        """The server has read everything; a first time it is asked who else is there."""
        if self._around.hub and not self._completed.is_set():
            self._post.to_all(RollCalled(self.node, 0, False))
            asyncio.get_running_loop().call_later(LOOK_AROUND, self._complete, epoch)
        else:
            self._complete(epoch)

    def _complete(self, epoch: int) -> None:
        if epoch == self.epoch and not self._refusal:
            self.is_complete = True
            self._completed.set()
            self._beat()
            if epoch > 1:
                self._missed()  # once more: something may have happened between the first look and the subscriptions
                self.waiters.wake_all()  # what was claimed meanwhile was announced to nobody here

    def line_down(self) -> None:
        self.is_complete = False
        self.calls.line_down()

    def line_refused(self, text: str) -> None:
        """[HUB-roll-call] What nobody is told here may be claimed here all the same: others must not conclude that it
        is not."""
        self._refusal = text
        self.is_complete = False
        if self._completed.is_set():
            self._beat()
        else:
            self._completed.set()

    def line_ready(self) -> None:
        self.calls.ask_again()

    def received(self, message: Message) -> None:
        try:
            if message.sid == _REPLIES:
                self.calls.replied(message)
            elif message.sid >= FIRST_SID:
                self.taken.take(self.claims.by_sid.get(message.sid), message)
            else:
                self._hear(decode_message(message.payload))
        except MalformedMessage as error:
            log.warning("a message on the bus was dropped", error=str(error))
        except Exception:
            log.exception("a message on the bus could not be worked on")

    # Other nodes

    def _hear(self, message: NodeMessage) -> None:
        if isinstance(message, Beat | Present) and self._is_strange(message):
            return
        if message.node in self._strangers and not isinstance(message, RollCalled):
            return
        if isinstance(message, Happened):
            self._tell(event_of(message))
        elif isinstance(message, Announced):
            self.claims.announced(message)
        elif isinstance(message, Acknowledged):
            self.claims.acknowledged(message)
        elif isinstance(message, Beat):
            self._alive(message)
        elif isinstance(message, RollCalled):
            self.claims.announce_now()  # whoever hears that this node is present has heard of its claims
            calls = self.taken.numbers(message.node) if message.wants_calls else []
            present = Present(self.node, message.number, self.epoch, self.is_complete, calls, self._around.hub)
            self._post.to(message.node, present)
        elif isinstance(message, Present):
            self._alive(message)
            self.calls.present(message)
        elif isinstance(message, Cancelled):
            self.taken.cancel(message.node, message.number)
        elif self.roster.said_goodbye(message.node):
            self._gone(message.node)

    def _is_strange(self, message: Beat | Present) -> bool:
        """[HUB-one-hub] A call would reach another hub's device of the same id. The hub that came later does not start;
        if both are up already, neither uses the bus."""
        if not self._around.hub or message.hub in {"", self._around.hub}:
            return False
        if len(self._strangers) < MAX_STRANGERS:
            self._strangers.add(message.node)
        if message.complete:
            log.error("the bus cannot be used", error=ANOTHER_HUB)
            if self._completed.is_set():
                self.line.give_up(STRANGER_WAIT)
            else:
                self._refusal = ANOTHER_HUB
                self._completed.set()
        return True

    def _alive(self, message: Beat | Present) -> None:
        now = self._around.clock.monotonic()
        if self.roster.is_silent(message.node):
            self.claims.announce_all()  # it may have missed what it did not acknowledge, though its line stood
        sign = self.roster.heard(message.node, message.epoch, message.complete, now)
        if sign is Sign.KNOWN:
            return
        if sign is Sign.COMPLETED:
            self.calls.ask_again()
            return
        self._post.to(message.node, self._sign())  # it may not know us, either
        if sign is Sign.RECONNECTED:  # what it published meanwhile, and what it was sent, is lost
            self._missed()
            self.calls.doubt()
        self.calls.another_roll()
        self.calls.ask_again()

    def _gone(self, node: str) -> None:
        log.info("a node is gone", node=node)
        self.claims.without(node)
        self.taken.without(node)
        self.calls.without(node)
        self.calls.ask_again()

    def _missed(self) -> None:
        try:
            self._around.missed()
        except Exception:
            log.exception("what was missed could not be made good")

    def _sign(self) -> Beat:
        return Beat(self.node, self.epoch, self.is_complete, self._around.hub)

    def _beat(self) -> None:
        self._post.to_all(self._sign())

    # Time

    def _turn(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TURN, self._turn)
        self._turns += 1
        self.line.turn()
        if self._turns % BEAT_EVERY == 0:
            self._beat()
            self.claims.tidy()
            self.calls.turn()
        if self._turns % LOOK_EVERY == 0 and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            live = await self._around.live_nodes()
        except Exception as error:  # noqa: BLE001 - what was known last holds
            log.warning("the list of nodes cannot be read", error=str(error))
            return
        for node in self.roster.stored(live, self._around.clock.monotonic()):
            self._gone(node)
