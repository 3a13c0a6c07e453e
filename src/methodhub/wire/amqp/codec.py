"""AMQP's types (part 1 of the standard) between bytes and Python values. Knows no frame and no message.

Python's own types stand for what is common: int is AMQP's int (long if it does not fit), str string, bytes binary,
UUID uuid, None null, dict map, list list. `Symbol`, `ULong` and `Long` say the rest. Decoded integers of any width
are int: only a message-id has to be told apart, and that is a ulong whenever it is an int.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from methodhub.wire.amqp.errors import MalformedData

MAX_DEPTH = 32
"""Levels of lists, maps, arrays and descriptors in one value: what nests deeper is malformed."""

Value = Any
"""What a value of AMQP is in Python; see above."""


class Symbol(str):
    """A symbol: ASCII, of a constrained domain."""

    __slots__ = ()


class ULong(int):
    """To be encoded as ulong."""


class Long(int):
    """To be encoded as long, even if it would fit into an int."""


class Described(msgspec.Struct, frozen=True):
    """A value with a descriptor: a ulong or a symbol."""

    descriptor: Value
    value: Value


# --- decoding ----------------------------------------------------------------------------------------------------

_MALFORMED = (IndexError, struct.error, ValueError, TypeError, OverflowError)
"""Beyond the end; not UTF-8 or ASCII; a map's key that is a list."""


def decode_at(data: bytes, at: int, stop: int) -> tuple[Value, int]:
    """The value that begins at `at`, and where the next would. Raises MalformedData."""
    try:
        value, at = _decode(data, at, stop, 0)
    except _MALFORMED as error:
        raise MalformedData(f"not a value of AMQP: {error}") from None
    if at > stop:
        raise MalformedData("a value runs beyond its end")
    return value, at


def decode_described(data: bytes, at: int, stop: int) -> tuple[int, Value, int]:
    """A value whose descriptor is a ulong: the descriptor, the value, where the next would begin."""
    if data[at : at + 2] == b"\x00\x53" and at + 3 <= stop:  # as everybody writes it
        value, after = decode_at(data, at + 3, stop)
        return data[at + 2], value, after
    described, at = decode_at(data, at, stop)
    if not isinstance(described, Described) or not isinstance(described.descriptor, int):
        raise MalformedData("a value without a numeric descriptor")
    return described.descriptor, described.value, at


def _decode(data: bytes, at: int, stop: int, depth: int) -> tuple[Value, int]:
    if at >= stop:
        raise IndexError("it ends early")
    return _body(data[at], data, at + 1, stop, depth)


def _body(code: int, data: bytes, at: int, stop: int, depth: int) -> tuple[Value, int]:
    """What follows a constructor's code."""
    if code in _EMPTY:
        return _EMPTY[code], at
    if code == 0x45:
        return [], at
    if code in _FIXED:
        size, read = _FIXED[code]
        return read(data, at), at + size
    if depth >= MAX_DEPTH:
        raise ValueError("it nests too deeply")
    if code == 0:
        descriptor, at = _decode(data, at, stop, depth + 1)
        value, at = _decode(data, at, stop, depth + 1)
        return Described(descriptor, value), at
    width = _WIDTH.get(code >> 4)
    if width is None:
        raise ValueError(f"no type has the code {code:#04x}")
    start = at + width
    end = start + int.from_bytes(data[at:start])
    if end > stop:
        raise IndexError("it ends early")
    match code:
        case 0xA0 | 0xB0:
            return data[start:end], end
        case 0xA1 | 0xB1:
            return data[start:end].decode(), end
        case 0xA3 | 0xB3:
            return Symbol(data[start:end].decode("ascii")), end
    count = int.from_bytes(data[start : start + width])
    return _compound(code, data, start + width, end, count, depth + 1), end


def _compound(code: int, data: bytes, at: int, end: int, count: int, depth: int) -> Value:
    if count > end - at:
        raise ValueError("more elements than bytes")  # arrays of elements without a width, at the latest
    elements = []
    if code in (0xE0, 0xF0):
        element_code = data[at]
        at += 1
        if element_code == 0:  # an array of described values: the descriptor stands once
            _, at = _decode(data, at, end, depth)
            element_code = data[at]
            at += 1
        for _ in range(count):
            element, at = _body(element_code, data, at, end, depth)
            elements.append(element)
    elif code in (0xC0, 0xD0, 0xC1, 0xD1):
        for _ in range(count):
            element_code = data[at]
            at += 1
            if element_code in _EMPTY:
                elements.append(_EMPTY[element_code])
            else:
                element, at = _body(element_code, data, at, end, depth)
                elements.append(element)
    else:
        raise ValueError(f"no type has the code {code:#04x}")
    if at != end:
        raise ValueError("a size that is not that of the content")
    if code in (0xC1, 0xD1):
        if not all(isinstance(key, str | bytes | int) for key in elements[::2]):
            raise ValueError("a map's key that is neither text nor number")  # hashes of others can be made to collide
        return dict(zip(elements[::2], elements[1::2], strict=True))
    return elements


def _number(layout: str) -> tuple[int, Callable[[bytes, int], Value]]:
    reader = struct.Struct(layout)

    def read(data: bytes, at: int) -> Value:
        return reader.unpack_from(data, at)[0]

    return reader.size, read


def _uuid(data: bytes, at: int) -> UUID:
    return UUID(bytes=data[at : at + 16])


_EMPTY: dict[int, Value] = {0x40: None, 0x41: True, 0x42: False, 0x43: 0, 0x44: 0}
_WIDTH = {0xA: 1, 0xB: 4, 0xC: 1, 0xD: 4, 0xE: 1, 0xF: 4}
_FIXED: dict[int, tuple[int, Callable[[bytes, int], Value]]] = {
    0x50: _number(">B"),
    0x51: _number(">b"),
    0x52: _number(">B"),
    0x53: _number(">B"),
    0x54: _number(">b"),
    0x55: _number(">b"),
    0x56: _number(">?"),
    0x60: _number(">H"),
    0x61: _number(">h"),
    0x70: _number(">I"),
    0x71: _number(">i"),
    0x72: _number(">f"),
    0x73: _number(">I"),  # a character, as its number
    0x74: _number(">4s"),  # decimals, as they are
    0x80: _number(">Q"),
    0x81: _number(">q"),
    0x82: _number(">d"),
    0x83: _number(">q"),  # milliseconds since 1970
    0x84: _number(">8s"),
    0x94: _number(">16s"),
    0x98: (16, _uuid),
}

# --- encoding ----------------------------------------------------------------------------------------------------


def encode(value: Value) -> bytes:
    """Raises TypeError for what has no type here, OverflowError for an integer above 64 bits."""
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        raise TypeError(f"{type(value).__name__} is no type of AMQP")
    return encoder(value)


def describe(descriptor: int, encoded: bytes) -> bytes:
    """An encoded value with a descriptor below 256."""
    return bytes((0x00, 0x53, descriptor)) + encoded


def encode_fields(fields: list[bytes]) -> bytes:
    """A list of encoded values, as performatives and sections are; nulls at its end are left out."""
    while fields and fields[-1] == NULL:
        fields.pop()
    return _sized(0xC0, 0xD0, len(fields), b"".join(fields)) if fields else b"\x45"


NULL = b"\x40"


def _int(value: int) -> bytes:
    if -0x80 <= value < 0x80:
        return b"\x54" + value.to_bytes(1, signed=True)
    if -0x80000000 <= value < 0x80000000:
        return b"\x71" + value.to_bytes(4, signed=True)
    return _long(value)


def _long(value: int) -> bytes:
    if -0x80 <= value < 0x80:
        return b"\x55" + value.to_bytes(1, signed=True)
    return b"\x81" + value.to_bytes(8, signed=True)


def _ulong(value: int) -> bytes:
    if value == 0:
        return b"\x44"
    return b"\x53" + value.to_bytes(1) if value < 0x100 else b"\x80" + value.to_bytes(8)


def _variable(short: int, data: bytes) -> bytes:
    """Binary, string and symbol: the long code is 16 above the short one."""
    size = len(data)
    if size < 0x100:
        return bytes((short, size)) + data
    return bytes((short + 0x10,)) + size.to_bytes(4) + data


def _sized(short: int, long: int, count: int, body: bytes) -> bytes:
    if len(body) < 0xFF and count < 0x100:
        return bytes((short, len(body) + 1, count)) + body
    return bytes((long,)) + (len(body) + 4).to_bytes(4) + count.to_bytes(4) + body


def _map(value: dict[Value, Value]) -> bytes:
    parts = [encode(part) for pair in value.items() for part in pair]
    return _sized(0xC1, 0xD1, len(parts), b"".join(parts))


def _list(value: list[Value]) -> bytes:
    return _sized(0xC0, 0xD0, len(value), b"".join(map(encode, value))) if value else b"\x45"


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: NULL,
    bool: lambda value: b"\x41" if value else b"\x42",
    int: _int,
    Long: _long,
    ULong: _ulong,
    float: lambda value: b"\x82" + struct.pack(">d", value),
    str: lambda value: _variable(0xA1, value.encode()),
    Symbol: lambda value: _variable(0xA3, value.encode("ascii")),
    bytes: lambda value: _variable(0xA0, value),
    UUID: lambda value: b"\x98" + value.bytes,
    dict: _map,
    list: _list,
}
