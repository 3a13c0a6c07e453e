"""The server's half of one MQTT 3.1.1 connection: bytes in, events out, time as an argument.

It owns no socket and no clock, and knows neither who the client is nor what its topics mean.

    AWAITING_CONNECT --a--> CONNECTING --b--> CONNECTED --d--> CLOSED
            |                    |                               ^
            +---------d----------+------------c, d---------------+

a  CONNECT came: the event Connect. Whatever follows it is kept unread until b.
b  `accept`.    c  `refuse`: no event.    d  DISCONNECT, end of stream, error: the event Closed, the last.
"""

from __future__ import annotations

import sys
from enum import Enum

import msgspec

from methodhub.wire.mqtt.packets import (
    ConnAck,
    Connect,
    Disconnect,
    MqttError,
    Packet,
    PacketTooLarge,
    PingReq,
    PingResp,
    ProtocolViolation,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    UnsupportedProtocolLevel,
    parse_at,
    parse_publish,
    parse_remaining_length,
    serialize,
    serialize_publish,
)

MAX_PACKET_SIZE = 262_144
"""Bytes of a whole packet, its header included (`wire/device.md` 1.7)."""

KEEP_ALIVE_CAP = 1767.0
"""Seconds of silence that are borne at most (`wire/device.md` 1.3)."""

UNACCEPTABLE_PROTOCOL_VERSION = 1

_PINGRESP = serialize(PingResp())


class State(Enum):
    AWAITING_CONNECT = "awaiting connect"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"


class Closed(msgspec.Struct, frozen=True):
    """The last event. `clean`: after a DISCONNECT; `error`: the client's mistake; neither: the stream ended."""

    error: MqttError | None
    clean: bool


Event = Connect | Publish | Subscribe | Unsubscribe | Closed


class MqttServerProtocol:
    """Turns what a client sends into events, and verbs into what it is to be sent.

    The server grants at most QoS 1: a PUBLISH at QoS 2 ends the connection as a ProtocolViolation, as does
    any other packet of that exchange. PINGREQ is answered here; PUBACK is accepted and ignored.

    Verbs other than `accept` and `refuse` are for a connection that was accepted, else RuntimeError. On a
    closed one every verb does nothing: the peer may close while the events before are still worked through.
    """

    __slots__ = (
        "_events",
        "_heard",
        "_keep_alive_cap",
        "_max_packet_size",
        "_needed",
        "_output",
        "_packet_id",
        "_partial",
        "_patience",
        "state",
    )

    def __init__(self, max_packet_size: int = MAX_PACKET_SIZE, keep_alive_cap: float = KEEP_ALIVE_CAP) -> None:
        """`max_packet_size` in bytes, header included; `keep_alive_cap` in seconds."""
        self.state = State.AWAITING_CONNECT
        self._max_packet_size = max_packet_size
        self._keep_alive_cap = keep_alive_cap
        self._patience = keep_alive_cap
        self._heard = 0.0
        self._packet_id = 0
        self._partial: bytearray | None = None
        self._needed = 0  # bytes that must have come before it pays to look at _partial again
        self._events: list[Event] = []
        self._output: list[bytes] = []

    @property
    def buffered_bytes(self) -> int:
        """Bytes received and not yet read: the beginning of a packet or, until `accept`, all that followed
        CONNECT. That second amount is for the owner to bound."""
        return 0 if self._partial is None else len(self._partial)

    def next_deadline(self) -> float | None:
        """When the client will have been silent for too long: 1.5 times its keep-alive after its last whole
        packet [MQTT-3.1.2-24], or the cap if that is less or the keep-alive is 0. `None` unless connected."""
        return self._heard + self._patience if self.state is State.CONNECTED else None

    def events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        events = self._events
        self._events = []
        return events

    def data_to_send(self) -> bytes:
        """What is to be sent since the last call."""
        output = self._output
        if not output:
            return b""
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return data

    def receive_data(self, data: bytes, now: float) -> None:
        """Bytes from the client, in any portions. Raises nothing: an error of the peer is an event."""
        if self.state is State.CLOSED:
            return  # [MQTT-3.1.4-5]; after an error nothing more is read
        if self._partial is not None:
            self._partial += data
            if len(self._partial) < self._needed:
                return
            data = bytes(self._partial)
            self._partial = None
        try:
            position = self._read_packets(data)
        except MqttError as error:
            if isinstance(error, UnsupportedProtocolLevel):  # [MQTT-3.1.2-2]
                self._output.append(serialize(ConnAck(False, UNACCEPTABLE_PROTOCOL_VERSION)))
            self._close(Closed(error.with_traceback(None), clean=False))  # its frames would keep `data` alive
            return
        if position:
            self._heard = now
        if position < len(data) or self.state is State.CONNECTING:
            self._partial = bytearray(data[position:])

    def receive_eof(self) -> None:
        """The stream ended."""
        if self.state is not State.CLOSED:
            self._close(Closed(None, clean=False))

    def accept(self, session_present: bool, now: float) -> None:
        """Answer CONNECT with return code 0, then read what the client sent meanwhile."""
        if not self._may_send(State.CONNECTING):
            return
        self._output.append(serialize(ConnAck(session_present, 0)))  # [MQTT-3.2.0-1]
        self.state = State.CONNECTED
        self._heard = now
        self._needed = 0
        self.receive_data(b"", now)

    def refuse(self, return_code: int) -> None:
        """Answer CONNECT with a return code from 1 to 5. The owner sends it and closes [MQTT-3.2.2-5]; what
        came after CONNECT is dropped [MQTT-3.1.4-5]."""
        if self._may_send(State.CONNECTING):
            self._output.append(serialize(ConnAck(False, return_code)))  # [MQTT-3.2.2-4]
            self.state = State.CLOSED
            self._partial = None

    def publish(self, topic: bytes, payload: bytes, qos: int = 0) -> None:
        """A message at QoS 0 or 1, to a topic of UTF-8 without wildcards. Packet ids count round from 1 to
        65,535: nothing is sent twice, so none has to be remembered until its PUBACK."""
        if not self._may_send():
            return
        if qos == 0:
            self._output.append(serialize_publish(topic, payload))
        else:
            self._packet_id = self._packet_id % 65_535 + 1  # [MQTT-2.3.1-1]
            self._output.append(serialize_publish(topic, payload, qos, self._packet_id))

    def acknowledge(self, packet_id: int) -> None:
        """PUBACK, for a Publish at QoS 1 [MQTT-2.3.1-6]."""
        if self._may_send():
            self._output.append(serialize(PubAck(packet_id)))

    def grant(self, packet_id: int, return_codes: tuple[int, ...]) -> None:
        """SUBACK, for a Subscribe: a granted QoS per filter, in its order [MQTT-3.8.4-2] [MQTT-3.8.4-5]."""
        if self._may_send():
            self._output.append(serialize(SubAck(packet_id, return_codes)))

    def unsubscribed(self, packet_id: int) -> None:
        """UNSUBACK, for an Unsubscribe [MQTT-3.10.4-4]."""
        if self._may_send():
            self._output.append(serialize(UnsubAck(packet_id)))

    def _may_send(self, wanted: State = State.CONNECTED) -> bool:
        if self.state is wanted:
            return True
        if self.state is State.CLOSED:
            return False
        raise RuntimeError(f"this verb is for a connection that is {wanted.value}, not {self.state.value}")

    def _close(self, event: Closed) -> None:
        self.state = State.CLOSED
        self._partial = None
        self._events.append(event)

    def _read_packets(self, data: bytes) -> int:
        """Read whole packets; returns where the first begins that is not whole. Each check is made as soon as
        its bytes are there, so that the outcome does not depend on how the stream was cut."""
        position, end = 0, len(data)
        if end and self.state is State.AWAITING_CONNECT and data[0] >> 4 != 1:  # [MQTT-3.1.0-1]
            raise ProtocolViolation(f"first packet is of type {data[0] >> 4}, not CONNECT")
        while position < end:
            first_byte = data[position]
            start = position + 2
            if start <= end and data[position + 1] < 0x80:
                stop = start + data[position + 1]
            else:
                header = parse_remaining_length(data, position + 1)
                if header is None:
                    self._needed = end - position + 1
                    return position
                length, start = header
                stop = start + length
            if stop - position > self._max_packet_size:
                raise PacketTooLarge(f"packet of {stop - position} bytes, above {self._max_packet_size}")
            if stop > end:
                self._needed = stop - position
                return position
            position = stop
            if first_byte & 0xF0 == 0x30:
                packet = parse_publish(first_byte, data, start, stop)
                if packet.qos == 2:
                    raise ProtocolViolation("PUBLISH at QoS 2")
                self._events.append(packet)
            else:
                self._receive(parse_at(first_byte, data, start, stop))
                if self.state is State.CLOSED:
                    return end  # [MQTT-3.14.4-2] nothing follows DISCONNECT
                if self.state is State.CONNECTING:
                    break
        return position

    def _receive(self, packet: Packet) -> None:
        match packet:
            case PingReq():
                self._output.append(_PINGRESP)  # [MQTT-3.12.4-1]
            case Subscribe() | Unsubscribe():
                self._events.append(packet)
            case PubAck():
                pass
            case Connect() if self.state is State.AWAITING_CONNECT:
                if packet.keep_alive:
                    self._patience = min(1.5 * packet.keep_alive, self._keep_alive_cap)
                self.state = State.CONNECTING
                self._needed = sys.maxsize  # until accept
                self._events.append(packet)
            case Disconnect():
                self._close(Closed(None, clean=True))
            case _:  # [MQTT-3.1.0-2] a second CONNECT; packets of QoS 2; packets that only a server sends
                raise ProtocolViolation(f"unexpected {type(packet).__name__}")
