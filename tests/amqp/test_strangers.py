"""Peers that are no devices: before the first accepted credential next to nothing is theirs, and whatever they send
ends at most their own connection."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

import pytest

from methodhub.iothub import amqp as dialect
from methodhub.wire.amqp import frames
from methodhub.wire.amqp.codec import describe, encode, encode_fields
from methodhub.wire.amqp.messages import AmqpValue, Message
from methodhub.wire.amqp.protocol import STRANGER_LINKS, STRANGER_SESSIONS
from methodhub.wire.amqp.sasl import AMQP_HEADER, SASL_HEADER
from tests.amqp.peers import AmqpDevice, AmqpPeer, is_accepted, methods_address
from tests.harness import RunningHub
from tests.hub.peers import Caller
from tests.wire.amqp.peer import attach, begin, open_frame

UNAUTHORIZED = "amqp:unauthorized-access"
SEED = 20260102


@pytest.fixture(scope="module", autouse=True)
def identities(shared: RunningHub) -> None:
    shared.create_device("d1")


def assert_well(hub: RunningHub) -> None:
    with AmqpDevice(hub) as device, Caller(hub) as caller:
        caller.send(caller.call("d1"))
        device.methods.answer(device.methods.request())
        assert caller.response().status == 200
    hub.until(lambda: not len(hub.hub.table) and not hub.hub.methods.open)


def test_so_many_sessions_and_no_more(shared: RunningHub) -> None:
    """[HUB-before-authentication]"""
    with AmqpPeer(shared) as peer:
        peer.open()
        for channel in range(1, STRANGER_SESSIONS):
            peer.begin(channel)
        peer.send(begin(STRANGER_SESSIONS))
        closed = peer.ended()
        assert closed is not None and closed.condition == "amqp:resource-limit-exceeded"


def test_so_many_links_and_no_more(shared: RunningHub) -> None:
    """[HUB-before-authentication]"""
    with AmqpPeer(shared) as peer:
        session = peer.open()
        for _ in range(STRANGER_LINKS):
            peer.attach(session, "sender", "$cbs")
        peer.ask_attach(session, "sender", "$cbs")
        closed = peer.ended()
        assert closed is not None and closed.condition == "amqp:resource-limit-exceeded"


@pytest.mark.parametrize(
    "address", [methods_address("d1"), "/devices/d1/messages/events", "/devices/nobody/twin", "/messages/devicebound"]
)
@pytest.mark.parametrize("role", ["sender", "receiver"])
def test_cbs_alone_attaches(shared: RunningHub, address: str, role: str) -> None:
    """[HUB-before-authentication] And a stranger does not learn which devices there are."""
    with AmqpPeer(shared) as peer:
        session = peer.open()
        assert peer.refused(session, role, address).condition == UNAUTHORIZED
        peer.open_cbs(session)


def test_a_token_lifts_the_limits(shared: RunningHub) -> None:
    """[HUB-before-authentication]"""
    with AmqpDevice(shared) as device:
        for channel in range(1, 60):
            session = device.begin(channel)
            device.attach(session, "sender", "/devices/d1/messages/events")
        device.round_trip()


def test_a_connection_has_links_for_a_thousand_identities(shared: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six each, at most; and they are counted."""
    assert dialect.MAX_LINKS > 6 * dialect.MAX_PUT_TOKEN_IDENTITIES
    assert dialect.MAX_SESSIONS > dialect.MAX_PUT_TOKEN_IDENTITIES
    monkeypatch.setattr(dialect, "MAX_LINKS", 100)
    with AmqpDevice(shared) as device:
        for _ in range(96):
            device.attach(device.session, "sender", "/devices/d1/messages/events")
        device.ask_attach(device.session, "sender", "/devices/d1/messages/events")
        closed = device.ended()
        assert closed is not None and closed.condition == "amqp:resource-limit-exceeded"
    assert_well(shared)


WRONG_IDS = [b"\x54\xff", b"\x55\xff", b"\x81" + b"\xff" * 8]
"""Integers below zero."""


@pytest.mark.parametrize("kind", [["a"], {"a": 1}, 1, None])
def test_a_token_of_a_wrong_type_is_refused_and_no_more(shared: RunningHub, kind: object) -> None:
    with AmqpPeer(shared) as peer:
        cbs = peer.open_cbs(peer.open())
        properties = {"operation": "put-token", "type": kind, "name": "x"}
        peer.post(cbs[0], Message(AmqpValue("x"), 1, application_properties=properties))
        assert is_accepted(peer.settled())
        assert peer.message(cbs[1])[0].application_properties["status-code"] == 400
        assert peer.claim(cbs, shared.device_token("d1")) == (200, "OK")


@pytest.mark.parametrize("message_id", WRONG_IDS)
def test_a_request_with_a_wrong_id_is_rejected_and_no_more(shared: RunningHub, message_id: bytes) -> None:
    with AmqpPeer(shared) as peer:
        cbs = peer.open_cbs(peer.open())
        peer.post(cbs[0], describe(0x73, encode_fields([message_id])) + describe(0x77, encode("x")))
        assert not is_accepted(peer.settled())
        assert peer.claim(cbs, shared.device_token("d1")) == (200, "OK")


def test_a_device_that_says_its_token_and_never_opens_is_dropped(timed: RunningHub) -> None:
    """[HUB-before-authentication]"""
    timed.create_device("d1")
    with AmqpPeer(timed) as peer:
        assert peer.sasl("PLAIN", f"\0d1@sas.hub\0{timed.device_token('d1')}".encode()) == 0
        timed.advance(60)
        assert peer.rest() == b""


def test_whoever_sends_64_kb_without_a_credential_is_dropped(shared: RunningHub) -> None:
    """[HUB-before-authentication]"""
    with AmqpPeer(shared) as peer:
        peer.open()
        try:
            for _ in range(64 * 1024 // len(frames.HEARTBEAT) + 1_000):
                peer.send(frames.HEARTBEAT)
            while peer.frame() is not None:
                pass
        except OSError:
            pass  # the hub was quicker
    assert_well(shared)


@pytest.mark.parametrize("stage", ["nothing", "header", "sasl", "open", "cbs"])
def test_a_silent_peer_is_dropped(timed: RunningHub, stage: str) -> None:
    """[HUB-before-authentication] However far it came without a credential."""
    with AmqpPeer(timed) as peer:
        if stage == "header":
            peer.send(AMQP_HEADER)
            assert peer.header() == AMQP_HEADER
        elif stage == "sasl":
            peer.send(SASL_HEADER)
            assert peer.header() == SASL_HEADER
            peer.expect(0x40)
        elif stage in {"open", "cbs"}:
            session = peer.open()
            if stage == "cbs":
                peer.open_cbs(session)
        timed.advance(60)
        assert peer.rest() == b""


def test_a_device_that_falls_silent_is_dropped_after_eight_minutes(timed: RunningHub) -> None:
    timed.create_device("d1")
    with AmqpDevice(timed) as device:
        timed.advance(479)
        device.round_trip()
        timed.advance(479)
        device.round_trip()
        timed.advance(481)
        assert device.ended() is None  # no CLOSE
    timed.until(lambda: not len(timed.hub.table))


def test_heartbeats_come_at_half_of_what_the_peer_announced(timed: RunningHub) -> None:
    with AmqpPeer(timed) as peer:
        peer.open(idle=10_000)
        timed.advance(5.1)
        assert peer.read(8) == frames.HEARTBEAT
        timed.advance(5.1)
        assert peer.read(8) == frames.HEARTBEAT


def nothing(peer: AmqpPeer) -> None:
    pass


def header(peer: AmqpPeer) -> None:
    peer.send(AMQP_HEADER)
    peer.header()


def sasl(peer: AmqpPeer) -> None:
    peer.send(SASL_HEADER)
    peer.header()


def opened(peer: AmqpPeer) -> None:
    peer.send(AMQP_HEADER + open_frame())
    peer.header()


def begun(peer: AmqpPeer) -> None:
    peer.open()


def claims(peer: AmqpPeer) -> None:
    peer.open_cbs(peer.open())


def claimed(peer: AmqpPeer) -> None:
    cbs = peer.open_cbs(peer.open())
    peer.claim(cbs, peer.hub.device_token("d1"))


def attached(peer: AmqpPeer) -> None:
    claimed(peer)
    peer.send(attach(0, 50, "x", "sender", None, methods_address("d1")))


@pytest.mark.parametrize("stage", [nothing, header, sasl, opened, begun, claims, claimed, attached])
def test_random_bytes_after_each_stage(shared: RunningHub, stage: Callable[[AmqpPeer], None]) -> None:
    source = random.Random(SEED)
    for length in (1, 7, 8, 9, 50, 1_000, 70_000):
        for framed in (False, True):
            with AmqpPeer(shared) as peer:
                stage(peer)
                data = source.randbytes(length)
                if framed:  # past the check of the frame's size
                    data = (length + 8).to_bytes(4) + b"\x02\x00\x00\x00" + data
                try:
                    peer.send(data)
                    peer.socket.shutdown(socket.SHUT_WR)
                    peer.rest()
                except OSError:
                    pass  # the hub was quicker
    assert_well(shared)


@pytest.mark.parametrize("flips", [1, 3])
def test_a_good_dialogue_with_a_few_bytes_changed(shared: RunningHub, flips: int) -> None:
    """Deep inside frames that begin well."""
    source = random.Random(SEED)
    good = (
        open_frame() + begin(0) + attach(0, 0, "a", "sender", "x", "$cbs") + attach(0, 1, "b", "receiver", "$cbs", "x")
    )
    for _ in range(60):
        data = bytearray(good)
        for _ in range(flips):
            data[source.randrange(len(data))] = source.randrange(256)
        with AmqpPeer(shared) as peer:
            try:
                peer.send(AMQP_HEADER + bytes(data))
                peer.socket.shutdown(socket.SHUT_WR)
                peer.rest()
            except OSError:
                pass  # the hub was quicker
    assert_well(shared)
