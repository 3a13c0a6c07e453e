"""The SASL layer (5.3 of the standard) as a server speaks it: headers and frames. Does not know whom to believe."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from methodhub.wire.amqp.codec import decode_described, describe, encode_fields
from methodhub.wire.amqp.errors import FRAMING_ERROR, AmqpError, MalformedData

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"

MAX_SASL_FRAME = 8192
"""Bytes. The standard allows 512; tokens of policies in PLAIN's response may be longer."""

OK = 0
AUTH = 1
"""Codes of sasl-outcome."""

_INIT = 0x41


class SaslInit(msgspec.Struct, frozen=True):
    """The peer chose a mechanism, one of those offered. To be answered with `accept_sasl` or `refuse_sasl`."""

    mechanism: str
    initial_response: bytes
    hostname: str | None


def mechanisms_frame(mechanisms: Sequence[str]) -> bytes:
    """[AMQP-5.3.3.1]"""
    symbols = b"".join(bytes((len(name),)) + name.encode("ascii") for name in mechanisms)
    array = bytes((0xE0, len(symbols) + 2, len(mechanisms), 0xA3)) + symbols
    return _frame(describe(0x40, encode_fields([array])))


def outcome_frame(code: int) -> bytes:
    """[AMQP-5.3.3.6]"""
    return _frame(describe(0x44, encode_fields([bytes((0x50, code))])))


def parse_init(frame: bytes) -> SaslInit:
    """A whole frame, which must be sasl-init [AMQP-5.3.3.2]."""
    start = 4 * frame[4]
    if frame[5] != 1 or not 8 <= start <= len(frame):
        raise AmqpError(FRAMING_ERROR, "not a SASL frame")
    code, fields, _ = decode_described(frame, start, len(frame))
    if code != _INIT or not isinstance(fields, list):
        raise MalformedData("not sasl-init")
    mechanism, response, hostname = [*fields, None, None, None][:3]
    if not isinstance(mechanism, str) or not isinstance(response or b"", bytes) or not isinstance(hostname or "", str):
        raise MalformedData("a field of sasl-init is of another type")
    return SaslInit(str(mechanism), response or b"", hostname)


def _frame(body: bytes) -> bytes:
    return (len(body) + 8).to_bytes(4) + b"\x02\x01\x00\x00" + body
