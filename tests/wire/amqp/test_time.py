"""AmqpServerProtocol over time and in pieces: heartbeats, silence, any chunking, random bytes, and what it costs."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methodhub.wire.amqp import frames
from methodhub.wire.amqp.errors import AmqpError
from methodhub.wire.amqp.events import Closed, Event, LinkAttached, MessageReceived
from methodhub.wire.amqp.messages import Message, decode_message, encode_message
from methodhub.wire.amqp.protocol import AmqpServerProtocol, State
from methodhub.wire.amqp.sasl import AMQP_HEADER, SASL_HEADER, SaslInit

from .dialogues import CBS_CHANNEL, DIALOGUES
from .peer import Peer, begin, open_frame, split, transfer


def opened(idle: int | None = None, now: float = 0.0) -> AmqpServerProtocol:
    protocol = AmqpServerProtocol("hub")
    protocol.receive_data(AMQP_HEADER + open_frame(idle=idle), now)
    protocol.events()
    protocol.data_to_send()
    return protocol


# --- time --------------------------------------------------------------------------------------------------------


def test_there_is_no_deadline_before_open() -> None:
    """Until then the owner's clock runs."""
    protocol = AmqpServerProtocol("hub")
    assert protocol.next_deadline() is None
    protocol.receive_data(SASL_HEADER, 0.0)
    assert protocol.next_deadline() is None
    protocol.tick(1e9)
    assert protocol.events() == []


@pytest.mark.parametrize("idle", [5000, 115_000, 240_000])
def test_heartbeats_are_sent_at_half_the_peers_idle_time_out(idle: int) -> None:
    """[AMQP-2.4.5]"""
    protocol = opened(idle, now=1000.0)
    now = 1000.0
    for _ in range(5):
        protocol.receive_data(frames.HEARTBEAT, now)
        deadline = protocol.next_deadline()
        assert deadline == now + idle / 2000
        protocol.tick(deadline - 0.001)
        assert protocol.data_to_send() == b""
        protocol.tick(deadline)
        assert protocol.data_to_send().hex() == "0000000802000000"
        now = deadline
    assert protocol.events() == []


def test_no_heartbeat_without_an_idle_time_out() -> None:
    protocol = opened(None, now=10.0)
    assert protocol.next_deadline() == 490.0
    protocol.tick(489.9)
    assert protocol.data_to_send() == b""


def test_a_silent_peer_is_given_up() -> None:
    """[AMQP-2.4.5]: after twice what was announced; anything whole that comes counts."""
    protocol = opened(None, now=0.0)
    protocol.receive_data(frames.HEARTBEAT[:4], 100.0)
    assert protocol.next_deadline() == 480.0
    protocol.receive_data(frames.HEARTBEAT[4:], 200.0)
    assert protocol.next_deadline() == 680.0
    protocol.receive_data(begin(0), 300.0)
    assert protocol.next_deadline() == 780.0
    protocol.data_to_send()
    protocol.tick(780.0)
    (event,) = (event for event in protocol.events() if isinstance(event, Closed))
    assert event.error is not None and event.error.condition == "amqp:resource-limit-exceeded"
    assert protocol.data_to_send() == b""
    assert protocol.next_deadline() is None


def test_a_real_peer_lives_a_month_on_heartbeats() -> None:
    server = AmqpServerProtocol("hub")
    peer = Peer(server, idle_timeout=120.0)
    peer.exchange()
    now = 0.0
    while now < 30 * 86_400:
        now = server.next_deadline() or 0.0
        server.tick(now)
        peer.transport.tick(now + 1)
        assert peer.exchange(now) == []
    assert server.state is State.OPEN


# --- pieces ------------------------------------------------------------------------------------------------------


def play(parts: list[bytes]) -> tuple[list[str], State]:
    """A connection whose owner accepts SASL at once and all else at the end."""
    protocol = AmqpServerProtocol("hub")
    events: list[Event] = []
    for part in parts:
        protocol.receive_data(part, 0.0)
        new = protocol.events()
        if any(isinstance(event, SaslInit) for event in new):
            protocol.accept_sasl(0.0)
            new += protocol.events()
        events += new
    return [repr(event) for event in events], protocol.state


@pytest.mark.parametrize("sdk", DIALOGUES)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_chunking_gives_the_same_events(sdk: str, data: st.DataObject) -> None:
    stream = b"".join([*DIALOGUES[sdk].sasl, *DIALOGUES[sdk].opening])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert play(pieces) == play([stream])


@pytest.mark.parametrize("sdk", DIALOGUES)
def test_byte_by_byte(sdk: str) -> None:
    stream = b"".join([*DIALOGUES[sdk].sasl, *DIALOGUES[sdk].opening])
    assert play([stream[at : at + 1] for at in range(len(stream))]) == play([stream])


def accepting(protocol: AmqpServerProtocol) -> list[Event]:
    events = protocol.events()
    for event in events:
        if isinstance(event, LinkAttached):
            protocol.accept_link(event.link, credit=100)
    protocol.data_to_send()
    return events


def test_a_token_byte_by_byte() -> None:
    for sdk, dialogue in DIALOGUES.items():
        protocol = AmqpServerProtocol("hub")
        protocol.receive_data(b"".join(dialogue.opening), 0.0)
        accepting(protocol)
        data = transfer(CBS_CHANNEL[sdk], 0, 0, dialogue.put_token)
        for at in range(len(data)):
            protocol.receive_data(data[at : at + 1], 0.0)
        (event,) = protocol.events()
        assert isinstance(event, MessageReceived) and event.payload == dialogue.put_token


@pytest.mark.parametrize("stage", range(12))
def test_random_bytes_after_each_stage(stage: int) -> None:
    """They end the connection or wait for more; nothing is raised."""
    rng = random.Random(stage)
    for sdk, dialogue in DIALOGUES.items():
        parts = [*dialogue.sasl, *dialogue.opening, transfer(CBS_CHANNEL[sdk], 0, 0, dialogue.put_token)][:stage]
        for _ in range(30):
            protocol = AmqpServerProtocol("hub")
            for part in parts:
                protocol.receive_data(part, 0.0)
                if protocol.state is State.AUTHENTICATING:
                    protocol.accept_sasl(0.0)
                accepting(protocol)
            noise = bytearray(rng.randbytes(rng.choice((8, 40, 300))))
            if rng.random() < 0.5:  # a frame, at least
                noise[:8] = len(noise).to_bytes(4) + b"\x02\x00\x00" + bytes((rng.randrange(2),))
                noise[8:11] = bytes((0, 0x53, rng.randrange(0x10, 0x19))) if rng.random() < 0.7 else noise[8:11]
            protocol.receive_data(bytes(noise), 0.0)
            for event in protocol.events():
                if isinstance(event, Closed):
                    assert isinstance(event.error, AmqpError)
                    assert protocol.state is State.CLOSED
            sent = split(protocol.data_to_send())
            assert all(len(part) == 8 or part[4] == 2 for part in sent)


# --- cost --------------------------------------------------------------------------------------------------------


def test_what_a_connection_keeps_in_python_is_small() -> None:
    """The engine's own memory, of which this knows nothing, is the larger part."""
    opened()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        protocols = [opened() for _ in range(100)]
        assert (tracemalloc.get_traced_memory()[0] - before) / len(protocols) < 4096
    finally:
        tracemalloc.stop()


def test_a_message_survives_two_engines() -> None:
    server = AmqpServerProtocol("hub")
    peer = Peer(server)
    peer.exchange()
    sender, _, _, _ = peer.attach()
    message = Message(b'{"ok":true}', correlation_id="x", application_properties={"IoThub-status": 200})
    sender.delivery("1")
    sender.stream(encode_message(message))
    sender.advance()
    (event,) = peer.exchange()
    assert isinstance(event, MessageReceived) and decode_message(event.payload) == message
