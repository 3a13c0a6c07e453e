"""Devices that speak MQTT inside a WebSocket: the same as over TCP, with frames in between."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from websockets.frames import CloseCode, Opcode

from methodhub.api.http import HttpConnection
from methodhub.core.connections import Attachment
from methodhub.core.identity import Target
from tests.harness import RunningHub
from tests.hub.peers import Caller, Device
from tests.hub.peers import ready_device as ready_tcp_device
from tests.hub_websocket.peers import WebSocketDevice, masked, ready_device, upgrade_request

UNMASKED_CLOSE = b"\x88\x02\x03\xe8"


@pytest.fixture
def device(shared: RunningHub) -> Iterator[WebSocketDevice]:
    shared.create_device("d1")
    with ready_device(shared, "d1") as device:
        yield device
    with shared.admin() as admin:
        admin.delete("/devices/d1")


def attachment(hub: RunningHub) -> Attachment | None:
    return hub.hub.table.get(Target("d1"))


def test_a_call_and_its_answer(shared: RunningHub, device: WebSocketDevice) -> None:
    """[HUB-websocket] The answer in three messages, one of them fragmented, with a ping inside."""
    with Caller(shared) as caller:
        caller.send(caller.call("d1", "reboot", {"a": 1}))
        request = device.request()
        assert (request.name, request.payload) == ("reboot", b'{"a": 1}')
        topic = f"$iothub/methods/res/200/?$rid={request.rid}".encode()
        packet = b"\x30" + bytes([2 + len(topic) + 4]) + len(topic).to_bytes(2, "big") + topic + b"true"
        device.send(packet[:1])
        device.raw_send(masked(Opcode.BINARY, packet[1:5], fin=False) + masked(Opcode.PING, b"there?"))
        device.raw_send(masked(Opcode.CONT, packet[5:9]))
        device.send(packet[9:] + b"\xc0\x00")
        assert caller.response().body == b'{"status":200,"payload":true}'
        assert device.packet() == (0xD0, b"")
        assert device.pongs == [b"there?"]


def test_a_module(shared: RunningHub) -> None:
    shared.create_device("d2")
    shared.create_module("d2", "m1")
    with ready_device(shared, "d2", "m1") as module, Caller(shared) as caller:
        caller.send(caller.call("d2/modules/m1"))
        module.answer(module.request())
        assert caller.response().status == 200
        assert caller.invoke("d2").code == 404103


def test_bytes_behind_the_request_are_not_lost(shared: RunningHub) -> None:
    """No client of the SDKs speaks before it has read the answer; HTTP does not forbid it."""
    shared.create_device("early")
    with Device(shared, "early") as model:
        hello = model.hello()
    frames = masked(Opcode.BINARY, hello[:7]) + masked(Opcode.BINARY, hello[7:])
    with WebSocketDevice(shared, "early", pipelined=frames) as device:
        assert device.connack() == (0, 0)
    with WebSocketDevice(shared, "early", pipelined=frames[:20]) as device:
        device.raw_send(frames[20:])
        assert device.connack() == (0, 0)


def test_large_calls_and_answers_pass(shared: RunningHub, device: WebSocketDevice) -> None:
    text = "x" * 100_000
    with Caller(shared) as caller:
        caller.send(caller.call("d1", "big", text))
        request = device.request()
        assert len(request.payload) == len(text) + 2
        device.answer(request, request.payload)
        assert len(caller.response().body) > len(text)


def test_the_newest_connection_wins_whatever_carries_it(shared: RunningHub, device: WebSocketDevice) -> None:
    with ready_tcp_device(shared, "d1") as over_tcp:
        assert device.is_closed()
        assert device.closed_with == CloseCode.NORMAL_CLOSURE
        with ready_device(shared, "d1") as again, Caller(shared) as caller:
            assert over_tcp.is_closed()
            caller.send(caller.call("d1"))
            again.answer(again.request())
            assert caller.response().status == 200


def test_the_unmasked_close_of_paho_is_borne(shared: RunningHub, device: WebSocketDevice) -> None:
    """[HUB-websocket-end] Its answer to the hub's close, after which it reads to the end."""
    with shared.admin() as admin:
        admin.delete("/devices/d1")
    while device.closed_with is None:
        device._more()
    device.raw_send(UNMASKED_CLOSE)
    assert device.is_closed()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (masked(Opcode.CLOSE, b"\x03\xe9"), CloseCode.GOING_AWAY),
        (masked(Opcode.TEXT, b"text"), CloseCode.UNSUPPORTED_DATA),
        (b"\x82\xff" + (1 << 30).to_bytes(8, "big"), CloseCode.MESSAGE_TOO_BIG),
        (UNMASKED_CLOSE, CloseCode.PROTOCOL_ERROR),
        (masked(Opcode.BINARY, b"\xe0\x00"), CloseCode.NORMAL_CLOSURE),
    ],
    ids=["close", "text", "oversize", "unmasked-close", "disconnect"],
)
def test_each_end_takes_the_device_offline(
    shared: RunningHub, device: WebSocketDevice, end: bytes, code: CloseCode
) -> None:
    """[HUB-websocket-end]"""
    device.raw_send(end)
    assert device.is_closed()
    assert device.closed_with == code
    shared.until(lambda: attachment(shared) is None)


def test_a_connection_that_breaks_takes_the_device_offline(shared: RunningHub, device: WebSocketDevice) -> None:
    device.close()
    shared.until(lambda: attachment(shared) is None)


def test_a_stranger_has_its_time_for_upgrade_and_connect_together(timed: RunningHub) -> None:
    """[HUB-websocket] The upgrade neither stops the clock before authentication nor starts another."""
    timed.create_device("d1")
    with WebSocketDevice(timed, "d1") as stranger, WebSocketDevice(timed, "d1") as device:
        timed.advance(29)
        assert device.connect() == (0, 0)
        timed.advance(2)
        assert stranger.is_closed()
        # Neither that clock nor those of HTTP end what has authenticated.
        timed.advance(1200)
        device.ping()


def test_the_bytes_of_a_stranger_are_counted_through_the_upgrade(shared: RunningHub) -> None:
    shared.create_device("stranger")
    padding = upgrade_request(X_Padding="x" * 40_000)
    with WebSocketDevice(shared, "stranger", request=padding) as stranger:
        stranger.raw_send(masked(Opcode.BINARY, b"\x10\xff\xff\x03" + b"x" * 30_000))
        assert stranger.is_closed()


def test_nothing_of_http_is_left_after_the_upgrade(shared: RunningHub) -> None:
    """Not even for the collector, which runs seldom in a hub: it would cost memory for each connection."""
    shared.create_device("d3")
    gc.disable()
    try:
        with ready_device(shared, "d3") as device:
            device.ping()
            attached = shared.hub.table.get(Target("d3"))
            assert attached is not None
            below = attached.connection._stream._stream  # type: ignore[attr-defined]
            assert not [
                found for found in gc.get_objects() if isinstance(found, HttpConnection) and found.stream is below
            ]
    finally:
        gc.enable()
