"""Random and mutated AMQP streams against AmqpServerProtocol: `python fuzz/fuzz_amqp.py SECONDS [SEED]`.

Each stream must end in events or one error, never in an exception, begin no more than it may, keep no more than it
may, and mean the same however it is cut. A failure prints the seed and the stream in hex, and exits with 1.
"""

from __future__ import annotations

import random
import sys
import time
from uuid import UUID

from methodhub.wire.amqp import frames
from methodhub.wire.amqp.codec import NULL, Symbol, describe, encode, encode_fields
from methodhub.wire.amqp.errors import AmqpError, MalformedData
from methodhub.wire.amqp.events import Closed, Event, LinkAttached, MessageReceived
from methodhub.wire.amqp.messages import AmqpValue, Message, decode_message, encode_message
from methodhub.wire.amqp.protocol import AmqpServerProtocol, State
from methodhub.wire.amqp.sasl import AMQP_HEADER, SASL_HEADER, SaslInit

MAX_SESSIONS = 3
MAX_LINKS = 3
TRUE, FALSE = b"\x41", b"\x42"


def uint(value: int) -> bytes:
    return b"\x70" + value.to_bytes(4)


def frame(channel: int, code: int, fields: list[bytes], payload: bytes = b"", kind: int = 0) -> bytes:
    body = describe(code, encode_fields(fields)) + payload
    return (len(body) + 8).to_bytes(4) + bytes((2, kind)) + channel.to_bytes(2) + body


def attach(channel: int, handle: int, name: str, receiver: bool, address: str) -> bytes:
    termini = [describe(0x28, encode_fields([encode(address)])), describe(0x29, encode_fields([encode(address)]))]
    properties = encode({Symbol("com.microsoft:client-version"): "x", Symbol("list"): [1, [2, None]]})
    fields = [encode(name), uint(handle), TRUE if receiver else FALSE, NULL, NULL, *termini, NULL, NULL, uint(0)]
    return frame(channel, frames.ATTACH, [*fields, NULL, NULL, NULL, properties])


def transfer(channel: int, handle: int, number: int, payload: bytes, settled: bool, more: bool) -> bytes:
    flags = [TRUE if settled else FALSE, TRUE if more else FALSE]
    fields = [uint(handle), uint(number), encode(number.to_bytes(4)), b"\x43", *flags]
    return frame(channel, frames.TRANSFER, fields, payload)


OPEN = frame(0, frames.OPEN, [encode("c"), encode("hub.local"), uint(4096), NULL, uint(115_000)])
BEGIN = frame(0, frames.BEGIN, [NULL, uint(0), uint(2048), uint(2048)])
SENDER = attach(0, 0, "s", False, "$cbs")
RECEIVER = attach(0, 1, "r", True, "$cbs")
INIT = frame(0, 0x41, [encode(Symbol("ANONYMOUS")), encode(b"anonymous"), encode("hub.local")], kind=1)
ERROR = describe(0x1D, encode_fields([encode(Symbol("amqp:not-found")), encode("gone")]))
MESSAGE = encode_message(
    Message(AmqpValue("token"), message_id=UUID(int=7), application_properties={"operation": "put-token", "n": 1})
)
WINDOWS = [uint(0), uint(2048), uint(0), uint(2048)]
SEEDS = [
    frame(0, frames.FLOW, [*WINDOWS, uint(1), uint(0), uint(50)]),
    frame(0, frames.FLOW, [*WINDOWS, uint(1), uint(0), uint(50), NULL, TRUE, TRUE]),
    frame(0, frames.FLOW, WINDOWS),
    transfer(0, 0, 0, MESSAGE, settled=False, more=False),
    transfer(0, 0, 0, MESSAGE, settled=True, more=False),
    transfer(0, 0, 0, MESSAGE[:20], settled=False, more=True),
    transfer(0, 0, 1, MESSAGE[20:], settled=False, more=False),
    frame(0, frames.DISPOSITION, [TRUE, uint(0), uint(3), TRUE, describe(0x24, encode_fields([]))]),
    frame(0, frames.DISPOSITION, [FALSE, uint(0), NULL, TRUE]),
    frame(0, frames.DETACH, [uint(0), TRUE]),
    frame(0, frames.DETACH, [uint(1), FALSE, ERROR]),
    frame(0, frames.END, [ERROR]),
    frame(0, frames.CLOSE, [ERROR]),
    frame(1, frames.BEGIN, [NULL, uint(0), uint(1), uint(1), uint(7)]),
    attach(1, 0, "s", False, "/devices/d/messages/events"),
    attach(0, 2, "s2", False, "x" * 300),
    frames.HEARTBEAT,
    OPEN,
    BEGIN,
    SENDER,
    RECEIVER,
]
BEGINNINGS = [
    b"",
    AMQP_HEADER,
    SASL_HEADER,
    SASL_HEADER + INIT,
    SASL_HEADER + INIT + AMQP_HEADER + OPEN,
    AMQP_HEADER + OPEN,
    AMQP_HEADER + OPEN + BEGIN,
    AMQP_HEADER + OPEN + BEGIN + SENDER + RECEIVER,
    AMQP_HEADER + OPEN + BEGIN + SENDER + RECEIVER + SEEDS[0],
]
TELLING = (0x00, 0x01, 0x40, 0x41, 0x43, 0x45, 0x53, 0x70, 0x7F, 0x80, 0xA1, 0xC0, 0xD0, 0xE0, 0xFF)
"""Bytes at which a rule turns: constructors, the edges of numbers and of lengths."""


def stream(rng: random.Random) -> bytes:
    """Mostly a beginning and frames, some of them damaged; at times nothing but noise."""
    data = bytearray(rng.choice(BEGINNINGS))
    if rng.random() < 0.1:
        return bytes(data + rng.randbytes(rng.randrange(64)))
    if rng.random() < 0.2:
        mutate(data, rng)
    for _ in range(rng.randrange(10)):
        part = bytearray(rng.choice(SEEDS))
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 8))):
            mutate(part, rng)
        if rng.random() < 0.8 and len(part) >= 8:
            part[:4] = len(part).to_bytes(4)
        data += part
    return bytes(data)


def mutate(part: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(part)) if part else 0
    match rng.randrange(5):
        case 0 if part:
            part[at] ^= 1 << rng.randrange(8)
        case 1 if part:
            part[at] = rng.choice(TELLING)
        case 2:
            part[at:at] = rng.randbytes(rng.randrange(1, 4))
        case 3:
            part[at:at] = bytes((rng.choice((0x00, 0xE0, 0xC0)),)) * rng.choice((1, 4, 2000, 40_000))
        case _:
            del part[at : at + rng.randrange(1, 4)]


def whole_frames(data: bytes) -> list[bytes]:
    """As the headers and the frames' own sizes part it."""
    parts = []
    while data:
        size = 8 if data[:4] == b"AMQP" else max(8, int.from_bytes(data[:4]))
        parts.append(data[:size])
        data = data[size:]
    return parts


def chunks(data: bytes, rng: random.Random) -> list[bytes]:
    parts = []
    while data:
        size = rng.choice((1, 2, 3, 7, 64, 5000))
        parts.append(data[:size])
        data = data[size:]
    return parts


def play(parts: list[bytes], reacting: bool) -> list[str]:
    """What one connection made of `parts`: its events. The owner reacts to them after each part, or never."""
    protocol = AmqpServerProtocol("hub", max_sessions=MAX_SESSIONS, max_links=MAX_LINKS)
    events: list[Event] = []
    for part in parts:
        protocol.receive_data(part, 1.0)
        while new := protocol.events():
            events += new
            for event in new if reacting else ():
                react(protocol, event)
        if reacting:
            protocol.data_to_send()  # which also gives credit back to a peer that drains it
        check(protocol.buffered_bytes <= frames.MAX_FRAME_SIZE + len(part) + 4 * 262_144, "keeps too much")
    for event in events[:-1]:
        check(not isinstance(event, Closed), "an event after Closed")
    last = events[-1] if events else None
    check(isinstance(last, Closed) is (protocol.state is State.CLOSED), "closed without an event")
    if isinstance(last, Closed):
        check(last.error is None or isinstance(last.error, AmqpError), "another error")
    return [repr(event) for event in events]


def react(protocol: AmqpServerProtocol, event: Event) -> None:
    match event:
        case SaslInit():
            protocol.accept_sasl(1.0)
        case LinkAttached(name="s2"):
            protocol.refuse_link(event.link, "amqp:not-found")
        case LinkAttached():
            protocol.accept_link(event.link, credit=2)
        case MessageReceived():
            try:
                decode_message(event.payload)
            except MalformedData:
                protocol.detach_link(event.link, "amqp:decode-error")
            protocol.settle(event.delivery)
        case _:
            pass
    for link in (2, 3):
        protocol.send(link, bytes(5000))


def check(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def main(seconds: float, seed: int) -> int:
    rng = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    began = time.monotonic()
    count = closed = 0
    while time.monotonic() - began < seconds:
        data = stream(rng)
        try:
            whole = play([data], reacting=False)
            check(play(chunks(data, rng), reacting=False) == whole, "the outcome depends on how the stream was cut")
            parts = whole_frames(data)
            whole = play(parts, reacting=True)
            cut = play([piece for part in parts for piece in chunks(part, rng)], reacting=True)
            check(cut == whole, "the outcome depends on how frames were cut")
        except Exception as error:  # noqa: BLE001 - any exception is the finding
            sys.stdout.write(f"seed {seed}, stream {count}: {error!r}\n{data.hex()}\n")
            return 1
        count += 1
        closed += any(event.startswith("Closed") for event in whole)
    sys.stdout.write(f"seed {seed}: {count} streams, {closed} of them ended by the protocol, no failure\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns()))
