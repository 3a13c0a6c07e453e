"""Frames of AMQP (2.3, 2.7 of the standard): where they begin and end, and what those say that open and close things.
All of it is checked here before the engine sees it, and bounded: the engine would take any number of sessions."""

from __future__ import annotations

import re
from typing import NamedTuple, TypeVar

from methodhub.wire.amqp.codec import (
    NULL,
    Described,
    Symbol,
    Value,
    decode_at,
    decode_described,
    describe,
    encode,
    encode_fields,
)
from methodhub.wire.amqp.errors import FRAMING_ERROR, INVALID_FIELD, AmqpError, MalformedData

T = TypeVar("T")

MAX_FRAME_SIZE = 65_536
CHANNEL_MAX = 8191
MIN_MAX_FRAME_SIZE = 512
UINT_MAX = 0xFFFF_FFFF

MAX_DESCRIPTION = 256
"""Bytes of an error's description that are sent: every frame fits into 512 bytes, the least a peer may take."""

HEARTBEAT = bytes((0, 0, 0, 8, 2, 0, 0, 0))
"""A frame without a body [AMQP-2.4.5]."""

OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)

_LARGE_UINT = re.compile(rb"\x70[\x80-\xff]")
_LIST_HEADERS = {0xC0: 3, 0xD0: 9}
"""Bytes before the first field."""
_LINK_CREDIT = 6
"""Fields of FLOW before it."""

_ERROR = 0x1D
_SOURCE = 0x28
_TARGET = 0x29
_COORDINATOR = 0x30


class Open(NamedTuple):
    container_id: str
    hostname: str | None
    max_frame_size: int
    idle_timeout: int | None
    """Milliseconds."""


class Attach(NamedTuple):
    name: str
    handle: int
    receiver: bool
    snd_settle_mode: int
    rcv_settle_mode: int
    source_address: str | None
    target_address: str | None
    properties: dict[str, Value]


def shortened(description: str) -> str:
    return description.encode()[:MAX_DESCRIPTION].decode(errors="ignore")


def close_frame(condition: str | None, description: str) -> bytes:
    error = [NULL]
    if condition is not None:
        error = [describe(_ERROR, encode_fields([encode(Symbol(condition)), encode(shortened(description))]))]
    body = describe(CLOSE, encode_fields(error))
    return (len(body) + 8).to_bytes(4) + b"\x02\x00\x00\x00" + body


def frame_size(data: bytes, at: int, limit: int) -> int:
    """Bytes of the frame that begins at `at`, of which 4 must be there."""
    size = int.from_bytes(data[at : at + 4])
    if not 8 <= size <= limit:
        raise AmqpError(FRAMING_ERROR, f"a frame of {size} bytes")
    return size


def body_start(frame: bytes) -> int:
    """Where a frame's body begins: at its end, for a heartbeat."""
    start = 4 * frame[4]
    if not 8 <= start <= len(frame) or frame[5] != 0:
        raise AmqpError(FRAMING_ERROR, "no frame of AMQP")
    return start


def performative(frame: bytes, start: int) -> int:
    """OPEN to CLOSE."""
    code = frame[start + 2] if len(frame) > start + 2 else 0
    if frame[start : start + 2] != b"\x00\x53" or not OPEN <= code <= CLOSE:
        code = _long_descriptor(frame, start)
    return code


def _long_descriptor(frame: bytes, start: int) -> int:
    code = int.from_bytes(frame[start + 2 : start + 10])
    if frame[start : start + 2] != b"\x00\x80" or not OPEN <= code <= CLOSE:
        raise MalformedData("no performative")
    return code


def fields(frame: bytes, start: int) -> list[Value]:
    """Of any performative without a payload."""
    _, value, end = decode_described(frame, start, len(frame))
    if not isinstance(value, list) or end != len(frame):
        raise MalformedData("a performative that is not a list, or bytes after it")
    return value


def bounded_flow(frame: bytes, start: int) -> bytes:
    """The same FLOW with a link-credit that the engine can count, which takes 2^31 and more for negative
    [AMQP-2.7.4]."""
    if _LARGE_UINT.search(frame, start) is None:
        return frame
    _, at = decode_at(frame, start + 1, len(frame))
    at += _LIST_HEADERS.get(frame[at] if at < len(frame) else 0, 0)
    for _ in range(_LINK_CREDIT):
        if at < len(frame):
            _, at = decode_at(frame, at, len(frame))
    if _LARGE_UINT.match(frame, at) is None:
        return frame
    return frame[: at + 1] + b"\x7f\xff\xff\xff" + frame[at + 5 :]


def read_open(values: list[Value]) -> Open:
    container_id, hostname, max_frame_size, _, idle_timeout = _first(values, 5)
    opened = Open(
        _text(container_id, ""),
        hostname if hostname is None else _text(hostname, None),
        _of(int, max_frame_size, UINT_MAX),
        _of(int, idle_timeout, 0) or None,
    )
    if opened.max_frame_size < MIN_MAX_FRAME_SIZE:
        raise AmqpError(INVALID_FIELD, f"max-frame-size {opened.max_frame_size}")
    return opened


def read_begin(values: list[Value]) -> None:
    """An answer to a BEGIN of ours cannot be: there is none."""
    if _first(values, 1)[0] is not None:
        raise AmqpError(INVALID_FIELD, "remote-channel answers no BEGIN")


def read_attach(values: list[Value]) -> Attach:
    name, handle, receiver, snd, rcv, source, target, _, _, _, _, _, _, properties = _first(values, 14)
    return Attach(
        _text(name, None),
        _of(int, handle, None),
        _of(bool, receiver, None),
        _settle_mode(snd, 2, 2),
        _settle_mode(rcv, 0, 1),
        _address(source),
        _address(target),
        {_text(key, None): value for key, value in _of(dict, properties, {}).items()},
    )


def read_detach(values: list[Value]) -> tuple[int, bool, AmqpError | None]:
    """The handle, whether it is closed, the error."""
    handle, closed = _first(values, 2)
    return _of(int, handle, None), _of(bool, closed, False), read_error(values, 2)


def read_error(values: list[Value], index: int) -> AmqpError | None:
    """The error of DETACH, END or CLOSE, if it has one."""
    error = _first(values, index + 1)[index]
    if error is None:
        return None
    if not isinstance(error, Described) or error.descriptor != _ERROR:
        raise MalformedData("an error that is none")
    condition, description = _first(_of(list, error.value, None), 2)
    return AmqpError(_text(condition, None), _text(description, ""))


def _first(values: list[Value], count: int) -> list[Value]:
    return (values + [None] * count)[:count]


def _of(wanted: type[T], value: Value, default: T | None) -> T:
    """A field's value, its default if it is null; without a default it must not be."""
    if value is None and default is not None:
        return default
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise MalformedData(f"a field is {type(value).__name__}, not {wanted.__name__}")
    return value


def _text(value: Value, default: str | None) -> str:
    text = str(_of(str, value, default))
    if "\0" in text:  # where the engine would end it
        raise AmqpError(INVALID_FIELD, "NUL in a string")
    return text


def _settle_mode(value: Value, default: int, most: int) -> int:
    mode = _of(int, value, default)
    if mode > most:
        raise AmqpError(INVALID_FIELD, f"settle mode {mode}")
    return mode


def _address(terminus: Value) -> str | None:
    if terminus is None:
        return None
    if not isinstance(terminus, Described) or terminus.descriptor not in (_SOURCE, _TARGET, _COORDINATOR):
        raise MalformedData("a terminus that is none")
    address = _first(_of(list, terminus.value, None), 1)[0]
    if address is None or terminus.descriptor == _COORDINATOR:
        return None
    return _text(address, None)
