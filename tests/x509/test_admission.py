"""Which certificates let a device in over MQTT, and what the log says of those that do not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.certificates import CA, Issued, authority, self_signed
from tests.clock import ManualClock
from tests.harness import RunningHub
from tests.hub.peers import Caller
from tests.x509.peers import SAS, SIGNED, CertifiedDevice, pin, put

OWN = self_signed("anything")
SECOND = self_signed("anything")


def is_let_in(hub: RunningHub, name: str, issued: Issued) -> bool:
    with CertifiedDevice(hub, name, issued) as device:
        return device.connect() == (0, 0)


@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_either_thumbprint_by_either_digest(shared: RunningHub, digest: str) -> None:
    """[HUB-thumbprint] [HUB-credential]"""
    put(shared, "pinned", pin(OWN, SECOND, digest=digest))
    assert is_let_in(shared, "pinned", OWN)
    assert is_let_in(shared, "pinned", SECOND)
    assert not is_let_in(shared, "pinned", self_signed("anything"))
    put(shared, "pinned", pin(None, SECOND, digest=digest))
    assert is_let_in(shared, "pinned", SECOND)
    assert not is_let_in(shared, "pinned", OWN)


def test_any_issuer_will_do_for_a_thumbprint(shared: RunningHub, factory: Issued, pending: Issued) -> None:
    for issuer in (authority("Unknown"), factory, pending, authority().issue("Middle", CA)):
        issued = issuer.issue("whoever")
        put(shared, "pinned-by-others", pin(issued))
        assert is_let_in(shared, "pinned-by-others", issued)


@pytest.mark.parametrize("name", ["signed", "signed/module"])
def test_a_registered_ca_vouches(shared: RunningHub, factory: Issued, name: str) -> None:
    """[HUB-certificate-authority] For a module it is the whole name."""
    put(shared, "signed", SIGNED)
    put(shared, name, SIGNED)
    middle = factory.issue("Middle", CA).issue("Lower", CA)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    for issued in (factory.issue(name), factory.issue(name, usage), middle.issue(name)):
        assert is_let_in(shared, name, issued)


def test_a_device_with_a_certificate_takes_calls(shared: RunningHub) -> None:
    put(shared, "callee", pin(OWN))
    with CertifiedDevice(shared, "callee", OWN) as device, Caller(shared) as caller:
        assert device.connect() == (0, 0)
        assert device.subscribe() == [0]
        caller.send(caller.call("callee", "echo", {"a": 1}))
        request = device.request()
        device.answer(request, request.payload)
        assert caller.response().body == b'{"status":200,"payload":{"a":1}}'.replace(b'"a":1', b'"a": 1')


# --- the failure table -------------------------------------------------------------------------------------------

Make = Any


def refusals() -> list[Any]:
    """Case, how the identity proves itself, what it shows, the code, and what the log says."""
    server_only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return [
        ("none at all, pinned", pin(OWN), lambda f, p: None, 5, "neither a token in the password nor a client"),
        ("none at all, signed", SIGNED, lambda f, p: None, 5, "neither a token in the password nor a client"),
        ("another thumbprint", pin(OWN), lambda f, p: SECOND, 5, "neither the primary nor the secondary thumbprint"),
        ("another device", SIGNED, lambda f, p: f.issue("other"), 5, "the certificate is for 'other', not for 'd'"),
        ("another case", SIGNED, lambda f, p: f.issue("D"), 5, "the certificate is for 'D', not for 'd'"),
        ("a module of it", SIGNED, lambda f, p: f.issue("d/m"), 5, "the certificate is for 'd/m', not for 'd'"),
        ("no name", SIGNED, lambda f, p: f.issue([]), 5, "the certificate is for no common name"),
        ("expired, signed", SIGNED, lambda f, p: f.issue("d", days=(-9, -1)), 5, "the certificate expired on"),
        ("not yet valid, signed", SIGNED, lambda f, p: f.issue("d", days=(1, 9)), 5, "is not valid before"),
        ("an unknown CA", SIGNED, lambda f, p: authority("Factory").issue("d"), 5, "no registered CA vouches"),
        ("signed by itself", SIGNED, lambda f, p: self_signed("d"), 5, "no registered CA vouches"),
        ("an unverified CA", SIGNED, lambda f, p: p.issue("d"), 5, "no registered CA vouches"),
        ("a leaf that signs", SIGNED, lambda f, p: f.issue("x").issue("d"), 5, "invalid CA certificate"),
        ("an expired link", SIGNED, lambda f, p: f.issue("x", CA, days=(-9, -1)).issue("d"), 5, "expired"),
        ("not for clients", SIGNED, lambda f, p: f.issue("d", server_only), 5, "clientAuth"),
        ("an identity with keys", SAS, lambda f, p: f.issue("d"), 5, "proves itself by sas, not by a certificate"),
    ]


@pytest.mark.parametrize(("case", "authentication", "make", "code", "reason"), refusals())
def test_who_is_refused_and_what_the_log_says(
    shared: RunningHub,
    factory: Issued,
    pending: Issued,
    case: str,
    authentication: dict[str, Any],
    make: Make,
    code: int,
    reason: str,
) -> None:
    """[HUB-connack] The reason is in the log; the peer gets a number and the end."""
    put(shared, "d", authentication)
    with structlog.testing.capture_logs() as logs, CertifiedDevice(shared, "d", make(factory, pending)) as device:
        assert device.connect() == (0, code), case
        assert device.is_closed()
    (entry,) = [entry for entry in logs if entry["event"] == "connection refused"]
    assert reason in entry["reason"]
    assert "BEGIN" not in str(entry)


@pytest.mark.parametrize("days", [(-9, -1), (1, 9)])
def test_a_thumbprint_does_not_save_a_certificate_out_of_its_time(shared: RunningHub, days: tuple[int, int]) -> None:
    """[HUB-certificate-time]"""
    issued = self_signed("d", days=days)
    put(shared, "d", pin(issued))
    assert not is_let_in(shared, "d", issued)


def test_a_disabled_device_is_told_so_only_with_its_certificate(shared: RunningHub) -> None:
    """[HUB-connack]"""
    put(shared, "disabled", pin(OWN), status="disabled")
    for issued, code in ((OWN, 3), (SECOND, 5), (None, 5)):
        with CertifiedDevice(shared, "disabled", issued) as device:
            assert device.connect() == (0, code)


def test_a_token_is_judged_as_a_token_whatever_certificate_is_shown(shared: RunningHub) -> None:
    """[HUB-credential] [HUB-certificate-only]"""
    put(shared, "with-key", SAS)
    token = shared.device_token("with-key")
    with CertifiedDevice(shared, "with-key", OWN, token) as device:
        assert device.connect() == (0, 0)
    put(shared, "with-key", pin(OWN))
    policy_token = shared.token("device")
    for password in (token, policy_token, "x"):
        with CertifiedDevice(shared, "with-key", OWN, password) as device:
            assert device.connect() == (0, 5)
    with CertifiedDevice(shared, "with-key", OWN, "") as device:  # an empty password is none
        assert device.connect() == (0, 0)


def test_nothing_expires_while_a_device_is_connected(tmp_path: Path) -> None:
    """Its certificate counts when it connects (`wire/device.md` 1.6)."""
    issued = self_signed("d", days=(-1, 0.1))
    with RunningHub(tmp_path, ManualClock(wall=float(int(time.time())))) as hub:
        put(hub, "d", pin(issued))
        with CertifiedDevice(hub, "d", issued) as device:
            assert device.connect() == (0, 0)
            for _ in range(10):
                hub.advance(1_700)  # less than a keep-alive interval
                device.ping()
        assert not is_let_in(hub, "d", issued)
