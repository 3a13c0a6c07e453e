"""What nodes tell each other over NATS, and on which subjects. Knows no socket and keeps nothing.

<prefix>.call.<device>[.<module>]   a MethodRequest to whoever claims the target; ids are base64url tokens
<prefix>.reply.<node>.<number>      the answer to the call of that number, to the node that asked
<prefix>.node.<node>, <prefix>.all  messages between nodes
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import lru_cache
from typing import Any, get_args

import msgspec

from methodhub.core.calls import MethodRequest, MethodResult, Outcome
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.ports import NOT_CLAIMED, Event, NotClaimed

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What the name of a node, and each part of a prefix, may be."""

ClaimRow = tuple[str, str, int]
"""Device id, module id (empty: the device itself), generation."""


class MalformedMessage(Exception):
    """A message that no node of this hub would send; or one of a later version."""


class _NodeMessage(msgspec.Struct, frozen=True, array_like=True, tag=True):
    node: str
    """Who says it."""


class Announced(_NodeMessage, frozen=True):
    """These targets are claimed here; acknowledge the batch if it has a number."""

    batch: int
    claims: list[ClaimRow]


class Acknowledged(_NodeMessage, frozen=True):
    """The batch was read; of these targets the sender holds a newer claim."""

    batch: int
    newer: list[ClaimRow]


class Beat(_NodeMessage, frozen=True):
    """A sign of life. `epoch` counts connections to NATS; `complete`: every claim has been subscribed in this one;
    `hub`: whose node it is, which versions before 0.6.1 do not say."""

    epoch: int
    complete: bool
    hub: str = ""


class Goodbye(_NodeMessage, frozen=True):
    """The node stops: it holds no claim any more."""


class RollCalled(_NodeMessage, frozen=True):
    """Say that you are there, and which calls of mine you hold if `wants_calls`."""

    number: int
    wants_calls: bool


class Present(_NodeMessage, frozen=True):
    number: int
    epoch: int
    complete: bool
    calls: list[int]
    hub: str = ""


class Cancelled(_NodeMessage, frozen=True):
    """Nobody waits any longer for the call of this number."""

    number: int


class Happened(_NodeMessage, frozen=True):
    """An event, named by its class in core/ports."""

    name: str
    body: msgspec.Raw


NodeMessage = Announced | Acknowledged | Beat | Goodbye | RollCalled | Present | Cancelled | Happened

_encode = msgspec.msgpack.Encoder().encode
_decode_node: Callable[[bytes], NodeMessage] = msgspec.msgpack.Decoder(NodeMessage).decode
_decode_request = msgspec.msgpack.Decoder(MethodRequest).decode
_decode_result = msgspec.msgpack.Decoder(MethodResult).decode
_EVENTS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Event)}


def encode_message(message: NodeMessage) -> bytes:
    return _encode(message)


def decode_message(data: bytes) -> NodeMessage:
    try:
        return _decode_node(data)
    except msgspec.MsgspecError as error:
        raise MalformedMessage(str(error)) from error


def happened(node: str, event: Event) -> Happened:
    return Happened(node, type(event).__name__, msgspec.Raw(_encode(event)))


def event_of(message: Happened) -> Event:
    kind = _EVENTS.get(message.name)
    if kind is None:
        raise MalformedMessage(f"unknown event {message.name!r}")
    try:
        event: Event = msgspec.msgpack.decode(message.body, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise MalformedMessage(str(error)) from error
    return event


# Calls. A reply is one byte that says what it is, and a body.


class Moved:
    """The claimant's node has not handed the call over, and does not: ask again."""


MOVED = Moved()
_RESULT, _ERROR, _DECLINED, _MOVED = range(4)
MOVED_REPLY = bytes((_MOVED,))


class _Failure(msgspec.Struct, frozen=True, array_like=True):
    code: int
    message: str
    info: dict[str, str] | None
    reason: str | None


_decode_failure = msgspec.msgpack.Decoder(_Failure).decode


def encode_request(request: MethodRequest) -> bytes:
    return _encode(request)


def decode_request(data: bytes) -> MethodRequest:
    try:
        return _decode_request(data)
    except msgspec.MsgspecError as error:
        raise MalformedMessage(str(error)) from error


def encode_outcome(outcome: Outcome | NotClaimed) -> bytes:
    if isinstance(outcome, MethodResult):
        return b"\x00" + _encode(outcome)
    if isinstance(outcome, NotClaimed):
        return bytes((_DECLINED,))
    return b"\x01" + _encode(_Failure(int(outcome.code), outcome.message, outcome.info, outcome.reason))


def decode_reply(data: bytes) -> Outcome | NotClaimed | Moved:
    kind = data[0] if data else -1
    try:
        if kind == _RESULT:
            return _decode_result(memoryview(data)[1:])
        if kind == _ERROR:
            failure = _decode_failure(memoryview(data)[1:])
            return HubError(ErrorCode(failure.code), failure.message, info=failure.info, reason=failure.reason)
    except (msgspec.MsgspecError, ValueError) as error:
        raise MalformedMessage(str(error)) from error
    if kind == _DECLINED:
        return NOT_CLAIMED
    if kind == _MOVED:
        return MOVED
    raise MalformedMessage(f"a reply of kind {kind}")


# Subjects.


@lru_cache(maxsize=20_000)
def _token(name: str) -> bytes:
    """Any id as one token of a subject: never empty, never a wildcard, never two ids alike."""
    return urlsafe_b64encode(name.encode()).rstrip(b"=")


class Subjects:
    """The subjects of one hub, as the node `node` uses them. Raises ValueError for names that are no tokens."""

    def __init__(self, prefix: str, node: str) -> None:
        for token in (*prefix.split("."), node):
            if not TOKEN.fullmatch(token):
                raise ValueError(f"{token!r} is no token of a subject")
        self._prefix = prefix.encode()
        self._call = self._prefix + b".call."
        self.reply_prefix = b"%b.reply.%b." % (self._prefix, node.encode())
        self.replies = self.reply_prefix + b"*"
        self.all = self._prefix + b".all"
        self.own = self.node(node)

    def call(self, target: Target) -> bytes:
        if target.module_id:
            return self._call + _token(target.device_id) + b"." + _token(target.module_id)
        return self._call + _token(target.device_id)

    def reply(self, number: int) -> bytes:
        return b"%b%d" % (self.reply_prefix, number)

    def number_of(self, subject: bytes) -> int:
        """The number of the call that a reply on `subject` answers."""
        try:
            return int(subject[len(self.reply_prefix) :])
        except ValueError as error:
            raise MalformedMessage(f"a reply on {subject!r}") from error

    def asker_of(self, reply: bytes) -> tuple[str, int]:
        """The node that asked, and its number of the call, from where it wants the answer."""
        try:
            prefix, kind, node, number = reply.rsplit(b".", 3)
            if prefix != self._prefix or kind != b"reply":
                raise ValueError
            return node.decode("ascii"), int(number)
        except ValueError as error:
            raise MalformedMessage(f"a reply wanted on {reply!r}") from error

    def node(self, node: str) -> bytes:
        return b"%b.node.%b" % (self._prefix, node.encode())
