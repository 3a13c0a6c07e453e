"""How each SDK begins, in its own fields, and its links as a server sees them (`wire/device.md` 3.1 to 3.4)."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from methodhub.wire.amqp.messages import AmqpValue, Message, encode_message
from methodhub.wire.amqp.sasl import AMQP_HEADER, SASL_HEADER

from .peer import attach, begin, flow, open_frame, sasl_init

DEVICE = "/devices/d/methods/devicebound"
FULL = "amqps://hub.local/devices/d/methods/deviceBound"


class Dialogue(NamedTuple):
    sasl: list[bytes]
    mechanism: str | None
    opening: list[bytes]
    max_frame_size: int
    idle_timeout: float | None
    links: list[tuple[str, str, str | None, str | None]]
    """(role, name, source, target), in the order of attaching."""
    channels: int
    put_token: bytes
    message_id: int | str | UUID


def put_token(message_id: int | str | UUID, name: str) -> bytes:
    properties = {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": name}
    return encode_message(
        Message(AmqpValue("SharedAccessSignature sr=x"), message_id=message_id, application_properties=properties)
    )


_CORRELATION = {"com.microsoft:channel-correlation-id": "methods:0f", "com.microsoft:api-version": "2021-04-12"}
_JAVA_ID = UUID("01234567-89ab-4cde-8fed-cba987654321")

DIALOGUES = {
    "Node": Dialogue(
        sasl=[],
        mechanism=None,
        opening=[
            AMQP_HEADER,
            open_frame(),
            begin(0),
            attach(0, 0, "rheaSender_1", "sender", None, "$cbs"),
            attach(0, 1, "rheaReceiver_1", "receiver", "$cbs", None),
            flow(0, 1, 100),
            attach(0, 2, "rheaSender_2", "sender", None, DEVICE, properties=_CORRELATION),
            attach(0, 3, "rheaReceiver_2", "receiver", DEVICE, None, properties=_CORRELATION),
            flow(0, 3, 1000),
        ],
        max_frame_size=4_294_967_295,
        idle_timeout=None,
        links=[
            ("sender", "rheaSender_1", None, "$cbs"),
            ("receiver", "rheaReceiver_1", "$cbs", None),
            ("sender", "rheaSender_2", None, DEVICE),
            ("receiver", "rheaReceiver_2", DEVICE, None),
        ],
        channels=1,
        put_token=put_token("5c0e1f1e-0000-4000-8000-000000000000", "hub.local%2Fdevices%2Fd"),
        message_id="5c0e1f1e-0000-4000-8000-000000000000",
    ),
    "C": Dialogue(
        sasl=[SASL_HEADER, sasl_init("MSSBCBS")],
        mechanism="MSSBCBS",
        opening=[
            AMQP_HEADER,
            open_frame(4_294_967_295, 65_535, 240_000),
            begin(0),
            attach(0, 0, "cbs-sender", "sender", "$cbs", "$cbs", 0),
            attach(0, 1, "cbs-receiver", "receiver", "$cbs", "$cbs", 0),
            flow(0, 1, 10_000),
            attach(0, 2, "link-snd-d-1", "sender", "x", "amqps://hub.local/devices/d/messages/events", 0),
            attach(0, 3, "methods_requests_link-d", "receiver", FULL, "requests", 0),
            flow(0, 3, 10_000),
        ],
        max_frame_size=4_294_967_295,
        idle_timeout=240.0,
        links=[
            ("sender", "cbs-sender", "$cbs", "$cbs"),
            ("receiver", "cbs-receiver", "$cbs", "$cbs"),
            ("sender", "link-snd-d-1", "x", "amqps://hub.local/devices/d/messages/events"),
            ("receiver", "methods_requests_link-d", FULL, "requests"),
        ],
        channels=1,
        put_token=put_token(0, "hub.local/devices/d"),
        message_id=0,
    ),
    "C#": Dialogue(
        sasl=[],
        mechanism=None,
        opening=[
            AMQP_HEADER,
            open_frame(65_536, 8191, 120_000),
            begin(0),
            begin(1),
            attach(1, 0, "link", "sender", "reply", "$cbs", 1),
            attach(1, 1, "link", "receiver", "$cbs", "reply", 1),
            flow(1, 1, 50),
            attach(0, 0, "link", "sender", "d", FULL, 1, _CORRELATION),
            attach(0, 1, "link", "receiver", FULL, "d", 1, _CORRELATION),
            flow(0, 1, 50),
        ],
        max_frame_size=65_536,
        idle_timeout=120.0,
        links=[
            ("sender", "link", "reply", "$cbs"),
            ("receiver", "link", "$cbs", "reply"),
            ("sender", "link", "d", FULL),
            ("receiver", "link", FULL, "d"),
        ],
        channels=2,
        put_token=put_token("cbs0123456789abcdef", "hub.local/devices/d"),
        message_id="cbs0123456789abcdef",
    ),
    "Java": Dialogue(
        sasl=[SASL_HEADER, sasl_init("ANONYMOUS", b"anonymous", "hub.local")],
        mechanism="ANONYMOUS",
        opening=[
            AMQP_HEADER,
            open_frame(4096, None, 115_000),
            begin(0),
            begin(1),
            attach(1, 0, "cbs-sender", "sender", None, "$cbs", 0),
            attach(1, 1, "cbs-receiver", "receiver", "$cbs", None, 0),
            flow(1, 1, 1024),
            attach(0, 0, "sender_link_devicemethods-d-1", "sender", "x", DEVICE, 0, _CORRELATION),
            attach(0, 1, "receiver_link_devicemethods-d-1", "receiver", DEVICE, "x", 0, _CORRELATION),
            flow(0, 1, 1024),
        ],
        max_frame_size=4096,
        idle_timeout=115.0,
        links=[
            ("sender", "cbs-sender", None, "$cbs"),
            ("receiver", "cbs-receiver", "$cbs", None),
            ("sender", "sender_link_devicemethods-d-1", "x", DEVICE),
            ("receiver", "receiver_link_devicemethods-d-1", DEVICE, "x"),
        ],
        channels=2,
        put_token=put_token(_JAVA_ID, "hub.local/devices/d"),
        message_id=_JAVA_ID,
    ),
}

CBS_CHANNEL = {"Node": 0, "C": 0, "C#": 1, "Java": 1}
