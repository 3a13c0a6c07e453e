"""From the first byte to the first accepted token, in each of the ways that devices begin (`wire/device.md` 3.1 to
3.3)."""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from uuid import UUID

import pytest

from methodhub.core.identity import Target
from methodhub.iothub.sas import build_token
from methodhub.wire.amqp.codec import ULong
from methodhub.wire.amqp.messages import AmqpValue, Message
from tests.amqp.peers import TOKEN_TYPE, AmqpDevice, AmqpPeer, Methods, is_accepted, methods_address
from tests.harness import RunningHub
from tests.hub.peers import Caller


@pytest.fixture(scope="module", autouse=True)
def identities(shared: RunningHub) -> None:
    shared.create_device("d1")
    shared.create_module("d1", "m1")
    shared.create_device("other")
    shared.create_device("off", status="disabled")


def assert_takes_calls(hub: RunningHub, methods: Methods, path: str = "d1") -> None:
    with Caller(hub) as caller:
        caller.send(caller.call(path, "ping", 1))
        request = methods.request()
        assert (request.name, request.payload) == ("ping", b"1")
        methods.answer(request, b'"pong"')
        assert caller.response().body == b'{"status":200,"payload":"pong"}'


@pytest.mark.parametrize("mechanism", [None, "ANONYMOUS", "MSSBCBS", "EXTERNAL"])
def test_without_sasl_or_with_a_mechanism_that_says_nothing_the_token_follows(
    shared: RunningHub, mechanism: str | None
) -> None:
    with AmqpPeer(shared) as peer:
        if mechanism is not None:
            assert peer.sasl(mechanism, b"whoever") == 0
        session = peer.open()
        cbs = peer.open_cbs(session)
        assert peer.claim(cbs, shared.device_token("d1")) == (200, "OK")
        assert_takes_calls(shared, Methods(peer, session, "d1"))


def plain(user: str, token: str) -> bytes:
    return f"\0{user}\0{token}".encode()


@pytest.mark.parametrize("path", ["d1", "d1/modules/m1"])
def test_plain_with_a_device_token_needs_no_cbs(shared: RunningHub, path: str) -> None:
    device_id, _, module_id = path.replace("modules/", "").partition("/")
    with AmqpPeer(shared) as peer:
        assert peer.sasl("PLAIN", plain(f"{path}@sas.hub", shared.device_token(device_id, module_id))) == 0
        session = peer.open()
        assert peer.refused(session, "sender", methods_address("other")).condition == "amqp:unauthorized-access"
        assert_takes_calls(shared, Methods(peer, session, device_id, module_id), path)


def test_plain_with_a_policys_token_speaks_for_all_that_it_covers(shared: RunningHub) -> None:
    with AmqpPeer(shared) as peer:
        assert peer.sasl("PLAIN", plain("device@sas.root.hub", shared.token("device"))) == 0
        session = peer.open()
        assert_takes_calls(shared, Methods(peer, session, "d1"))
        assert_takes_calls(shared, Methods(peer, session, "other"), "other")


def test_plain_of_a_device_takes_a_policys_token_that_covers_it(shared: RunningHub) -> None:
    token = shared.token("device", resource=f"{shared.address}/devices/d1")
    with AmqpPeer(shared) as peer:
        assert peer.sasl("PLAIN", plain("d1@sas.hub", token)) == 0
        assert_takes_calls(shared, Methods(peer, peer.open(), "d1"))
    for name, text in (("other@sas.hub", token), ("d1@sas.hub", shared.token("service"))):
        with AmqpPeer(shared) as peer:
            assert peer.sasl("PLAIN", plain(name, text)) == 1


@pytest.mark.parametrize(
    ("user", "token"),
    [
        ("d1@sas.hub", "other"),
        ("other@sas.hub", "d1"),
        ("d1", "d1"),
        ("d1@sas.hub", ""),
        ("nobody@sas.root.hub", "d1-of-nobody"),
    ],
)
def test_plain_that_does_not_hold_is_refused_with_outcome_1(shared: RunningHub, user: str, token: str) -> None:
    text = shared.device_token(token) if token in {"d1", "other"} else token
    with AmqpPeer(shared) as peer:
        assert peer.sasl("PLAIN", plain(user, text)) == 1
        assert peer.rest() == b""


@pytest.mark.parametrize(
    "message_id", [0, 1, 300, 2**63, "cbs0123456789abcdef", "", UUID(int=2**127 + 5), b"\0\1\2\3"], ids=repr
)
def test_the_reply_has_the_requests_id_in_its_own_type(shared: RunningHub, message_id: Any) -> None:
    """[HUB-cbs] And comes after the disposition, which one SDK waits for."""
    with AmqpPeer(shared) as peer:
        session = peer.open()
        cbs = peer.open_cbs(session)
        assert peer.claim(cbs, shared.device_token("d1"), message_id) == (200, "OK")
        assert not isinstance(message_id, ULong)


def test_the_reply_goes_to_the_receiver_that_the_request_names(shared: RunningHub) -> None:
    """One SDK names its reply address at random; CBS may have a session of its own, with the same link names."""
    with AmqpPeer(shared) as peer:
        peer.open()
        session = peer.begin(1)
        sender = peer.attach(session, "sender", "$cbs", "link", other="0f0f")
        named = peer.attach(session, "receiver", "$cbs", "link", other="0f0f")
        unnamed = peer.attach(session, "receiver", "$cbs", "another", other="another")
        for link in (named, unnamed):
            peer.give(link, 10)
        properties = {"operation": "put-token", "type": TOKEN_TYPE, "name": ""}
        body = AmqpValue(shared.device_token("d1"))
        peer.post(sender, Message(body, "1", reply_to="0f0f", application_properties=properties))
        assert is_accepted(peer.settled())
        assert peer.expect(0x14).field(0) == named.of_the_hub != unnamed.of_the_hub
        assert_takes_calls(shared, Methods(peer, session, "d1"))


def wrong_key(hub: RunningHub) -> str:
    return build_token(f"{hub.address}/devices/d1", b64encode(b"wrong").decode(), 4_000_000_000)


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (wrong_key, 401),
        (lambda hub: hub.device_token("d1", seconds=-301), 401),
        (lambda hub: hub.device_token("d1").replace(hub.address, "else.where"), 401),
        (lambda hub: "nonsense", 401),
        (lambda hub: "", 401),
        (lambda hub: hub.token("registryRead"), 401),
        (lambda hub: hub.device_token("d1").replace("d1", "d-none", 1), 404),
        (lambda hub: hub.device_token("d1", "m1").replace("m1", "m-none", 1), 404),
        (lambda hub: hub.device_token("off"), 404),
    ],
    ids=["key", "expired", "host", "form", "empty", "policy", "device", "module", "disabled"],
)
def test_a_token_that_does_not_hold_is_told_by_a_status(shared: RunningHub, token: Any, status: int) -> None:
    """[HUB-cbs] The connection stays: the next token may do."""
    with AmqpPeer(shared) as peer:
        session = peer.open()
        cbs = peer.open_cbs(session)
        assert peer.claim(cbs, token(shared))[0] == status
        assert peer.refused(session, "receiver", methods_address("d1")).condition == "amqp:unauthorized-access"
        assert peer.claim(cbs, shared.device_token("d1"))[0] == 200
        assert_takes_calls(shared, Methods(peer, session, "d1"))


@pytest.mark.parametrize(
    "changes", [{"operation": "get-token"}, {"type": "saml"}, {"type": None}, {"operation": 1}], ids=repr
)
def test_a_request_that_is_no_put_token_is_400(shared: RunningHub, changes: dict[str, Any]) -> None:
    """[HUB-cbs]"""
    with AmqpPeer(shared) as peer:
        cbs = peer.open_cbs(peer.open())
        assert peer.claim(cbs, shared.device_token("d1"), **changes)[0] == 400


@pytest.mark.parametrize("body", [None, b"data", AmqpValue(None), AmqpValue(7)])
def test_a_token_that_is_no_text_is_400(shared: RunningHub, body: Any) -> None:
    with AmqpPeer(shared) as peer:
        cbs = peer.open_cbs(peer.open())
        properties = {"operation": "put-token", "type": TOKEN_TYPE, "name": ""}
        peer.post(cbs[0], Message(body, 1, application_properties=properties))
        assert is_accepted(peer.settled())
        assert peer.message(cbs[1])[0].application_properties["status-code"] == 400


def test_a_message_that_is_none_is_rejected(shared: RunningHub) -> None:
    with AmqpPeer(shared) as peer:
        cbs = peer.open_cbs(peer.open())
        peer.post(cbs[0], b"\xff\xff\xff")
        outcome = peer.settled()
        assert outcome.descriptor == 0x25
        assert peer.claim(cbs, shared.device_token("d1"))[0] == 200


def test_replies_wait_for_credit(shared: RunningHub) -> None:
    with AmqpPeer(shared) as peer:
        session = peer.open()
        sender = peer.attach(session, "sender", "$cbs")
        receiver = peer.attach(session, "receiver", "$cbs")
        properties = {"operation": "put-token", "type": TOKEN_TYPE, "name": ""}
        for number in range(3):
            peer.post(sender, Message(AmqpValue("x"), number, application_properties=properties))
            assert is_accepted(peer.settled())
        peer.give(receiver, 10)
        assert [peer.message(receiver)[0].correlation_id for _ in range(3)] == [0, 1, 2]


def test_a_device_counts_as_connected_from_its_first_link_on(shared: RunningHub) -> None:
    with AmqpPeer(shared) as peer:
        session = peer.open()
        cbs = peer.open_cbs(session)
        peer.claim(cbs, shared.device_token("d1"))
        assert shared.on_loop(lambda: shared.hub.table.get(Target("d1"))) is None
        peer.attach(session, "sender", "/devices/d1/messages/events")
        assert shared.on_loop(lambda: shared.hub.table.get(Target("d1"))) is not None
    shared.until(lambda: shared.hub.table.get(Target("d1")) is None)


def test_frames_of_512_bytes_are_enough(shared: RunningHub) -> None:
    with AmqpDevice(shared, max_frame_size=512) as device:
        assert_takes_calls(shared, device.methods)
