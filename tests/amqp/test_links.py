"""Links: by their address alone, in every spelling; those that carry no calls attach, too."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from methodhub.iothub.sas import build_token
from methodhub.wire.amqp import frames
from methodhub.wire.amqp.codec import describe, encode_fields
from methodhub.wire.amqp.messages import Message
from tests.amqp.peers import AmqpDevice, AmqpPeer, Methods, is_accepted, methods_address
from tests.harness import RunningHub
from tests.hub.peers import Caller
from tests.wire.amqp.peer import TRUE, frame, uint


@pytest.fixture(scope="module", autouse=True)
def identities(shared: RunningHub) -> None:
    shared.create_device("d1")
    shared.create_module("d1", "m1")
    shared.create_device("D1")


@pytest.fixture
def device(shared: RunningHub) -> Iterator[AmqpDevice]:
    with AmqpDevice(shared) as device:
        yield device


@pytest.mark.parametrize(
    "address",
    [
        "/devices/d1/methods/devicebound",
        "/devices/d1/methods/deviceBound",
        "devices/d1/methods/devicebound",
        "/DEVICES/d1/Methods/DEVICEBOUND",
        "amqps://hub.local/devices/d1/methods/deviceBound",
        "amqps://hub.local:5671/devices/d1/methods/deviceBound",
        "AMQPS://hub.local/devices/%641/methods/deviceBound",
    ],
)
def test_a_link_is_found_in_every_spelling(shared: RunningHub, device: AmqpDevice, address: str) -> None:
    """[HUB-link-address] The newest of a kind counts."""
    sender = device.attach(device.session, "sender", address)
    receiver = device.attach(device.session, "receiver", address)
    device.give(receiver, 3)
    with Caller(shared) as caller:
        caller.send(caller.call("d1"))
        message, _ = device.message(receiver)
        answer = Message(b"1", correlation_id=message.correlation_id, application_properties={"IoThub-status": 200})
        device.post(sender, answer)
        assert is_accepted(device.settled())
        assert caller.response().status == 200


@pytest.mark.parametrize(
    ("address", "condition"),
    [
        ("/devices/D1/methods/devicebound", "amqp:unauthorized-access"),
        ("/devices/d2/methods/devicebound", "amqp:unauthorized-access"),
        ("/devices/d1/modules/m1/methods/devicebound", "amqp:unauthorized-access"),
        ("/devices/d1/modules/m2/methods/devicebound", "amqp:unauthorized-access"),
        ("/devices/d1/methods", "amqp:not-found"),
        ("/devices//methods/devicebound", "amqp:not-found"),
        ("/devices/a b/methods/devicebound", "amqp:not-found"),
        ("/devices/a%2Fb/methods/devicebound", "amqp:not-found"),
        ("/elsewhere", "amqp:not-found"),
        ("", "amqp:not-found"),
        (None, "amqp:not-found"),
        ("/messages/devicebound", "amqp:unauthorized-access"),
        ("/messages/servicebound/feedback", "amqp:unauthorized-access"),
    ],
)
@pytest.mark.parametrize("role", ["sender", "receiver"])
def test_a_link_to_elsewhere_is_refused_and_the_others_go_on(
    shared: RunningHub, device: AmqpDevice, address: str | None, condition: str, role: str
) -> None:
    """[HUB-link-address] ATTACH without a terminus, then DETACH."""
    assert device.refused(device.session, role, address).condition == condition
    with Caller(shared) as caller:
        caller.send(caller.call("d1"))
        device.methods.answer(device.methods.request())
        assert caller.response().status == 200


def test_whoever_may_speak_for_a_device_learns_that_there_is_none(shared: RunningHub) -> None:
    with AmqpPeer(shared) as peer:
        session = peer.open()
        assert peer.claim(peer.open_cbs(session), shared.token("device"))[0] == 200
        assert peer.refused(session, "sender", methods_address("nobody")).condition == "amqp:not-found"


def test_an_odd_id_is_decoded_once(shared: RunningHub) -> None:
    """[HUB-link-address] As one SDK encodes it; others write it raw."""
    shared.create_device("a'b$c@d")
    with AmqpDevice(shared) as device:
        device.know("a'b$c@d")
        for spelled in ("a'b$c@d", "a%27b%24c%40d"):
            Methods(device, device.session, spelled)


def test_an_id_that_looks_encoded_is_found_as_it_is_written(shared: RunningHub) -> None:
    """[HUB-link-address] Node, C and Java write ids raw; C# encodes them."""
    with shared.admin() as client:
        created = client.put("/devices/a%2541", json={"deviceId": "a%41"}).json()
    key = created["authentication"]["symmetricKey"]["primaryKey"]
    token = build_token(f"{shared.address}/devices/a%41", key, int(shared.hub.clock.wall()) + 600)
    with AmqpDevice(shared) as device:
        assert device.claim(device.cbs, token) == (200, "OK")
        for spelled in ("a%41", "a%2541"):
            Methods(device, device.session, spelled)


@pytest.mark.parametrize(
    ("role", "address"),
    [
        ("sender", "/devices/d1/messages/events"),
        ("receiver", "/devices/d1/messages/devicebound"),
        ("sender", "/devices/d1/twin"),
        ("receiver", "/devices/d1/twin"),
        ("sender", "/devices/d1/modules/m1/messages/events"),
        ("receiver", "/devices/d1/modules/m1/messages/events"),
        ("receiver", "/devices/d1/modules/m1/messages/devicebound"),
        ("sender", "amqps://hub.local/devices/d1/modules/m1/twin"),
    ],
)
def test_links_without_calls_attach(device: AmqpDevice, role: str, address: str) -> None:
    device.know("d1", "m1")
    link = device.attach(device.session, role, address)
    if role == "receiver":
        device.give(link, 10)
    device.round_trip()
    device.detach(link)
    assert device.expect(frames.DETACH).field(2) is None


def test_a_connection_of_such_links_alone_is_not_ready_for_calls(shared: RunningHub) -> None:
    with AmqpPeer(shared) as peer, Caller(shared) as caller:
        session = peer.open()
        peer.claim(peer.open_cbs(session), shared.device_token("d1"))
        peer.attach(session, "sender", "/devices/d1/messages/events")
        assert caller.invoke("d1").code == 404103


@pytest.mark.parametrize("settled", [False, True])
def test_telemetry_is_accepted_and_counted(shared: RunningHub, device: AmqpDevice, settled: bool) -> None:
    """More of it than any credit or window."""
    metrics = shared.hub.metrics
    before = metrics.telemetry_messages
    link = device.attach(device.session, "sender", "/devices/d1/messages/events")
    body = Message(b"x" * 1_000, application_properties={"level": "low"})
    for _ in range(40):
        for _ in range(50):
            device.post(link, body, settled)
        if settled:
            device.round_trip()
            continue
        done = 0
        while done < 50:
            found = device.expect(frames.DISPOSITION)
            assert is_accepted(found.field(4))
            done += (found.field(1) if found.field(2) is None else found.field(2)) - found.field(1) + 1
    assert metrics.telemetry_messages - before == 2_000


def test_the_twin_answers_as_over_mqtt(device: AmqpDevice) -> None:
    """GET and reported PATCH; subscribing to desired properties is confirmed. `wire/device.md` 3.7."""
    sender = device.attach(device.session, "sender", "/devices/d1/twin")
    receiver = device.attach(device.session, "receiver", "/devices/d1/twin")
    device.give(receiver, 100)

    def ask(correlation: str, body: bytes, **annotations: str) -> Message:
        device.post(sender, Message(body, correlation_id=correlation, annotations=dict(annotations)))
        assert is_accepted(device.settled())
        reply, _ = device.message(receiver)
        assert reply.correlation_id == correlation
        return reply

    desired = "/notifications/twin/properties/desired"
    got = ask("get-1", b" ", operation="GET")
    assert got.annotations == {"status": 200}
    assert json.loads(got.body) == {"desired": {"$version": 1}, "reported": {"$version": 1}}  # type: ignore[arg-type]
    put = ask("put-1", b" ", operation="PUT", resource=desired)
    assert put.annotations == {"status": 200}
    patched = ask("patch-1", b'{"a":1}', operation="PATCH", resource="/properties/reported")
    assert (patched.annotations["status"], patched.annotations["version"]) == (204, 2)
    assert ask("patch-2", b"[]", operation="PATCH", resource="/properties/reported").annotations == {"status": 400}
    assert ask("delete-1", b" ", operation="DELETE", resource=desired).annotations == {"status": 200}
    assert ask("what-1", b" ", operation="POKE").annotations == {"status": 400}


def test_an_attach_is_answered_with_the_modes_that_the_sdks_expect(device: AmqpDevice) -> None:
    """Requests go out settled, and are settled first."""
    device.ask_attach(device.session, "receiver", methods_address("d1"))
    answer = device.expect(frames.ATTACH)
    assert (answer.field(3), answer.field(4) or 0, answer.field(10)) == (1, 0, 1_048_576)


def test_a_peer_that_disposes_of_what_was_settled_is_not_minded(shared: RunningHub, device: AmqpDevice) -> None:
    """One SDK does."""
    with Caller(shared) as caller:
        for number in range(3):
            caller.send(caller.call("d1"))
            request = device.methods.request()
            outcome = describe(0x24, encode_fields([]))
            device.send(frame(0, frames.DISPOSITION, [TRUE, uint(number), uint(number), TRUE, outcome]))
            device.methods.answer(request)
            assert caller.response().status == 200
