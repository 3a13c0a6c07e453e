"""AMQP messages (3.2 of the standard) between bytes and values. Knows no link, and not what a property means."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

import msgspec

from methodhub.wire.amqp.codec import NULL, Symbol, ULong, Value, decode_described, describe, encode, encode_fields
from methodhub.wire.amqp.errors import MalformedData

T = TypeVar("T")

MessageId = int | UUID | bytes | str
"""One Python type for each of AMQP's: ulong, uuid, binary, string. What is echoed keeps its type."""


class AmqpValue(msgspec.Struct, frozen=True):
    """A body of one amqp-value section; AMQP's null is `AmqpValue(None)`."""

    value: Value


class Message(msgspec.Struct, frozen=True):
    """What of a message is read or written here. `body` is bytes for data sections, read as one, and None if there
    is no body; a body of sequences reads as AmqpValue of the list of them."""

    body: bytes | AmqpValue | None = None
    message_id: MessageId | None = None
    correlation_id: MessageId | None = None
    to: str | None = None
    subject: str | None = None
    reply_to: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    application_properties: dict[str, Value] = {}
    annotations: dict[str, Value] = {}
    """Message annotations; written, their keys become symbols."""


def encode_message(message: Message) -> bytes:
    """One data section for bytes, even none of them. Integers become AMQP's int if they fit (codec.Long else)."""
    parts = []
    if message.annotations:
        parts.append(describe(0x72, encode({Symbol(key): value for key, value in message.annotations.items()})))
    fields = [
        _encode_id(message.message_id),
        NULL,  # user-id
        encode(message.to),
        encode(message.subject),
        encode(message.reply_to),
        _encode_id(message.correlation_id),
        encode(message.content_type and Symbol(message.content_type)),
        encode(message.content_encoding and Symbol(message.content_encoding)),
    ]
    if fields.count(NULL) < len(fields):
        parts.append(describe(0x73, encode_fields(fields)))
    if message.application_properties:
        parts.append(describe(0x74, encode(message.application_properties)))
    match message.body:
        case bytes():
            parts.append(describe(0x75, encode(message.body)))
        case AmqpValue(value):
            parts.append(describe(0x77, encode(value)))
    return b"".join(parts)


def decode_message(data: bytes) -> Message:
    """Raises MalformedData. Sections that are of no use here are passed over, but must be sound."""
    properties: list[Value] = []
    application_properties: dict[str, Value] = {}
    annotations: dict[str, Value] = {}
    pieces: list[bytes] = []
    others: list[Value] = []
    kind = 0
    at, end = 0, len(data)
    while at < end:
        section, value, at = decode_described(data, at, end)
        match section:
            case 0x72:
                annotations = _checked(value, dict)
            case 0x73:
                properties = _checked(value, list)
            case 0x74:
                application_properties = _checked(value, dict)
            case 0x75 | 0x76 | 0x77 if kind in (0, section) and not (others and section == 0x77):
                kind = section
                if section == 0x75:
                    pieces.append(_checked(value, bytes))
                else:
                    others.append(value)
            case 0x70 | 0x71 | 0x78:
                pass
            case _:
                raise MalformedData(f"section {section:#04x} is unknown or out of place")
    body: bytes | AmqpValue | None = None
    if kind == 0x75:
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    elif kind:
        body = AmqpValue(others[0] if kind == 0x77 else others)
    if len(properties) < 8:
        properties = properties + [None] * (8 - len(properties))
    return Message(
        body,
        _checked_id(properties[0]),
        _checked_id(properties[5]),
        _optional_text(properties[2]),
        _optional_text(properties[3]),
        _optional_text(properties[4]),
        _optional_text(properties[6]),
        _optional_text(properties[7]),
        application_properties,
        annotations,
    )


def _encode_id(value: MessageId | None) -> bytes:
    return encode(ULong(value) if isinstance(value, int) else value)


def _checked(value: Value, wanted: type[T]) -> T:
    if not isinstance(value, wanted):
        raise MalformedData(f"{type(value).__name__} where {wanted.__name__} belongs")
    return value


def _checked_id(value: Value) -> MessageId | None:
    if value is None or isinstance(value, UUID | bytes | str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise MalformedData(f"{type(value).__name__} is no message-id")


def _optional_text(value: Value) -> str | None:
    return value if value is None else _checked(value, str)
