"""Any bytes give events or a violation, in any pieces."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.wire.nats.protocol import (
    MAX_LINE,
    MAX_MESSAGE,
    NO_RESPONDERS,
    Event,
    Info,
    Message,
    NatsProtocol,
    NatsViolation,
    Refusal,
    Signal,
    connect,
    publish,
    subscribe,
    unsubscribe,
)

DIALOGUE = (
    b'INFO {"server_name":"n","max_payload":65536,"tls_required":true,"headers":true,"x":[1]} \r\n'
    b"PING\r\nPONG\r\n+OK\r\n"
    b"MSG a.b 7 5\r\nhe\r\no\r\n"
    b"MSG a.b 12 in.1 0\r\n\r\n"
    b"HMSG in.2 3 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"HMSG a 3 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
    b"-ERR 'Authorization Violation'\r\n"
)
EVENTS: list[Event] = [
    Info("n", 65536, tls_required=True, headers=True),
    Signal.PING,
    Signal.PONG,
    Message(b"a.b", 7, b"", 0, b"he\r\no"),
    Message(b"a.b", 12, b"in.1", 0, b""),
    Message(b"in.2", 3, b"", NO_RESPONDERS, b""),
    Message(b"a", 3, b"r", 0, b"hi"),
    Refusal("Authorization Violation"),
]


def read(pieces: list[bytes]) -> list[Event]:
    protocol = NatsProtocol()
    return [event for piece in pieces for event in protocol.receive_data(piece)]


def test_a_dialogue() -> None:
    assert read([DIALOGUE]) == EVENTS


@given(st.lists(st.integers(0, len(DIALOGUE)), max_size=40).map(sorted))
def test_any_pieces_give_the_same_events(cuts: list[int]) -> None:
    bounds = [0, *cuts, len(DIALOGUE)]
    assert read([DIALOGUE[a:b] for a, b in pairwise(bounds)]) == EVENTS


def test_byte_by_byte() -> None:
    assert read([bytes((byte,)) for byte in DIALOGUE]) == EVENTS


@given(st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=8), st.integers(1, 50))
def test_payloads_of_any_bytes(payloads: list[tuple[bytes, bool]], step: int) -> None:
    """What is published is what is read: a server turns PUB into MSG with the subscription's number."""
    stream = b"".join(
        publish(b"s.x", payload, b"r.1" if wants_reply else b"").replace(b"PUB s.x", b"MSG s.x 4", 1)
        for payload, wants_reply in payloads
    )
    expected = [Message(b"s.x", 4, b"r.1" if wants_reply else b"", 0, payload) for payload, wants_reply in payloads]
    assert read([stream[at : at + step] for at in range(0, len(stream), step)]) == expected


@given(st.binary(max_size=200) | st.sampled_from([b"MSG ", b"HMSG ", b"INFO "]).flatmap(
    lambda verb: st.binary(max_size=80).map(lambda rest: verb + rest + b"\r\n\r\n")
))  # fmt: skip
def test_any_bytes_give_events_or_a_violation(data: bytes) -> None:
    try:
        read([data])
    except NatsViolation:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"HELLO\r\n",
        b"\r\n",
        b"msg a 1 0\r\n\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 r r 1\r\nx\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a x 1\r\n",
        b"MSG a 1 2\r\nabcd",
        b"MSG a 1 %d\r\n" % (MAX_MESSAGE + 1),
        b"HMSG a 1 9 8\r\n",
        b"HMSG a 1 4 4\r\nabcd\r\n",
        b"HMSG a 1 14 14\r\nNATS/1.0 x\r\n\r\n\r\n",
        b"INFO\r\n",
        b"INFO []\r\n",
        b"INFO {\r\n",
        b"P" * (MAX_LINE + 1),
    ],
)
def test_violations(data: bytes) -> None:
    with pytest.raises(NatsViolation):
        read([data])


def test_verbs() -> None:
    assert subscribe(3, b"a.*") == b"SUB a.* 3\r\n"
    assert subscribe(3, b"a.*", b"q") == b"SUB a.* q 3\r\n"
    assert unsubscribe(3) == b"UNSUB 3\r\n"
    verb, options = connect("node", "u", "p\r\n'").split(b" ", 1)
    assert verb == b"CONNECT"
    assert options.count(b"\r\n") == 1
    fields = json.loads(options)
    assert (fields["user"], fields["pass"], fields["echo"], fields["no_responders"]) == ("u", "p\r\n'", False, True)
    assert "auth_token" not in fields
    assert json.loads(connect("node", token="t").split(b" ", 1)[1])["auth_token"] == "t"
