"""Random and mutated MQTT streams against MqttServerProtocol: `python fuzz/fuzz_mqtt.py SECONDS [SEED]`.

Each stream must end in events or one error, never in an exception, keep no more than it may, and mean the same
however it is cut. A failure prints the seed and the stream in hex, and exits with 1.
"""

from __future__ import annotations

import random
import sys
import time

from methodhub.wire.mqtt.packets import (
    Connect,
    Disconnect,
    MqttError,
    Packet,
    PingReq,
    PubAck,
    Publish,
    PubRel,
    Subscribe,
    Unsubscribe,
    Will,
    serialize,
)
from methodhub.wire.mqtt.protocol import Closed, Event, MqttServerProtocol, State

MAX_PACKET_SIZE = 4096

CONNECT = serialize(Connect("d", False, 60, "hub/d/?api-version=2021-04-12", b"token", None))
PACKETS: list[Packet] = [
    Connect("d/m", True, 0, "user", None, Will("devices/d/messages/events/", b"gone", 1, False)),
    Publish("$iothub/methods/res/200/?$rid=1a", b'{"ok":true}', 0, False, False, None),
    Publish("$iothub/methods/res/200/?$rid=1b", b"null", 1, False, True, 7),
    Publish("devices/d/messages/events/", bytes(200), 1, True, False, 65_535),
    Publish("devices/d/messages/events/", bytes(MAX_PACKET_SIZE), 0, False, False, None),
    Subscribe(1, (("$iothub/methods/POST/#", 1), ("$iothub/twin/res/#", 0), ("+/a/+", 2))),
    Unsubscribe(2, ("$iothub/methods/POST/#", "#")),
    PubAck(3),
    PubRel(4),
    PingReq(),
    Disconnect(),
]
SEEDS = [serialize(packet) for packet in PACKETS]
TELLING = (0x00, 0x01, 0x23, 0x2B, 0x2F, 0x7F, 0x80, 0xC0, 0xED, 0xFF)
"""Bytes at which a rule turns: NUL, wildcards, the edges of lengths and of UTF-8."""


def stream(rng: random.Random) -> bytes:
    """Mostly a CONNECT and packets, some of them damaged; at times nothing but noise."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(64))
    data = bytearray(CONNECT if rng.random() < 0.9 else b"")
    for _ in range(rng.randrange(6)):
        packet = bytearray(rng.choice(SEEDS))
        for _ in range(rng.choice((0, 0, 1, 1, 2, 8))):
            mutate(packet, rng)
        data += packet
    return bytes(data)


def mutate(packet: bytearray, rng: random.Random) -> None:
    at = rng.randrange(min(len(packet), 64)) if packet else 0
    match rng.randrange(4):
        case 0 if packet:
            packet[at] ^= 1 << rng.randrange(8)
        case 1 if packet:
            packet[at] = rng.choice(TELLING)
        case 2:
            packet[at:at] = rng.randbytes(rng.randrange(1, 4))
        case _:
            del packet[at : at + rng.randrange(1, 4)]


def chunks(data: bytes, rng: random.Random) -> list[bytes]:
    parts = []
    while data:
        size = rng.choice((1, 2, 3, 7, 64, 5000))
        parts.append(data[:size])
        data = data[size:]
    return parts


def play(parts: list[bytes]) -> tuple[list[str], bytes]:
    """What one connection made of `parts`: its events, and what it would send."""
    protocol = MqttServerProtocol(MAX_PACKET_SIZE)
    events: list[Event] = []
    for now, part in enumerate(parts):
        protocol.receive_data(part, float(now))
        if protocol.state is State.CONNECTING:
            protocol.accept(session_present=False, now=float(now))
        events += protocol.events()
        check(protocol.buffered_bytes <= MAX_PACKET_SIZE, "keeps more than one packet")
        check((protocol.next_deadline() is None) is (protocol.state is not State.CONNECTED), "deadline")
    for event in events[:-1]:
        check(not isinstance(event, Closed), "an event after Closed")
    last = events[-1] if events else None
    check(isinstance(last, Closed) is (protocol.state is State.CLOSED), "closed without an event")
    if isinstance(last, Closed):
        check(last.error is None or isinstance(last.error, MqttError), "another error")
    return [repr(event) for event in events], protocol.data_to_send()


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
            whole = play([data])
            check(play(chunks(data, rng)) == whole, "the outcome depends on how the stream was cut")
        except Exception as error:  # noqa: BLE001 - any exception is the finding
            sys.stdout.write(f"seed {seed}, stream {count}: {error!r}\n{data.hex()}\n")
            return 1
        count += 1
        closed += any(event.startswith("Closed") for event in whole[0])
    sys.stdout.write(f"seed {seed}: {count} streams, {closed} of them ended by the protocol, no failure\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns()))
