"""What shows only when a hub has run for a while: certificates that are renewed, heads of requests that are known."""

from __future__ import annotations

import ssl

from cryptography import x509

from methodhub.core.access import generate_key
from methodhub.server import CERTIFICATE_CHECK_INTERVAL
from tests.clock import ManualClock
from tests.harness import RunningHub, no_cycles
from tests.hub.peers import Caller, Device, Peer, Response, ready_device

DAY = 86_400.0


def served_certificate(hub: RunningHub) -> x509.Certificate:
    assert hub.facts.https_port
    with Peer(hub, hub.facts.https_port) as peer:
        assert isinstance(peer.socket, ssl.SSLSocket)
        der = peer.socket.getpeercert(binary_form=True)
    assert der
    return x509.load_der_x509_certificate(der)


def test_the_certificate_is_renewed_without_a_restart(timed: RunningHub) -> None:
    """[HUB-certificate-renewal] Before it ends, by the same authority."""
    assert isinstance(timed.clock, ManualClock)
    first = served_certificate(timed)
    ca = timed.ca_file.read_bytes()
    lifetime = (first.not_valid_after_utc - first.not_valid_before_utc).total_seconds()
    timed.advance(DAY)
    timed.run(timed.hub.certificates.renew())
    assert served_certificate(timed) == first
    timed.clock.advance(lifetime - 3 * DAY)
    timed.run(timed.hub.certificates.renew())
    second = served_certificate(timed)
    assert second.issuer == first.issuer
    assert second.not_valid_after_utc > first.not_valid_after_utc
    assert timed.ca_file.read_bytes() == ca
    assert 0 < CERTIFICATE_CHECK_INTERVAL <= DAY


def invoke(caller: Caller, device: Device, request: bytes, payload: bytes) -> Response:
    caller.send(request)
    device.answer(device.request(), payload)
    return caller.response()


def test_a_head_that_is_known_is_authorized_as_long_as_its_token(timed: RunningHub) -> None:
    """[HUB-known-head] The same bytes again are the same call again, until the token has ended."""
    assert isinstance(timed.clock, ManualClock)
    timed.create_device("d1")
    with Caller(timed) as caller, ready_device(timed) as device:
        caller.token = timed.token("service", 3600)
        request = caller.call("d1")
        for number in range(3):
            assert invoke(caller, device, request, b"%d" % number).body == b'{"status":200,"payload":%d}' % number
        for seconds in (*[300] * 12, 299):
            timed.clock.advance(seconds)
            device.ping()  # one that is silent for so long is let go
        with Caller(timed) as late:
            assert invoke(late, device, request, b"1").status == 200
            timed.clock.advance(2)
            late.send(request)
            assert late.response().status == 401


def test_a_head_that_is_known_falls_with_its_policy(shared: RunningHub) -> None:
    """[HUB-known-head]"""
    shared.create_device("d1")
    with Caller(shared, "service") as caller, ready_device(shared) as device:
        request = caller.call("d1")
        for _ in range(3):
            assert invoke(caller, device, request, b"{}").status == 200
        policies = shared.hub.policies.all()
        changed = [
            type(policy)(policy.name, policy.rights, generate_key(), generate_key())
            if policy.name == "service"
            else policy
            for policy in policies
        ]
        shared.on_loop(lambda: shared.hub.policies.load(changed))
        caller.send(request)
        assert caller.response().status == 401


def test_a_head_that_is_known_takes_other_bodies(shared: RunningHub) -> None:
    """[HUB-known-head] Of the same length: checked as if the head were new."""
    with Caller(shared) as caller, ready_device(shared) as device:
        first = caller.call("d1", "a", 1)
        for _ in range(2):
            assert invoke(caller, device, first, b"{}").status == 200
        caller.send(first.replace(b'"methodName": "a"', b'"methodName": "b"'))
        request = device.request()
        assert request.name == "b"
        device.answer(request)
        assert caller.response().status == 200
        caller.send(first.replace(b'"methodName": "a"', b'"methodName": "#"'))
        assert caller.response().code == 400004


def test_calls_leave_nothing_for_the_collector(shared: RunningHub) -> None:
    """It would stop all calls for some 10 ms, again and again."""
    for device_id in ("calm", "away"):
        shared.create_device(device_id)
    with Caller(shared) as caller, ready_device(shared, "calm") as device:
        invoke(caller, device, caller.call("calm"), b"{}")
        with no_cycles(10):
            for _ in range(10):
                assert invoke(caller, device, caller.call("calm"), b"{}").status == 200
                assert caller.invoke("away").code == 404103
