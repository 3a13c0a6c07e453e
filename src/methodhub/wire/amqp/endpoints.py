"""Sessions, links and deliveries of one open AMQP connection: checked frames in, events and frames out. Does not know
how the connection began, and no time."""

from __future__ import annotations

from methodhub.wire.amqp import engine, frames
from methodhub.wire.amqp.engine import Engine, Pointer
from methodhub.wire.amqp.errors import (
    FRAME_SIZE_TOO_SMALL,
    FRAMING_ERROR,
    HANDLE_IN_USE,
    MESSAGE_SIZE_EXCEEDED,
    NOT_ALLOWED,
    RESOURCE_LIMIT_EXCEEDED,
    TRANSFER_LIMIT_EXCEEDED,
    UNATTACHED_HANDLE,
    AmqpError,
)
from methodhub.wire.amqp.events import (
    CreditChanged,
    Event,
    LinkAttached,
    LinkDetached,
    MessageReceived,
    SessionEnded,
)
from methodhub.wire.amqp.links import Link, Session

ANNOUNCED_MESSAGE_SIZE = 1_048_576
"""Bytes: max-message-size of every ATTACH (`wire/device.md` 3.3)."""

MAX_MESSAGE_SIZE = 262_144
"""Bytes of a message that is taken."""

MAX_BUFFERED = 1_048_576
"""Bytes of messages that are not whole yet, on all links together."""

MAX_HELD_BACK = 65_536
"""Bytes of messages that wait for a session's window: the engine goes through all of them at each frame."""

_HANDLE_MAX = 0x7FFF_FFFF
_ATTACH_MARGIN = 128
"""Bytes that our ATTACH may be longer than the peer's, whose name and termini it repeats."""


class Endpoints:
    """Raises AmqpError where the peer's mistake ends the connection."""

    __slots__ = (
        "_channels",
        "_deliveries",
        "_draining",
        "_engine",
        "_events",
        "_links",
        "_numbers",
        "_output",
        "_peer_frame_size",
        "_pointers",
        "_settled",
        "buffered",
        "max_links",
        "max_sessions",
    )

    def __init__(
        self,
        of: Engine,
        peer_frame_size: int,
        max_sessions: int,
        max_links: int,
        events: list[Event],
        output: list[bytes],
    ) -> None:
        """`events` and `output` are appended to."""
        self._engine = of
        self._peer_frame_size = peer_frame_size
        self.max_sessions = max_sessions
        self.max_links = max_links
        self._events = events
        self._output = output
        self.buffered = 0  # bytes of deliveries that are not whole yet
        self._numbers = 0
        self._settled = False  # a disposition waits in the engine
        self._draining: list[Link] = []
        self._channels: dict[int, Session] = {}
        self._links: dict[int, Link] = {}
        self._pointers: dict[Pointer, Link] = {}
        self._deliveries: dict[int, Link] = {}

    # --- frames --------------------------------------------------------------------------------------------------

    def receive(self, code: int, frame: bytes, start: int) -> None:
        """BEGIN to END. The engine is told one frame at a time, so that events do not depend on how the stream was
        cut, and nothing is begun or attached beyond the limits."""
        channel = int.from_bytes(frame[6:8])
        if code == frames.BEGIN:
            self._begin(channel, frame, start)
            return
        session = self._channels.get(channel)
        if session is None:
            raise AmqpError(NOT_ALLOWED, f"no session on channel {channel}")
        if code == frames.ATTACH:
            self._attach(session, frame, start)
        elif code == frames.DETACH:
            self._detach(session, frame, start)
        elif code == frames.END:
            self._end(channel, session, frame, start)
        else:
            self._engine.push(frames.bounded_flow(frame, start) if code == frames.FLOW else frame)
            for kind, pointer in self._engine.poll():
                if kind == engine.DELIVERY:
                    self._delivery(pointer)
                elif kind == engine.LINK_FLOW:
                    self._flow(pointer)
            if session.blocked and code == frames.FLOW:
                self._unblock(session)

    def pull(self) -> None:
        if self._draining:
            for link in self._draining:
                if link.live:
                    engine.drained(link.pointer)
                    link.credit = engine.credit(link.pointer)
            self._draining.clear()
        self._flush()

    def _flush(self) -> None:
        self._settled = False
        self._engine.pull(self._output)

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _begin(self, channel: int, frame: bytes, start: int) -> None:
        frames.read_begin(frames.fields(frame, start))
        if channel > frames.CHANNEL_MAX:
            raise AmqpError(FRAMING_ERROR, f"channel {channel}")
        if channel in self._channels:
            raise AmqpError(NOT_ALLOWED, f"channel {channel} has a session")
        if len(self._channels) >= self.max_sessions:
            raise AmqpError(RESOURCE_LIMIT_EXCEEDED, f"more than {self.max_sessions} sessions")
        self._engine.push(frame)
        for kind, pointer in self._engine.poll():
            if kind == engine.SESSION_BEGUN:
                engine.open_session(pointer)
                self._channels[channel] = Session(self._next_number(), pointer)
        self._flush()  # the session's windows count only then

    def _end(self, channel: int, session: Session, frame: bytes, start: int) -> None:
        error = frames.read_error(frames.fields(frame, start), 0)
        self._engine.push(frame)
        for _ in self._engine.poll():
            pass
        for link in list(session.links.values()):
            if not link.ended:
                self._events.append(LinkDetached(link.number, False, None))
            self._forget(link)
        del self._channels[channel]
        engine.free_session(session.pointer)
        self._flush()
        self._events.append(SessionEnded(session.number, error))

    def _attach(self, session: Session, frame: bytes, start: int) -> None:
        attach = frames.read_attach(frames.fields(frame, start))
        if attach.handle > _HANDLE_MAX:
            raise AmqpError(FRAMING_ERROR, f"handle {attach.handle}")  # [AMQP-2.7.2]
        if attach.handle in session.links:
            raise AmqpError(HANDLE_IN_USE, f"handle {attach.handle}")
        if len(self._links) >= self.max_links:
            raise AmqpError(RESOURCE_LIMIT_EXCEEDED, f"more than {self.max_links} links")
        if len(frame) + _ATTACH_MARGIN > self._peer_frame_size:
            raise AmqpError(FRAME_SIZE_TOO_SMALL, "the answer to an ATTACH would not fit")
        self._engine.push(frame)
        for kind, pointer in self._engine.poll():
            if kind == engine.LINK_ATTACHED:
                link = Link(self._next_number(), pointer, session, not attach.receiver)
                session.links[attach.handle] = self._links[link.number] = self._pointers[pointer] = link
                self._events.append(
                    LinkAttached(
                        link.number,
                        session.number,
                        "receiver" if attach.receiver else "sender",
                        attach.name,
                        attach.source_address,
                        attach.target_address,
                        attach.properties,
                        attach.snd_settle_mode,
                        attach.rcv_settle_mode,
                    )
                )

    def _detach(self, session: Session, frame: bytes, start: int) -> None:
        handle, closed, error = frames.read_detach(frames.fields(frame, start))
        link = session.links.get(handle)
        if link is None:
            raise AmqpError(UNATTACHED_HANDLE, f"handle {handle}")
        self._engine.push(frame)
        for _ in self._engine.poll():
            pass
        if not link.ended:
            self._events.append(LinkDetached(link.number, closed, error))
            engine.answer_detach(link.pointer, attached=link.attached, closed=closed)
        self._forget(link)
        engine.free_link(link.pointer)
        self._flush()  # the name is free again only then
        del session.links[handle]

    def _forget(self, link: Link) -> None:
        for number in link.deliveries:
            del self._deliveries[number]
        self.buffered -= link.buffered
        link.ended = True
        del self._links[link.number], self._pointers[link.pointer]
        link.session.blocked.discard(link.number)

    # --- messages ------------------------------------------------------------------------------------------------

    def _delivery(self, pointer: Pointer) -> None:
        link = self._pointers.get(engine.link_of(pointer))
        if link is None:
            return
        if not link.peer_sends:
            engine.forget(pointer)  # an outcome of what was sent unsettled
        elif engine.current(link.pointer) == pointer:  # else the peer's word about one that is handed on
            self._receive_message(link, pointer)

    def _receive_message(self, link: Link, pointer: Pointer) -> None:
        size: int = engine.pending_bytes(pointer)
        partial: bool = engine.is_partial(pointer)
        if not link.ended:
            if link.credit <= 0:
                self._give_up(link, TRANSFER_LIMIT_EXCEEDED, "a transfer without credit")
            elif size > MAX_MESSAGE_SIZE:
                self._give_up(link, MESSAGE_SIZE_EXCEEDED, f"above {MAX_MESSAGE_SIZE} bytes")
        self.buffered -= link.buffered
        link.buffered = 0
        if link.ended or engine.is_aborted(pointer):
            engine.read(link.pointer, size)
            if not partial:
                link.credit -= 1
                engine.forget(pointer)
                link.top_up()
        elif partial:
            link.buffered = size
            self.buffered += size
            if self.buffered > MAX_BUFFERED:
                raise AmqpError(
                    RESOURCE_LIMIT_EXCEEDED, f"more than {MAX_BUFFERED} bytes of messages that are not whole"
                )
        else:
            self._hand_on(link, pointer, engine.read(link.pointer, size))

    def _hand_on(self, link: Link, pointer: Pointer, payload: bytes) -> None:
        engine.advance(link.pointer)
        link.credit -= 1
        number = self._next_number()
        settled: bool = engine.is_settled(pointer)
        if settled:
            engine.forget(pointer)
            link.top_up()
        else:
            self._deliveries[number] = link
            link.deliveries[number] = pointer
        self._events.append(MessageReceived(link.number, number, payload, settled))

    def _give_up(self, link: Link, condition: str, description: str) -> None:
        engine.detach(link.pointer, condition, description)
        link.ended = True
        self._events.append(LinkDetached(link.number, True, AmqpError(condition, description)))

    def _flow(self, pointer: Pointer) -> None:
        link = self._pointers.get(pointer)
        if link is not None and not link.peer_sends and not link.ended:
            credit = engine.credit(pointer)
            if credit != link.credit:  # the engine tells of what we have used up ourselves, too
                link.credit = credit
                self._events.append(CreditChanged(link.number, credit))
            if engine.is_draining(pointer):
                self._draining.append(link)

    def _unblock(self, session: Session) -> None:
        self._flush()
        if engine.held_back(session.pointer) <= MAX_HELD_BACK // 2:
            for number in session.blocked:
                self._events.append(CreditChanged(number, self.credit(number)))
            session.blocked.clear()

    # --- verbs ---------------------------------------------------------------------------------------------------

    def accept_link(self, number: int, credit: int, snd_settle_mode: int | None, rcv_settle_mode: int | None) -> None:
        link = self._links.get(number)
        if link is None or link.ended:
            return
        if link.attached:
            raise RuntimeError("the link is attached already")
        link.attached = True
        engine.attach(link.pointer, ANNOUNCED_MESSAGE_SIZE, snd_settle_mode, rcv_settle_mode)
        if link.peer_sends:
            link.credit_target = credit
            link.top_up()

    def end_link(self, number: int, condition: str, description: str) -> None:
        """Refuse it, or detach it if it was accepted."""
        link = self._links.get(number)
        if link is None or link.ended:
            return
        if link.attached:
            engine.detach(link.pointer, condition, description)
        else:
            engine.refuse(link.pointer, condition, description)
        link.ended = True

    def settle(self, delivery: int, outcome: int, condition: str | None) -> None:
        link = self._deliveries.pop(delivery, None)
        if link is not None:
            engine.settle(link.deliveries.pop(delivery), outcome, condition)
            self._settled = True
            link.top_up()

    def send(self, number: int, message: bytes, settled: bool) -> bool:
        link = self._links.get(number)
        if link is None or not link.live or link.peer_sends or link.credit <= 0:
            return False
        if self._settled:
            self._flush()  # what was settled before is read before
        session = link.session
        if engine.held_back(session.pointer) > MAX_HELD_BACK:
            self._flush()
            if engine.held_back(session.pointer) > MAX_HELD_BACK:
                session.blocked.add(number)
                return False
        engine.send(link.pointer, self._next_number(), message, settled)
        link.credit -= 1
        return True

    def credit(self, number: int) -> int:
        link = self._links.get(number)
        return link.credit if link is not None and link.live and not link.peer_sends else 0
