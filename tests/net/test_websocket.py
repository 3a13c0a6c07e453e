"""Frames off and on, between a stream and a protocol that record. The peer is the client side of another library's
engine, or bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import Protocol as Frames
from websockets.protocol import Side

from methodhub.net.stream import ByteStream, Data, Peer
from methodhub.net.websocket import MAX_MESSAGE, MAX_UNSENT, WebSocketStream, answer_handshake

UNMASKED_CLOSE = b"\x88\x02\x03\xe8"
"""What paho-python 1.6.1 sends, length and code included."""


class Below:
    """The stream that carries the WebSocket."""

    def __init__(self) -> None:
        self.written = b""
        self.unsent = 0
        self.closed = self.aborted = self.is_authenticated = False
        self.flow: list[str] = []

    peer = Peer("192.0.2.7", (b"leaf",))

    def authenticated(self) -> None:
        self.is_authenticated = True

    def write(self, data: Data) -> None:
        assert not self.is_closing()
        self.written += data

    def writelines(self, list_of_data: Iterable[Data]) -> None:
        raise AssertionError("a message is written at once")

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None:
        self.flow.append("pause")

    def resume_reading(self) -> None:
        self.flow.append("resume")

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


class Above(asyncio.Protocol):
    """The protocol inside the WebSocket. It answers each delivery with one byte if told to."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.received = b""
        self.lost: list[Exception | None] = []
        self.flow: list[str] = []
        self.answer = b""
        self.on_data: Callable[[], None] = lambda: None

    def data_received(self, data: bytes) -> None:
        assert data
        self.received += data
        self.stream.write(self.answer)
        self.on_data()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    def pause_writing(self) -> None:
        self.flow.append("pause")

    def resume_writing(self) -> None:
        self.flow.append("resume")


class Joint:
    """A WebSocket with what is above and below it, and the peer's reading of what it wrote."""

    def __init__(self, answer: bytes = b"") -> None:
        self.below = Below()
        self.websocket = WebSocketStream(self.below, self._build)
        self.above.answer = answer

    def _build(self, stream: ByteStream) -> Above:
        self.above = Above(stream)
        return self.above

    def feed(self, data: bytes, cuts: Iterable[int] = ()) -> None:
        """In chunks that end at `cuts`, as far as the stream takes them."""
        edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts} - {0, len(data)}), len(data)]
        for start, end in pairwise(edges):
            if start < end and not self.below.is_closing():
                self.websocket.data_received(data[start:end])

    def sent(self) -> list[Frame]:
        """The frames that the hub wrote. Raises what the peer would fail with."""
        peer = Frames(Side.CLIENT)
        peer.receive_data(self.below.written)
        assert peer.parser_exc is None
        return [event for event in peer.events_received() if isinstance(event, Frame)]

    def close_code(self) -> int:
        """Of the one close that the hub sent, as its last frame and before it closed the stream."""
        frames = self.sent()
        assert [frame.opcode is Opcode.CLOSE for frame in frames] == [False] * (len(frames) - 1) + [True]
        assert self.below.closed
        return Close.parse(frames[-1].data).code


def masked(opcode: Opcode, data: bytes = b"", fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def binary(data: bytes) -> bytes:
    return masked(Opcode.BINARY, data)


def fragments(parts: list[bytes], ping: bytes | None) -> bytes:
    """One message in parts, with a ping behind its first."""
    frames = [
        masked(Opcode.CONT if index else Opcode.BINARY, part, index == len(parts) - 1)
        for index, part in enumerate(parts)
    ]
    if ping is not None:
        frames.insert(1, masked(Opcode.PING, ping))
    return b"".join(frames)


# --- from the peer -----------------------------------------------------------------------------------------------

PARTS = st.lists(st.binary(max_size=300), min_size=1, max_size=4)
PINGS = st.none() | st.binary(max_size=125)
CUTS = st.lists(st.integers(0, 1 << 20), max_size=20)


@given(st.lists(st.tuples(PARTS, PINGS), max_size=5), CUTS)
def test_message_boundaries_and_chunks_mean_nothing(
    messages: list[tuple[list[bytes], bytes | None]], cuts: list[int]
) -> None:
    """[HUB-websocket] Fragmented or not, pings in between: the bytes arrive in order; each ping is answered."""
    joint = Joint()
    joint.feed(b"".join(fragments(parts, ping) for parts, ping in messages), cuts)
    assert joint.above.received == b"".join(b"".join(parts) for parts, _ in messages)
    pongs = [(frame.opcode, bytes(frame.data)) for frame in joint.sent()]
    assert pongs == [(Opcode.PONG, ping) for _, ping in messages if ping is not None]
    assert not joint.below.is_closing()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (masked(Opcode.CLOSE, Close(1000, "bye").serialize()), CloseCode.NORMAL_CLOSURE),
        (masked(Opcode.CLOSE), CloseCode.NO_STATUS_RCVD),
        (masked(Opcode.TEXT, b"text"), CloseCode.UNSUPPORTED_DATA),
        (masked(Opcode.TEXT, b"te", fin=False), CloseCode.UNSUPPORTED_DATA),
        (b"\x82\xff" + (MAX_MESSAGE + 1).to_bytes(8, "big"), CloseCode.MESSAGE_TOO_BIG),
        (masked(Opcode.CONT, b"of nothing"), CloseCode.PROTOCOL_ERROR),
        (b"\xc2\x80mask", CloseCode.PROTOCOL_ERROR),
        (b"\x83\x80mask", CloseCode.PROTOCOL_ERROR),
        (b"\x82\x01x", CloseCode.PROTOCOL_ERROR),
        (UNMASKED_CLOSE, CloseCode.PROTOCOL_ERROR),
    ],
    ids=[
        "close",
        "close-without-code",
        "text",
        "part-of-text",
        "oversize",
        "continuation-of-nothing",
        "compressed",
        "unknown-opcode",
        "unmasked",
        "unmasked-close",
    ],
)
@given(before=st.binary(max_size=20), after=st.binary(max_size=20), cuts=CUTS)
def test_what_ends_it_ends_it_wherever_it_stands(
    end: bytes, code: CloseCode, before: bytes, after: bytes, cuts: list[int]
) -> None:
    """[HUB-websocket-end] What came before is delivered, what comes after is not; the peer is told once, and why: of
    two reasons in one chunk either."""
    joint = Joint()
    joint.feed(binary(before) + end + binary(after) + UNMASKED_CLOSE, cuts)
    assert joint.above.received == before
    assert joint.close_code() in {code, CloseCode.PROTOCOL_ERROR}
    joint = Joint()
    joint.feed(end, cuts)
    assert joint.close_code() == code


def test_a_message_of_many_fragments_may_not_exceed_the_limit_either() -> None:
    joint = Joint()
    joint.feed(masked(Opcode.BINARY, b"x" * (MAX_MESSAGE - 1), fin=False))
    joint.feed(masked(Opcode.CONT, b"xy"))
    assert joint.close_code() == CloseCode.MESSAGE_TOO_BIG


@given(st.binary(max_size=200), CUTS)
def test_random_bytes_end_in_the_same_way_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    whole, cut = Joint(), Joint()
    whole.feed(data)
    cut.feed(data, cuts)
    assert (cut.above.received, cut.below.closed) == (whole.above.received, whole.below.closed)


def test_what_is_answered_to_bytes_right_before_a_close_is_dropped() -> None:
    joint = Joint(answer=b"answer")
    joint.feed(binary(b"request") + masked(Opcode.CLOSE, b"\x03\xe8"))
    assert joint.above.received == b"request"
    assert joint.close_code() == CloseCode.NORMAL_CLOSURE


def test_who_pings_without_reading_is_cut_off() -> None:
    """[HUB-websocket-end]"""
    joint = Joint()
    joint.below.unsent = MAX_UNSENT
    joint.feed(masked(Opcode.PING, b"?"))
    assert len(joint.sent()) == 1
    joint.below.unsent += 1
    joint.feed(masked(Opcode.PING, b"?") + binary(b"more"))
    assert joint.below.aborted
    assert joint.above.received == b""


# --- from the hub ------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=70_000), max_size=3))
def test_every_write_is_one_whole_binary_message(writes: list[bytes]) -> None:
    joint = Joint()
    for data in writes:
        joint.websocket.write(data)
    frames = joint.sent()
    assert [bytes(frame.data) for frame in frames] == [data for data in writes if data]
    assert all(frame.opcode is Opcode.BINARY and frame.fin for frame in frames)


def test_several_pieces_go_as_one_message() -> None:
    joint = Joint()
    joint.websocket.writelines([b"one", b"two"])
    assert [bytes(frame.data) for frame in joint.sent()] == [b"onetwo"]


def test_the_hub_closes_once_and_writes_nothing_after() -> None:
    joint = Joint()
    joint.websocket.write(b"last")
    joint.websocket.close()
    joint.websocket.close()
    joint.websocket.write(b"too late")
    assert joint.close_code() == CloseCode.NORMAL_CLOSURE
    assert [bytes(frame.data) for frame in joint.sent()[:-1]] == [b"last"]


def test_no_more_is_delivered_to_a_protocol_that_closed() -> None:
    joint = Joint()
    joint.above.on_data = joint.websocket.close
    joint.feed(binary(b"disconnect") + binary(b"more") + masked(Opcode.CLOSE, b"\x03\xe8"))
    assert joint.above.received == b"disconnect"
    assert joint.close_code() == CloseCode.NORMAL_CLOSURE


def test_it_stands_for_the_stream_below_and_tells_its_end_once() -> None:
    joint = Joint()
    websocket, below = joint.websocket, joint.below
    assert websocket.peer is below.peer
    websocket.authenticated()
    assert websocket.is_authenticated
    websocket.pause_reading()
    websocket.resume_reading()
    assert below.flow == ["pause", "resume"]
    below.unsent = 5
    assert websocket.get_write_buffer_size() == 5
    websocket.pause_writing()
    websocket.resume_writing()
    assert joint.above.flow == ["pause", "resume"]
    websocket.abort()
    assert below.aborted and websocket.is_closing()
    error = ConnectionResetError()
    websocket.connection_lost(error)
    websocket.write(b"too late")
    websocket.close()
    assert (joint.above.lost, below.written) == ([error], b"")


# --- the handshake -----------------------------------------------------------------------------------------------


def handshake(**fields: str | None) -> tuple[int, str]:
    headers: dict[str, str | None] = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
        "sec-websocket-protocol": "mqtt",
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    given = [(name, value) for name, value in headers.items() if value is not None]
    response, subprotocol = answer_handshake("/", given, ["mqtt", "amqpwsb10"])
    if response.status_code == 101:
        assert response.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert response.headers["Sec-WebSocket-Protocol"] == subprotocol
        assert (response.headers["Upgrade"], response.headers["Connection"]) == ("websocket", "Upgrade")
        assert "Sec-WebSocket-Extensions" not in response.headers
    return response.status_code, subprotocol


@pytest.mark.parametrize("offered", ["mqtt", "MQTT", "AMQPWSB10", "amqpWSB10"])
def test_the_subprotocol_comes_back_as_it_was_spelled(offered: str) -> None:
    """[HUB-websocket-subprotocol]"""
    assert handshake(sec_websocket_protocol=offered) == (101, offered)


def test_the_first_known_subprotocol_is_taken() -> None:
    assert handshake(sec_websocket_protocol="soap, MQTT, AMQPWSB10") == (101, "MQTT")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"sec_websocket_extensions": "permessage-deflate; client_max_window_bits"}, 101),
        ({"connection": "Upgrade,Keep-Alive", "upgrade": "WebSocket"}, 101),
        ({"sec_websocket_protocol": "mqttv5"}, 400),
        ({"sec_websocket_protocol": None}, 400),
        ({"sec_websocket_protocol": "m(q"}, 400),
        ({"sec_websocket_key": None}, 400),
        ({"sec_websocket_key": "short"}, 400),
        ({"sec_websocket_version": "8"}, 400),
        ({"upgrade": "h2c"}, 426),
        ({"connection": "keep-alive"}, 426),
    ],
)
def test_what_is_a_handshake_and_what_is_none(fields: dict[str, str | None], status: int) -> None:
    assert handshake(**fields)[0] == status
