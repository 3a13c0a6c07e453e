"""The MQTT codec: the table of cases, and what hypothesis makes up."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from methodhub.wire.mqtt.packets import (
    MAX_REMAINING_LENGTH,
    ConnAck,
    Connect,
    Disconnect,
    MalformedPacket,
    MqttError,
    Packet,
    PingReq,
    PingResp,
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
    Will,
    parse,
    parse_at,
    parse_remaining_length,
    serialize,
    serialize_publish,
)

from .packet_cases import BAD, BAD_CONNECT, GOOD, Bad, Good


def split(raw: bytes) -> tuple[int, bytes]:
    """First byte and body of one whole packet."""
    header = parse_remaining_length(raw, 1)
    assert header is not None
    length, start = header
    assert start + length == len(raw), "the case's remaining length is wrong"
    return raw[0], raw[start:]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_good_packet_is_parsed_and_written(case: Good) -> None:
    """Its fields in their order, too [MQTT-3.1.3-1]."""
    assert parse(*split(case.raw)) == case.packet
    assert parse(*split(serialize(case.packet))) == case.packet
    assert (serialize(case.packet) == case.raw) is case.minimal


@pytest.mark.parametrize("case", BAD + BAD_CONNECT, ids=lambda case: case.name)
def test_bad_packet_is_refused(case: Bad) -> None:
    with pytest.raises(MqttError) as caught:
        parse(*split(case.raw))
    assert type(caught.value) is case.error


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_packet_is_refused_when_cut_anywhere(case: Good) -> None:
    """A body that ends too early is an error or, where the payload is what is left, a shorter payload."""
    first_byte, body = split(case.raw)
    for size in range(min(len(body), 200)):
        try:
            packet = parse(first_byte, body[:size])
        except MqttError:
            continue
        if isinstance(case.packet, Publish) and isinstance(packet, Publish):
            assert packet.topic == case.packet.topic and case.packet.payload.startswith(packet.payload)
        else:
            assert isinstance(packet, Subscribe | Unsubscribe | SubAck) and packet != case.packet


@pytest.mark.parametrize(
    "case", [case for case in GOOD if not isinstance(case.packet, Publish | SubAck)], ids=lambda case: case.name
)
def test_bytes_after_the_end_are_malformed(case: Good) -> None:
    first_byte, body = split(case.raw)
    with pytest.raises(MalformedPacket):
        parse(first_byte, body + b"\0")


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_fields_beyond_the_packet_are_never_read(case: Good) -> None:
    first_byte, body = split(case.raw)
    assert parse_at(first_byte, b"\xff\xff" + body + b"\xff\xff", 2, 2 + len(body)) == case.packet


@pytest.mark.parametrize(
    ("name", "level"), [("MQIsdp", 3), ("MQTT", 3), ("MQTT", 5), ("MQTT", 0x84), ("", 4), ("HTTP", 4)]
)
def test_other_protocol_is_named_with_its_level(name: str, level: int) -> None:
    """[MQTT-3.1.2-2] Whatever follows in a layout that is not ours."""
    with pytest.raises(UnsupportedProtocolLevel) as caught:
        parse(0x10, len(name).to_bytes(2, "big") + name.encode() + bytes((level,)) + b"\xff\xff")
    assert caught.value.level == level


def test_remaining_length_at_its_edges() -> None:
    """Section 2.2.3, table 2.4."""
    for length, encoded in [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (MAX_REMAINING_LENGTH, "ffffff7f"),
    ]:
        raw = bytes.fromhex(encoded)
        assert parse_remaining_length(b"\x30" + raw + b"\xff", 1) == (length, 1 + len(raw))
        for size in range(len(raw)):
            assert parse_remaining_length(raw[:size], 0) is None
    with pytest.raises(MalformedPacket):
        parse_remaining_length(b"\xff\xff\xff\xff", 0)
    with pytest.raises(MalformedPacket):
        parse_remaining_length(b"\x80\x80\x80\x80\x00", 0)


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(OverflowError):
        serialize_publish(b"t" * 65_536, b"")  # [MQTT-4.7.3-3]
    with pytest.raises(OverflowError):
        serialize_publish(b"t", bytes(MAX_REMAINING_LENGTH))
    with pytest.raises(OverflowError):
        serialize(PubAck(65_536))


def test_a_password_is_never_shown() -> None:
    packet = Connect("d", True, 60, "user", b"SharedAccessSignature secret", None)
    assert "secret" not in repr(packet) and "password=..." in repr(packet)
    assert "password=None" in repr(Connect("d", True, 60, "user", None, None))


characters = st.characters(codec="utf-8", exclude_characters="\0")
texts = st.text(characters, max_size=20)
topics = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=20)
levels = st.just("+") | st.text(st.characters(codec="utf-8", exclude_characters="\0+#/"), max_size=5)
filters = st.lists(levels, min_size=1, max_size=4).flatmap(
    lambda names: st.sampled_from(["/".join(names), "/".join([*names, "#"]), "#"]).filter(bool)
)
payloads = st.binary(max_size=300)
packet_ids = st.integers(1, 65_535)
wills = st.builds(Will, topics, payloads, st.integers(0, 2), st.booleans())
unnamed = st.builds(Connect, texts, st.booleans(), st.integers(0, 65_535), st.none(), st.none(), st.none() | wills)
named = st.builds(
    Connect,
    texts,
    st.booleans(),
    st.integers(0, 65_535),
    texts,
    st.none() | payloads,
    st.none() | wills,
)
publishes = st.builds(Publish, topics, payloads, st.just(0), st.booleans(), st.just(False), st.none()) | st.builds(
    Publish, topics, payloads, st.integers(1, 2), st.booleans(), st.booleans(), packet_ids
)
packets: st.SearchStrategy[Packet] = st.one_of(
    unnamed,
    named,
    publishes,
    st.builds(ConnAck, st.booleans(), st.just(0)),
    st.builds(ConnAck, st.just(False), st.integers(1, 5)),
    *(st.builds(kind, packet_ids) for kind in (PubAck, PubRec, PubRel, PubComp, UnsubAck)),
    st.builds(
        Subscribe,
        packet_ids,
        st.lists(st.tuples(filters, st.integers(0, 2)), min_size=1, max_size=4).map(tuple),
    ),
    st.builds(SubAck, packet_ids, st.lists(st.sampled_from([0, 1, 2, 128]), min_size=1, max_size=4).map(tuple)),
    st.builds(Unsubscribe, packet_ids, st.lists(filters, min_size=1, max_size=4).map(tuple)),
    st.sampled_from([PingReq(), PingResp(), Disconnect()]),
)


@given(packets)
def test_serialize_then_parse_is_identity(packet: Packet) -> None:
    assert parse(*split(serialize(packet))) == packet


@given(topics, payloads, st.none() | packet_ids)
def test_the_quick_publish_equals_the_other(topic: str, payload: bytes, packet_id: int | None) -> None:
    qos = 0 if packet_id is None else 1
    packet = Publish(topic, payload, qos, False, False, packet_id)
    assert serialize_publish(topic.encode(), payload, qos, packet_id) == serialize(packet)


@given(st.integers(0, 255), st.binary(max_size=60))
@example(0x82, b"\x00\x01\x00\x01\xff")
def test_any_bytes_are_a_packet_or_an_mqtt_error(first_byte: int, body: bytes) -> None:
    """What is parsed is written in the same bytes again: no two readings of one packet."""
    try:
        packet = parse(first_byte, body)
    except MqttError:
        return
    assert split(serialize(packet)) == (first_byte, body)
