"""The hub's own authority and server certificate: made on first start, kept in files, renewed in time; or the
operator's, read. Knows no TLS context and no clock."""

from __future__ import annotations

import datetime
import ipaddress
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KeyType = Literal["p256", "rsa"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

AUTHORITY_DAYS = 3_650
SERVER_DAYS = 397
"""The longest life that clients of today take."""

_BACKDATED = datetime.timedelta(hours=24)
"""Devices with a slow clock must not find the certificate of a new hub not yet valid."""


class CertificateError(Exception):
    """A certificate or key cannot be used; the text names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class Authority:
    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """`chain_pem`: leaf first. `not_before`, `not_after`: seconds since 1970."""

    chain_pem: bytes
    key_pem: bytes
    not_before: float
    not_after: float


def renewal_due(certificate: ServerCertificate, now: float) -> bool:
    """Less than a third of its life is left. `now`: seconds since 1970."""
    return certificate.not_after - now < (certificate.not_after - certificate.not_before) / 3


def ensure_authority(directory: Path, now: float) -> Authority:
    """The authority kept in `directory` (ca.pem, ca-key.pem), made at the first time, for ten years.

    Raises CertificateError: the key is lost, a file cannot be read, both do not belong together, it has expired.
    """
    certificate_path, key_path = directory / "ca.pem", directory / "ca-key.pem"
    if certificate_path.exists() and not key_path.exists():
        raise CertificateError(
            f"the key of the authority is lost: {certificate_path} is there, {key_path} is not. Put the key back from "
            f"a backup; or remove {certificate_path} to make a new authority, which every device and back end must "
            "then be told to trust."
        )
    if key_path.exists():
        key_path.chmod(0o600)  # [HUB-file-modes] a restored copy may have lost its mode
        key = _read_key(key_path)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        _write(key_path, _key_pem(key), 0o600)
    if not certificate_path.exists():  # also after a crash between the two writes
        _write(certificate_path, _make_authority(key, now).public_bytes(Encoding.PEM), 0o644)
    certificate = _read_chain(certificate_path)[0]
    if not _belongs(certificate, key):
        raise CertificateError(f"{key_path} is not the key of {certificate_path}. Put the pair back from one backup.")
    if certificate.not_valid_after_utc.timestamp() <= now:
        raise CertificateError(
            f"the authority in {certificate_path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}. Remove it to "
            "make a new one, which every device and back end must then be told to trust."
        )
    return Authority(certificate, key)


def read_authority(directory: Path) -> Authority | None:
    """The one in `directory`; None if there is none. Raises CertificateError."""
    certificate_path, key_path = directory / "ca.pem", directory / "ca-key.pem"
    if not certificate_path.exists() or not key_path.exists():
        return None
    return Authority(_read_chain(certificate_path)[0], _read_key(key_path))


def authority_text(authority: Authority) -> bytes:
    """Certificate and key in PEM, one after the other: what nodes of one hub share."""
    return authority.pem + _key_pem(authority.key)


def install_authority(directory: Path, text: bytes) -> bool:
    """Make the authority of this text (`authority_text`) that of the directory. True if another one was there: it is
    kept, with `.former` behind the names of its files.

    Raises CertificateError: the text is none; OSError.
    """
    start = text.find(b"-----BEGIN PRIVATE KEY-----")
    try:
        [certificate] = x509.load_pem_x509_certificates(text[:start])
        key = load_pem_private_key(text[start:], None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError("it is no authority: a certificate and its key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or not _belongs(certificate, key):
        raise CertificateError("its key and its certificate do not belong together")
    authority = Authority(certificate, key)
    certificate_path, key_path = directory / "ca.pem", directory / "ca-key.pem"
    replaces = certificate_path.exists()
    if replaces and _read_chain(certificate_path)[0] == certificate and key_path.exists():
        return False
    for path in (certificate_path, key_path):
        if path.exists():
            path.replace(path.with_name(f"{path.name}.former"))
    _write(key_path, _key_pem(key), 0o600)
    _write(certificate_path, authority.pem, 0o644)
    return replaces


def ensure_server_certificate(
    directory: Path, authority: Authority, names: Sequence[str], key_type: KeyType, now: float
) -> ServerCertificate:
    """The certificate kept in `directory` (server.pem, server-key.pem) if it still serves, else a new one.

    `names`: the host names and IP addresses that the hub answers to. A new one is issued when there is none, it
    cannot be read, names, key type or authority have changed, or renewal is due. Raises CertificateError, OSError.
    """
    if not names:
        raise CertificateError("a server certificate needs at least one host name")
    wanted = [_general_name(name) for name in dict.fromkeys(names)]
    certificate_path, key_path = directory / "server.pem", directory / "server-key.pem"
    if key_path.exists():
        key_path.chmod(0o600)
    kept = _kept(certificate_path, key_path, authority, wanted, key_type)
    if kept is not None and not renewal_due(kept, now):
        return kept
    key: PrivateKey
    if key_type == "rsa":
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    leaf = _make_leaf(key, authority, wanted, now)
    # A crash between the two leaves a pair that does not match: the next start issues again.
    _write(key_path, _key_pem(key), 0o600)
    _write(certificate_path, leaf.public_bytes(Encoding.PEM), 0o644)
    return _server_certificate([leaf], key)


def load_operator_certificate(certificate_path: Path, key_path: Path) -> ServerCertificate:
    """The operator's own chain (PEM, leaf first) and key (PEM, not encrypted). Raises CertificateError."""
    chain = _read_chain(certificate_path)
    key = _read_key(key_path)
    if not _belongs(chain[0], key):
        raise CertificateError(
            f"{key_path} is not the key of the first certificate in {certificate_path}: the server's certificate must "
            "come first, then those that issued it."
        )
    return _server_certificate(chain, key)


def _kept(
    certificate_path: Path,
    key_path: Path,
    authority: Authority,
    wanted: list[x509.GeneralName],
    key_type: KeyType,
) -> ServerCertificate | None:
    """What the files hold, if it is what is wanted."""
    try:
        chain, key = _read_chain(certificate_path), _read_key(key_path)
        leaf = chain[0]
        leaf.verify_directly_issued_by(authority.certificate)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (CertificateError, InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return None
    right_type = isinstance(key, rsa.RSAPrivateKey if key_type == "rsa" else ec.EllipticCurvePrivateKey)
    if right_type and _belongs(leaf, key) and set(names) == set(wanted):
        return _server_certificate(chain, key)
    return None


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(name.lower().encode("idna").decode())
    except ValueError as error:
        raise CertificateError(f"{name!r} is neither a host name nor an IP address") from error


def _validity(
    builder: x509.CertificateBuilder, now: float, days: int, at_most: datetime.datetime | None = None
) -> x509.CertificateBuilder:
    start = datetime.datetime.fromtimestamp(int(now), datetime.UTC) - _BACKDATED
    end = start + datetime.timedelta(days=days)
    if at_most is not None:
        end = min(end, at_most)
    return builder.not_valid_before(start).not_valid_after(end)


def _usage(*, signs_certificates: bool, encipherment: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _make_authority(key: PrivateKey, now: float) -> x509.Certificate:
    # The serial in the name tells two hubs' authorities apart in one trust store.
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"MethodHub CA {serial % 0x1000000:06x}")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True, encipherment=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _validity(builder, now, AUTHORITY_DAYS).sign(key, hashes.SHA256())


def _make_leaf(key: PrivateKey, authority: Authority, names: list[x509.GeneralName], now: float) -> x509.Certificate:
    issuer = authority.certificate
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    common_name = str(names[0].value)[:64]  # the most that X.520 allows; clients read the alternative names
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False, encipherment=isinstance(key, rsa.RSAPrivateKey)), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return _validity(builder, now, SERVER_DAYS, issuer.not_valid_after_utc).sign(authority.key, hashes.SHA256())


def _server_certificate(chain: list[x509.Certificate], key: PrivateKey) -> ServerCertificate:
    return ServerCertificate(
        chain_pem=b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain),
        key_pem=_key_pem(key),
        not_before=chain[0].not_valid_before_utc.timestamp(),
        not_after=chain[0].not_valid_after_utc.timestamp(),
    )


def _belongs(certificate: x509.Certificate, key: PrivateKey) -> bool:
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


_T = TypeVar("_T")


def _read(path: Path, what: str, parse: Callable[[bytes], _T]) -> _T:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return parse(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{path} holds no {what} in PEM: {error}") from error


def _read_chain(path: Path) -> list[x509.Certificate]:
    return _read(path, "certificate", x509.load_pem_x509_certificates)


def _read_key(path: Path) -> PrivateKey:
    try:
        key = _read(path, "private key", lambda data: load_pem_private_key(data, None))
    except TypeError as error:
        raise CertificateError(f"{path} is encrypted; the hub needs a key without a pass phrase") from error
    if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        return key
    raise CertificateError(f"{path} holds a key of another kind than RSA or elliptic curve")


def _write(path: Path, data: bytes, mode: int) -> None:
    """All or nothing, and on the disk when it returns."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
