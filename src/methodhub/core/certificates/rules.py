"""Judging the certificate that a device showed: by its thumbprint, or by its name, purpose and time where an authority
vouches for it (`wire/device.md` 1.4, 5.2). Knows no TLS and builds no chain."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha1, sha256

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from methodhub.core.access import AuthenticationError, CertificateCredential, matches_thumbprint
from methodhub.core.identity import Authentication, AuthenticationType, Target

VerifyChain = Callable[[Sequence[bytes], Sequence[bytes], float], bytes]
"""(chain, authorities, now) -> the authority that the chain leads to. All DER, the chain with its leaf first; `now` in
seconds since 1970. Raises AuthenticationError."""


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """A CA that the operator registered. It vouches for devices once it is `verified`; until then a certificate with
    `verification_code` for its common name, signed with the CA's key, proves that the operator holds that key."""

    name: str
    pem: str
    verified: bool
    verification_code: str = ""
    """Empty once it is verified."""


def check_certificate(
    chain: Sequence[bytes],
    target: Target,
    authentication: Authentication,
    vouch: Callable[[Sequence[bytes]], bytes],
    now: float,
) -> CertificateCredential:
    """The credential by which a chain (DER, leaf first) lets the identity connect. `vouch` names the authority that a
    chain leads to. Raises AuthenticationError, whose text is for the log.
    """
    kind = authentication.type
    if not chain:
        raise AuthenticationError("there is no client certificate")
    if not kind.is_certificate:
        raise AuthenticationError(f"the identity proves itself by {kind.value}, not by a certificate")
    leaf = read_certificate(chain[0])
    check_time(leaf, now)
    shown = CertificateCredential(sha1(chain[0]).digest(), sha256(chain[0]).digest())  # noqa: S324 - the wire has both
    if kind is AuthenticationType.SELF_SIGNED:
        if not matches_thumbprint(shown, authentication):
            raise AuthenticationError("the certificate has neither the primary nor the secondary thumbprint")
        return shown
    check_name(leaf, str(target))
    check_purpose(leaf)
    return CertificateCredential(shown.sha1, shown.sha256, vouch(chain))


def read_certificate(der: bytes) -> x509.Certificate:
    """Raises AuthenticationError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about common names above 64 characters: ids may have 128
            certificate = x509.load_der_x509_certificate(der)
            _ = certificate.subject, certificate.extensions  # are parsed only now
    except (ValueError, TypeError, x509.DuplicateExtension) as error:
        raise AuthenticationError(f"the certificate cannot be read: {error}") from None
    return certificate


def common_names(certificate: x509.Certificate) -> list[str]:
    return [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def check_name(leaf: x509.Certificate, wanted: str) -> None:
    """[HUB-common-name] The one common name is the identity, to the letter: a module's is `device/module`."""
    names = common_names(leaf)
    if names != [wanted]:
        shown = " and ".join(repr(name[:260]) for name in names[:3]) or "no common name"
        raise AuthenticationError(f"the certificate is for {shown}, not for {wanted!r}")


def check_purpose(leaf: x509.Certificate) -> None:
    """[HUB-client-purpose] A certificate that says what it is for must be for this; a plain one says nothing."""
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usage:
        raise AuthenticationError("the certificate is not for authentication of a client (clientAuth)")


def check_time(certificate: x509.Certificate, now: float) -> None:
    """[HUB-certificate-time] `now`: seconds since 1970."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    if moment < certificate.not_valid_before_utc:
        raise AuthenticationError(f"the certificate is not valid before {certificate.not_valid_before_utc:%F %T} UTC")
    if moment > certificate.not_valid_after_utc:
        raise AuthenticationError(f"the certificate expired on {certificate.not_valid_after_utc:%F %T} UTC")
