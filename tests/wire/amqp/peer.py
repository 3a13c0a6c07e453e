"""The other side of an AmqpServerProtocol: frames by hand, and a peer on an engine of its own."""

from __future__ import annotations

from collections.abc import Callable

from proton import Collector, Connection, Delivery, Event, Receiver, Sender, Session, Transport

from methodhub.wire.amqp import frames
from methodhub.wire.amqp.codec import NULL, Symbol, decode_described, describe, encode, encode_fields
from methodhub.wire.amqp.events import Event as ServerEvent
from methodhub.wire.amqp.events import LinkAttached
from methodhub.wire.amqp.protocol import AmqpServerProtocol

TRUE, FALSE = b"\x41", b"\x42"


def uint(value: int) -> bytes:
    return b"\x70" + value.to_bytes(4)


def ushort(value: int) -> bytes:
    return b"\x60" + value.to_bytes(2)


def frame(channel: int, code: int, fields: list[bytes], payload: bytes = b"", kind: int = 0) -> bytes:
    body = describe(code, encode_fields(fields)) + payload
    return (len(body) + 8).to_bytes(4) + bytes((2, kind)) + channel.to_bytes(2) + body


def open_frame(max_frame_size: int | None = None, channel_max: int | None = None, idle: int | None = None) -> bytes:
    fields = [
        encode("peer"),
        encode("hub.local"),
        NULL if max_frame_size is None else uint(max_frame_size),
        NULL if channel_max is None else ushort(channel_max),
        NULL if idle is None else uint(idle),
    ]
    return frame(0, frames.OPEN, fields)


def begin(channel: int, window: int = 2048) -> bytes:
    return frame(channel, frames.BEGIN, [NULL, uint(0), uint(window), uint(window)])


def attach(
    channel: int,
    handle: int,
    name: str,
    role: str,
    source: str | None,
    target: str | None,
    snd_settle_mode: int | None = None,
    properties: dict[str, str] | None = None,
) -> bytes:
    """`role` as an event has it: the peer's."""
    fields = [
        encode(name),
        uint(handle),
        TRUE if role == "receiver" else FALSE,
        NULL if snd_settle_mode is None else bytes((0x50, snd_settle_mode)),
        b"\x50\x00",
        describe(0x28, encode_fields([encode(source)])),
        describe(0x29, encode_fields([encode(target)])),
        NULL,
        NULL,
        NULL if role == "receiver" else uint(0),
        NULL,
        NULL,
        NULL,
        encode({Symbol(key): value for key, value in (properties or {}).items()} or None),
    ]
    return frame(channel, frames.ATTACH, fields)


def detach(channel: int, handle: int, closed: bool = True) -> bytes:
    return frame(channel, frames.DETACH, [uint(handle), TRUE if closed else FALSE])


def flow(channel: int, handle: int, credit: int, delivery_count: int = 0, *, drain: bool = False) -> bytes:
    windows = [uint(0), uint(2048), uint(0), uint(2048)]
    rest = [NULL, TRUE] if drain else []
    return frame(channel, frames.FLOW, [*windows, uint(handle), uint(delivery_count), uint(credit), *rest])


def transfer(
    channel: int, handle: int, number: int, payload: bytes, *, settled: bool = False, more: bool = False
) -> bytes:
    flags = [TRUE if settled else FALSE, TRUE if more else FALSE]
    fields = [uint(handle), uint(number), encode(number.to_bytes(4)), uint(0), *flags]
    return frame(channel, frames.TRANSFER, fields, payload)


def sasl_init(mechanism: str, response: bytes | None = None, hostname: str | None = None) -> bytes:
    return frame(0, 0x41, [encode(Symbol(mechanism)), encode(response), encode(hostname)], kind=1)


def split(data: bytes) -> list[bytes]:
    """Headers and frames."""
    parts = []
    while data:
        size = 8 if data[:4] == b"AMQP" else int.from_bytes(data[:4])
        parts.append(data[:size])
        data = data[size:]
    return parts


def code_of(part: bytes) -> int:
    """The performative's code; 0 for headers and heartbeats."""
    return 0 if part[:4] == b"AMQP" or len(part) == 8 else decode_described(part, 8, len(part))[0]


def codes(data: bytes) -> list[int]:
    return [code_of(part) for part in split(data)]


def fields_of(part: bytes) -> list[object]:
    fields = decode_described(part, 8, len(part))[1]
    assert isinstance(fields, list)
    return fields


class Peer:
    """A client on Proton's own wrapper, joined to a server."""

    def __init__(self, server: AmqpServerProtocol, max_frame_size: int = 65_536, idle_timeout: float = 0) -> None:
        self.server = server
        self.connection = Connection()
        self.connection.container = "peer"
        self.connection.hostname = "hub.local"
        self._collector = Collector()
        self.connection.collect(self._collector)
        self.transport = Transport()
        self.transport.max_frame_size = max_frame_size
        self.transport.idle_timeout = idle_timeout
        self.transport.bind(self.connection)
        self.connection.open()
        self.sent: list[bytes] = []
        """Frames of the server."""
        self.on_delivery: Callable[[Delivery], None] = lambda _: None
        self.on_event: Callable[[ServerEvent], None] = lambda _: None

    def exchange(self, now: float = 0.0) -> list[ServerEvent]:
        """Until neither has anything to say."""
        events: list[ServerEvent] = []
        while True:
            quiet = True
            while (size := self.transport.pending()) > 0:
                self.server.receive_data(bytes(self.transport.peek(size) or b""), now)
                self.transport.pop(size)
                quiet = False
            for event in self.server.events():
                events.append(event)
                self.on_event(event)
            data = self.server.data_to_send()
            if data:
                quiet = False
                self.sent += split(data)
                self._receive(data)
            if quiet:
                return events

    def _receive(self, data: bytes) -> None:
        while data:
            size = min(len(data), self.transport.capacity())
            self.transport.push(data[:size])
            data = data[size:]
        while (event := self._collector.peek()) is not None:
            if event.type == Event.DELIVERY and event.delivery is not None:
                self.on_delivery(event.delivery)
            self._collector.pop()

    def attach(self, name: str = "methods", credit: int = 100) -> tuple[Sender, Receiver, int, int]:
        """A session with a sender and a receiver, accepted; and their numbers."""
        session: Session = self.connection.session()
        session.open()
        sender: Sender = session.sender(name)
        sender.target.address = "there"
        receiver: Receiver = session.receiver(name)
        receiver.source.address = "here"
        sender.open()
        receiver.open()
        receiver.flow(credit)
        numbers = {}
        for event in self.exchange():
            if isinstance(event, LinkAttached):
                self.server.accept_link(event.link, credit=100)
                numbers[event.role] = event.link
        self.exchange()
        return sender, receiver, numbers["sender"], numbers["receiver"]
