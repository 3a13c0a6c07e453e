"""Calls over methods links: what goes down, what comes back, and when there is nobody to take them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from methodhub.core.calls import MethodRequest, MethodResult, Outcome
from methodhub.core.identity import Target
from methodhub.wire.amqp.codec import Long
from methodhub.wire.amqp.messages import AmqpValue, Message, encode_message
from tests.amqp.peers import AmqpDevice, Methods, is_accepted, methods_address
from tests.harness import RunningHub
from tests.hub.peers import Caller


@pytest.fixture(scope="module", autouse=True)
def identities(shared: RunningHub) -> None:
    shared.create_device("d1")
    shared.create_module("d1", "m1")


def invoke(caller: Caller, methods: Methods, payload: Any = None, **answer: Any) -> tuple[int, bytes]:
    caller.send(caller.call("d1", "m", payload))
    methods.answer(methods.request(), **answer)
    response = caller.response()
    return response.status, response.body


def test_a_request_is_a_uuid_a_name_and_one_data_section(shared: RunningHub) -> None:
    """[HUB-correlation-id]"""
    with AmqpDevice(shared) as device, Caller(shared) as caller:
        body = b'{"methodName": "a.b", "payload": {"\xc3\xa4": 1.0} }'
        caller.send(caller.request("POST", "/twins/d1/methods", body))
        first = device.methods.request()
        assert (first.name, first.payload, first.transfers) == ("a.b", b'{"\xc3\xa4": 1.0}', 1)
        assert isinstance(first.id, UUID) and first.id.version == 4
        device.methods.answer(first)
        assert caller.response().body == b'{"status":200,"payload":{}}'
        caller.send(caller.request("POST", "/twins/d1/methods", b'{"methodName":"m"}'))
        second = device.methods.request()
        assert (second.payload, second.message.message_id) == (b"", None)
        assert second.id != first.id
        device.methods.answer(second)
        assert caller.response().status == 200


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b'{"a": [1.50]}', b'{"a": [1.50]}'),
        (b"null", b"null"),
        (b"", b"null"),
        (None, b"null"),
        (AmqpValue(None), b"null"),
        (AmqpValue('"text"'), b'"text"'),
        (AmqpValue(b"[1]"), b"[1]"),
    ],
    ids=repr,
)
def test_an_answer_in_every_shape(shared: RunningHub, body: Any, payload: bytes) -> None:
    """[HUB-answer]"""
    with AmqpDevice(shared) as device, Caller(shared) as caller:
        expected = b'{"status":200,"payload":%s}' % payload
        assert invoke(caller, device.methods, body=body) == (200, expected)


def test_an_answer_of_several_data_sections(shared: RunningHub) -> None:
    """[HUB-answer]"""
    with AmqpDevice(shared) as device, Caller(shared) as caller:
        caller.send(caller.call("d1"))
        request = device.methods.request()
        data = Message(b"[1", correlation_id=request.id, application_properties={"IoThub-status": 1})
        device.post(device.methods.sender, encode_message(data) + b"\x00\x53\x75\xa0\x03,2]")
        assert is_accepted(device.settled())
        assert caller.response().body == b'{"status":1,"payload":[1,2]}'


@pytest.mark.parametrize("shape", ["uuid", "text", "TEXT", "bytes", "16 bytes"])
def test_the_correlation_id_in_every_shape(shared: RunningHub, shape: str) -> None:
    """[HUB-correlation-id]"""
    with AmqpDevice(shared) as device, Caller(shared) as caller:
        caller.send(caller.call("d1"))
        request = device.methods.request()
        value = request.id
        assert isinstance(value, UUID)
        shapes: dict[str, Any] = {
            "uuid": value,
            "text": str(value),
            "TEXT": str(value).upper(),
            "bytes": str(value).encode(),
            "16 bytes": value.bytes,
        }
        device.methods.answer(request, correlation=shapes[shape])
        assert caller.response().status == 200


@pytest.mark.parametrize("status", [0, -7, 2**31 - 1, -(2**31), Long(5)], ids=repr)
def test_any_status_of_32_bits_comes_back(shared: RunningHub, status: int) -> None:
    """[HUB-answer-status]"""
    with AmqpDevice(shared) as device, Caller(shared) as caller:
        assert invoke(caller, device.methods, status=status) == (200, b'{"status":%d,"payload":{}}' % status)


@pytest.mark.parametrize(
    "answer",
    [{"status": None}, {"status": "200"}, {"status": 2**31}, {"status": True}, {"body": b"{'a'}"}, {"body": b"\xff"}],
    ids=repr,
)
def test_an_answer_that_is_none_is_502000_and_the_device_stays(shared: RunningHub, answer: Any) -> None:
    """[HUB-answer-status] [HUB-answer]"""
    with AmqpDevice(shared) as device, Caller(shared) as caller:
        caller.send(caller.call("d1"))
        device.methods.answer(device.methods.request(), **answer)
        assert caller.response().code == 502000
        assert invoke(caller, device.methods)[0] == 200


def test_answers_to_nothing_are_settled_and_counted(shared: RunningHub) -> None:
    """[HUB-correlation-id] Whatever they name: nothing, nonsense, another connection's call, one answered before."""
    metrics = shared.hub.metrics
    before = metrics.late_answers
    with AmqpDevice(shared) as device, Caller(shared) as caller:
        caller.send(caller.call("d1"))
        request = device.methods.request()
        other = UUID(int=request.id.int ^ 1 << 100)  # type: ignore[union-attr]
        for correlation in ("", "nothing", 7, b"", other, UUID(int=0)):
            device.post(
                device.methods.sender,
                Message(b"9", correlation_id=correlation, application_properties={"IoThub-status": 9}),
            )
            assert is_accepted(device.settled())
        assert caller.is_quiet()
        device.methods.answer(request, b"1")
        device.methods.answer(request, b"2")
        assert caller.response().body == b'{"status":200,"payload":1}'
        assert metrics.late_answers - before == 7


@pytest.mark.parametrize(("limit", "size"), [(512, 3_000), (4096, 131_072), (65_536, 131_072)])
def test_a_request_is_split_as_the_peer_asks(shared: RunningHub, limit: int, size: int) -> None:
    with AmqpDevice(shared, max_frame_size=limit) as device, Caller(shared) as caller:
        text = "x" * (size - 2)
        caller.send(caller.call("d1", "m", text))
        request = device.methods.request()
        assert request.payload == json.dumps(text).encode()
        assert request.transfers >= size // limit
        device.methods.answer(request, request.payload)
        assert json.loads(caller.response().body)["payload"] == text


def test_no_frame_is_larger_than_the_peer_takes(shared: RunningHub) -> None:
    sizes: list[int] = []

    class Measuring(AmqpDevice):
        def read(self, count: int) -> bytes:
            data = super().read(count)
            sizes.append(count)
            return data

    with Measuring(shared, max_frame_size=512) as device, Caller(shared) as caller:
        caller.send(caller.call("d1", "m", "x" * 5_000))
        device.methods.answer(device.methods.request())
        assert caller.response().status == 200
    assert max(sizes) <= 508


def test_without_credit_the_device_is_not_ready(shared: RunningHub) -> None:
    """[HUB-credit] Links alone do not do; a call that waits to connect gets through with the first credit."""
    with AmqpDevice(shared, credit=0) as device, Caller(shared) as caller, Caller(shared) as waiting:
        assert caller.invoke("d1").code == 404103
        waiting.send(waiting.call("d1", connectTimeoutInSeconds=20))
        shared.until(lambda: len(shared.hub.methods.open) == 1)
        device.give(device.methods.receiver, 1)
        device.methods.answer(device.methods.request())
        assert waiting.response().status == 200


@pytest.mark.parametrize("order", ["sender last", "receiver last"])
def test_half_a_pair_is_not_ready(shared: RunningHub, order: str) -> None:
    """[HUB-credit] In either order; and a call that comes right behind the answered ATTACH finds the device."""
    shared.create_device(order.replace(" ", "-"))
    name = order.replace(" ", "-")
    with AmqpDevice(shared) as device, Caller(shared) as caller:
        device.know(name)
        roles = ["receiver", "sender"] if order == "sender last" else ["sender", "receiver"]
        links = {}
        for number, role in enumerate(roles):
            assert caller.invoke(name).code == 404103
            links[role] = device.attach(device.session, role, methods_address(name))
            if role == "receiver":
                device.give(links[role], 5)
                device.round_trip()
            assert number or caller.invoke(name).code == 404103
        caller.send(caller.call(name))
        assert device.message(links["receiver"])[0].application_properties == {"IoThub-methodname": "m"}


def test_a_call_right_behind_the_last_attach_is_never_lost(shared: RunningHub) -> None:
    """[HUB-credit] Attached and given credit in one write; called as soon as the ATTACH is answered."""
    shared.create_device("quick")
    for _ in range(20):
        with AmqpDevice(shared) as device, Caller(shared) as caller:
            device.know("quick")
            receiver = device.ask_attach(device.session, "receiver", methods_address("quick"))
            device.give(receiver, 5)
            sender = device.ask_attach(device.session, "sender", methods_address("quick"))
            device.expect(0x12)
            device.expect(0x12)
            caller.send(caller.call("quick"))
            message, _ = device.message(receiver)
            device.post(
                sender,
                Message(b"1", correlation_id=message.correlation_id, application_properties={"IoThub-status": 200}),
            )
            assert caller.response().body == b'{"status":200,"payload":1}'


def test_calls_wait_for_credit_and_those_that_timed_out_are_not_delivered(timed: RunningHub) -> None:
    """[HUB-credit] Used up: the device is online and the call waits, for as long as its caller does."""
    timed.create_device("d1")
    with AmqpDevice(timed, credit=1) as device, Caller(timed) as first, Caller(timed) as second, Caller(timed) as third:
        first.send(first.call("d1", "first"))
        answered = device.methods.request()
        second.send(second.call("d1", "second", responseTimeoutInSeconds=10))
        timed.until(lambda: len(timed.hub.methods.open) == 2)
        third.send(third.call("d1", "third", responseTimeoutInSeconds=60))
        timed.until(lambda: len(timed.hub.methods.open) == 3)
        device.methods.answer(answered)
        assert first.response().status == 200
        timed.advance(11)
        assert second.response().code == 504101
        device.give(device.methods.receiver, 10)
        request = device.methods.request()
        assert request.name == "third"
        device.methods.answer(request)
        assert third.response().status == 200
        device.round_trip()


def test_a_call_that_waits_for_credit_goes_out_on_a_newer_link(shared: RunningHub) -> None:
    """[HUB-credit]"""
    with AmqpDevice(shared, credit=1) as device, Caller(shared) as first, Caller(shared) as second:
        first.send(first.call("d1", "first"))
        device.methods.answer(device.methods.request())
        assert first.response().status == 200
        second.send(second.call("d1", "second"))
        shared.until(lambda: len(shared.hub.methods.open) == 1)
        device.methods.receiver = device.attach(device.session, "receiver", methods_address("d1"))
        device.give(device.methods.receiver, 10)
        request = device.methods.request()
        device.methods.answer(request)
        assert (request.name, second.response().status) == ("second", 200)


def test_ten_thousand_calls_on_one_connection(shared: RunningHub) -> None:
    """Windows, credit and delivery numbers of both sides go on; the device renews its credit as an SDK would."""
    outcomes: list[Outcome] = []
    batch = 50

    def call() -> None:
        for _ in range(batch):
            shared.hub.methods.invoke(Target("d1"), MethodRequest("m", b"1", 30, 0), outcomes.append)

    with AmqpDevice(shared, credit=500) as device:
        for _ in range(10_000 // batch):
            shared.on_loop(call)
            for request in [device.methods.request() for _ in range(batch)]:
                device.methods.answer(request, b"2")
            if device.methods.receiver.credit < 100:
                device.give(device.methods.receiver, 500)
        device.round_trip()
    assert outcomes == [MethodResult(200, b"2")] * 10_000
