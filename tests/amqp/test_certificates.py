"""Devices that prove themselves by a certificate over AMQP: no SASL or EXTERNAL, no token, links directly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.amqp.peers import AmqpPeer, Methods, methods_address
from tests.certificates import Issued, self_signed
from tests.harness import RunningHub
from tests.hub.peers import Caller
from tests.x509.peers import pin, put

UNAUTHORIZED = "amqp:unauthorized-access"

Dial = Callable[[], AmqpPeer]


@pytest.fixture
def issued() -> Issued:
    return self_signed("whoever")


@pytest.fixture
def dial(timed: RunningHub, issued: Issued, tmp_path: Path) -> Dial:
    """x1 is pinned to the certificate with which this connects; d1 has keys."""
    put(timed, "x1", pin(issued))
    timed.create_device("d1")
    certificate, key = (Path(name) for name in issued.files(tmp_path))
    return lambda: AmqpPeer(timed, (certificate, key))


def call(hub: RunningHub, methods: Methods, path: str) -> None:
    with Caller(hub) as caller:
        caller.send(caller.call(path))
        methods.answer(methods.request(), b"1")
        assert caller.response().body == b'{"status":200,"payload":1}'


@pytest.mark.parametrize("mechanism", [None, "EXTERNAL", "ANONYMOUS"])
def test_a_certificate_attaches_its_own_links_and_no_others(
    timed: RunningHub, dial: Dial, mechanism: str | None
) -> None:
    """[HUB-before-authentication]"""
    with dial() as peer:
        if mechanism:
            assert peer.sasl(mechanism) == 0
        session = peer.open()
        for address in (methods_address("d1"), methods_address("nobody"), "/messages/devicebound"):
            assert peer.refused(session, "sender", address).condition == UNAUTHORIZED
        call(timed, Methods(peer, session, "x1"), "x1")
        for channel in range(1, 10):
            peer.begin(channel)


def test_a_certificate_of_another_is_refused(timed: RunningHub, dial: Dial) -> None:
    put(timed, "x2", pin(self_signed("another")))
    with dial() as peer:
        assert peer.refused(peer.open(), "sender", methods_address("x2")).condition == UNAUTHORIZED


def test_a_token_stands_in_for_no_certificate(timed: RunningHub, dial: Dial) -> None:
    with AmqpPeer(timed) as peer:
        session = peer.open()
        assert peer.claim(peer.open_cbs(session), timed.token("device"))[0] == 200
        assert peer.refused(session, "sender", methods_address("x1")).condition == UNAUTHORIZED
        peer.attach(session, "sender", methods_address("d1"))


def test_a_token_beside_it_comes_and_goes_and_the_certificate_stays(timed: RunningHub, dial: Dial) -> None:
    """[HUB-one-of-many] [HUB-token-expired] A policy's token covers the device, but is not what let it in."""
    with dial() as peer:
        session = peer.open()
        by_certificate = Methods(peer, session, "x1")
        cbs = peer.open_cbs(session)
        assert peer.claim(cbs, timed.token("device", 100))[0] == 200
        call(timed, Methods(peer, session, "d1"), "d1")
        call(timed, by_certificate, "x1")
        timed.advance(401)
        assert [peer.detached().condition for _ in range(2)] == [UNAUTHORIZED] * 2
        call(timed, by_certificate, "x1")


def test_a_thumbprint_that_is_changed_ends_the_connection(timed: RunningHub, dial: Dial) -> None:
    with dial() as peer:
        Methods(peer, peer.open(), "x1")
        with timed.admin() as client:
            identity = client.get("/devices/x1").json() | {"authentication": pin(self_signed("another"))}
            client.put("/devices/x1", json=identity, headers={"If-Match": "*"}).raise_for_status()
        closed = peer.ended()
        assert closed is not None and closed.condition == UNAUTHORIZED
