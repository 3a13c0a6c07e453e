"""Devices' certificates for tests: authorities, intermediates and leaves, as plain or as odd as a test wants them."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

CA = x509.BasicConstraints(ca=True, path_length=None)


@dataclass(frozen=True)
class Issued:
    """A certificate, its key, and the certificates above it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def chain(self) -> tuple[bytes, ...]:
        """What a peer shows that leaves the topmost authority out."""
        return (self.der, *(each.public_bytes(Encoding.DER) for each in self.above))

    @property
    def chain_pem(self) -> str:
        return self.pem + "".join(each.public_bytes(Encoding.PEM).decode() for each in self.above)

    @property
    def sha1(self) -> str:
        return sha1(self.der).hexdigest()

    @property
    def sha256(self) -> str:
        return sha256(self.der).hexdigest()

    def files(self, directory: Path) -> tuple[str, str]:
        """Paths of the chain and of its key."""
        chain, key = directory / f"{self.sha1}.pem", directory / f"{self.sha1}-key.pem"
        chain.write_text(self.chain_pem)
        key.write_text(self.key_pem)
        return str(chain), str(key)

    def issue(
        self,
        name: str | Sequence[str],
        *extensions: x509.ExtensionType,
        days: tuple[float, float] = (-1, 30),
        now: float | None = None,
    ) -> Self:
        """Sign a certificate for this name (or names) and with these extensions only. `days`: its validity, from
        `now`, in seconds since 1970."""
        above = () if self.certificate.subject == self.certificate.issuer else (self.certificate, *self.above)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = build(name, extensions, days, now, key, self.certificate.subject, self.key)
        return type(self)(certificate, key, above)


def self_signed(
    name: str | Sequence[str],
    *extensions: x509.ExtensionType,
    days: tuple[float, float] = (-1, 30),
    now: float | None = None,
) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    return Issued(build(name, extensions, days, now, key, None, key), key)


def authority(name: str = "Test CA", *, days: tuple[float, float] = (-1, 30), now: float | None = None) -> Issued:
    return self_signed(name, CA, days=days, now=now)


def build(
    name: str | Sequence[str],
    extensions: Sequence[x509.ExtensionType],
    days: tuple[float, float],
    now: float | None,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    names = [name] if isinstance(name, str) else name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about names above 64 characters
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each, _validate=False) for each in names])
    start = datetime.datetime.now(datetime.UTC) if now is None else datetime.datetime.fromtimestamp(now, datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start + datetime.timedelta(days=days[0]))
        .not_valid_after(start + datetime.timedelta(days=days[1]))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(issuer_key, hashes.SHA256())
