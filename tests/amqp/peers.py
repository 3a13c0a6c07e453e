"""A device over AMQP, frame by frame on a blocking TLS socket. It counts windows and deliveries as the standard asks,
and waits for frames, never for time."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from methodhub.wire.amqp import frames
from methodhub.wire.amqp.codec import NULL, decode_described, encode
from methodhub.wire.amqp.messages import AmqpValue, Message, MessageId, decode_message, encode_message
from methodhub.wire.amqp.sasl import AMQP_HEADER, SASL_HEADER
from tests.harness import PATIENCE, RunningHub
from tests.hub.peers import Peer
from tests.wire.amqp.peer import FALSE, TRUE, attach, begin, detach, frame, open_frame, sasl_init, uint

TOKEN_TYPE = "servicebus.windows.net:sastoken"
PIECE = 30_000
"""Bytes of a message that go into one frame."""


@dataclass(frozen=True)
class Frame:
    channel: int
    code: int
    fields: list[Any]
    payload: bytes

    def field(self, number: int) -> Any:
        return self.fields[number] if number < len(self.fields) else None


@dataclass(eq=False)
class Session:
    channel: int
    sent: int = 0
    """Deliveries; each goes in one or more transfers."""
    transfers: int = 0
    received: int = 0


@dataclass(eq=False)
class Link:
    session: Session
    handle: int
    role: str
    credit: int = 0
    """What this side has given, if it receives."""
    of_the_hub: int = -1
    """The hub's handle."""
    count: int = 0
    """Deliveries so far."""


@dataclass(frozen=True)
class Refused:
    condition: str
    description: str


@dataclass(frozen=True)
class Request:
    """A method call as it arrived."""

    name: str
    payload: bytes | None
    id: MessageId
    transfers: int
    message: Message = field(repr=False)


class AmqpPeer(Peer):
    """Either end's wire is checked: frames that nobody waits for fail the test, but for FLOW and heartbeats."""

    def __init__(self, hub: RunningHub, certificate: tuple[Path, Path] | None = None) -> None:
        assert hub.facts.amqp_port
        if certificate is None:
            super().__init__(hub, hub.facts.amqp_port)
        else:
            super().__init__(hub, hub.facts.amqp_port, tls=False)
            context = ssl.create_default_context(cafile=str(hub.ca_file))
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_hostname=hub.address)
        self.closed: Refused | None = None
        """The hub's CLOSE, if it came with an error."""
        self.flows: list[Frame] = []
        self.hub_sessions: dict[int, Session] = {}
        """By the hub's channels."""
        self._names = count(1)
        self._ids = count(1)

    # --- frames --------------------------------------------------------------------------------------------------

    def frame(self) -> Frame | None:
        """The next frame, or None at the end of the stream."""
        head = self.read(4)
        if len(head) < 4:
            return None
        data = head + self.read(int.from_bytes(head) - 4)
        start = 4 * data[4]
        if start == len(data):
            return self.frame()  # a heartbeat
        code, values, end = decode_described(data, start, len(data))
        found = Frame(int.from_bytes(data[6:8]), code, list(values), data[end:])
        if code == frames.CLOSE and found.field(0) is not None:
            self.closed = refused(found.field(0))
        if code == frames.TRANSFER:
            self.hub_sessions[found.channel].received += 1
        return found

    def expect(self, code: int) -> Frame:
        """The next frame that is no FLOW has this code."""
        while True:
            found = self.frame()
            assert found is not None, f"the hub closed; {self.closed}"
            if found.code != frames.FLOW or code == frames.FLOW:
                assert found.code == code, f"{found} instead of {code:#x}; {self.closed}"
                return found
            self.flows.append(found)

    def ended(self) -> Refused | None:
        """The hub ends the connection; with this error. Whatever comes before is passed over."""
        while self.frame() is not None:
            pass
        return self.closed

    def header(self) -> bytes:
        return self.read(8)

    # --- start ---------------------------------------------------------------------------------------------------

    def sasl(self, mechanism: str, response: bytes | None = None) -> int:
        """The code of the outcome."""
        self.send(SASL_HEADER)
        assert self.header() == SASL_HEADER
        assert self.expect(0x40).fields == [["EXTERNAL", "MSSBCBS", "ANONYMOUS", "PLAIN"]]
        self.send(sasl_init(mechanism, response, "hub"))
        code: int = self.expect(0x44).fields[0]
        return code

    def open(self, **fields: int) -> Session:
        """OPEN and a first session."""
        self.send(AMQP_HEADER + open_frame(**fields))
        assert self.header() == AMQP_HEADER
        opened = self.expect(frames.OPEN)
        assert opened.field(4) == 240_000
        assert opened.field(0).startswith("MethodHub_")
        return self.begin()

    def begin(self, channel: int = 0) -> Session:
        self.send(begin(channel))
        answer = self.expect(frames.BEGIN)
        assert answer.field(0) == channel
        session = self.hub_sessions[answer.channel] = Session(channel)
        return session

    # --- links ---------------------------------------------------------------------------------------------------

    def ask_attach(self, session: Session, role: str, address: str | None, name: str = "", other: str = "x") -> Link:
        handle = next(self._names)
        source, target = (other, address) if role == "sender" else (address, other)
        self.send(attach(session.channel, handle, name or f"link-{handle}", role, source, target))
        return Link(session, handle, role)

    def attach(self, session: Session, role: str, address: str | None, name: str = "", other: str = "x") -> Link:
        link = self.ask_attach(session, role, address, name, other)
        answer = self.expect(frames.ATTACH)
        link.of_the_hub = answer.field(1)
        terminus = answer.field(6 if role == "sender" else 5)
        assert terminus is not None and terminus.value[0] == address, answer
        return link

    def refused(self, session: Session, role: str, address: str | None) -> Refused:
        """The hub answers with ATTACH without terminus, then DETACH with its reason; the peer detaches, too."""
        link = self.ask_attach(session, role, address)
        answer = self.expect(frames.ATTACH)
        assert answer.field(5) is None and answer.field(6) is None
        why = self.detached()
        self.send(detach(session.channel, link.handle))
        return why

    def detached(self) -> Refused:
        """The hub detaches a link, closed and with an error."""
        found = self.expect(frames.DETACH)
        assert found.field(1) is True
        return refused(found.field(2))

    def detach(self, link: Link) -> None:
        self.send(detach(link.session.channel, link.handle))

    def give(self, link: Link, credit: int) -> None:
        session = link.session
        link.credit = credit
        windows = [uint(session.received), uint(100_000), uint(session.transfers), uint(100_000)]
        values = [*windows, uint(link.handle), uint(link.count), uint(credit)]
        self.send(frame(session.channel, frames.FLOW, values))

    # --- messages ------------------------------------------------------------------------------------------------

    def post(self, link: Link, message: Message | bytes, settled: bool = False) -> None:
        data = message if isinstance(message, bytes) else encode_message(message)
        session = link.session
        first = [uint(link.handle), uint(session.sent), encode(session.sent.to_bytes(4)), uint(0)]
        pieces = [data[at : at + PIECE] for at in range(0, len(data) or 1, PIECE)]
        for number, piece in enumerate(pieces):
            more = TRUE if number < len(pieces) - 1 else FALSE
            start = first if number == 0 else [uint(link.handle), NULL, NULL, NULL]
            self.send(frame(session.channel, frames.TRANSFER, [*start, TRUE if settled else FALSE, more], piece))
        session.sent += 1
        session.transfers += len(pieces)
        link.count += 1

    def settled(self) -> Any:
        """The hub's outcome for a delivery."""
        found = self.expect(frames.DISPOSITION)
        assert found.field(0) is True and found.field(3) is True
        return found.field(4)

    def message(self, link: Link) -> tuple[Message, int]:
        """The next message, and in how many transfers it came."""
        payload, transfers = b"", 0
        while True:
            found = self.expect(frames.TRANSFER)
            assert found.field(4) is True or transfers, "not pre-settled"
            payload += found.payload
            transfers += 1
            if not found.field(5):
                link.count += 1
                link.credit -= 1
                return decode_message(payload), transfers

    # --- claims --------------------------------------------------------------------------------------------------

    def open_cbs(self, session: Session, reply_address: str = "cbs") -> tuple[Link, Link]:
        sender = self.attach(session, "sender", "$cbs", other=reply_address)
        receiver = self.attach(session, "receiver", "$cbs", other=reply_address)
        self.give(receiver, 100)
        return sender, receiver

    def claim(self, cbs: tuple[Link, Link], token: str, message_id: MessageId = 0, **more: Any) -> tuple[int, str]:
        """Status and description. [HUB-cbs] the disposition comes before the reply."""
        properties = {"operation": "put-token", "type": TOKEN_TYPE, "name": "whatever", **more}
        self.post(cbs[0], Message(AmqpValue(token), message_id, application_properties=properties))
        assert is_accepted(self.settled())
        reply, _ = self.message(cbs[1])
        assert (type(reply.correlation_id), reply.correlation_id) == (type(message_id), message_id)
        status, text = (reply.application_properties[name] for name in ("status-code", "status-description"))
        assert isinstance(status, int) and isinstance(text, str)
        return status, text


def is_accepted(outcome: Any) -> bool:
    return bool(outcome.descriptor == 0x24)


def refused(error: Any) -> Refused:
    assert error.descriptor == 0x1D
    return Refused(*error.value[:2])


def methods_address(device_id: str, module_id: str = "") -> str:
    return f"/devices/{device_id}" + (f"/modules/{module_id}" if module_id else "") + "/methods/devicebound"


class Methods:
    """The pair of methods links of one identity."""

    def __init__(
        self, peer: AmqpPeer, session: Session, device_id: str, module_id: str = "", credit: int = 100
    ) -> None:
        self.peer = peer
        address = methods_address(device_id, module_id)
        self.sender = peer.attach(session, "sender", address)
        self.receiver = peer.attach(session, "receiver", address)
        if credit:
            peer.give(self.receiver, credit)

    def request(self) -> Request:
        message, transfers = self.peer.message(self.receiver)
        name = message.application_properties["IoThub-methodname"]
        assert isinstance(name, str) and isinstance(message.body, bytes) and isinstance(message.correlation_id, UUID)
        return Request(name, message.body, message.correlation_id, transfers, message)

    def answer(
        self,
        request: Request,
        body: bytes | AmqpValue | None = b"{}",
        status: Any = 200,
        correlation: MessageId | None = None,
    ) -> None:
        """And wait until it is settled."""
        properties = {} if status is None else {"IoThub-status": status}
        self.peer.post(
            self.sender,
            Message(body, correlation_id=correlation or request.id, application_properties=properties),
        )
        assert is_accepted(self.peer.settled())


class AmqpDevice(AmqpPeer):
    """Open, with a token for one identity and its methods links: ready for calls."""

    methods: Methods
    session: Session
    cbs: tuple[Link, Link]

    def __init__(
        self, hub: RunningHub, device_id: str = "d1", module_id: str = "", credit: int = 100, **opening: int
    ) -> None:
        super().__init__(hub)
        self.session = self.open(**opening)
        self.cbs = self.open_cbs(self.session)
        self.know(device_id, module_id)
        self.methods = Methods(self, self.session, device_id, module_id, credit)

    def know(self, device_id: str, module_id: str = "", seconds: int = 3600) -> None:
        """One more identity."""
        token = self.hub.device_token(device_id, module_id, seconds)
        assert self.claim(self.cbs, token) == (200, "OK")

    def round_trip(self) -> None:
        """The hub has read all that was sent before: an answer that belongs to nothing is settled."""
        self.post(self.methods.sender, Message(b"", correlation_id="nothing"))
        assert is_accepted(self.settled())


__all__ = ["PATIENCE", "AmqpDevice", "AmqpPeer", "Methods", "Refused", "methods_address"]
