"""Chains of certificates: which lead to a registered authority."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from methodhub.core.access import AuthenticationError
from methodhub.net.chains import verify_chain
from methodhub.net.tls import MAX_INTERMEDIATES

from ..certificates import CA, Issued, authority, self_signed

NOW = 1_800_000_000.0
TOP = authority("Top", now=NOW)
OTHER = authority("Other", now=NOW)


def chain_of(depth: int, top: Issued = TOP) -> Issued:
    for number in range(depth):
        top = top.issue(f"Intermediate {number}", CA, now=NOW)
    return top.issue("d", now=NOW)


def refuse(chain: tuple[bytes, ...], authorities: list[bytes], reason: str, now: float = NOW) -> None:
    with pytest.raises(AuthenticationError, match=reason):
        verify_chain(chain, authorities, now)


@pytest.mark.parametrize("depth", range(MAX_INTERMEDIATES + 1))
def test_a_chain_leads_to_its_authority(depth: int) -> None:
    """However many intermediates a device may show; the authority itself may be among them."""
    device = chain_of(depth)
    assert verify_chain(device.chain, [OTHER.der, TOP.der], NOW) == TOP.der
    assert verify_chain((*device.chain, TOP.der), [TOP.der], NOW) == TOP.der
    refuse(device.chain, [OTHER.der], "no registered CA vouches")
    refuse((*device.chain, TOP.der), [OTHER.der], "no registered CA vouches")
    if depth:
        refuse(device.chain[:1], [TOP.der], "unable to get local issuer certificate")


def test_an_intermediate_that_is_registered_vouches_by_itself() -> None:
    middle = TOP.issue("Middle", CA, now=NOW)
    device = middle.issue("d", now=NOW)
    assert verify_chain(device.chain, [middle.der], NOW) == middle.der
    assert verify_chain(device.chain[:1], [middle.der], NOW) == middle.der
    refuse(TOP.issue("d", now=NOW).chain, [middle.der], "no registered CA vouches")


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        (x509.BasicConstraints(ca=False, path_length=None),),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),),
        (x509.SubjectAlternativeName([x509.DNSName("d")]),),
    ],
)
def test_plain_leaves_and_others_pass(extensions: tuple[x509.ExtensionType, ...]) -> None:
    assert verify_chain(TOP.issue("d", *extensions, now=NOW).chain, [TOP.der], NOW) == TOP.der


def test_what_signs_without_being_a_ca_is_refused() -> None:
    for between in (TOP.issue("Middle", now=NOW), TOP.issue("M", x509.BasicConstraints(False, None), now=NOW)):
        refuse(between.issue("d", now=NOW).chain, [TOP.der], "invalid CA certificate")


def test_a_path_longer_than_its_authority_allows_is_refused() -> None:
    short = self_signed("Short", x509.BasicConstraints(ca=True, path_length=0), now=NOW)
    assert verify_chain(chain_of(0, short).chain, [short.der], NOW) == short.der
    refuse(chain_of(1, short).chain, [short.der], "path length constraint exceeded")


def test_every_link_must_be_valid_now() -> None:
    middle = TOP.issue("Middle", CA, days=(-1, 2), now=NOW)
    device = middle.issue("d", now=NOW)
    day = 86_400
    verify_chain(device.chain, [TOP.der], NOW + day)
    refuse(device.chain, [TOP.der], r"certificate has expired \(CN=Middle\)", NOW + 3 * day)
    refuse(device.chain, [TOP.der], "not yet valid", NOW - 2 * day)
    refuse(device.chain, [TOP.der], "expired", NOW + 40 * day)


def test_a_signature_by_another_key_of_the_same_name_is_refused() -> None:
    refuse(authority("Top", now=NOW).issue("d", now=NOW).chain, [TOP.der], "no registered CA vouches")


def test_a_device_that_signed_itself_is_refused() -> None:
    refuse(self_signed("d", now=NOW).chain, [TOP.der], "no registered CA vouches")
    refuse(self_signed("d", now=NOW).chain, [], "no registered CA vouches")


@pytest.mark.parametrize("rest", [b"", b"\x30\x00", b"not DER"])
def test_what_is_no_certificate_is_refused(rest: bytes) -> None:
    refuse((chain_of(0).der, rest), [TOP.der], "cannot be read")
    refuse((rest,), [TOP.der], "cannot be read")
