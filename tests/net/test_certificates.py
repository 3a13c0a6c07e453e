"""The hub's own authority and certificate: what they hold, when they are made again, what is said if they cannot be."""

from __future__ import annotations

import ssl
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from methodhub.net.certificates import (
    CertificateError,
    KeyType,
    ServerCertificate,
    ensure_authority,
    ensure_server_certificate,
    load_operator_certificate,
    renewal_due,
)

NOW = time.time()
DAY = 86_400.0
NAMES = ["127.0.0.1", "localhost", "hub.example.com", "::1"]


def issue(directory: Path, names: list[str] = NAMES, key_type: KeyType = "p256", now: float = NOW) -> ServerCertificate:
    return ensure_server_certificate(directory, ensure_authority(directory, now), names, key_type, now)


@pytest.mark.parametrize("key_type", ["p256", "rsa"])
def test_strict_verification_for_every_name(tmp_path: Path, key_type: KeyType) -> None:
    issue(tmp_path, key_type=key_type)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server-key.pem")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    for name in NAMES:
        shake_hands(server, client, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client, "other.example.com")


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    for side in (theirs, ours, theirs, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def test_what_they_hold(tmp_path: Path) -> None:
    authority = ensure_authority(tmp_path, NOW)
    leaf = x509.load_pem_x509_certificate(issue(tmp_path).chain_pem)
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert life.days <= 397
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert 3_600 < (authority.certificate.not_valid_after_utc.timestamp() - NOW) / DAY < 3_651
    leaf.verify_directly_issued_by(authority.certificate)
    rsa_leaf = x509.load_pem_x509_certificate(issue(tmp_path, key_type="rsa").chain_pem)
    key = rsa_leaf.public_key()
    assert isinstance(key, rsa.RSAPublicKey) and key.key_size == 2_048


def test_files_are_kept_and_keys_are_the_owners_alone(tmp_path: Path) -> None:
    first = issue(tmp_path)
    assert issue(tmp_path) == first
    assert issue(tmp_path, names=list(reversed(NAMES))) == first
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600, "server.pem": 0o644, "server-key.pem": 0o600}


def test_issued_again_when_something_changed(tmp_path: Path) -> None:
    first = issue(tmp_path)
    assert issue(tmp_path, names=[*NAMES, "new.example.com"]) != first
    second = issue(tmp_path)
    assert issue(tmp_path, key_type="rsa") != second
    third = issue(tmp_path)
    (tmp_path / "server.pem").write_text("not a certificate")
    fourth = issue(tmp_path)
    assert fourth != third
    for name in ("ca.pem", "ca-key.pem"):
        (tmp_path / name).unlink()
    assert issue(tmp_path) != fourth


def test_renewed_when_a_third_of_its_life_is_left(tmp_path: Path) -> None:
    first = issue(tmp_path)
    edge = first.not_after - (first.not_after - first.not_before) / 3
    assert not renewal_due(first, edge - 1)
    assert issue(tmp_path, now=edge - 1) == first
    assert renewal_due(first, edge + 1)
    renewed = issue(tmp_path, now=edge + 1)
    assert renewed.not_after > first.not_after
    assert not renewal_due(renewed, edge + 1)


def test_a_leaf_does_not_outlive_its_authority(tmp_path: Path) -> None:
    authority = ensure_authority(tmp_path, NOW)
    end = authority.certificate.not_valid_after_utc.timestamp()
    assert issue(tmp_path, now=end - 30 * DAY).not_after == end
    with pytest.raises(CertificateError, match="expired on"):
        ensure_authority(tmp_path, end + 1)


def test_a_lost_key_of_the_authority(tmp_path: Path) -> None:
    issue(tmp_path)
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(CertificateError, match=r"key of the authority is lost: .*ca\.pem is there"):
        ensure_authority(tmp_path, NOW)


def test_a_crash_between_key_and_certificate(tmp_path: Path) -> None:
    key = ensure_authority(tmp_path, NOW).key
    (tmp_path / "ca.pem").unlink()
    assert ensure_authority(tmp_path, NOW).key.private_numbers() == key.private_numbers()
    issue(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    issue(other)
    (tmp_path / "server-key.pem").write_bytes((other / "server-key.pem").read_bytes())
    issued = issue(tmp_path)
    assert load_operator_certificate(tmp_path / "server.pem", tmp_path / "server-key.pem") == issued
    (tmp_path / "ca-key.pem").write_bytes((other / "ca-key.pem").read_bytes())
    with pytest.raises(CertificateError, match="is not the key of"):
        ensure_authority(tmp_path, NOW)


def test_the_operators_own(tmp_path: Path) -> None:
    issued = issue(tmp_path)
    certificate, key = tmp_path / "server.pem", tmp_path / "server-key.pem"
    chain = tmp_path / "chain.pem"
    chain.write_bytes(issued.chain_pem + (tmp_path / "ca.pem").read_bytes())
    assert load_operator_certificate(chain, key).chain_pem == chain.read_bytes()
    with pytest.raises(CertificateError, match=r"missing\.pem cannot be read: No such file"):
        load_operator_certificate(tmp_path / "missing.pem", key)
    with pytest.raises(CertificateError, match=r"server-key\.pem holds no certificate in PEM"):
        load_operator_certificate(key, key)
    with pytest.raises(CertificateError, match=r"server\.pem holds no private key in PEM"):
        load_operator_certificate(certificate, certificate)
    with pytest.raises(CertificateError, match=r"ca-key\.pem is not the key of the first certificate"):
        load_operator_certificate(certificate, tmp_path / "ca-key.pem")
    secret = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    with pytest.raises(CertificateError, match="is encrypted"):
        load_operator_certificate(certificate, key)


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="at least one"):
        issue(tmp_path, names=[])
    with pytest.raises(CertificateError, match="neither a host name nor"):
        issue(tmp_path, names=["a" * 64 + ".example.com"])
