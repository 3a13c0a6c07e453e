"""MqttServerProtocol: bytes and times in, events, bytes and deadlines out."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.wire.mqtt.packets import (
    ConnAck,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
    PacketTooLarge,
    PingReq,
    PingResp,
    ProtocolViolation,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    UnsupportedProtocolLevel,
    serialize,
)
from methodhub.wire.mqtt.protocol import Closed, Event, MqttServerProtocol, State

from .packet_cases import BAD, BAD_CONNECT, GOOD, Bad, Good

CONNECT = serialize(Connect("d", False, 60, "u", None, None))
EVENTS = Connect | Publish | Subscribe | Unsubscribe


def publish(payload: bytes = b"hi", qos: int = 0, packet_id: int | None = None) -> Publish:
    return Publish("a/b", payload, qos, False, False, packet_id)


def connecting(max_packet_size: int = 262_144, keep_alive: int = 60) -> MqttServerProtocol:
    protocol = MqttServerProtocol(max_packet_size)
    protocol.receive_data(serialize(Connect("d", False, keep_alive, "u", None, None)), 0.0)
    protocol.events()
    return protocol


def connected(max_packet_size: int = 262_144, keep_alive: int = 60) -> MqttServerProtocol:
    protocol = connecting(max_packet_size, keep_alive)
    protocol.accept(session_present=False, now=0.0)
    protocol.data_to_send()
    return protocol


def closed_with(protocol: MqttServerProtocol) -> object:
    """The type of the error in the one event there is."""
    (event,) = protocol.events()
    assert isinstance(event, Closed) and not event.clean
    assert protocol.state is State.CLOSED
    return type(event.error)


def outcome(events: list[Event]) -> list[object]:
    """Events, with errors made comparable."""
    return [
        (event.clean, type(event.error), str(event.error)) if isinstance(event, Closed) else event for event in events
    ]


def play(chunks: list[bytes]) -> tuple[list[object], bytes, State]:
    """A whole connection, accepted as soon as CONNECT came."""
    protocol = MqttServerProtocol(max_packet_size=1000)
    events: list[Event] = []
    for chunk in chunks:
        protocol.receive_data(chunk, 0.0)
        if protocol.state is State.CONNECTING:
            protocol.accept(session_present=False, now=0.0)
        events += protocol.events()
    return outcome(events), protocol.data_to_send(), protocol.state


# -- the table of packets, on a connection


@pytest.mark.parametrize(
    "case", [case for case in GOOD if isinstance(case.packet, Connect)], ids=lambda case: case.name
)
def test_connect_is_the_first_event(case: Good) -> None:
    protocol = MqttServerProtocol()
    protocol.receive_data(case.raw, 0.0)
    assert protocol.events() == [case.packet]
    assert protocol.state is State.CONNECTING
    assert protocol.data_to_send() == b""


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_good_packet_once_connected(case: Good) -> None:
    """[MQTT-3.1.0-2] for the second CONNECT; QoS 2 and what only a server sends end the connection too."""
    protocol = connected()
    protocol.receive_data(case.raw, 1.0)
    match case.packet:
        case Publish() | Subscribe() | Unsubscribe():
            assert protocol.events() == [case.packet]
        case PingReq():
            assert protocol.data_to_send() == serialize(PingResp())  # [MQTT-3.12.4-1]
        case PubAck():
            assert protocol.events() == []
            assert protocol.state is State.CONNECTED
        case Disconnect():
            assert protocol.events() == [Closed(None, clean=True)]
        case _:
            assert closed_with(protocol) is ProtocolViolation


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_bad_packet_closes(case: Bad) -> None:
    """[MQTT-4.8.0-1]"""
    protocol = connected()
    protocol.receive_data(serialize(publish()) + case.raw + serialize(publish()), 1.0)
    events = protocol.events()
    assert events[0] == publish()
    assert outcome(events)[1:] == [(False, case.error, str(events[1].error))]  # type: ignore[union-attr]
    assert protocol.state is State.CLOSED


@pytest.mark.parametrize("case", BAD_CONNECT, ids=lambda case: case.name)
def test_bad_connect_closes_and_is_answered_only_if_its_level_is_wrong(case: Bad) -> None:
    """[MQTT-3.1.2-2] return code 1."""
    protocol = MqttServerProtocol()
    protocol.receive_data(case.raw, 0.0)
    assert closed_with(protocol) is case.error
    answer = serialize(ConnAck(False, 1)) if case.error is UnsupportedProtocolLevel else b""
    assert protocol.data_to_send() == answer


@pytest.mark.parametrize("case", [case for case in GOOD + BAD if case.raw[0] >> 4 != 1], ids=lambda case: case.name)
def test_first_packet_other_than_connect_closes_at_its_first_byte(case: Good | Bad) -> None:
    """[MQTT-3.1.0-1]"""
    protocol = MqttServerProtocol()
    protocol.receive_data(case.raw[:1], 0.0)
    assert closed_with(protocol) is ProtocolViolation


def test_publish_at_qos_2_closes() -> None:
    protocol = connected()
    protocol.receive_data(serialize(publish(qos=2, packet_id=1)), 1.0)
    assert closed_with(protocol) is ProtocolViolation


# -- streams


client_packets: list[Packet] = [
    case.packet for case in GOOD if isinstance(case.packet, Publish | Subscribe | Unsubscribe | PingReq | PubAck)
]
fine = st.sampled_from(client_packets).map(serialize).filter(lambda raw: len(raw) < 1000)
raws = st.sampled_from([case.raw for case in GOOD + BAD if len(case.raw) < 1000])
streams = st.lists(fine | fine | raws | st.binary(max_size=8), max_size=8).map(lambda parts: CONNECT + b"".join(parts))


@given(streams, st.lists(st.integers(0, 300), max_size=12))
def test_any_chunking_gives_what_one_chunk_gives(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    whole = play([stream])
    assert play([stream[begin:end] for begin, end in pairwise(edges)]) == whole
    assert play([stream[index : index + 1] for index in range(len(stream))]) == whole


@pytest.mark.parametrize("packet", client_packets, ids=lambda packet: type(packet).__name__)
def test_a_packet_is_read_with_its_last_byte(packet: Packet) -> None:
    """However long the one before it was."""
    protocol = connected()
    for raw in (serialize(publish(bytes(200))), serialize(packet)):
        protocol.events()
        for index in range(len(raw)):
            assert protocol.buffered_bytes == index
            assert protocol.events() == []
            protocol.receive_data(raw[index : index + 1], 1.0)
        assert protocol.buffered_bytes == 0
    assert protocol.events() == ([packet] if isinstance(packet, EVENTS) else [])


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_are_events_or_an_error_and_never_an_exception(data: bytes, preceded: bool) -> None:
    protocol = MqttServerProtocol(max_packet_size=1000)
    protocol.receive_data(CONNECT + data if preceded else data, 0.0)
    if protocol.state is State.CONNECTING:
        protocol.accept(session_present=False, now=0.0)
    events = protocol.events()
    assert all(isinstance(event, EVENTS) for event in events[:-1])
    assert (protocol.state is State.CLOSED) == (bool(events) and isinstance(events[-1], Closed))
    assert protocol.buffered_bytes < 1000


@given(st.lists(st.sampled_from(client_packets), max_size=10))
def test_every_packet_is_one_event_in_order(packets: list[Packet]) -> None:
    protocol = connected()
    protocol.receive_data(b"".join(map(serialize, packets)), 1.0)
    assert protocol.events() == [packet for packet in packets if isinstance(packet, EVENTS)]
    assert protocol.data_to_send() == serialize(PingResp()) * packets.count(PingReq())
    assert protocol.state is State.CONNECTED
    assert protocol.buffered_bytes == 0


def byte_by_byte(packet: Publish, times: int) -> float:
    """Seconds of processor time for `times` of this packet, a byte at a time."""
    protocol = connected()
    pieces = [bytes((byte,)) for byte in serialize(packet)] * times
    began = time.process_time()
    for piece in pieces:
        protocol.receive_data(piece, 1.0)
    took = time.process_time() - began
    assert protocol.events() == [packet] * times
    assert protocol.buffered_bytes == 0
    return took


def test_a_large_packet_byte_by_byte_costs_no_more_than_small_ones() -> None:
    """As many bytes in as many calls: where each call copied what came before, it would cost 20 times as much."""
    large = publish(bytes(262_144 - 9))
    assert len(serialize(large)) == 262_144
    assert byte_by_byte(large, 1) < 5 * byte_by_byte(publish(bytes(64 - 7)), 4096)


def test_packet_too_large_is_told_by_its_length_alone() -> None:
    largest, larger = serialize(publish(bytes(93))), serialize(publish(bytes(94)))
    assert len(largest) == 100
    protocol = connected(max_packet_size=100)
    protocol.receive_data(largest, 1.0)
    assert protocol.events() == [publish(bytes(93))]
    protocol.receive_data(larger[:1], 1.0)
    assert protocol.events() == []
    protocol.receive_data(larger[1:2], 1.0)
    assert closed_with(protocol) is PacketTooLarge


def test_remaining_length_of_five_bytes_is_malformed() -> None:
    protocol = connected()
    protocol.receive_data(b"\x30\xff\xff\xff", 1.0)
    assert protocol.events() == []
    protocol.receive_data(b"\xff", 1.0)
    assert closed_with(protocol) is MalformedPacket


# -- CONNECT and what follows before it is answered


def test_nothing_is_read_until_accept() -> None:
    protocol = MqttServerProtocol()
    following: list[Packet] = [Subscribe(1, (("a/#", 1),)), publish(), PingReq()]
    raw = b"".join(map(serialize, following))
    protocol.receive_data(CONNECT + raw[:5], 0.0)
    protocol.receive_data(raw[5:], 0.0)
    assert [type(event) for event in protocol.events()] == [Connect]
    assert protocol.buffered_bytes == len(raw)
    assert protocol.data_to_send() == b""

    protocol.accept(session_present=True, now=1.0)
    assert protocol.events() == following[:2]
    assert protocol.buffered_bytes == 0
    assert protocol.data_to_send() == serialize(ConnAck(True, 0)) + serialize(PingResp())  # [MQTT-3.2.0-1]


def test_whole_packets_after_connect_wait_for_accept() -> None:
    protocol = connecting()
    protocol.receive_data(serialize(publish()), 0.0)
    assert protocol.events() == []
    protocol.accept(session_present=False, now=0.0)
    assert protocol.events() == [publish()]


def test_an_error_in_what_waited_is_told_after_accept() -> None:
    """[MQTT-3.1.0-2]"""
    protocol = connecting()
    protocol.receive_data(CONNECT, 0.0)
    assert protocol.events() == []
    protocol.accept(session_present=False, now=0.0)
    assert closed_with(protocol) is ProtocolViolation


@pytest.mark.parametrize("return_code", [1, 2, 3, 4, 5])
def test_refuse_answers_without_a_session_and_closes(return_code: int) -> None:
    """[MQTT-3.2.2-4] [MQTT-3.1.4-5]"""
    protocol = connecting()
    protocol.receive_data(serialize(publish()), 0.0)
    protocol.refuse(return_code)
    assert protocol.data_to_send() == bytes((0x20, 2, 0, return_code))
    protocol.receive_data(serialize(publish()), 0.0)
    protocol.receive_eof()
    assert protocol.events() == []
    assert protocol.state is State.CLOSED
    assert protocol.buffered_bytes == 0


# -- the end


@pytest.mark.parametrize("make", [MqttServerProtocol, connecting, connected])
def test_end_of_stream_is_told_once(make: Callable[[], MqttServerProtocol]) -> None:
    protocol = make()
    protocol.receive_data(b"\x10", 0.0)
    protocol.receive_eof()
    protocol.receive_eof()
    assert protocol.events() == [Closed(None, clean=False)]
    assert protocol.state is State.CLOSED
    assert protocol.buffered_bytes == 0


def test_nothing_is_read_after_disconnect() -> None:
    """[MQTT-3.14.4-2]"""
    protocol = connected()
    protocol.receive_data(serialize(Disconnect()) + serialize(publish()), 1.0)
    protocol.receive_data(b"\xff" * 10, 1.0)
    protocol.receive_eof()
    assert protocol.events() == [Closed(None, clean=True)]
    assert protocol.buffered_bytes == 0


def test_nothing_is_read_after_an_error() -> None:
    protocol = connected()
    protocol.receive_data(b"\xff\x00", 1.0)
    protocol.events()
    protocol.receive_data(serialize(publish()) + serialize(PingReq()), 1.0)
    protocol.receive_eof()
    assert protocol.events() == []
    assert protocol.data_to_send() == b""


def test_an_error_does_not_keep_what_was_received() -> None:
    protocol = connected()
    protocol.receive_data(b"\xff\x00", 1.0)
    (event,) = protocol.events()
    assert isinstance(event, Closed) and event.error is not None
    assert event.error.__traceback__ is None


# -- verbs


def test_verbs_write_their_packets_in_order() -> None:
    protocol = connected()
    protocol.publish(b"a/b", b"hi")
    protocol.publish(b"a/b", b"hi", qos=1)
    protocol.acknowledge(7)  # [MQTT-2.3.1-6]
    protocol.grant(8, (0, 1))  # [MQTT-3.8.4-2] [MQTT-3.8.4-5]
    protocol.unsubscribed(9)  # [MQTT-3.10.4-4]
    sent: list[Packet] = [publish(), publish(qos=1, packet_id=1), PubAck(7), SubAck(8, (0, 1)), UnsubAck(9)]
    assert protocol.data_to_send() == b"".join(map(serialize, sent))
    assert protocol.data_to_send() == b""


def test_packet_ids_go_round_without_zero() -> None:
    """[MQTT-2.3.1-1]"""
    protocol = connected()
    for expected in [*range(1, 65_536), 1]:
        protocol.publish(b"t", b"", qos=1)
        assert protocol.data_to_send()[-2:] == expected.to_bytes(2, "big")


VERBS: list[Callable[[MqttServerProtocol], None]] = [
    lambda protocol: protocol.publish(b"a", b""),
    lambda protocol: protocol.acknowledge(1),
    lambda protocol: protocol.grant(1, (0,)),
    lambda protocol: protocol.unsubscribed(1),
    lambda protocol: protocol.accept(session_present=False, now=0.0),
    lambda protocol: protocol.refuse(5),
]


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_do_nothing_on_a_closed_connection(verb: Callable[[MqttServerProtocol], None]) -> None:
    protocol = connecting()
    protocol.receive_eof()
    protocol.events()
    verb(protocol)
    assert protocol.data_to_send() == b""
    assert protocol.events() == []
    assert protocol.state is State.CLOSED


def test_verbs_in_the_wrong_state_are_a_mistake_of_the_owner() -> None:
    for verb in VERBS:
        with pytest.raises(RuntimeError):
            verb(MqttServerProtocol())
    for verb in VERBS[:4]:
        with pytest.raises(RuntimeError):
            verb(connecting())
    for verb in VERBS[4:]:
        with pytest.raises(RuntimeError):
            verb(connected())


# -- keep-alive


@pytest.mark.parametrize(
    ("keep_alive", "patience"),
    [(1, 1.5), (60, 90.0), (240, 360.0), (1177, 1765.5), (1178, 1767.0), (65_535, 1767.0), (0, 1767.0)],
)
def test_silence_is_borne_for_one_and_a_half_times_the_keep_alive(keep_alive: int, patience: float) -> None:
    """[MQTT-3.1.2-24]"""
    assert connected(keep_alive=keep_alive).next_deadline() == patience


def test_the_cap_is_a_setting() -> None:
    protocol = MqttServerProtocol(keep_alive_cap=30.0)
    protocol.receive_data(CONNECT, 0.0)
    protocol.accept(session_present=False, now=5.0)
    assert protocol.next_deadline() == 35.0


def test_there_is_no_deadline_unless_connected() -> None:
    assert MqttServerProtocol().next_deadline() is None
    protocol = connecting()
    assert protocol.next_deadline() is None
    protocol.accept(session_present=False, now=100.0)
    assert protocol.next_deadline() == 190.0
    protocol.receive_eof()
    assert protocol.next_deadline() is None


def test_a_year_of_pings() -> None:
    """[MQTT-3.1.2-24] Any packet moves the deadline; a piece of one does not."""
    protocol = connected()
    ping = serialize(PingReq())
    now = 0.0
    while now < 365 * 86_400:
        now += 3_600.0
        protocol.receive_data(ping, now)
        assert protocol.next_deadline() == now + 90.0
    assert protocol.data_to_send() == serialize(PingResp()) * (365 * 24)
    protocol.receive_data(serialize(publish())[:-1], now + 60.0)
    assert protocol.next_deadline() == now + 90.0
    protocol.receive_data(serialize(publish())[-1:], now + 80.0)
    assert protocol.next_deadline() == now + 170.0


@pytest.mark.parametrize("kind", [PubRec, PubRel, PubComp])
def test_the_qos_2_exchange_is_a_violation(kind: type[PubRec | PubRel | PubComp]) -> None:
    protocol = connected()
    protocol.receive_data(serialize(kind(1)), 1.0)
    assert closed_with(protocol) is ProtocolViolation
