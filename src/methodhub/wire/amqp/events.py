"""What happens on an AMQP connection, as AmqpServerProtocol tells it. A link, session or delivery is a small number,
never used twice on a connection."""

from __future__ import annotations

from typing import Literal

import msgspec

from methodhub.wire.amqp.codec import Value
from methodhub.wire.amqp.errors import AmqpError
from methodhub.wire.amqp.sasl import SaslInit


class Opened(msgspec.Struct, frozen=True):
    """OPEN came, and is answered. `idle_timeout` in seconds: what the peer announced, None if nothing."""

    container_id: str
    hostname: str | None
    max_frame_size: int
    idle_timeout: float | None


class LinkAttached(msgspec.Struct, frozen=True):
    """The peer attaches as `role`: to be answered with `accept_link` or `refuse_link`. Names repeat across sessions.
    Addresses are None without a terminus too. `properties` keeps strings and symbols as str."""

    link: int
    session: int
    role: Literal["sender", "receiver"]
    name: str
    source_address: str | None
    target_address: str | None
    properties: dict[str, Value]
    snd_settle_mode: int
    """0 unsettled, 1 settled, 2 mixed."""
    rcv_settle_mode: int
    """0 first, 1 second."""


class MessageReceived(msgspec.Struct, frozen=True):
    """A whole message from a link where the peer sends. Unless `settled`, it is owed a `settle`: until then it counts
    against the link's credit."""

    link: int
    delivery: int
    payload: bytes
    settled: bool


class CreditChanged(msgspec.Struct, frozen=True):
    """On a link where the peer receives: how many messages it will take now. Also when a peer that had credit, but
    whose session did not take more bytes, takes more again."""

    link: int
    credit: int


class LinkDetached(msgspec.Struct, frozen=True):
    """The link is gone: by the peer, whose error it may be, with its session, or by our own error for what the peer
    did. Not after `detach_link` or `refuse_link`."""

    link: int
    closed: bool
    error: AmqpError | None


class SessionEnded(msgspec.Struct, frozen=True):
    """END came, and is answered. A LinkDetached for each of its links went before."""

    session: int
    error: AmqpError | None


class Closed(msgspec.Struct, frozen=True):
    """The last event. `clean`: after CLOSE, `error` being the peer's reason; else `error` is the peer's mistake, of
    which it has been told, or its silence. Neither: the stream ended."""

    error: AmqpError | None
    clean: bool


Event = SaslInit | Opened | LinkAttached | MessageReceived | CreditChanged | LinkDetached | SessionEnded | Closed
