"""Twins over AMQP: the same as over MQTT, on the twin's pair of links (`wire/device.md` 3.7)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from methodhub.core.identity import Target
from methodhub.core.twins.rules import TwinUpdate
from methodhub.iothub.amqp import DESIRED_NOTIFICATIONS
from methodhub.wire.amqp import frames
from methodhub.wire.amqp.codec import NULL, Symbol, describe, encode, encode_fields
from methodhub.wire.amqp.messages import Message
from tests.amqp.peers import AmqpDevice, Link, is_accepted
from tests.harness import RunningHub

_names = count()


class TwinPeer:
    """A device with its twin links."""

    def __init__(self, hub: RunningHub, credit: int = 100) -> None:
        self.hub = hub
        self.target = Target(f"twin-{next(_names)}")
        hub.create_device(self.target.device_id)
        self.device = AmqpDevice(hub, self.target.device_id)
        address = f"/devices/{self.target.device_id}/twin"
        self.sender: Link = self.device.attach(self.device.session, "sender", address)
        self.receiver: Link = self.device.attach(self.device.session, "receiver", address)
        if credit:
            self.device.give(self.receiver, credit)

    def ask(self, correlation: str, body: bytes = b" ", **annotations: Any) -> None:
        self.device.post(self.sender, Message(body, correlation_id=correlation, annotations=dict(annotations)))
        assert is_accepted(self.device.settled())

    def post(self, message: bytes) -> None:
        self.device.post(self.sender, message)

    def told(self) -> Message:
        return self.device.message(self.receiver)[0]

    def watch(self) -> None:
        self.ask("put", operation="PUT", resource=DESIRED_NOTIFICATIONS)
        reply = self.told()
        assert (reply.correlation_id, reply.annotations) == ("put", {"status": 200})

    def desire(self, **values: Any) -> None:
        self.hub.run(self.hub.hub.twins.update(self.target, TwinUpdate(desired=values)))


@pytest.fixture
def peer(shared: RunningHub) -> Iterator[TwinPeer]:
    made = TwinPeer(shared)
    with made.device:
        yield made


def json_of(message: Message) -> Any:
    assert isinstance(message.body, bytes)
    return json.loads(message.body)


def test_reported_properties_are_kept_and_read(peer: TwinPeer) -> None:
    peer.ask("1", b'{"fw":{"v":1},"x":1}', operation="PATCH", resource="/properties/reported")
    reply = peer.told()
    assert (reply.correlation_id, reply.annotations, reply.body) == ("1", {"status": 204, "version": 2}, b"")
    peer.ask("2", b'{"x":null}', operation="PATCH", resource="/properties/reported")
    assert peer.told().annotations["version"] == 3
    peer.desire(a=1)
    peer.ask("3", operation="GET")
    reply = peer.told()
    assert reply.annotations == {"status": 200}
    assert json_of(reply) == {"desired": {"a": 1, "$version": 2}, "reported": {"fw": {"v": 1}, "$version": 3}}


def test_desired_properties_are_told_from_put_to_delete(peer: TwinPeer) -> None:
    """Without a correlation-id: by that alone one SDK tells a push from an answer."""
    peer.desire(unheard=1)
    peer.watch()
    peer.desire(a={"b": 1})
    peer.desire(a=None)
    first, second = peer.told(), peer.told()
    assert first.correlation_id is None
    assert first.annotations == {"resource": DESIRED_NOTIFICATIONS, "version": 3}
    assert json_of(first) == {"a": {"b": 1}, "$version": 3}
    assert json_of(second) == {"a": None, "$version": 4}
    peer.ask("delete", operation="DELETE", resource=DESIRED_NOTIFICATIONS)
    assert peer.told().correlation_id == "delete"
    peer.desire(a=2)
    peer.ask("get", operation="GET")
    assert peer.told().correlation_id == "get", "nothing is told any more"


def test_a_wish_ends_with_its_link(peer: TwinPeer) -> None:
    peer.watch()
    peer.device.detach(peer.receiver)
    assert peer.device.expect(frames.DETACH).field(2) is None
    address = f"/devices/{peer.target.device_id}/twin"
    peer.receiver = peer.device.attach(peer.device.session, "receiver", address, name="again")
    peer.device.give(peer.receiver, 100)
    peer.desire(a=1)
    peer.ask("get", operation="GET")
    assert peer.told().correlation_id == "get"


@pytest.mark.parametrize(
    ("annotations", "body"),
    [
        ({"operation": "PATCH", "resource": "/properties/reported"}, b"[]"),
        ({"operation": "PATCH", "resource": "/properties/reported"}, b'{"a.b":1}'),
        ({"operation": "PUT", "resource": "/properties/desired"}, b" "),
        ({"operation": "POKE"}, b" "),
        ({}, b" "),
    ],
)
def test_wrong_requests_are_answered_400_in_json(peer: TwinPeer, annotations: dict[str, str], body: bytes) -> None:
    """One SDK parses the body of every refusal."""
    peer.ask("wrong", body, **annotations)
    reply = peer.told()
    assert (reply.correlation_id, reply.annotations) == ("wrong", {"status": 400})
    assert json_of(reply)["errorCode"] in {400004, 400006}


def test_pushes_wait_for_credit(shared: RunningHub) -> None:
    peer = TwinPeer(shared, credit=1)
    with peer.device:
        peer.watch()
        peer.desire(a=1)
        peer.desire(a=2)
        peer.device.give(peer.receiver, 2)
        assert [json_of(peer.told())["a"] for _ in range(2)] == [1, 2]


def test_a_device_that_gives_no_credit_is_closed_in_the_end(shared: RunningHub) -> None:
    """[HUB-limits] What waits for it is bounded."""
    peer = TwinPeer(shared, credit=1)
    with peer.device:
        peer.watch()
        for number in range(200):
            peer.desire(a=number)
        shared.until(lambda: shared.hub.table.get(peer.target) is None)
        ended = peer.device.ended()
        assert ended is not None
        assert ended.condition == "amqp:resource-limit-exceeded"


@pytest.mark.parametrize("wrong", [["GET"], {"a": 1}, 7, None])
def test_operations_and_resources_of_a_wrong_type_are_refused_and_no_more(shared: RunningHub, wrong: Any) -> None:
    twin = TwinPeer(shared)
    twin.ask("1", operation=wrong, resource=wrong)
    assert twin.told().annotations["status"] == 400
    twin.ask("2", operation="GET")
    assert twin.told().annotations["status"] == 200
    twin.device.close()


def test_a_request_with_an_id_below_zero_is_rejected_and_no_more(shared: RunningHub) -> None:
    twin = TwinPeer(shared)
    annotations = describe(0x72, encode({Symbol("operation"): "GET"}))
    twin.post(annotations + describe(0x73, encode_fields([NULL] * 5 + [b"\x54\xff"])))
    assert not is_accepted(twin.device.settled())
    twin.ask("2", operation="GET")
    assert twin.told().annotations["status"] == 200
    twin.device.close()
