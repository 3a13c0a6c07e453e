"""MQTT 3.1.1 packets from readable lines, written a second time so that the hub's own codec is not its own judge.

    CONNECT client_id=.. user_name=.. [password=..] keep_alive=60 clean=0        CONNACK session=0 code=0
    SUBSCRIBE id=1 filter:qos filter:qos                                        SUBACK id=1 qos qos
    UNSUBSCRIBE id=1 filter filter                                              UNSUBACK id=1
    PUBLISH qos=0 [id=1] [dup=1] [retain=1] topic [| payload]                   PUBACK id=1
    PINGREQ   PINGRESP   DISCONNECT                                             hex 30 0a ... (any bytes)

A payload `hex 20` is the bytes so written; what else follows the bar is UTF-8.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

Fill = Callable[[str], str]

_FIELD = re.compile(r"[a-z_]+=")


def encode_line(line: str, fill: Fill) -> bytes:
    """The bytes of one line. `fill` replaces variables, after the words have been told apart."""
    head, _, payload = line.partition(" | ")
    kind, *words = head.split()
    if kind == "hex":
        return bytes.fromhex("".join(words))
    fields = {key: fill(value) for key, _, value in (word.partition("=") for word in words if _FIELD.match(word))}
    others = [fill(word) for word in words if not _FIELD.match(word)]
    return _ENCODERS[kind](fields, others, encode_payload(payload, fill))


def encode_payload(text: str, fill: Fill) -> bytes:
    if text.startswith("hex "):
        return bytes.fromhex(text[4:])
    return fill(text).encode()


def packet(first_byte: int, body: bytes) -> bytes:
    """A packet with its fixed header; the remaining length seven bits at a time, the least first."""
    length, encoded = len(body), b""
    while True:
        encoded += bytes([length % 128 + (128 if length >= 128 else 0)])
        length //= 128
        if not length:
            return bytes([first_byte]) + encoded + body


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def number(text: str) -> bytes:
    return struct.pack(">H", int(text))


def _connect(fields: dict[str, str], others: list[str], payload: bytes) -> bytes:
    flags = 0x02 if fields["clean"] == "1" else 0
    body = string(fields["client_id"])
    for name, flag in (("user_name", 0x80), ("password", 0x40)):
        if name in fields:
            flags |= flag
            body += string(fields[name])
    return packet(0x10, string("MQTT") + bytes([4, flags]) + number(fields["keep_alive"]) + body)


def _connack(fields: dict[str, str], others: list[str], payload: bytes) -> bytes:
    return packet(0x20, bytes([int(fields["session"]), int(fields["code"])]))


def _publish(fields: dict[str, str], others: list[str], payload: bytes) -> bytes:
    qos = int(fields["qos"])
    flags = int(fields.get("dup", "0")) << 3 | qos << 1 | int(fields.get("retain", "0"))
    packet_id = number(fields["id"]) if qos else b""
    (topic,) = others
    return packet(0x30 | flags, string(topic) + packet_id + payload)


def _subscribe(fields: dict[str, str], others: list[str], payload: bytes) -> bytes:
    pairs = [word.rpartition(":") for word in others]
    return packet(0x82, number(fields["id"]) + b"".join(string(name) + bytes([int(qos)]) for name, _, qos in pairs))


def _unsubscribe(fields: dict[str, str], others: list[str], payload: bytes) -> bytes:
    return packet(0xA2, number(fields["id"]) + b"".join(map(string, others)))


def _suback(fields: dict[str, str], others: list[str], payload: bytes) -> bytes:
    return packet(0x90, number(fields["id"]) + bytes(map(int, others)))


def _only_id(first_byte: int) -> Callable[[dict[str, str], list[str], bytes], bytes]:
    return lambda fields, others, payload: packet(first_byte, number(fields["id"]))


def _empty(first_byte: int) -> Callable[[dict[str, str], list[str], bytes], bytes]:
    return lambda fields, others, payload: packet(first_byte, b"")


_ENCODERS = {
    "CONNECT": _connect,
    "CONNACK": _connack,
    "PUBLISH": _publish,
    "PUBACK": _only_id(0x40),
    "SUBSCRIBE": _subscribe,
    "SUBACK": _suback,
    "UNSUBSCRIBE": _unsubscribe,
    "UNSUBACK": _only_id(0xB0),
    "PINGREQ": _empty(0xC0),
    "PINGRESP": _empty(0xD0),
    "DISCONNECT": _empty(0xE0),
}


def topic_of(data: bytes) -> str:
    """The topic of a PUBLISH packet; nothing of any other."""
    if data[0] >> 4 != 3:
        return ""
    start = 2
    while data[start - 1] & 0x80:
        start += 1
    (length,) = struct.unpack_from(">H", data, start)
    return data[start + 2 : start + 2 + length].decode()
