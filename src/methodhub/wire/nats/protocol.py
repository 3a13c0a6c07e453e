"""Bytes of a NATS server to events, and verbs to bytes. Knows no socket, no clock, and not what a subject means.

server: INFO {...} ──> us: CONNECT {...}, PING ──> server: PONG ──> us: SUB, PUB; server: MSG, HMSG, PING, -ERR
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

MAX_LINE = 65_536
"""Bytes of a control line. INFO is the longest: it lists the servers of a cluster."""

MAX_MESSAGE = 8 * 1024 * 1024
"""Bytes of a message that are taken; servers send 1 MiB unless they are told otherwise, 64 MiB at most."""

NO_RESPONDERS = 503
"""Status of the message that tells that nobody is subscribed to the subject of a request."""

PING, PONG = b"PING\r\n", b"PONG\r\n"


class NatsViolation(Exception):
    """The server's bytes are not NATS."""


@dataclass(frozen=True, slots=True)
class Info:
    """What the server says of itself, first and whenever it changes. `max_payload` in bytes."""

    server_name: str
    max_payload: int
    tls_required: bool
    headers: bool


class Message(NamedTuple):
    """`sid` is the subscription's number; `reply` is empty if no answer is wanted; `status` is 0 without one."""

    subject: bytes
    sid: int
    reply: bytes
    status: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """What -ERR says, without its quotes. After most of them the server closes."""

    text: str


class Signal(Enum):
    PING = "PING"
    PONG = "PONG"


Event = Message | Signal | Info | Refusal


class NatsProtocol:
    """One connection's incoming bytes. `receive_data` may be given them in any pieces."""

    __slots__ = ("_needed", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._needed = 0
        """Bytes that `_rest` must have before it is worth looking at again."""

    def receive_data(self, data: bytes) -> list[Event]:
        """Raises NatsViolation; nothing can be read from this connection after it."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        self._needed = 0
        events: list[Event] = []
        position = 0
        try:
            while position < len(data):
                end = self._next(data, position, events)
                if end < 0:
                    self._rest += data[position:]
                    self._needed -= position
                    break
                position = end
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise NatsViolation(str(error)) from error
        return events

    def _next(self, data: bytes, position: int, events: list[Event]) -> int:
        """Read what begins at `position`. The position after it, or -1 if some of it is still to come."""
        end = data.find(b"\r\n", position)
        if end < 0:
            if len(data) - position > MAX_LINE:
                raise NatsViolation("a control line does not end")
            return -1
        words = data[position:end].split()
        verb = words[0] if words else b""
        if verb == b"MSG":
            subject, sid, *reply, size = words[1:]
            return self._message(data, end + 2, (subject, int(sid), reply, 0, _size(size)), events)
        if verb == b"HMSG":
            subject, sid, *reply, head, size = words[1:]
            return self._message(data, end + 2, (subject, int(sid), reply, _size(head), _size(size)), events)
        if verb in (b"PING", b"PONG"):
            events.append(Signal(verb.decode()))
        elif verb == b"INFO":
            events.append(_info(json.loads(data[position:end].split(None, 1)[1])))
        elif verb == b"-ERR":
            events.append(Refusal(data[position + 4 : end].decode(errors="replace").strip().strip("'")))
        elif verb != b"+OK":
            raise NatsViolation(f"unknown verb {verb[:16]!r}")
        return end + 2

    def _message(
        self, data: bytes, start: int, line: tuple[bytes, int, list[bytes], int, int], events: list[Event]
    ) -> int:
        subject, sid, reply, head, size = line
        if head > size or len(reply) > 1:
            raise NatsViolation("malformed MSG")
        end = start + size
        if len(data) < end + 2:
            self._needed = end + 2
            return -1
        if data[end : end + 2] != b"\r\n":
            raise NatsViolation("a message does not end where it should")
        status = _status(data[start : start + head]) if head else 0
        events.append(Message(subject, sid, reply[0] if reply else b"", status, data[start + head : end]))
        return end + 2


def _size(word: bytes) -> int:
    size = int(word)
    if not 0 <= size <= MAX_MESSAGE:
        raise NatsViolation(f"a message of {size} bytes")
    return size


def _status(head: bytes) -> int:
    """`NATS/1.0 503\\r\\n\\r\\n` -> 503; 0 where there is none."""
    words = head.split(b"\r\n", 1)[0].split()
    if not words or words[0] != b"NATS/1.0":
        raise NatsViolation("malformed header")
    return int(words[1]) if len(words) > 1 else 0


def _info(fields: dict[str, Any]) -> Info:
    return Info(
        server_name=str(fields.get("server_name", "")),
        max_payload=int(fields.get("max_payload", 1024 * 1024)),
        tls_required=bool(fields.get("tls_required", False)),
        headers=bool(fields.get("headers", False)),
    )


# Verbs. Subjects hold no white space: whoever makes them sees to it.


def connect(name: str, user: str | None = None, password: str | None = None, token: str | None = None) -> bytes:
    """CONNECT: no echo of what we publish ourselves, and a word at once where nobody is subscribed."""
    options: dict[str, object] = {
        "verbose": False,
        "pedantic": False,
        "lang": "python",
        "version": "1",
        "protocol": 1,
        "name": name,
        "echo": False,
        "headers": True,
        "no_responders": True,
    }
    options |= {
        key: value for key, value in (("user", user), ("pass", password), ("auth_token", token)) if value is not None
    }
    return b"CONNECT %b\r\n" % json.dumps(options).encode()


def subscribe(sid: int, subject: bytes, queue: bytes = b"") -> bytes:
    return b"SUB %b %b %d\r\n" % (subject, queue, sid) if queue else b"SUB %b %d\r\n" % (subject, sid)


def unsubscribe(sid: int) -> bytes:
    return b"UNSUB %d\r\n" % sid


def publish(subject: bytes, payload: bytes, reply: bytes = b"") -> bytes:
    if reply:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
    return b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)
