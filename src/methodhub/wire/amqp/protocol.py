"""The server's half of one AMQP 1.0 connection: bytes in, events out, time as an argument.

It owns no socket and no clock, and knows neither who the peer is nor what its addresses mean.

    STARTING --a--> NEGOTIATING --b--> AUTHENTICATING --c--> RESTARTING --d--> OPENING --e--> OPEN --f--> CLOSED
       +--------------------------------d-----------------------------------------^     (f from everywhere)

a  The SASL header came.    b  sasl-init: the event SaslInit. What follows it is kept unread until c.
c  `accept_sasl`.    d  The AMQP header came.    e  OPEN: the event Opened.
f  CLOSE, end of stream, error, silence: the event Closed, the last. `refuse_sasl`, `close`: no event.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from typing import Literal

from methodhub.wire.amqp import frames, sasl
from methodhub.wire.amqp.endpoints import Endpoints
from methodhub.wire.amqp.engine import OUTCOMES, Engine, EngineError
from methodhub.wire.amqp.errors import FRAMING_ERROR, INVALID_FIELD, NOT_ALLOWED, RESOURCE_LIMIT_EXCEEDED, AmqpError
from methodhub.wire.amqp.events import Closed, Event, Opened

MECHANISMS = ("EXTERNAL", "MSSBCBS", "ANONYMOUS", "PLAIN")
"""In the order of `wire/device.md` 3.1."""

IDLE_TIMEOUT = 240.0
"""Seconds, as announced. A peer is given up after twice as many [AMQP-2.4.5]."""

MIN_IDLE_TIMEOUT = 5.0
"""Seconds. A peer that announces less is refused (`wire/device.md` 3.2)."""

Outcome = Literal["accepted", "rejected", "released"]


class State(Enum):
    STARTING = "starting"
    NEGOTIATING = "negotiating"
    AUTHENTICATING = "authenticating"
    RESTARTING = "restarting"
    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


STRANGER_SESSIONS, STRANGER_LINKS = 256, 16
"""Before the first accepted credential. Java begins a session for each device of a multiplexed connection before it
puts a token, and attaches the six links of a device with a certificate at once."""


class AmqpServerProtocol:
    """Turns what a peer sends into events, and verbs into what it is to be sent.

    OPEN, BEGIN and the peer's DETACH, END and CLOSE are answered here, and heartbeats sent at half the peer's
    idle-time-out. Verbs on a closed connection, or about what is gone, do nothing: the peer may end it while the
    events before are still worked through.
    """

    __slots__ = (
        "_container_id",
        "_endpoints",
        "_engine",
        "_events",
        "_heard",
        "_heartbeat",
        "_heartbeat_due",
        "_max_links",
        "_max_sessions",
        "_mechanisms",
        "_needed",
        "_output",
        "_partial",
        "state",
    )

    def __init__(
        self,
        container_id: str,
        mechanisms: Sequence[str] = MECHANISMS,
        max_sessions: int = STRANGER_SESSIONS,
        max_links: int = STRANGER_LINKS,
    ) -> None:
        self.state = State.STARTING
        self._container_id = container_id
        self._mechanisms = mechanisms
        self._max_sessions = max_sessions
        self._max_links = max_links
        self._engine: Engine | None = None
        self._endpoints: Endpoints | None = None
        self._partial: bytearray | None = None
        self._needed = 0  # bytes that must have come before it pays to look at _partial again
        self._events: list[Event] = []
        self._output: list[bytes] = []
        self._heard = 0.0
        self._heartbeat: float | None = None  # seconds from one of ours to the next
        self._heartbeat_due = 0.0

    # --- bytes, events, time -------------------------------------------------------------------------------------

    @property
    def buffered_bytes(self) -> int:
        """Bytes received and not yet handed on: the beginning of a frame, of messages, and until `accept_sasl` all
        that followed sasl-init. That last amount is for the owner to bound."""
        partial = 0 if self._partial is None else len(self._partial)
        return partial if self._endpoints is None else partial + self._endpoints.buffered

    def set_limits(self, max_sessions: int, max_links: int) -> None:
        """One more than either is `amqp:resource-limit-exceeded`, and ends the connection."""
        self._max_sessions = max_sessions
        self._max_links = max_links
        if self._endpoints is not None:
            self._endpoints.max_sessions = max_sessions
            self._endpoints.max_links = max_links

    def events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        events = self._events.copy()
        self._events.clear()
        return events

    def data_to_send(self) -> bytes:
        """What is to be sent since the last call."""
        if self._endpoints is not None:
            self._endpoints.pull()
        output = self._output
        if not output:
            return b""
        data = b"".join(output)
        output.clear()
        return data

    def next_deadline(self) -> float | None:
        """When `tick` is due: for a heartbeat, or because the peer has been silent for too long. None until OPEN."""
        if self.state is not State.OPEN:
            return None
        silence = self._heard + 2 * IDLE_TIMEOUT
        return silence if self._heartbeat is None else min(silence, self._heartbeat_due)

    def tick(self, now: float) -> None:
        """Do what is due at `now`, in seconds of the clock of `receive_data`."""
        if self.state is not State.OPEN:
            return
        if now >= self._heard + 2 * IDLE_TIMEOUT:
            # Without CLOSE: one SDK answers it with requests, waits for their answers, and stays away.
            error = AmqpError(RESOURCE_LIMIT_EXCEEDED, "nothing was heard for twice the idle-time-out")
            self._end(Closed(error, clean=False))
        elif self._heartbeat is not None and now >= self._heartbeat_due:
            assert self._endpoints is not None
            self._endpoints.pull()
            self._output.append(frames.HEARTBEAT)  # [AMQP-2.4.5]
            self._heartbeat_due = now + self._heartbeat

    def receive_data(self, data: bytes, now: float) -> None:
        """Bytes from the peer, in any portions. Raises nothing: an error of the peer is an event."""
        if self.state is State.CLOSED:
            return
        if self._partial is not None:
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial = None
        try:
            position = self._read(data, now)
        except AmqpError as error:
            self._fail(error.with_traceback(None))  # its frames would keep `data` alive
            return
        if position:
            self._heard = now
        if position < len(data):
            self._partial = bytearray(data[position:])
            if self.state is State.AUTHENTICATING:
                self._needed = sys.maxsize

    def receive_eof(self) -> None:
        """The stream ended."""
        if self.state is not State.CLOSED:
            self._end(Closed(None, clean=False))

    # --- verbs: connection ---------------------------------------------------------------------------------------

    def accept_sasl(self, now: float) -> None:
        """Answer SaslInit with outcome 0, then read what the peer sent meanwhile."""
        if self.state is State.AUTHENTICATING:
            self._output.append(sasl.outcome_frame(sasl.OK))
            self.state = State.RESTARTING
            self._needed = 0
            self.receive_data(b"", now)

    def refuse_sasl(self, code: int = sasl.AUTH) -> None:
        """Answer SaslInit with outcome 1 to 4 [AMQP-5.3.3.6]. The owner sends it and closes."""
        if self.state is State.AUTHENTICATING:
            self._output.append(sasl.outcome_frame(code))
            self._end(None)

    def close(self, condition: str | None = None, description: str = "") -> None:
        """CLOSE, with an error if there is a condition. The owner sends it and closes."""
        if self.state is not State.CLOSED:
            self._say_close(condition, description)
            self._end(None)

    # --- verbs: links --------------------------------------------------------------------------------------------

    def accept_link(
        self, link: int, credit: int = 0, snd_settle_mode: int | None = None, rcv_settle_mode: int | None = None
    ) -> None:
        """ATTACH, with the peer's own termini; settle modes None are the peer's. A peer that sends gets `credit` at
        once, and again as it is used up and its deliveries settled."""
        if self._endpoints is not None:
            self._endpoints.accept_link(link, credit, snd_settle_mode, rcv_settle_mode)

    def refuse_link(self, link: int, condition: str, description: str = "") -> None:
        """ATTACH without termini, then DETACH closed with the error."""
        if self._endpoints is not None:
            self._endpoints.end_link(link, condition, description)

    def detach_link(self, link: int, condition: str, description: str = "") -> None:
        """DETACH closed with the error. No event of the link follows."""
        if self._endpoints is not None:
            self._endpoints.end_link(link, condition, description)

    def settle(self, delivery: int, outcome: Outcome = "accepted", condition: str | None = None) -> None:
        """DISPOSITION, settled. It goes out before whatever is sent after it. `condition` is for "rejected"."""
        if self._endpoints is not None:
            self._endpoints.settle(delivery, OUTCOMES[outcome], condition)

    def send(self, link: int, message: bytes, settled: bool = True) -> bool:
        """A message, in as many transfers as the peer's max-frame-size asks for. False if it is not taken: the link
        has no credit or is gone, or too many bytes wait for the peer's session window. A CreditChanged follows when
        it may be tried again. What is sent unsettled is forgotten at the peer's word about it, whatever it is."""
        return self._endpoints is not None and self._endpoints.send(link, message, settled)

    def credit(self, link: int) -> int:
        """Messages that a peer that receives will take now."""
        return 0 if self._endpoints is None else self._endpoints.credit(link)

    # --- reading -------------------------------------------------------------------------------------------------

    def _read(self, data: bytes, now: float) -> int:
        """Read whole headers and frames; returns where the first begins that is not whole. Each check is made as
        soon as its bytes are there, so that the outcome does not depend on how the stream was cut."""
        position, end = 0, len(data)
        while position < end:
            state = self.state
            if state is State.STARTING or state is State.RESTARTING:
                self._check_header(data[position : position + 8])
                size = 8
            elif state is State.CLOSED:
                return end  # nothing follows CLOSE
            elif state is State.AUTHENTICATING:
                break
            elif end - position < 4:
                size = 4
            else:
                limit = sasl.MAX_SASL_FRAME if state is State.NEGOTIATING else frames.MAX_FRAME_SIZE
                size = frames.frame_size(data, position, limit)
            if position + size > end:
                self._needed = 0 if size == 8 else size  # each byte of a header is judged at once
                break
            self._receive(data[position : position + size], now)
            position += size
        return position

    def _receive(self, frame: bytes, now: float) -> None:
        match self.state:
            case State.OPEN:
                self._receive_frame(frame)
            case State.OPENING:
                self._receive_open(frame, now)
            case State.NEGOTIATING:
                init = sasl.parse_init(frame)
                if init.mechanism not in self._mechanisms:
                    self._output.append(sasl.outcome_frame(sasl.AUTH))
                    raise AmqpError(NOT_ALLOWED, "a SASL mechanism that was not offered")
                self.state = State.AUTHENTICATING
                self._events.append(init)
            case _:
                self._receive_header(frame)

    def _check_header(self, head: bytes) -> None:
        """At most 8 bytes. Another one is answered with one that would do [AMQP-2.2]."""
        starting = self.state is State.STARTING
        if sasl.AMQP_HEADER.startswith(head) or (starting and sasl.SASL_HEADER.startswith(head)):
            return
        wants_sasl = starting and head[:5] == sasl.SASL_HEADER[:5]
        self._output.append(sasl.SASL_HEADER if wants_sasl else sasl.AMQP_HEADER)
        raise AmqpError(FRAMING_ERROR, "an unknown protocol header")

    def _receive_header(self, header: bytes) -> None:
        if header == sasl.SASL_HEADER:
            self._output += (header, sasl.mechanisms_frame(self._mechanisms))
            self.state = State.NEGOTIATING
        else:
            self._engine = Engine(
                self._container_id, frames.MAX_FRAME_SIZE, frames.CHANNEL_MAX, round(1000 * IDLE_TIMEOUT)
            )
            self._engine.push(header)
            self._engine.pull(self._output)
            self.state = State.OPENING

    def _receive_open(self, frame: bytes, now: float) -> None:
        start = frames.body_start(frame)
        if start == len(frame) or frames.performative(frame, start) != frames.OPEN:
            raise AmqpError(NOT_ALLOWED, "the first frame is not OPEN")
        opened = frames.read_open(frames.fields(frame, start))
        patience = None if opened.idle_timeout is None else opened.idle_timeout / 1000
        if patience is not None:
            if patience < MIN_IDLE_TIMEOUT:
                raise AmqpError(INVALID_FIELD, f"idle-time-out below {MIN_IDLE_TIMEOUT:g} seconds")
            self._heartbeat = patience / 2
            self._heartbeat_due = now + self._heartbeat
        engine = self._engine
        assert engine is not None
        engine.push(frame)
        for _ in engine.poll():
            pass
        engine.open_connection()
        engine.pull(self._output)
        self._endpoints = Endpoints(
            engine, opened.max_frame_size, self._max_sessions, self._max_links, self._events, self._output
        )
        self.state = State.OPEN
        self._events.append(Opened(opened.container_id, opened.hostname, opened.max_frame_size, patience))

    def _receive_frame(self, frame: bytes) -> None:
        start = frames.body_start(frame)
        if start == len(frame):
            return  # a heartbeat
        code = frames.performative(frame, start)
        if code == frames.OPEN:
            raise AmqpError(NOT_ALLOWED, "a second OPEN")
        if code == frames.CLOSE:
            error = frames.read_error(frames.fields(frame, start), 0)
            self._say_close(None)
            self._end(Closed(error, clean=True))
            return
        assert self._endpoints is not None
        self._endpoints.receive(code, frame, start)

    def _fail(self, error: AmqpError) -> None:
        if isinstance(error, EngineError) and self._engine is not None:
            self._engine.pull(self._output)  # it tells the peer itself
        else:
            self._say_close(error.condition, error.description)
        self._end(Closed(error, clean=False))

    def _say_close(self, condition: str | None, description: str = "") -> None:
        """By hand: the engine says no CLOSE before it was told an OPEN."""
        if self._engine is not None:
            self._engine.open_connection()
            self._engine.pull(self._output)
            self._output.append(frames.close_frame(condition, description))

    def _end(self, event: Closed | None) -> None:
        """The engine is freed at once."""
        self.state = State.CLOSED
        self._partial = None
        self._endpoints = None
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if event is not None:
            self._events.append(event)
