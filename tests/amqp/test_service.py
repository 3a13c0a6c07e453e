"""A back end that opens AMQP before it calls over HTTPS: its links attach, and what it sends to devices is rejected."""

from __future__ import annotations

import pytest

from methodhub.wire.amqp.messages import Message
from tests.amqp.peers import AmqpPeer
from tests.harness import RunningHub

SEND = "/messages/devicebound"
FEEDBACK = "/messages/serviceBound/feedback"


@pytest.mark.parametrize("start", ["cbs", "plain"])
@pytest.mark.parametrize("policy", ["service", "iothubowner"])
def test_a_back_end_opens(shared: RunningHub, policy: str, start: str) -> None:
    with AmqpPeer(shared) as peer:
        token = shared.token(policy)
        if start == "plain":
            assert peer.sasl("PLAIN", f"\0{policy}@sas.root.hub\0{token}".encode()) == 0
        session = peer.open()
        if start == "cbs":
            assert peer.claim(peer.open_cbs(session), token) == (200, "OK")
        feedback = peer.attach(session, "receiver", FEEDBACK)
        peer.give(feedback, 100)
        peer.attach(session, "receiver", "/messages/serviceBound/filenotifications")
        sender = peer.attach(session, "sender", SEND)
        peer.post(sender, Message(b"hello", to="/devices/d1/messages/devicebound"))
        outcome = peer.settled()
        assert outcome.descriptor == 0x25
        assert outcome.value[0].value[0] == "amqp:not-implemented"


@pytest.mark.parametrize("policy", ["registryRead", "registryReadWrite"])
def test_a_policy_that_may_neither_call_nor_connect_is_refused(shared: RunningHub, policy: str) -> None:
    with AmqpPeer(shared) as peer:
        assert peer.claim(peer.open_cbs(peer.open()), shared.token(policy))[0] == 401


def test_a_devices_policy_is_no_back_end_and_a_back_ends_no_device(shared: RunningHub) -> None:
    shared.create_device("d1")
    for policy, open_to in (("device", "/devices/d1/messages/events"), ("service", SEND)):
        with AmqpPeer(shared) as peer:
            session = peer.open()
            assert peer.claim(peer.open_cbs(session), shared.token(policy))[0] == 200
            for address in ("/devices/d1/messages/events", SEND):
                if address == open_to:
                    peer.attach(session, "sender", address)
                else:
                    refused = peer.refused(session, "sender", address)
                    assert refused.condition == "amqp:unauthorized-access"
