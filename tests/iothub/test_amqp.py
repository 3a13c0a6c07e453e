"""The dialect of AMQP as plain values: addresses, SASL PLAIN, ids of requests, properties of answers."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.identity import Target
from methodhub.core.ports import CloseReason
from methodhub.iothub.amqp import (
    CLOSE_CONDITIONS,
    Address,
    Node,
    correlation_id,
    parse_address,
    parse_sasl_plain,
    rid_of,
    status_of,
    uuid_prefix,
)

D, M = Target("d"), Target("d", "m")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("$cbs", Address(Node.CBS)),
        ("$CBS", Address(Node.CBS)),
        ("/devices/d/methods/devicebound", Address(Node.METHODS, D)),
        ("devices/d/methods/deviceBound", Address(Node.METHODS, D)),
        ("amqps://hub.local/devices/d/methods/deviceBound", Address(Node.METHODS, D)),
        ("amqps://hub.local:5671/Devices/d/Methods/DEVICEBOUND", Address(Node.METHODS, D)),
        ("/devices/d/modules/m/methods/devicebound", Address(Node.METHODS, M)),
        ("/devices/d/Modules/m/methods/devicebound", Address(Node.METHODS, M)),
        ("/devices/a%41/methods/devicebound", Address(Node.METHODS, Target("aA"), Target("a%41"))),
        ("/devices/D%28%29/methods/devicebound", Address(Node.METHODS, Target("D()"), Target("D%28%29"))),
        ("/devices/D()/methods/devicebound", Address(Node.METHODS, Target("D()"))),
        ("/devices/d/modules/a%24b/twin", Address(Node.TWIN, Target("d", "a$b"), Target("d", "a%24b"))),
        ("/devices/d/twin", Address(Node.TWIN, D)),
        ("/devices/d/twin/", Address(Node.TWIN, D)),
        ("/devices/d/messages/events", Address(Node.TELEMETRY, D)),
        ("/devices/d/modules/m/messages/events", Address(Node.TELEMETRY, M)),
        ("/devices/d/messages/deviceBound", Address(Node.DEVICE_BOUND, D)),
        ("/devices/modules/modules/modules/twin", Address(Node.TWIN, Target("modules", "modules"))),
        ("/messages/devicebound", Address(Node.SERVICE_SEND)),
        ("amqps://hub.local/messages/serviceBound/feedback", Address(Node.SERVICE_RECEIVE)),
        ("/messages/serviceBound/filenotifications", Address(Node.SERVICE_RECEIVE)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """[HUB-link-address]"""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "/",
        "cbs",
        "/$cbs",
        "/devices",
        "/devices/d",
        "/devices/d/methods",
        "/devices/d/methods/devicebound/more",
        "/devices//twin",
        "/devices/d/modules/twin",
        "/devices/d/modules//twin",
        "/devices/a b/twin",
        "/devices/a%2Fb/twin",
        "/devices/%00/twin",
        "/devices/%ff/twin",
        "/devices/d/modules/m/twin/x",
        "/twins/d/twin",
        "http://hub.local/devices/d/twin",
        "/devices/" + "d" * 129 + "/twin",
        "/devices/d/twin" + "/" * 3_000,
    ],
)
def test_what_is_no_address(text: str | None) -> None:
    """[HUB-link-address]"""
    assert parse_address(text) is None


@given(st.text())
def test_no_text_breaks_the_reading_of_addresses(text: str) -> None:
    for each in (text, f"/devices/{text}/twin", f"amqps://{text}", f"/devices/d/modules/{text}"):
        parse_address(each)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("d@sas.hub", D),
        ("d/modules/m@sas.hub", M),
        ("d/Modules/m@sas.hub", M),
        ("a%40b@sas.hub", Target("a@b")),
        ("a@b@sas.hub", Target("a@b")),
        ("iothubowner@sas.root.hub", None),
        ("iothubowner@sas.ROOT.hub", None),
    ],
)
def test_sasl_plain(name: str, target: Target | None) -> None:
    for authorization in ("", "whoever"):
        said = parse_sasl_plain(f"{authorization}\0{name}\0SharedAccessSignature sr=é".encode())
        assert said == (target, "SharedAccessSignature sr=é")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"d@sas.hub",
        b"\0d@sas.hub",
        b"\0d@sas.hub\0token\0more",
        b"\0d\0token",
        b"\0@sas.hub\0token",
        b"\0d@sas.\0token",
        b"\0d/m@sas.hub\0token",
        b"\0d/modules/@sas.hub\0token",
        b"\0d/modules/a/b@sas.hub\0token",
        b"\0a b@sas.hub\0token",
        b"\0\xff@sas.hub\0token",
    ],
)
def test_what_is_no_sasl_plain(response: bytes) -> None:
    with pytest.raises(ValueError):
        parse_sasl_plain(response)


@given(st.integers(0, 2**96 - 1), st.integers(0, 2**32 - 1))
def test_an_id_is_a_version_4_uuid_and_reads_back_in_every_shape(random_bits: int, rid: int) -> None:
    """[HUB-correlation-id]"""
    prefix = uuid_prefix(random_bits)
    value = correlation_id(prefix, rid)
    assert (value.version, value.variant) == (4, "specified in RFC 4122")
    shapes: list[Any] = [value, str(value), str(value).upper(), value.hex, str(value).encode(), value.bytes]
    assert [rid_of(prefix, shape) for shape in shapes] == [rid] * len(shapes)
    other = uuid_prefix(random_bits ^ 1 << 70)
    assert other != prefix
    assert [rid_of(other, shape) for shape in shapes] == [None] * len(shapes)


def test_prefixes_differ() -> None:
    source = random.Random(1)
    assert len({uuid_prefix(source.getrandbits(96)) for _ in range(1_000)}) == 1_000


def test_a_request_number_beyond_32_bits_wraps() -> None:
    prefix = uuid_prefix(0)
    assert rid_of(prefix, correlation_id(prefix, 2**32 + 5)) == 5


@pytest.mark.parametrize(
    "value", [None, 0, 5, 2**63, "", "x", b"", b"x", b"\xff" * 16, b"\xff" * 15, True, UUID(int=0)]
)
def test_what_is_no_id_of_ours(value: object) -> None:
    """[HUB-correlation-id]"""
    assert rid_of(uuid_prefix(1), value) is None


@pytest.mark.parametrize("status", [0, 200, -1, 2**31 - 1, -(2**31)])
def test_a_status(status: int) -> None:
    """[HUB-answer-status]"""
    assert status_of({"IoThub-status": status, "more": 1}) == status


@pytest.mark.parametrize("value", [None, "200", 200.0, True, 2**31, -(2**31) - 1, b"200", [200]])
def test_what_is_no_status(value: object) -> None:
    """[HUB-answer-status]"""
    assert status_of({"IoThub-status": value}) is None
    assert status_of({}) is None


def test_each_reason_has_a_condition_that_a_peer_may_read() -> None:
    """And it tells no more than that."""
    assert set(CLOSE_CONDITIONS) == set(CloseReason)
    for condition, description in CLOSE_CONDITIONS.values():
        assert condition.startswith("amqp:")
        assert description.endswith((".", "operation"))
