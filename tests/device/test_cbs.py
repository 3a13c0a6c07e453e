"""Put-token: what it asks for, how it is answered, and where the answer goes."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from methodhub.core.identity import Target
from methodhub.device.cbs import choose_reply_link, put_token
from methodhub.device.grants import Grants
from methodhub.wire.amqp.events import LinkAttached
from methodhub.wire.amqp.messages import AmqpValue, Message, decode_message, encode_message
from tests.device.test_grants import token
from tests.rooms.world import World

GOOD = {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": "not believed"}


@pytest.mark.parametrize("message_id", [None, 0, 2**64 - 1, "", "text", UUID(int=7), b"\0\1"], ids=repr)
def test_a_token_is_granted_and_the_reply_repeats_the_id(world: World, grants: Grants, message_id: Any) -> None:
    """[HUB-cbs]"""
    request = Message(AmqpValue(token(world, "d")), message_id, application_properties=GOOD)
    grant, reply = world.run(put_token(grants, request, "peer"))
    assert grant is not None and grant.target == Target("d")
    read = decode_message(encode_message(reply))
    assert read.correlation_id == message_id and type(read.correlation_id) is type(message_id)
    assert read.application_properties == {"status-code": 200, "status-description": "OK"}
    assert b"\x54" in encode_message(reply) or b"\x71" in encode_message(reply)  # AMQP's int


@pytest.mark.parametrize(
    ("changes", "body", "status"),
    [
        ({"operation": "delete-token"}, None, 400),
        ({"operation": None}, None, 400),
        ({"type": "saml"}, None, 400),
        ({}, b"data", 400),
        ({}, AmqpValue(None), 400),
        ({}, AmqpValue(["SharedAccessSignature"]), 400),
        ({}, AmqpValue("nonsense"), 401),
        ({}, AmqpValue("SharedAccessSignature sr=hub.local%2Fdevices%2Fnone&sig=eA%3D%3D&se=4000000000"), 404),
    ],
)
def test_what_is_no_good_is_told_by_a_status(
    world: World, grants: Grants, changes: dict[str, Any], body: Any, status: int
) -> None:
    """[HUB-cbs]"""
    request = Message(body, "1", application_properties={**GOOD, **changes})
    if body is None:
        request = Message(AmqpValue(token(world, "d")), "1", application_properties={**GOOD, **changes})
    grant, reply = world.run(put_token(grants, request, "peer"))
    assert grant is None
    assert not grants
    assert reply.application_properties["status-code"] == status
    assert reply.correlation_id == "1"


def test_more_tokens_than_a_connection_holds_are_403(world: World, grants: Grants) -> None:
    for device_id, status in (("d", 200), ("e", 200), ("f", 403), ("d", 200)):
        request = Message(AmqpValue(token(world, device_id)), 1, application_properties=GOOD)
        _, reply = world.run(put_token(grants, request, "peer"))
        assert reply.application_properties["status-code"] == status


def receiver(link: int, session: int, target: str | None) -> LinkAttached:
    return LinkAttached(link, session, "receiver", "name", "$cbs", target, {}, 2, 0)


@pytest.mark.parametrize(
    ("session", "reply_to", "chosen"),
    [(1, "cbs", 4), (1, "b", 3), (2, None, 4), (1, None, 3), (9, None, 4), (9, "elsewhere", 4)],
)
def test_a_reply_goes_where_it_was_asked_for_else_nearby(session: int, reply_to: str | None, chosen: int) -> None:
    """[HUB-cbs]"""
    links = [receiver(2, 1, "a"), receiver(3, 1, "b"), receiver(4, 2, "cbs")]
    assert choose_reply_link(links, session, reply_to) == chosen
    assert choose_reply_link([], session, reply_to) is None
