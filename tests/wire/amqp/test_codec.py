"""AMQP's types and messages, by bytes."""

from __future__ import annotations

import contextlib
import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.wire.amqp.codec import (
    MAX_DEPTH,
    Described,
    Long,
    Symbol,
    ULong,
    Value,
    decode_at,
    decode_described,
    encode,
)
from methodhub.wire.amqp.errors import MalformedData
from methodhub.wire.amqp.messages import AmqpValue, Message, decode_message, encode_message

U = UUID("01234567-89ab-4cde-8fed-cba987654321")

ENCODED: list[tuple[Value, str]] = [
    (None, "40"),
    (True, "41"),
    (False, "42"),
    (200, "71000000c8"),
    (-1, "54ff"),
    (2**40, "810000010000000000"),
    (Long(3), "5503"),
    (Long(300), "81000000000000012c"),
    (ULong(0), "44"),
    (ULong(7), "5307"),
    (ULong(2**63), "808000000000000000"),
    (1.5, "823ff8000000000000"),
    ("é", "a102c3a9"),
    (Symbol("x"), "a30178"),
    (b"\x00", "a00100"),
    (U, "98" + U.hex),
    ([], "45"),
    ([1, "a"], "c006025401a10161"),
    ({Symbol("k"): None}, "c10502a3016b40"),
]


@pytest.mark.parametrize(("value", "data"), ENCODED, ids=[data for _, data in ENCODED])
def test_encoded_as_the_standard_says_and_back(value: Value, data: str) -> None:
    assert encode(value).hex() == data
    decoded, end = decode_at(bytes.fromhex(data), 0, len(data) // 2)
    assert decoded == value
    assert end == len(data) // 2


DECODED: list[tuple[str, Value]] = [
    ("5601", True),
    ("5007", 7),
    ("51ff", -1),
    ("600100", 256),
    ("61ffff", -1),
    ("700000000a", 10),
    ("43", 0),
    ("5205", 5),
    ("723fc00000", 1.5),
    ("830000000000000001", 1),
    ("a30178", Symbol("x")),
    ("d000000006000000024142", [True, False]),
    ("e00803a3016101620163", ["a", "b", "c"]),
    ("e0090200530aa301610162", ["a", "b"]),
    ("f00000000700000002560100", [True, False]),
    ("005373" + "45", Described(0x73, [])),
]


@pytest.mark.parametrize(("data", "value"), DECODED, ids=[data for data, _ in DECODED])
def test_every_width_is_read(data: str, value: Value) -> None:
    assert decode_at(bytes.fromhex(data), 0, len(data) // 2) == (value, len(data) // 2)


BAD = [
    "",
    "3f",
    "ff",
    "7100",
    "98" + "00" * 15,
    "a10261",
    "a102c328",
    "a301ff",
    "b1ffffffff00",
    "c002",
    "c0030241",
    "c003014141",
    "c10301" + "41",
    "c10403" + "414141",
    "c1040245" + "41",
    "e0050300" + "41",
    "f000000005ffffffff40",
    "00",
    "0053",
    "00" * 5000,
]


@pytest.mark.parametrize("data", BAD)
def test_what_is_no_value_raises(data: str) -> None:
    with pytest.raises(MalformedData):
        decode_at(bytes.fromhex(data), 0, len(data) // 2)


def test_keys_of_maps_are_texts_or_numbers() -> None:
    """Hashes of UUIDs can be made to collide: a map of some thousand would take a second to read."""
    pairs = b"".join(b"\x98" + (number * (2**61 - 1)).to_bytes(16) + b"\x40" for number in range(3))
    with pytest.raises(MalformedData):
        decode_at(bytes((0xC1, len(pairs) + 1, 6)) + pairs, 0, len(pairs) + 3)


def test_nesting_is_bounded() -> None:
    value: Value = []
    for _ in range(MAX_DEPTH):
        value = [value]
    decode_at(encode(value), 0, len(encode(value)))
    with pytest.raises(MalformedData):
        decode_at(encode([value]), 0, len(encode([value])))


def test_a_value_ends_where_it_must() -> None:
    with pytest.raises(MalformedData):
        decode_at(bytes.fromhex("7100000001"), 0, 4)
    with pytest.raises(MalformedData):
        decode_described(bytes.fromhex("00a3017845"), 0, 5)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    for read in (lambda: decode_at(data, 0, len(data)), lambda: decode_message(data)):
        with contextlib.suppress(MalformedData):
            read()


# --- messages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message_id", "code"), [(0, 0x44), (7, 0x53), (2**63, 0x80), (U, 0x98), ("cbs1", 0xA1), (b"\xff\x00", 0xA0)]
)
def test_an_echoed_id_keeps_its_type(message_id: int | UUID | str | bytes, code: int) -> None:
    request = decode_message(encode_message(Message(message_id=message_id)))
    assert request.message_id == message_id and type(request.message_id) is type(message_id)
    reply = encode_message(Message(correlation_id=request.message_id))
    assert reply[:3] == bytes.fromhex("005373")
    assert reply[6 + 5] == code  # after list8, its size, its count and five nulls
    assert decode_message(reply).correlation_id == message_id


def test_a_put_token_reply_by_bytes() -> None:
    reply = Message(correlation_id=U, application_properties={"status-code": 200, "status-description": "OK"})
    assert encode_message(reply).hex(" ") == (
        "00 53 73 c0 17 06 40 40 40 40 40 98 " + U.bytes.hex(" ") + " "
        "00 53 74 c1 2b 04 a1 0b " + b"status-code".hex(" ") + " 71 00 00 00 c8 "
        "a1 12 " + b"status-description".hex(" ") + " a1 02 4f 4b"
    )


def test_a_method_request_by_bytes() -> None:
    request = Message(b"{}", correlation_id=U, application_properties={"IoThub-methodname": "go"})
    assert encode_message(request).hex(" ").endswith("a1 02 67 6f 00 53 75 a0 02 7b 7d")


def test_a_put_token_request() -> None:
    properties = {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": "h/devices/d"}
    data = encode_message(
        Message(AmqpValue("token"), message_id=0, to="$cbs", reply_to="cbs", application_properties=properties)
    )
    message = decode_message(data)
    assert (message.message_id, message.to, message.reply_to) == (0, "$cbs", "cbs")
    assert message.application_properties == properties
    assert message.body == AmqpValue("token")


def test_annotations_are_written_as_symbols() -> None:
    data = encode_message(Message(annotations={"operation": "GET", "status": 200, "version": Long(3)}))
    assert data.hex().startswith("005372c1")
    assert bytes.fromhex("a306") + b"status" + bytes.fromhex("71000000c8") in data
    assert bytes.fromhex("a307") + b"version" + bytes.fromhex("5503") in data
    assert decode_message(data).annotations == {"operation": "GET", "status": 200, "version": 3}


HEADER, FOOTER = bytes.fromhex("005370c0020141"), bytes.fromhex("005378c10100")


@pytest.mark.parametrize(
    ("sections", "body"),
    [
        ("", None),
        ("005375a000", b""),
        ("005375a00161", b"a"),
        ("005375a00161005375b00000000162", b"ab"),
        ("00537740", AmqpValue(None)),
        ("005377a10161", AmqpValue("a")),
        ("005376c003015401", AmqpValue([[1]])),
        ("00800000000000000075a00161", b"a"),
    ],
)
def test_bodies(sections: str, body: object) -> None:
    assert decode_message(HEADER + bytes.fromhex(sections) + FOOTER).body == body


@pytest.mark.parametrize("value", [5, 200, 300])
@pytest.mark.parametrize("layout", [">Bh", ">Bi", ">Bq", ">BI", ">BQ"])
def test_a_status_of_any_width(value: int, layout: str) -> None:
    code = {"h": 0x61, "i": 0x71, "q": 0x81, "I": 0x70, "Q": 0x80}[layout[-1]]
    entry = encode("IoThub-status") + struct.pack(layout, code, value)
    data = bytes.fromhex("005374c1") + bytes((len(entry) + 1, 2)) + entry
    assert decode_message(data).application_properties == {"IoThub-status": value}


@pytest.mark.parametrize(
    "data",
    [
        "005375a10161",  # a string as data
        "005373a10161",  # properties that are no list
        "005374c1030241",
        "00537740" + "005375a00161",  # two kinds of body
        "00537740" + "00537740",  # two values
        "00537940",
        "5401",
        "005373c0020141",  # a boolean as message-id
        "005373c00403" + "4040" + "41",
    ],
)
def test_a_malformed_message_raises(data: str) -> None:
    with pytest.raises(MalformedData):
        decode_message(bytes.fromhex(data))


def test_what_has_no_type_is_the_owners_mistake() -> None:
    with pytest.raises(TypeError):
        encode_message(Message(AmqpValue(object())))
