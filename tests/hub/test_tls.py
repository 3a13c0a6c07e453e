"""The certificates of a running hub: what they carry, who accepts them, and their change without a restart."""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from methodhub.net.certificates import ensure_authority, ensure_server_certificate
from tests.clock import ManualClock
from tests.harness import RunningHub, new_address
from tests.hub.peers import NO_CHECK_TIME, Caller, Device

DAY = 86_400


def shown(hub: RunningHub, port: int, name: str = "") -> x509.Certificate:
    """The certificate of a new handshake on a port."""
    context = ssl.create_default_context(cafile=str(hub.ca_file))
    context.verify_flags |= NO_CHECK_TIME
    with (
        socket.create_connection((hub.address, port)) as raw,
        context.wrap_socket(raw, server_hostname=name or hub.address) as wrapped,
    ):
        der = wrapped.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def ports(hub: RunningHub) -> list[int]:
    assert hub.facts.https_port and hub.facts.mqtt_port
    return [hub.facts.https_port, hub.facts.mqtt_port]


@pytest.mark.parametrize("key_type", ["p256", "rsa"])
def test_the_certificate_carries_every_name_and_passes_strict_checks(tmp_path: Path, key_type: str) -> None:
    """DNS names, IPv4 and IPv6 addresses; both ports; TLS 1.2 and 1.3, older ones not; at most 397 days."""
    address = new_address()
    names = (address, "hub.example", "localhost", "::1")
    with RunningHub(tmp_path / "hub", address=address, hostname=names, certificate_key_type=key_type) as hub:
        for port in ports(hub):
            for name in names:
                for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                    context = ssl.create_default_context(cafile=str(hub.ca_file))
                    context.verify_flags |= ssl.VERIFY_X509_STRICT
                    context.minimum_version = context.maximum_version = version
                    with socket.create_connection((address, port)) as raw:
                        context.wrap_socket(raw, server_hostname=name).close()
            old = ssl.create_default_context(cafile=str(hub.ca_file))
            with pytest.warns(DeprecationWarning):
                old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
            with socket.create_connection((address, port)) as raw, pytest.raises(OSError):
                old.wrap_socket(raw, server_hostname=address)
            certificate = shown(hub, port, "hub.example")
            kind = {"p256": ec.EllipticCurvePublicKey, "rsa": rsa.RSAPublicKey}[key_type]
            assert isinstance(certificate.public_key(), kind)
            assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days <= 397


def test_any_name_of_the_hub_is_one_in_tokens_and_user_names(tmp_path: Path) -> None:
    """So an application that keeps its production HostName and dials another name works."""
    address = new_address()
    with RunningHub(tmp_path / "hub", address=address, hostname=(address, "prod.azure-devices.net")) as hub:
        hub.create_device("d1")
        with Caller(hub) as caller:
            caller.token = hub.token(resource="PROD.azure-devices.net")
            assert caller.invoke("d1").code == 404103
        hub.address = "prod.azure-devices.net"
        token = hub.device_token("d1")
        hub.address = address
        with Device(hub, "d1", token=token) as device:
            device.user_name = device.user_name.replace(address, "prod.azure-devices.net")
            assert device.connect() == (0, 0)


def check_certificate(hub: RunningHub, device: Device) -> None:
    """Let the hour pass after which the hub looks at its certificate, in steps that a keep-alive bears."""
    for _ in range(3):
        hub.advance(1_300)
        device.ping()
    hub.until(lambda: not hub.hub.background._tasks)


def test_the_certificate_is_renewed_without_a_restart(timed: RunningHub) -> None:
    """[HUB-certificate-renewal] When two thirds of its life are over; connections of before live on."""
    assert isinstance(timed.clock, ManualClock)
    timed.create_device("d1")
    before = [shown(timed, port) for port in ports(timed)]
    with Device(timed, "d1", token=timed.device_token("d1", seconds=DAY)) as device:
        assert device.connect() == (0, 0)
        device.subscribe()
        for days, same in ((260, True), (5, False)):
            timed.clock._wall += days * DAY
            check_certificate(timed, device)
            assert ([shown(timed, port) for port in ports(timed)] == before) == same
        with Caller(timed) as caller:
            caller.send(caller.call("d1"))
            device.answer(device.request())
            assert caller.response().status == 200
    renewed = [shown(timed, port) for port in ports(timed)]
    assert renewed[0] == renewed[1]
    assert (timed.settings.data_dir / "server-key.pem").stat().st_mode & 0o777 == 0o600


def issue(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate of an authority of the operator's own: its path and its key's."""
    directory.mkdir(exist_ok=True)
    now = ManualClock().wall()
    (directory / "server.pem").unlink(missing_ok=True)
    ensure_server_certificate(directory, ensure_authority(directory, now), [name], "p256", now)
    return directory / "server.pem", directory / "server-key.pem"


def test_the_operator_s_own_certificate_and_its_change(tmp_path: Path) -> None:
    """[HUB-certificate-renewal] Read again each hour; a pair that does not belong together leaves the old in use."""
    address = new_address()
    certificate, key = issue(tmp_path / "own", address)
    settings = {"certificate": certificate, "certificate_key": key}
    with RunningHub(tmp_path / "hub", ManualClock(), address=address, **settings) as hub:
        ca = tmp_path / "own" / "ca.pem"
        assert hub.ca_file == certificate
        hub.facts = replace(hub.facts, ca_file=ca)
        hub.create_device("d1")
        first = shown(hub, ports(hub)[0])
        assert not (hub.settings.data_dir / "server.pem").exists()
        with Device(hub, "d1", token=hub.device_token("d1", seconds=DAY)) as device:
            assert device.connect() == (0, 0)
            kept = key.read_bytes()
            issue(tmp_path / "own", address)
            second_key = key.read_bytes()
            key.write_bytes(kept)
            check_certificate(hub, device)
            assert [shown(hub, port) for port in ports(hub)] == [first, first]
            key.write_bytes(second_key)
            check_certificate(hub, device)
            assert first not in [shown(hub, port) for port in ports(hub)]
            device.ping()
