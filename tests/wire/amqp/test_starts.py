"""AmqpServerProtocol up to its first links: headers, SASL, OPEN, BEGIN, each SDK's own way, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from methodhub.wire.amqp import frames
from methodhub.wire.amqp.codec import NULL, encode, encode_fields
from methodhub.wire.amqp.events import Closed, CreditChanged, Event, LinkAttached, MessageReceived, Opened
from methodhub.wire.amqp.messages import Message, decode_message, encode_message
from methodhub.wire.amqp.protocol import AmqpServerProtocol, State
from methodhub.wire.amqp.sasl import AMQP_HEADER, SASL_HEADER, SaslInit

from .dialogues import CBS_CHANNEL, DIALOGUES
from .peer import attach, begin, code_of, codes, detach, fields_of, frame, open_frame, sasl_init, split, transfer, uint


def started(*parts: bytes, sessions: int = 4, links: int = 4) -> AmqpServerProtocol:
    protocol = AmqpServerProtocol("DeviceGateway_1", max_sessions=sessions, max_links=links)
    protocol.receive_data(b"".join(parts), 0.0)
    return protocol


def closed_by(protocol: AmqpServerProtocol) -> str:
    """The condition of the last event, which must be the peer's mistake."""
    event = protocol.events()[-1]
    assert isinstance(event, Closed) and not event.clean and event.error is not None
    assert protocol.state is State.CLOSED
    return event.error.condition


def close_condition(data: bytes) -> str:
    """That of the CLOSE which the peer is sent last."""
    last = split(data)[-1]
    assert code_of(last) == frames.CLOSE
    error = frames.read_error(fields_of(last), 0)
    assert error is not None
    return error.condition


# --- the dialogues -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sdk", DIALOGUES)
def test_each_sdk_starts(sdk: str) -> None:
    dialogue = DIALOGUES[sdk]
    protocol = AmqpServerProtocol("DeviceGateway_1")
    if dialogue.sasl:
        protocol.receive_data(b"".join(dialogue.sasl), 0.0)
        (init,) = protocol.events()
        assert isinstance(init, SaslInit) and init.mechanism == dialogue.mechanism
        protocol.accept_sasl(0.0)
        assert codes(protocol.data_to_send()) == [0, 0x40, 0x44]
    protocol.receive_data(b"".join(dialogue.opening), 0.0)
    opened, *events = protocol.events()
    assert opened == Opened("peer", "hub.local", dialogue.max_frame_size, dialogue.idle_timeout)
    attached = [event for event in events if isinstance(event, LinkAttached)]
    assert [(e.role, e.name, e.source_address, e.target_address) for e in attached] == dialogue.links
    assert len({event.link for event in attached}) == 4
    assert len({event.session for event in attached}) == dialogue.channels
    assert all(isinstance(event, LinkAttached | CreditChanged) for event in events)
    expected = [0, frames.OPEN] + [frames.BEGIN] * dialogue.channels
    assert codes(protocol.data_to_send()) == expected
    for event in attached:
        protocol.accept_link(event.link, credit=100)
    sent = split(protocol.data_to_send())
    assert [code_of(part) for part in sent].count(frames.ATTACH) == 4
    assert [code_of(part) for part in sent].count(frames.FLOW) == sum(link[0] == "sender" for link in dialogue.links)
    put_token(protocol, sdk, attached)


def put_token(protocol: AmqpServerProtocol, sdk: str, attached: list[LinkAttached]) -> None:
    """What is settled first is read first (`wire/device.md` 3.3)."""
    dialogue = DIALOGUES[sdk]
    protocol.receive_data(transfer(CBS_CHANNEL[sdk], 0, 0, dialogue.put_token), 0.0)
    (event,) = protocol.events()
    assert isinstance(event, MessageReceived)
    request = decode_message(event.payload)
    assert request.message_id == dialogue.message_id
    reply = Message(correlation_id=request.message_id, application_properties={"status-code": 200})
    protocol.settle(event.delivery)
    assert protocol.send(attached[1].link, encode_message(reply))
    disposition, answer = split(protocol.data_to_send())
    assert code_of(disposition) == frames.DISPOSITION
    assert disposition[8:].hex(" ").endswith("41 43 40 41 00 53 24 45") or fields_of(disposition)[3] is True
    assert code_of(answer) == frames.TRANSFER
    assert fields_of(answer)[4] is True  # settled


def test_our_open_by_bytes() -> None:
    """Container, max-frame-size 65,536, channel-max 8,191, idle-time-out 240,000."""
    sent = split(started(AMQP_HEADER, open_frame()).data_to_send())
    assert sent[0] == AMQP_HEADER
    assert sent[1].hex(" ") == (
        "00 00 00 2d 02 00 00 00 00 53 10 c0 20 05 a1 0f " + b"DeviceGateway_1".hex(" ") + " 40 "
        "70 00 01 00 00 60 1f ff 70 00 03 a9 80"
    )


def test_our_begin_has_a_window_that_does_not_stall() -> None:
    sent = split(started(AMQP_HEADER, open_frame(), begin(5)).data_to_send())
    remote_channel, next_outgoing, incoming, _outgoing, handle_max = fields_of(sent[2])
    assert (remote_channel, next_outgoing, incoming) == (5, 0, 2_147_483_647)
    assert handle_max == 0x7FFF_FFFF


# --- headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", AMQP_HEADER),
        (b"AMQP\x00\x00\x09\x01", AMQP_HEADER),
        (b"AMQP\x02\x01\x00\x00", AMQP_HEADER),
        (b"AMQP\x03\x01\x00\x01", SASL_HEADER),
        (b"\x10", AMQP_HEADER),
    ],
)
def test_another_header_is_answered_with_ours(data: bytes, answer: bytes) -> None:
    """[AMQP-2.2]"""
    protocol = started(data)
    assert closed_by(protocol) == "amqp:connection:framing-error"
    assert protocol.data_to_send() == answer


def test_a_header_is_waited_for() -> None:
    protocol = started(b"AMQP\x00")
    assert protocol.events() == [] and protocol.data_to_send() == b""
    protocol.receive_data(AMQP_HEADER[5:], 0.0)
    assert protocol.data_to_send() == AMQP_HEADER  # C waits for it before its OPEN


def test_sasl_does_not_begin_twice() -> None:
    protocol = started(SASL_HEADER, sasl_init("ANONYMOUS"))
    protocol.accept_sasl(0.0)
    protocol.data_to_send()
    protocol.receive_data(SASL_HEADER, 0.0)
    assert closed_by(protocol) == "amqp:connection:framing-error"
    assert protocol.data_to_send() == AMQP_HEADER


# --- SASL --------------------------------------------------------------------------------------------------------


def test_the_mechanisms_by_bytes() -> None:
    """[AMQP-5.3.3.1]"""
    names = ("EXTERNAL", "MSSBCBS", "ANONYMOUS", "PLAIN")
    symbols = " ".join(f"{len(name):02x} {name.encode().hex(' ')}" for name in names)
    assert started(SASL_HEADER).data_to_send()[8:].hex(" ") == (
        "00 00 00 33 02 01 00 00 00 53 40 c0 26 01 e0 23 04 a3 " + symbols
    )


def test_sasl_init() -> None:
    """[AMQP-5.3.3.2]"""
    protocol = started(SASL_HEADER, sasl_init("PLAIN", b"\0d@sas.hub\0token", "hub.local"))
    assert protocol.events() == [SaslInit("PLAIN", b"\0d@sas.hub\0token", "hub.local")]
    assert protocol.state is State.AUTHENTICATING
    protocol = started(SASL_HEADER, sasl_init("EXTERNAL"))
    assert protocol.events() == [SaslInit("EXTERNAL", b"", None)]


def test_the_outcomes_by_bytes() -> None:
    """[AMQP-5.3.3.6]"""
    accepted, refused = (started(SASL_HEADER, sasl_init("PLAIN", b"x")) for _ in range(2))
    for protocol in (accepted, refused):
        protocol.events()
        protocol.data_to_send()
    accepted.accept_sasl(0.0)
    assert accepted.data_to_send().hex(" ") == "00 00 00 10 02 01 00 00 00 53 44 c0 03 01 50 00"
    refused.refuse_sasl()
    assert refused.data_to_send().hex(" ") == "00 00 00 10 02 01 00 00 00 53 44 c0 03 01 50 01"
    assert refused.state is State.CLOSED and refused.events() == []


def test_what_follows_sasl_init_waits_for_its_answer() -> None:
    protocol = started(SASL_HEADER, sasl_init("ANONYMOUS"), AMQP_HEADER, open_frame())
    assert protocol.buffered_bytes == 8 + len(open_frame())
    assert len(protocol.events()) == 1
    protocol.receive_data(begin(0), 1.0)
    protocol.accept_sasl(1.0)
    assert isinstance(protocol.events()[0], Opened)
    assert codes(protocol.data_to_send())[-3:] == [0, frames.OPEN, frames.BEGIN]
    assert protocol.buffered_bytes == 0


@pytest.mark.parametrize(
    "init",
    [
        frame(0, 0x41, [encode("ANONYMOUS")]),  # of type 0
        frame(0, 0x40, [encode("ANONYMOUS")], kind=1),
        frame(0, 0x41, [NULL], kind=1),
        frame(0, 0x41, [encode("ANONYMOUS"), encode("text")], kind=1),
        (20_000).to_bytes(4) + b"\x02\x01\x00\x00",
        b"\x00\x00\x00\x07",
        b"\x00\x00\x00\x09\x02\x01\x00\x00\x00",
    ],
)
def test_what_is_no_sasl_init_ends_the_connection(init: bytes) -> None:
    protocol = started(SASL_HEADER, init)
    assert closed_by(protocol) in {"amqp:decode-error", "amqp:connection:framing-error"}


def test_a_mechanism_that_was_not_offered_is_refused() -> None:
    protocol = started(SASL_HEADER, sasl_init("SCRAM-SHA-1"))
    assert closed_by(protocol) == "amqp:not-allowed"
    assert protocol.data_to_send()[-1] == 1


# --- OPEN and limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "condition"),
    [
        ([begin(0)], "amqp:not-allowed"),
        ([frames.HEARTBEAT], "amqp:not-allowed"),
        ([open_frame(511)], "amqp:invalid-field"),
        ([open_frame(idle=4999)], "amqp:invalid-field"),
        ([frame(0, frames.OPEN, [uint(1)])], "amqp:decode-error"),
        ([frame(0, frames.OPEN, [encode("a\0b")])], "amqp:invalid-field"),
        ([open_frame(), open_frame()], "amqp:not-allowed"),
        ([open_frame(), begin(0), begin(0)], "amqp:not-allowed"),
        ([open_frame(), begin(8192)], "amqp:connection:framing-error"),
        ([open_frame(), frame(0, frames.BEGIN, [b"\x60\x00\x00", *[uint(1)] * 3])], "amqp:invalid-field"),
        ([open_frame(), attach(0, 0, "a", "sender", None, "x")], "amqp:not-allowed"),
        ([open_frame(), begin(0), detach(0, 0)], "amqp:session:unattached-handle"),
        ([open_frame(), begin(0), attach(0, 2**31, "a", "sender", "x", "y")], "amqp:connection:framing-error"),
        ([open_frame(512), begin(0), attach(0, 0, "a" * 400, "sender", "x", "y")], "amqp:frame-size-too-small"),
        ([open_frame(), (65_537).to_bytes(4) + bytes(4)], "amqp:connection:framing-error"),
        ([open_frame(), b"\x00\x00\x00\x08\x02\x01\x00\x00"], "amqp:connection:framing-error"),
        ([open_frame(), frame(0, 0x19, [])], "amqp:decode-error"),
        ([open_frame(), begin(0), transfer(0, 0, 0, b"")], "amqp:invalid-field"),
    ],
)
def test_a_mistake_ends_the_connection_and_is_told(parts: list[bytes], condition: str) -> None:
    """[AMQP-2.7.2] for handles."""
    protocol = started(AMQP_HEADER, *parts)
    assert closed_by(protocol) == condition
    sent = protocol.data_to_send()
    assert codes(sent)[:2] == [0, frames.OPEN]
    assert close_condition(sent) == condition


def test_a_handle_is_used_once_at_a_time() -> None:
    links = [attach(0, 0, name, "sender", None, "x") for name in ("a", "b")]
    assert closed_by(started(AMQP_HEADER, open_frame(), begin(0), *links)) == "amqp:session:handle-in-use"
    protocol = started(AMQP_HEADER, open_frame(), begin(0), links[0], detach(0, 0), links[0], detach(0, 0), links[1])
    assert [type(event).__name__ for event in protocol.events()] == [
        "Opened",
        *("LinkAttached", "LinkDetached") * 2,
        "LinkAttached",
    ]


def test_begin_frames_do_not_make_sessions_beyond_the_limit() -> None:
    """64 KB of them once made 3,276 and 12 MB for a peer that nobody knew."""
    protocol = started(AMQP_HEADER, open_frame(), *(begin(channel) for channel in range(2000)))
    assert closed_by(protocol) == "amqp:resource-limit-exceeded"
    sent = protocol.data_to_send()
    assert codes(sent).count(frames.BEGIN) == 4
    assert close_condition(sent) == "amqp:resource-limit-exceeded"


def test_sessions_may_come_and_go() -> None:
    pairs = [begin(0) + frame(0, frames.END, []) for _ in range(50)]
    protocol = started(AMQP_HEADER, open_frame(), *pairs, begin(0), sessions=1)
    assert protocol.state is State.OPEN
    assert len(protocol.events()) == 1 + 50


def test_links_are_limited_over_all_sessions_and_the_limit_can_be_raised() -> None:
    first = [begin(0), begin(1)]
    links = [attach(index % 2, index, f"l{index}", "sender", None, "x") for index in range(6)]
    assert closed_by(started(AMQP_HEADER, open_frame(), *first, *links)) == "amqp:resource-limit-exceeded"
    protocol = started(AMQP_HEADER, open_frame(), *first, *links[:4])
    protocol.set_limits(1000, 5)
    protocol.receive_data(links[4], 0.0)
    assert protocol.state is State.OPEN
    protocol.receive_data(links[5], 0.0)
    assert closed_by(protocol) == "amqp:resource-limit-exceeded"


def test_a_peers_close() -> None:
    error = b"\x00\x53\x1d" + encode_fields([b"\xa3\x03a:b", encode("why")])
    protocol = started(AMQP_HEADER, open_frame(), frame(0, frames.CLOSE, [error]), b"what follows")
    event: Event = protocol.events()[-1]
    assert isinstance(event, Closed) and event.clean and event.error is not None
    assert (event.error.condition, event.error.description) == ("a:b", "why")
    assert codes(protocol.data_to_send()) == [0, frames.OPEN, frames.CLOSE]


def test_our_close_and_an_end() -> None:
    protocol = started(AMQP_HEADER, open_frame())
    protocol.events()
    protocol.close("amqp:link:detach-forced", "Server busy")
    assert close_condition(protocol.data_to_send()) == "amqp:link:detach-forced"
    assert protocol.state is State.CLOSED and protocol.events() == []
    protocol.receive_data(begin(0), 0.0)
    protocol.receive_eof()
    assert protocol.events() == [] and protocol.data_to_send() == b""
    for parts in ([], [SASL_HEADER], [AMQP_HEADER], [AMQP_HEADER, open_frame()]):
        protocol = started(*parts)
        protocol.receive_eof()
        assert protocol.events()[-1] == Closed(None, clean=False)


def test_without_the_engine_the_import_fails_and_nothing_else() -> None:
    script = "import sys; sys.modules['cproton'] = None; import methodhub.wire.mqtt, methodhub.wire.amqp"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "ModuleNotFoundError: import of cproton" in result.stderr
