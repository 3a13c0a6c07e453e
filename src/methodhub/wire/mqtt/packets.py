"""MQTT 3.1.1 control packets of both directions: one parse, one serialize. Knows no connection and no state.

Tags such as [MQTT-3.1.2-3] name the statement of the standard that a line enforces. What can be raised:

    MqttError
     +-- MalformedPacket            bytes that are no packet: lengths, UTF-8, reserved bits, bytes left over
     +-- PacketTooLarge             a packet longer than the receiver allows
     +-- ProtocolViolation          a well-formed packet that may not say this, or not now
     +-- UnsupportedProtocolLevel   a CONNECT of another MQTT than 3.1.1
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

MAX_REMAINING_LENGTH = 268_435_455


class MqttError(Exception):
    """The peer broke the standard: its connection must be closed [MQTT-4.8.0-1]."""


class MalformedPacket(MqttError):
    """Bytes that are no packet."""


class PacketTooLarge(MqttError):
    """A packet longer than the receiver allows."""


class ProtocolViolation(MqttError):
    """A well-formed packet that may not say this, or not now."""


class UnsupportedProtocolLevel(MqttError):
    """A CONNECT of another MQTT than 3.1.1: to be refused with return code 1 [MQTT-3.1.2-2]."""

    def __init__(self, name: str, level: int) -> None:
        super().__init__(f"CONNECT speaks {name[:20]!r} level {level}, not 'MQTT' level 4 (MQTT 3.1.1)")
        self.level = level


class Will(msgspec.Struct, frozen=True, gc=False):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class Connect(msgspec.Struct, frozen=True, gc=False):
    """`keep_alive` in seconds, 0: none. An empty `client_id` is left to the receiver to judge."""

    client_id: str
    clean_session: bool
    keep_alive: int
    user_name: str | None
    password: bytes | None
    will: Will | None

    def __repr__(self) -> str:
        """Without the password, so that no log and no traceback can show it."""
        password = None if self.password is None else "..."
        return (
            f"Connect(client_id={self.client_id!r}, clean_session={self.clean_session}, "
            f"keep_alive={self.keep_alive}, user_name={self.user_name!r}, password={password}, "
            f"will={self.will!r})"
        )


class ConnAck(msgspec.Struct, frozen=True, gc=False):
    session_present: bool
    return_code: int


class Publish(msgspec.Struct, frozen=True, gc=False):
    """`packet_id` is `None` exactly at QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int | None


class PubAck(msgspec.Struct, frozen=True, gc=False):
    packet_id: int


class PubRec(msgspec.Struct, frozen=True, gc=False):
    packet_id: int


class PubRel(msgspec.Struct, frozen=True, gc=False):
    packet_id: int


class PubComp(msgspec.Struct, frozen=True, gc=False):
    packet_id: int


class Subscribe(msgspec.Struct, frozen=True, gc=False):
    """`filters`: pairs of topic filter and requested QoS, in the packet's order."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


class SubAck(msgspec.Struct, frozen=True, gc=False):
    """`return_codes`: per filter the granted QoS, or 0x80 for a refusal."""

    packet_id: int
    return_codes: tuple[int, ...]


class Unsubscribe(msgspec.Struct, frozen=True, gc=False):
    packet_id: int
    filters: tuple[str, ...]


class UnsubAck(msgspec.Struct, frozen=True, gc=False):
    packet_id: int


class PingReq(msgspec.Struct, frozen=True, gc=False):
    pass


class PingResp(msgspec.Struct, frozen=True, gc=False):
    pass


class Disconnect(msgspec.Struct, frozen=True, gc=False):
    pass


ClientPacket = Connect | Publish | PubAck | PubRec | PubRel | PubComp | Subscribe | Unsubscribe | PingReq | Disconnect
ServerPacket = ConnAck | SubAck | UnsubAck | PingResp
Packet = ClientPacket | ServerPacket


def parse(first_byte: int, body: bytes) -> Packet:
    """One packet from its first byte and all that follows its remaining length.

    Raises MalformedPacket, ProtocolViolation or UnsupportedProtocolLevel."""
    return parse_at(first_byte, body, 0, len(body))


def parse_at(first_byte: int, data: bytes, start: int, stop: int) -> Packet:
    """`parse` of the body `data[start:stop]`, without a copy of it."""
    if first_byte & 0xF0 == 0x30:
        return parse_publish(first_byte, data, start, stop)
    parser = _PARSERS.get(first_byte)
    if parser is None:  # [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1]
        raise MalformedPacket(f"reserved type or flags in first byte {first_byte:#04x}")
    cursor = _Cursor(data, start, stop)
    packet = parser(cursor)
    if cursor.position != stop:
        raise MalformedPacket(f"{stop - cursor.position} bytes too many in packet {first_byte:#04x}")
    return packet


def parse_publish(first_byte: int, data: bytes, start: int, stop: int) -> Publish:
    """`parse_at` for a PUBLISH. It runs once for every answer of a device, hence in one piece."""
    position = start + 2
    if position > stop:
        raise MalformedPacket("PUBLISH ends within its topic")
    topic_end = position + (data[start] << 8 | data[start + 1])
    if topic_end > stop:
        raise MalformedPacket("PUBLISH ends within its topic")
    try:
        topic = data[position:topic_end].decode()
    except UnicodeDecodeError:
        raise MalformedPacket("topic is not UTF-8") from None  # [MQTT-1.5.3-1] [MQTT-3.3.2-1]
    if not topic or "+" in topic or "#" in topic or "\0" in topic:
        _check_topic(topic)
    if first_byte == 0x30:
        return Publish(topic, data[topic_end:stop], 0, False, False, None)

    qos = first_byte >> 1 & 0x03
    dup = first_byte & 0x08 != 0
    packet_id = None
    if qos == 3:
        raise MalformedPacket("PUBLISH with both QoS bits set")  # [MQTT-3.3.1-4]
    if qos:
        if topic_end + 2 > stop:
            raise MalformedPacket("PUBLISH ends within its packet id")
        packet_id = data[topic_end] << 8 | data[topic_end + 1]
        topic_end += 2
        if packet_id == 0:
            raise ProtocolViolation("packet id 0")  # [MQTT-2.3.1-1]
    elif dup:
        raise ProtocolViolation("PUBLISH at QoS 0 marked as a duplicate")  # [MQTT-3.3.1-2]
    return Publish(topic, data[topic_end:stop], qos, first_byte & 0x01 != 0, dup, packet_id)


def parse_remaining_length(data: bytes, position: int) -> tuple[int, int] | None:
    """The remaining length that begins at `position`, and where the body begins; `None`: bytes are missing.

    At most 4 bytes (section 2.2.3). Raises MalformedPacket."""
    length = 0
    for index, byte in enumerate(data[position : position + 4]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return length, position + index + 1
    if len(data) - position < 4:
        return None
    raise MalformedPacket("remaining length of more than 4 bytes")


class _Cursor:
    """Reads the fields of one body in order; none reaches beyond `stop`."""

    __slots__ = ("data", "position", "stop")

    def __init__(self, data: bytes, position: int, stop: int) -> None:
        self.data = data
        self.position = position
        self.stop = stop

    def take(self, size: int) -> bytes:
        begin = self.position
        end = begin + size
        if end > self.stop:
            raise MalformedPacket(f"packet ends {end - self.stop} bytes too early")
        self.position = end
        return self.data[begin:end]

    def byte(self) -> int:
        return self.take(1)[0]

    def uint16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def binary(self) -> bytes:
        return self.take(self.uint16())

    def string(self) -> str:
        try:
            text = self.binary().decode()
        except UnicodeDecodeError:  # surrogates and overlong forms are refused by Python's decoder too
            raise MalformedPacket("string is not UTF-8") from None  # [MQTT-1.5.3-1]
        if "\0" in text:
            raise MalformedPacket("string with U+0000")  # [MQTT-1.5.3-2]
        return text

    def packet_id(self) -> int:
        packet_id = self.uint16()
        if packet_id == 0:
            raise ProtocolViolation("packet id 0")  # [MQTT-2.3.1-1]
        return packet_id

    def filter(self) -> str:
        topic_filter = self.string()  # [MQTT-3.8.3-1] [MQTT-3.10.3-1]
        if not topic_filter:
            raise ProtocolViolation("empty topic filter")  # [MQTT-4.7.3-1]
        if "#" in topic_filter[:-1]:  # [MQTT-4.7.1-2]
            raise ProtocolViolation(f"'#' before the end of topic filter {topic_filter[:100]!r}")
        for level in topic_filter.split("/"):
            if len(level) > 1 and ("+" in level or "#" in level):  # [MQTT-4.7.1-2] [MQTT-4.7.1-3]
                raise ProtocolViolation(f"wildcard beside text in topic filter {topic_filter[:100]!r}")
        return topic_filter


def _check_topic(topic: str) -> None:
    if not topic:
        raise ProtocolViolation("empty topic")  # [MQTT-4.7.3-1]
    if "\0" in topic:
        raise MalformedPacket("topic with U+0000")  # [MQTT-1.5.3-2] [MQTT-4.7.3-2]
    if "+" in topic or "#" in topic:
        raise ProtocolViolation(f"wildcard in topic {topic[:100]!r}")  # [MQTT-3.3.2-2] [MQTT-4.7.1-1]


def _parse_connect(cursor: _Cursor) -> Connect:
    name, level = cursor.string(), cursor.byte()
    if name != "MQTT" or level != 4:
        raise UnsupportedProtocolLevel(name, level)  # [MQTT-3.1.2-1] [MQTT-3.1.2-2]
    flags = cursor.byte()
    if flags & 0x01:
        raise MalformedPacket("reserved flag of CONNECT is set")  # [MQTT-3.1.2-3]
    has_user_name, has_password = flags & 0x80 != 0, flags & 0x40 != 0
    if has_password and not has_user_name:
        raise ProtocolViolation("password without a user name")  # [MQTT-3.1.2-22]
    keep_alive = cursor.uint16()
    client_id = cursor.string()  # [MQTT-3.1.3-3] [MQTT-3.1.3-4]
    will = None
    if flags & 0x04:
        qos = flags >> 3 & 0x03
        if qos == 3:
            raise MalformedPacket("will with QoS 3")  # [MQTT-3.1.2-14]
        topic = cursor.string()  # [MQTT-3.1.3-10]
        _check_topic(topic)
        will = Will(topic, cursor.binary(), qos, flags & 0x20 != 0)
    elif flags & 0x38:
        raise MalformedPacket("will QoS or will retain without a will")  # [MQTT-3.1.2-13] [MQTT-3.1.2-15]
    user_name = cursor.string() if has_user_name else None  # [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-11]
    password = cursor.binary() if has_password else None  # [MQTT-3.1.2-20] [MQTT-3.1.2-21]
    return Connect(client_id, flags & 0x02 != 0, keep_alive, user_name, password, will)


def _parse_connack(cursor: _Cursor) -> ConnAck:
    flags, return_code = cursor.byte(), cursor.byte()
    if flags > 1 or return_code > 5:
        raise MalformedPacket(f"CONNACK with flags {flags:#x}, return code {return_code}")
    if flags and return_code:
        raise ProtocolViolation("CONNACK that refuses with a session present")  # [MQTT-3.2.2-4]
    return ConnAck(flags == 1, return_code)


def _parse_subscribe(cursor: _Cursor) -> Subscribe:
    packet_id = cursor.packet_id()
    filters = []
    while cursor.position < cursor.stop:
        topic_filter, qos = cursor.filter(), cursor.byte()
        if qos > 2:
            raise MalformedPacket(f"SUBSCRIBE with options {qos:#x}")  # [MQTT-3-8.3-4]
        filters.append((topic_filter, qos))
    if not filters:
        raise ProtocolViolation("SUBSCRIBE without a filter")  # [MQTT-3.8.3-3]
    return Subscribe(packet_id, tuple(filters))


def _parse_suback(cursor: _Cursor) -> SubAck:
    packet_id = cursor.packet_id()
    return_codes = tuple(cursor.take(cursor.stop - cursor.position))
    if not return_codes or not {0, 1, 2, 0x80}.issuperset(return_codes):
        raise MalformedPacket("SUBACK without, or with reserved, return codes")  # [MQTT-3.9.3-2]
    return SubAck(packet_id, return_codes)


def _parse_unsubscribe(cursor: _Cursor) -> Unsubscribe:
    packet_id = cursor.packet_id()
    filters = []
    while cursor.position < cursor.stop:
        filters.append(cursor.filter())
    if not filters:
        raise ProtocolViolation("UNSUBSCRIBE without a filter")  # [MQTT-3.10.3-2]
    return Unsubscribe(packet_id, tuple(filters))


_KINDS: dict[int, tuple[type[Packet], Callable[[_Cursor], Packet]]] = {
    0x10: (Connect, _parse_connect),
    0x20: (ConnAck, _parse_connack),
    0x40: (PubAck, lambda cursor: PubAck(cursor.packet_id())),
    0x50: (PubRec, lambda cursor: PubRec(cursor.packet_id())),
    0x62: (PubRel, lambda cursor: PubRel(cursor.packet_id())),
    0x70: (PubComp, lambda cursor: PubComp(cursor.packet_id())),
    0x82: (Subscribe, _parse_subscribe),
    0x90: (SubAck, _parse_suback),
    0xA2: (Unsubscribe, _parse_unsubscribe),
    0xB0: (UnsubAck, lambda cursor: UnsubAck(cursor.packet_id())),
    0xC0: (PingReq, lambda _: PingReq()),
    0xD0: (PingResp, lambda _: PingResp()),
    0xE0: (Disconnect, lambda _: Disconnect()),
}
"""Every first byte there is, but for those of PUBLISH."""

_PARSERS = {first_byte: parser for first_byte, (_, parser) in _KINDS.items()}
_FIRST_BYTES = {kind: first_byte for first_byte, (kind, _) in _KINDS.items()}


def serialize(packet: Packet) -> bytes:
    """The bytes of one packet. Fields are trusted; OverflowError as in `serialize_publish`."""
    if isinstance(packet, Publish):
        whole = serialize_publish(packet.topic.encode(), packet.payload, packet.qos, packet.packet_id)
        return bytes((whole[0] | packet.dup << 3 | packet.retain,)) + whole[1:]
    return _frame(_FIRST_BYTES[type(packet)], _body(packet))


def _body(packet: Packet) -> bytes:
    match packet:
        case PubAck() | PubRec() | PubRel() | PubComp() | UnsubAck():
            return _uint16(packet.packet_id)
        case SubAck():
            return _uint16(packet.packet_id) + bytes(packet.return_codes)
        case ConnAck():
            return bytes((packet.session_present, packet.return_code))
        case Connect():
            return _connect_body(packet)
        case Subscribe():
            pairs = (_string(topic_filter) + bytes((qos,)) for topic_filter, qos in packet.filters)
            return _uint16(packet.packet_id) + b"".join(pairs)
        case Unsubscribe():
            return _uint16(packet.packet_id) + b"".join(map(_string, packet.filters))
        case _:
            return b""


def serialize_publish(topic: bytes, payload: bytes, qos: int = 0, packet_id: int | None = None) -> bytes:
    """A PUBLISH, neither retained nor a duplicate; `packet_id` is given exactly when `qos` is not 0.

    Raises OverflowError for a topic above 65,535 bytes or a packet above 268,435,455."""
    size = len(topic)
    if packet_id is None:
        return b"".join((b"\x30", _length(2 + size + len(payload)), size.to_bytes(2, "big"), topic, payload))
    body = b"".join((size.to_bytes(2, "big"), topic, packet_id.to_bytes(2, "big"), payload))
    return _frame(0x30 | qos << 1, body)


def _connect_body(packet: Connect) -> bytes:
    flags = packet.clean_session << 1
    fields = [_string(packet.client_id)]
    if packet.will is not None:
        flags |= 0x04 | packet.will.qos << 3 | packet.will.retain << 5
        fields += _string(packet.will.topic), _binary(packet.will.payload)
    if packet.user_name is not None:
        flags |= 0x80
        fields.append(_string(packet.user_name))
    if packet.password is not None:
        flags |= 0x40
        fields.append(_binary(packet.password))
    head = b"\x00\x04MQTT\x04" + bytes((flags,)) + _uint16(packet.keep_alive)
    return head + b"".join(fields)  # [MQTT-3.1.3-1]


def _frame(first_byte: int, body: bytes) -> bytes:
    return b"".join((bytes((first_byte,)), _length(len(body)), body))


def _length(length: int) -> bytes:
    if length < 0x80:
        return bytes((length,))
    if length > MAX_REMAINING_LENGTH:
        raise OverflowError(f"an MQTT packet holds at most {MAX_REMAINING_LENGTH} bytes, not {length}")
    encoded = bytearray()
    while length >= 0x80:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)


def _uint16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _binary(value: bytes) -> bytes:
    return _uint16(len(value)) + value


def _string(value: str) -> bytes:
    return _binary(value.encode())
