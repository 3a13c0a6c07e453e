"""What makes a certificate believable: thumbprint, name, purpose, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from methodhub.core.access import (
    AuthenticationError,
    CertificateCredential,
    KeyCredential,
    Policies,
    check_device_token,
    is_still_valid,
)
from methodhub.core.certificates.rules import check_certificate
from methodhub.core.identity import Authentication, AuthenticationType, Target
from tests.certificates import Issued, authority, self_signed
from tests.core.test_access import NOW as TOKEN_TIME
from tests.core.test_access import token

NOW = 1_800_000_000.0
D = Target("d")
CA = b"the digest of a CA"
SIGNED = Authentication(AuthenticationType.CERTIFICATE_AUTHORITY)
POLICIES = Policies(frozenset())


def vouch(chain: Sequence[bytes]) -> bytes:
    return CA


def nobody(chain: Sequence[bytes]) -> bytes:
    raise AuthenticationError("nobody vouches")


def pinned(*thumbprints: str | None) -> Authentication:
    primary, secondary = (*thumbprints, None)[:2]
    return Authentication(AuthenticationType.SELF_SIGNED, primary_thumbprint=primary, secondary_thumbprint=secondary)


def check(
    issued: Issued, authentication: Authentication, target: Target = D, now: float = NOW
) -> CertificateCredential:
    return check_certificate(issued.chain, target, authentication, vouch, now)


DEVICE = self_signed("d", now=NOW)
OTHER = self_signed("d", now=NOW)


@pytest.mark.parametrize(
    "authentication",
    [
        pinned(DEVICE.sha1),
        pinned(DEVICE.sha256),
        pinned(DEVICE.sha1.upper()),
        pinned(DEVICE.sha256.upper()),
        pinned(OTHER.sha256, DEVICE.sha1),
        pinned(None, DEVICE.sha256),
    ],
)
def test_a_thumbprint_is_enough(authentication: Authentication) -> None:
    """[HUB-thumbprint]"""
    credential = check(DEVICE, authentication)
    assert (credential.sha1.hex(), credential.sha256.hex()) == (DEVICE.sha1, DEVICE.sha256)
    assert credential.authority is None
    assert is_still_valid(credential, authentication, POLICIES, ())


def test_with_a_thumbprint_neither_name_nor_issuer_nor_purpose_matters() -> None:
    for issued in (
        self_signed("somebody else", now=NOW),
        self_signed([], now=NOW),
        authority("d", now=NOW),
        authority(now=NOW).issue("x", x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), now=NOW),
    ):
        check_certificate(issued.chain, D, pinned(issued.sha256), nobody, NOW)


@pytest.mark.parametrize("authentication", [pinned(OTHER.sha1), pinned(OTHER.sha256, OTHER.sha1)])
def test_another_thumbprint_is_refused(authentication: Authentication) -> None:
    """[HUB-thumbprint]"""
    with pytest.raises(AuthenticationError, match="neither the primary nor the secondary thumbprint"):
        check(DEVICE, authentication)


@pytest.mark.parametrize("kind", ["pinned", "signed"])
def test_a_certificate_counts_while_it_is_valid(kind: str) -> None:
    """[HUB-certificate-time]"""
    issued = self_signed("d", days=(-1, 2), now=NOW)
    authentication = pinned(issued.sha1) if kind == "pinned" else SIGNED
    start, end = NOW - 86_400, NOW + 2 * 86_400
    check(issued, authentication, now=start)
    check(issued, authentication, now=end)
    with pytest.raises(AuthenticationError, match="is not valid before 2027-01-14 08:00:00 UTC"):
        check(issued, authentication, now=start - 1)
    with pytest.raises(AuthenticationError, match="expired on 2027-01-17 08:00:00 UTC"):
        check(issued, authentication, now=end + 1)


@pytest.mark.parametrize("target", [D, Target("d", "m"), Target("$'#%")])
def test_a_signed_certificate_is_for_the_one_identity(target: Target) -> None:
    """[HUB-common-name]"""
    issued = authority(now=NOW).issue(str(target), now=NOW)
    assert check(issued, SIGNED, target).authority == CA
    for wrong in (Target("D"), Target("d", "M"), Target("m"), Target("d" * 64)):
        with pytest.raises(AuthenticationError, match="the certificate is for "):
            check(issued, SIGNED, wrong)


@pytest.mark.parametrize("name", ["D", "d ", "d/m", "*", [], ["d", "d"], ["d", "e"], ["e", "d"]])
def test_a_common_name_that_is_not_quite_the_id(name: str | list[str]) -> None:
    """[HUB-common-name]"""
    with pytest.raises(AuthenticationError, match=r"the certificate is for .*not for 'd'"):
        check(authority(now=NOW).issue(name, now=NOW), SIGNED)


def test_an_id_longer_than_a_common_name_may_be_is_found_too() -> None:
    check(authority(now=NOW).issue("d" * 128, now=NOW), SIGNED, Target("d" * 128))


@pytest.mark.parametrize(
    ("usages", "is_good"),
    [
        ([ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH], False),
        ([ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION], False),
    ],
)
def test_a_purpose_that_is_named_must_be_this_one(usages: list[x509.ObjectIdentifier], is_good: bool) -> None:
    """[HUB-client-purpose]"""
    issued = authority(now=NOW).issue("d", x509.ExtendedKeyUsage(usages), now=NOW)
    if is_good:
        check(issued, SIGNED)
    else:
        with pytest.raises(AuthenticationError, match="clientAuth"):
            check(issued, SIGNED)


@pytest.mark.parametrize("chain", [(), (b"",), (b"\x30\x03\x02\x01\x01",), (b"-----BEGIN CERTIFICATE-----",)])
def test_what_is_no_certificate_is_refused(chain: tuple[bytes, ...]) -> None:
    for authentication in (pinned(DEVICE.sha1), SIGNED):
        with pytest.raises(AuthenticationError, match=r"no client certificate|cannot be read"):
            check_certificate(chain, D, authentication, vouch, NOW)


@pytest.mark.parametrize("kind", [AuthenticationType.SAS, AuthenticationType.NONE])
def test_a_certificate_does_not_stand_in_for_a_key(kind: AuthenticationType) -> None:
    authentication = Authentication(kind, primary_thumbprint=DEVICE.sha1)
    with pytest.raises(AuthenticationError, match=rf"proves itself by {kind.value}, not by a certificate"):
        check(DEVICE, authentication)


@pytest.mark.parametrize("authentication", [pinned(DEVICE.sha1), SIGNED])
def test_a_key_does_not_stand_in_for_a_certificate(authentication: Authentication) -> None:
    """[HUB-certificate-only] Not even one that is there, nor a policy's."""
    from tests.core.test_access import DEVICE_POLICY, FIRST, OTHER, policies  # noqa: PLC0415 - names of their own

    authentication = replace(authentication, primary_key=FIRST, secondary_key=FIRST)
    for key, policy in ((FIRST, None), (OTHER, "device")):
        with pytest.raises(AuthenticationError, match="not by a token"):
            check_device_token(
                token(key, "devices", "d", policy=policy),
                ("devices", "d"),
                authentication,
                policies(DEVICE_POLICY),
                TOKEN_TIME,
            )


# --- what stays valid when something changes ---------------------------------------------------------------------

PINNED = CertificateCredential(bytes.fromhex(DEVICE.sha1), bytes.fromhex(DEVICE.sha256))
VOUCHED = replace(PINNED, authority=CA)


@pytest.mark.parametrize(
    ("credential", "authentication", "authorities", "is_valid"),
    [
        (PINNED, pinned(DEVICE.sha256), (), True),
        (PINNED, pinned(OTHER.sha1, DEVICE.sha1), (), True),
        (PINNED, pinned(OTHER.sha1), (CA,), False),
        (PINNED, SIGNED, (CA,), False),
        (PINNED, Authentication(primary_thumbprint=DEVICE.sha1), (CA,), False),
        (VOUCHED, SIGNED, (CA, b"another"), True),
        (VOUCHED, SIGNED, (b"another",), False),
        (VOUCHED, pinned(DEVICE.sha1), (CA,), False),
        (VOUCHED, Authentication(), (CA,), False),
        (KeyCredential(None, "a2V5"), Authentication(primary_key="a2V5"), (), True),
        (KeyCredential(None, "a2V5"), replace(SIGNED, primary_key="a2V5"), (CA,), False),
    ],
)
def test_what_let_a_device_in_is_looked_at_again(
    credential: CertificateCredential | KeyCredential,
    authentication: Authentication,
    authorities: tuple[bytes, ...],
    is_valid: bool,
) -> None:
    assert is_still_valid(credential, authentication, POLICIES, authorities) is is_valid
