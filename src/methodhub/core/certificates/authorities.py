"""The certificate authorities whose signature lets devices in: registered, proved to be the operator's, removed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from methodhub.core.access import AuthenticationError
from methodhub.core.certificates.rules import CertificateAuthority, VerifyChain, check_time, common_names
from methodhub.core.clock import Clock
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.ports import AuthoritiesChanged, Bus, HubStore
from methodhub.core.registry import invalid

NAME = re.compile(r"[A-Za-z0-9\-._]{1,64}")
_CODE_BYTES = 24


class CertificateAuthorities:
    """The registered CAs in memory, and their store. `in` tells whether one, by the SHA-256 of its DER, vouches."""

    def __init__(self, store: HubStore, bus: Bus, clock: Clock, verify_chain: VerifyChain) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._verify_chain = verify_chain
        self._by_name: dict[str, CertificateAuthority] = {}
        self._trusted: dict[bytes, bytes] = {}
        """The DER of those that vouch, by its SHA-256."""
        self.version = 0
        """Counts up with each change."""

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, fingerprint: object) -> bool:
        return fingerprint in self._trusted

    def all(self) -> list[CertificateAuthority]:
        """In the order of their names."""
        return [authority for _, authority in sorted(self._by_name.items())]

    def get(self, name: str) -> CertificateAuthority:
        """Raises 404000."""
        authority = self._by_name.get(name)
        if authority is None:
            raise HubError(ErrorCode.GenericNotFound, f"There is no CA certificate {name[:70]!r}.")
        return authority

    def vouch(self, chain: Sequence[bytes]) -> bytes:
        """[HUB-certificate-authority] The SHA-256 of the registered, verified CA that a chain leads to; no other CA,
        of the system or of the hub itself, counts. Raises AuthenticationError."""
        if not self._trusted:
            raise AuthenticationError("no verified CA certificate is registered")
        top = self._verify_chain(chain, list(self._trusted.values()), self._clock.wall())
        return sha256(top).digest()

    # --- changes -------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take what is stored."""
        self._by_name = {authority.name: authority for authority in await self._store.authorities()}
        ders = [der_of(authority.pem) for authority in self._by_name.values() if authority.verified]
        self._trusted = {sha256(der).digest(): der for der in ders}
        self.version += 1

    async def add(self, name: str, pem: str, *, verified: bool = False) -> CertificateAuthority:
        """Register a CA. `verified`: take the operator's word that its key is his. Raises 400004, 409000."""
        if not NAME.fullmatch(name):
            raise invalid(f"The name {name[:70]!r} is not 1 to 64 ASCII letters, digits and - . _")
        certificate = parse_authority(pem, self._clock.wall())
        pem = certificate.public_bytes(Encoding.PEM).decode()
        same = next((other.name for other in self._by_name.values() if other.pem == pem), None)
        if same is not None:
            raise exists(f"That CA certificate is registered as {same!r}.")
        code = "" if verified else secrets.token_hex(_CODE_BYTES).upper()
        authority = CertificateAuthority(name, pem, verified, code)
        if not await self._store.insert_authority(authority):
            raise exists(f"There is a CA certificate {name!r}. Remove it first, or choose another name.")
        await self._changed()
        return authority

    async def verify(self, name: str, proof_pem: str) -> CertificateAuthority:
        """[HUB-proof-of-possession] Let a CA vouch, once a certificate for its code shows that the operator can sign
        with its key. Raises 400004, 404000."""
        authority = self.get(name)
        if not authority.verified:
            check_proof(parse_certificate(proof_pem), authority)
            authority = replace(authority, verified=True, verification_code="")
            if not await self._store.replace_authority(authority):
                raise HubError(ErrorCode.GenericNotFound, f"The CA certificate {name!r} was removed meanwhile.")
            await self._changed()
        return authority

    async def remove(self, name: str) -> None:
        """It vouches for nobody from now on; whoever it let in is closed. Raises 404000."""
        self.get(name)
        await self._store.delete_authority(name)
        await self._changed()

    async def _changed(self) -> None:
        await self.load()
        self._bus.publish(AuthoritiesChanged())


def exists(message: str) -> HubError:
    return HubError(ErrorCode.GenericConflict, message)


def der_of(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def parse_certificate(pem: str) -> x509.Certificate:
    """The one certificate in a PEM text. Raises 400004."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise invalid(f"There is no certificate in PEM: {error}") from None
    if len(found) != 1:
        raise invalid(f"The PEM holds {len(found)} certificates; give each CA by itself.")
    return found[0]


def parse_authority(pem: str, now: float) -> x509.Certificate:
    """The certificate of a CA, which may sign others and has not expired. Raises 400004."""
    certificate = parse_certificate(pem)
    try:
        check_time(certificate, now)
        check_is_authority(certificate)
    except AuthenticationError as error:
        raise invalid(f"This is no CA certificate that could vouch for a device: {error}.") from None
    except (ValueError, x509.DuplicateExtension) as error:
        raise invalid(f"The certificate cannot be read: {error}") from None
    return certificate


def check_is_authority(certificate: x509.Certificate) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        if certificate.version is not x509.Version.v1:  # which has no extensions, but makes roots that are still in use
            raise AuthenticationError("it does not say that it is a CA (basicConstraints)") from None
        return
    if not constraints.ca:
        raise AuthenticationError("it says that it is not a CA (basicConstraints)")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        raise AuthenticationError("it may not sign certificates (keyUsage)")


def check_proof(proof: x509.Certificate, authority: CertificateAuthority) -> None:
    """Raises 400004."""
    if common_names(proof) != [authority.verification_code]:
        raise invalid(f"The certificate's common name is not the verification code {authority.verification_code}.")
    try:
        proof.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pem.encode()))
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise invalid(f"The certificate is not signed with the key of the CA certificate {authority.name!r}.") from None
