"""One table of MQTT 3.1.1 packets, good and bad, with their bytes. Codec and protocol tests both walk it."""

from __future__ import annotations

from dataclasses import dataclass

from methodhub.wire.mqtt.packets import (
    ConnAck,
    Connect,
    Disconnect,
    MalformedPacket,
    MqttError,
    Packet,
    PingReq,
    PingResp,
    ProtocolViolation,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    UnsupportedProtocolLevel,
    Will,
)


@dataclass(frozen=True)
class Good:
    """`raw`: first byte, remaining length, body. `minimal`: `raw` is also what `serialize` writes."""

    name: str
    raw: bytes
    packet: Packet
    minimal: bool = True


@dataclass(frozen=True)
class Bad:
    """A whole packet that a receiver must refuse with `error`. The name opens with the clause."""

    name: str
    raw: bytes
    error: type[MqttError]


def _hex(text: str) -> bytes:
    """Hex bytes and, in single quotes, ASCII text: `30 05 0003 'a/b'`."""
    pieces = text.split("'")
    return b"".join(piece.encode() if index % 2 else bytes.fromhex(piece) for index, piece in enumerate(pieces))


def _framed(first_byte: int, body: str) -> bytes:
    raw = _hex(body)
    assert len(raw) < 0x80
    return bytes((first_byte, len(raw))) + raw


GOOD = [
    Good(
        "CONNECT, least",
        _hex("10 0D 0004 'MQTT' 04 02 003C 0001 'd'"),
        Connect("d", True, 60, None, None, None),
    ),
    Good(
        "CONNECT without a client id",
        _hex("10 0C 0004 'MQTT' 04 00 0000 0000"),
        Connect("", False, 0, None, None, None),
    ),
    Good(
        "CONNECT, user name alone",
        _framed(0x10, "0004 'MQTT' 04 80 FFFF 0003 'd/m' 0001 'u'"),
        Connect("d/m", False, 65535, "u", None, None),
    ),
    Good(
        "CONNECT, everything",
        _framed(0x10, "0004 'MQTT' 04 EE 003C 0001 'd' 0003 'w/t' 0002 FF00 0001 'u' 0002 00FF"),
        Connect("d", True, 60, "u", b"\x00\xff", Will("w/t", b"\xff\x00", 1, True)),
    ),
    Good(
        "CONNECT, empty password and empty will payload",
        _framed(0x10, "0004 'MQTT' 04 C4 003C 0001 'd' 0001 'w' 0000 0000 0000"),
        Connect("d", False, 60, "", b"", Will("w", b"", 0, False)),
    ),
    Good("CONNACK", _hex("20 02 00 00"), ConnAck(False, 0)),
    Good("CONNACK, session present", _hex("20 02 01 00"), ConnAck(True, 0)),
    Good("CONNACK, refused", _hex("20 02 00 05"), ConnAck(False, 5)),
    Good("PUBLISH at QoS 0", _hex("30 07 0003 'a/b' 'hi'"), Publish("a/b", b"hi", 0, False, False, None)),
    Good("PUBLISH without a payload", _hex("30 03 0001 'a'"), Publish("a", b"", 0, False, False, None)),
    Good("PUBLISH, retained", _hex("31 03 0001 'a'"), Publish("a", b"", 0, True, False, None)),
    Good("PUBLISH at QoS 1", _hex("32 07 0001 'a' 1234 'hi'"), Publish("a", b"hi", 1, False, False, 0x1234)),
    Good("PUBLISH, duplicate", _hex("3B 05 0001 'a' 0001"), Publish("a", b"", 1, True, True, 1)),
    Good(
        "[MQTT-1.5.3-3] PUBLISH, U+FEFF is kept",
        _hex("30 06 0004 EFBBBF 'a'"),
        Publish("\ufeffa", b"", 0, False, False, None),
    ),
    Good(
        "PUBLISH, length in more bytes than it needs",
        _hex("30 83 80 00 0001 'a'"),
        Publish("a", b"", 0, False, False, None),
        minimal=False,
    ),
    Good(
        "PUBLISH, length in two bytes",
        _hex("30 80 01 0001 'a'") + bytes(125),
        Publish("a", bytes(125), 0, False, False, None),
    ),
    Good(
        "PUBLISH, length in three bytes",
        _hex("30 80 80 01 0001 'a'") + bytes(16381),
        Publish("a", bytes(16381), 0, False, False, None),
    ),
    Good("PUBACK", _hex("40 02 FFFF"), PubAck(65535)),
    Good("PUBREC", _hex("50 02 0001"), PubRec(1)),
    Good("PUBREL", _hex("62 02 0001"), PubRel(1)),
    Good("PUBCOMP", _hex("70 02 0001"), PubComp(1)),
    Good("SUBSCRIBE", _hex("82 08 0001 0003 'a/#' 01"), Subscribe(1, (("a/#", 1),))),
    Good(
        "SUBSCRIBE, several",
        _framed(0x82, "0002 0001 '#' 00 0001 '+' 01 0005 '+/b/+' 02 0001 '/' 00"),
        Subscribe(2, (("#", 0), ("+", 1), ("+/b/+", 2), ("/", 0))),
    ),
    Good("SUBACK", _hex("90 06 0002 00 01 02 80"), SubAck(2, (0, 1, 2, 128))),
    Good("UNSUBSCRIBE", _hex("A2 0A 0003 0003 'a/#' 0001 'b'"), Unsubscribe(3, ("a/#", "b"))),
    Good("UNSUBACK", _hex("B0 02 0003"), UnsubAck(3)),
    Good("PINGREQ", _hex("C0 00"), PingReq()),
    Good("PINGRESP", _hex("D0 00"), PingResp()),
    Good("DISCONNECT", _hex("E0 00"), Disconnect()),
]

BAD_CONNECT = [
    Bad(
        "[MQTT-3.1.2-1] protocol name",
        _framed(0x10, "0004 'mqtt' 04 02 003C 0001 'd'"),
        UnsupportedProtocolLevel,
    ),
    Bad(
        "[MQTT-3.1.2-2] MQTT 3.1",
        _framed(0x10, "0006 'MQIsdp' 03 02 003C 0001 'd'"),
        UnsupportedProtocolLevel,
    ),
    Bad(
        "[MQTT-3.1.2-2] MQTT 5",
        _framed(0x10, "0004 'MQTT' 05 02 003C 00 0001 'd'"),
        UnsupportedProtocolLevel,
    ),
    Bad("[MQTT-3.1.2-3] reserved flag", _framed(0x10, "0004 'MQTT' 04 03 003C 0001 'd'"), MalformedPacket),
    Bad(
        "[MQTT-3.1.2-13] will QoS without a will",
        _framed(0x10, "0004 'MQTT' 04 0A 003C 0001 'd'"),
        MalformedPacket,
    ),
    Bad(
        "[MQTT-3.1.2-14] will QoS 3",
        _framed(0x10, "0004 'MQTT' 04 1E 003C 0001 'd' 0001 'w' 0000"),
        MalformedPacket,
    ),
    Bad(
        "[MQTT-3.1.2-15] will retain without a will",
        _framed(0x10, "0004 'MQTT' 04 22 003C 0001 'd'"),
        MalformedPacket,
    ),
    Bad(
        "[MQTT-3.1.2-22] password without a user name",
        _framed(0x10, "0004 'MQTT' 04 42 003C 0001 'd' 0001 'p'"),
        ProtocolViolation,
    ),
    Bad(
        "[MQTT-3.1.2-19] user name missing",
        _framed(0x10, "0004 'MQTT' 04 82 003C 0001 'd'"),
        MalformedPacket,
    ),
    Bad(
        "[MQTT-3.1.2-18] user name without its flag",
        _framed(0x10, "0004 'MQTT' 04 02 003C 0001 'd' 0001 'u'"),
        MalformedPacket,
    ),
    Bad(
        "[MQTT-3.1.2-21] password missing",
        _framed(0x10, "0004 'MQTT' 04 C2 003C 0001 'd' 0001 'u'"),
        MalformedPacket,
    ),
    Bad(
        "[MQTT-3.1.2-20] password without its flag",
        _framed(0x10, "0004 'MQTT' 04 82 003C 0001 'd' 0001 'u' 0001 'p'"),
        MalformedPacket,
    ),
    Bad("[MQTT-3.1.3-3] no client id", _framed(0x10, "0004 'MQTT' 04 02 003C"), MalformedPacket),
    Bad(
        "[MQTT-3.1.3-4] client id not UTF-8",
        _framed(0x10, "0004 'MQTT' 04 02 003C 0001 FF"),
        MalformedPacket,
    ),
    Bad(
        "[MQTT-3.1.3-10] will topic not UTF-8",
        _framed(0x10, "0004 'MQTT' 04 06 003C 0001 'd' 0001 FF 0000"),
        MalformedPacket,
    ),
    Bad(
        "[MQTT-3.1.3-11] user name not UTF-8",
        _framed(0x10, "0004 'MQTT' 04 82 003C 0001 'd' 0002 C328"),
        MalformedPacket,
    ),
    Bad(
        "[MQTT-4.7.1-1] wildcard in the will topic",
        _framed(0x10, "0004 'MQTT' 04 06 003C 0001 'd' 0001 '#' 0000"),
        ProtocolViolation,
    ),
    Bad(
        "[MQTT-4.7.3-1] empty will topic",
        _framed(0x10, "0004 'MQTT' 04 06 003C 0001 'd' 0000 0000"),
        ProtocolViolation,
    ),
    Bad("[MQTT-2.2.2-2] flags of CONNECT", _framed(0x11, "0004 'MQTT' 04 02 003C 0001 'd'"), MalformedPacket),
    Bad("[MQTT-3.1.2-1] CONNECT without a body", _hex("10 00"), MalformedPacket),
]

BAD = [
    Bad("[MQTT-2.2.2-1] [MQTT-2.2.2-2] type 0", _hex("00 00"), MalformedPacket),
    Bad("[MQTT-2.2.2-2] type 15", _hex("F0 00"), MalformedPacket),
    Bad("[MQTT-2.2.2-2] flags of PUBACK", _hex("42 02 0001"), MalformedPacket),
    Bad("[MQTT-3.6.1-1] flags of PUBREL", _hex("60 02 0001"), MalformedPacket),
    Bad("[MQTT-3.8.1-1] flags of SUBSCRIBE", _hex("80 06 0001 0001 'a' 00"), MalformedPacket),
    Bad("[MQTT-3.10.1-1] flags of UNSUBSCRIBE", _hex("A0 05 0001 0001 'a'"), MalformedPacket),
    Bad("[MQTT-2.2.2-2] flags of PINGREQ", _hex("C1 00"), MalformedPacket),
    Bad("[MQTT-3.14.1-1] flags of DISCONNECT", _hex("E8 00"), MalformedPacket),
    Bad("PUBLISH without a body", _hex("30 00"), MalformedPacket),
    Bad("PUBLISH, half a topic length", _hex("30 01 00"), MalformedPacket),
    Bad("PUBLISH, topic beyond the end", _hex("30 03 0002 'a'"), MalformedPacket),
    Bad("PUBLISH, no packet id", _hex("32 04 0001 'a' 00"), MalformedPacket),
    Bad("[MQTT-2.3.1-1] PUBLISH, packet id 0", _hex("32 05 0001 'a' 0000"), ProtocolViolation),
    Bad("[MQTT-3.3.1-2] PUBLISH, duplicate at QoS 0", _hex("38 03 0001 'a'"), ProtocolViolation),
    Bad("[MQTT-3.3.1-4] PUBLISH, QoS 3", _hex("36 05 0001 'a' 0001"), MalformedPacket),
    Bad("[MQTT-3.3.2-1] PUBLISH, topic not UTF-8", _hex("30 03 0001 FF"), MalformedPacket),
    Bad("[MQTT-1.5.3-1] PUBLISH, surrogate", _hex("30 05 0003 EDA080"), MalformedPacket),
    Bad("[MQTT-1.5.3-1] PUBLISH, overlong form", _hex("30 04 0002 C080"), MalformedPacket),
    Bad("[MQTT-1.5.3-2] [MQTT-4.7.3-2] PUBLISH, U+0000", _hex("30 05 0003 'a' 00 'b'"), MalformedPacket),
    Bad("[MQTT-3.3.2-2] PUBLISH, '+' in the topic", _hex("30 05 0003 'a/+'"), ProtocolViolation),
    Bad("[MQTT-3.3.2-2] PUBLISH, '#' in the topic", _hex("30 03 0001 '#'"), ProtocolViolation),
    Bad("[MQTT-4.7.3-1] PUBLISH, empty topic", _hex("30 02 0000"), ProtocolViolation),
    Bad("PUBACK, too short", _hex("40 01 00"), MalformedPacket),
    Bad("PUBACK, too long", _hex("40 03 0001 00"), MalformedPacket),
    Bad("[MQTT-2.3.1-1] PUBACK, packet id 0", _hex("40 02 0000"), ProtocolViolation),
    Bad("[MQTT-2.3.1-1] SUBSCRIBE, packet id 0", _hex("82 06 0000 0001 'a' 00"), ProtocolViolation),
    Bad("[MQTT-3.8.3-3] SUBSCRIBE, no filter", _hex("82 02 0001"), ProtocolViolation),
    Bad("SUBSCRIBE, no QoS", _hex("82 05 0001 0001 'a'"), MalformedPacket),
    Bad("[MQTT-3-8.3-4] SUBSCRIBE, QoS 3", _hex("82 06 0001 0001 'a' 03"), MalformedPacket),
    Bad("[MQTT-3-8.3-4] SUBSCRIBE, reserved options", _hex("82 06 0001 0001 'a' 04"), MalformedPacket),
    Bad("[MQTT-3.8.3-1] SUBSCRIBE, not UTF-8", _hex("82 06 0001 0001 FF 00"), MalformedPacket),
    Bad("[MQTT-1.5.3-2] SUBSCRIBE, U+0000", _hex("82 06 0001 0001 00 00"), MalformedPacket),
    Bad("[MQTT-4.7.3-1] SUBSCRIBE, empty filter", _hex("82 05 0001 0000 00"), ProtocolViolation),
    Bad("[MQTT-4.7.1-2] SUBSCRIBE, 'a#'", _hex("82 07 0001 0002 'a#' 00"), ProtocolViolation),
    Bad("[MQTT-4.7.1-2] SUBSCRIBE, '#/a'", _hex("82 08 0001 0003 '#/a' 00"), ProtocolViolation),
    Bad("[MQTT-4.7.1-3] SUBSCRIBE, 'a/+b'", _hex("82 09 0001 0004 'a/+b' 00"), ProtocolViolation),
    Bad("[MQTT-2.3.1-1] UNSUBSCRIBE, packet id 0", _hex("A2 05 0000 0001 'a'"), ProtocolViolation),
    Bad("[MQTT-3.10.3-2] UNSUBSCRIBE, no filter", _hex("A2 02 0001"), ProtocolViolation),
    Bad("[MQTT-3.10.3-1] UNSUBSCRIBE, not UTF-8", _hex("A2 05 0001 0001 FF"), MalformedPacket),
    Bad("PINGREQ with a body", _hex("C0 01 00"), MalformedPacket),
    Bad("DISCONNECT with a body", _hex("E0 01 00"), MalformedPacket),
    Bad("CONNACK, reserved flags", _hex("20 02 02 00"), MalformedPacket),
    Bad("CONNACK, reserved return code", _hex("20 02 00 06"), MalformedPacket),
    Bad("[MQTT-3.2.2-4] CONNACK, refused with a session", _hex("20 02 01 05"), ProtocolViolation),
    Bad("[MQTT-3.9.3-2] SUBACK, reserved return code", _hex("90 03 0001 03"), MalformedPacket),
    Bad("SUBACK, no return code", _hex("90 02 0001"), MalformedPacket),
]
