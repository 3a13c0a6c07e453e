"""CAs: registered, proved, removed, and whom they vouch for in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from cryptography import x509

from methodhub.bus.local import LocalBus
from methodhub.core.access import AuthenticationError
from methodhub.core.certificates.authorities import CertificateAuthorities
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.ports import AuthoritiesChanged, Event
from methodhub.net.chains import verify_chain
from tests.certificates import CA, Issued, authority, self_signed
from tests.clock import ManualClock
from tests.memory import MemoryHubStore, MemoryTables

T = TypeVar("T")
NOW = 1_800_000_000.0


class Registered:
    def __init__(self) -> None:
        self.store = MemoryHubStore(MemoryTables())
        self.bus = LocalBus()
        self.events: list[Event] = []
        self.bus.subscribe(self.events.append)
        self.clock = ManualClock(wall=NOW)
        self.all = CertificateAuthorities(self.store, self.bus, self.clock, verify_chain)

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(step)

    def add(self, name: str, issued: Issued, *, verified: bool = True) -> None:
        self.run(self.all.add(name, issued.pem, verified=verified))

    def vouches(self, issued: Issued) -> bool:
        try:
            return self.all.vouch(issued.chain) in self.all
        except AuthenticationError:
            return False


@pytest.fixture
def registered() -> Registered:
    return Registered()


def refusal(step: Callable[[], object]) -> HubError:
    with pytest.raises(HubError) as caught:
        step()
    return caught.value


TOP = authority("Top", now=NOW)
DEVICE = TOP.issue("d", now=NOW)


def test_a_verified_ca_vouches_until_it_is_removed(registered: Registered) -> None:
    """[HUB-certificate-authority]"""
    assert not registered.vouches(DEVICE)
    registered.add("top", TOP)
    assert registered.vouches(DEVICE)
    assert not registered.vouches(authority("Top", now=NOW).issue("d", now=NOW))
    registered.run(registered.all.remove("top"))
    assert not registered.vouches(DEVICE)
    assert registered.all.all() == []
    assert registered.events == [AuthoritiesChanged()] * 2


def test_an_unverified_ca_vouches_for_nobody_until_the_proof(registered: Registered) -> None:
    """[HUB-proof-of-possession]"""
    registered.add("top", TOP, verified=False)
    registered.add("other", authority("Other", now=NOW))
    code = registered.all.get("top").verification_code
    assert len(code) == 48
    assert not registered.vouches(DEVICE)
    wrong = {
        "not the verification code": TOP.issue("d", now=NOW).pem,
        "not signed with the key": authority("Top", now=NOW).issue(code, now=NOW).pem,
        "no certificate in PEM": "x",
        "holds 2 certificates": TOP.issue(code, now=NOW).pem * 2,
    }
    for reason, proof in wrong.items():
        error = refusal(lambda proof=proof: registered.run(registered.all.verify("top", proof)))  # type: ignore[misc]
        assert error.code is ErrorCode.ArgumentInvalid
        assert reason in error.message
        assert not registered.vouches(DEVICE)
    proved = registered.run(registered.all.verify("top", TOP.issue(code, now=NOW).pem))
    assert (proved.verified, proved.verification_code) == (True, "")
    assert registered.vouches(DEVICE)
    again = Registered()
    again.store = registered.store
    again.all = CertificateAuthorities(again.store, again.bus, again.clock, verify_chain)
    again.run(again.all.load())
    assert again.vouches(DEVICE)
    assert again.all.all() == registered.all.all()


def test_each_code_is_another(registered: Registered) -> None:
    for name in "abc":
        registered.add(name, authority(name, now=NOW), verified=False)
    assert len({each.verification_code for each in registered.all.all()}) == 3


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        ("", "no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate in PEM"),
        (TOP.pem + TOP.pem, "holds 2 certificates"),
        (self_signed("plain", now=NOW).pem, "does not say that it is a CA"),
        (self_signed("leaf", x509.BasicConstraints(ca=False, path_length=None), now=NOW).pem, "is not a CA"),
        (
            self_signed(
                "k",
                CA,
                x509.KeyUsage(True, False, False, False, False, False, True, False, False),
                now=NOW,
            ).pem,
            "may not sign certificates",
        ),
        (authority(days=(-9, -1), now=NOW).pem, "expired"),
        (authority(days=(1, 9), now=NOW).pem, "not valid before"),
    ],
)
def test_what_could_not_vouch_is_not_registered(registered: Registered, pem: str, reason: str) -> None:
    error = refusal(lambda: registered.run(registered.all.add("name", pem, verified=True)))
    assert error.code is ErrorCode.ArgumentInvalid
    assert reason in error.message
    assert len(registered.all) == 0
    assert registered.events == []


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "a/b"])
def test_names_are_plain(registered: Registered, name: str) -> None:
    assert refusal(lambda: registered.add(name, TOP)).code is ErrorCode.ArgumentInvalid


def test_neither_a_name_nor_a_certificate_is_registered_twice(registered: Registered) -> None:
    registered.add("top", TOP)
    for name, issued in (("top", authority("Other", now=NOW)), ("again", TOP)):
        error = refusal(lambda name=name, issued=issued: registered.add(name, issued))  # type: ignore[misc]
        assert error.code is ErrorCode.GenericConflict
    assert [each.name for each in registered.all.all()] == ["top"]
    assert registered.vouches(DEVICE)


def test_what_is_not_there_is_not_found(registered: Registered) -> None:
    for step in (registered.all.remove("x"), registered.all.verify("x", TOP.pem)):
        assert refusal(lambda step=step: registered.run(step)).code is ErrorCode.GenericNotFound  # type: ignore[misc]
    assert registered.events == []


def test_a_ca_that_expires_vouches_no_more(registered: Registered) -> None:
    registered.add("top", authority_of := authority("Short", days=(-1, 2), now=NOW))
    device = authority_of.issue("d", days=(-1, 30), now=NOW)
    assert registered.vouches(device)
    registered.clock.advance(3 * 86_400)
    assert not registered.vouches(device)
