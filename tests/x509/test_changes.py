"""What is changed while devices with certificates are connected closes exactly those that it concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.certificates import Issued, authority, self_signed
from tests.harness import RunningHub
from tests.x509.peers import SAS, SIGNED, CertifiedDevice, add_authority, pin, put, remove_authority

FIRST, SECOND, THIRD = (self_signed("pinned") for _ in range(3))
ONE, TWO = authority("First CA"), authority("Second CA")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with RunningHub(tmp_path_factory.mktemp("hub"), in_memory=False) as running:
        yield running


def connected(hub: RunningHub, name: str, issued: Issued) -> CertifiedDevice:
    device = CertifiedDevice(hub, name, issued)
    assert device.connect() == (0, 0)
    return device


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        (lambda hub: put(hub, "p", pin(FIRST, THIRD)), True),
        (lambda hub: put(hub, "p", pin(SECOND, FIRST)), True),
        (lambda hub: put(hub, "p", pin(FIRST, digest="sha1")), True),
        (lambda hub: put(hub, "p", pin(SECOND)), False),
        (lambda hub: put(hub, "p", SAS), False),
        (lambda hub: put(hub, "p", SIGNED), False),
        (lambda hub: put(hub, "p", pin(FIRST, SECOND), status="disabled"), False),
    ],
)
def test_a_thumbprint_that_goes_takes_its_connection_along(
    hub: RunningHub, change: Callable[[RunningHub], None], stays: bool
) -> None:
    put(hub, "p", pin(FIRST, SECOND))
    put(hub, "bystander", pin(FIRST))
    with connected(hub, "p", FIRST) as device, connected(hub, "bystander", FIRST) as bystander:
        change(hub)
        if stays:
            device.ping()
        else:
            assert device.is_closed()
        bystander.ping()


def test_a_ca_that_is_removed_takes_along_whom_it_let_in(hub: RunningHub) -> None:
    """[HUB-certificate-authority]"""
    for name, issued in (("one", ONE), ("two", TWO)):
        add_authority(hub, name, issued)
        put(hub, name, SIGNED)
    put(hub, "p", pin(FIRST))
    put(hub, "key", SAS)
    with (
        connected(hub, "one", ONE.issue("one")) as one,
        connected(hub, "two", TWO.issue("two")) as two,
        connected(hub, "p", FIRST) as pinned,
        CertifiedDevice(hub, "key", None, hub.device_token("key")) as with_key,
    ):
        assert with_key.connect() == (0, 0)
        remove_authority(hub, "one")
        assert one.is_closed()
        for other in (two, pinned, with_key):
            other.ping()
        with CertifiedDevice(hub, "one", ONE.issue("one")) as again:
            assert again.connect() == (0, 5)
    remove_authority(hub, "two")


def test_proof_of_possession(hub: RunningHub) -> None:
    """[HUB-proof-of-possession] Through the routes, and across a restart."""
    put(hub, "one", SIGNED)
    device = ONE.issue("one")
    code = add_authority(hub, "one", ONE, verified=False)["verificationCode"]
    with CertifiedDevice(hub, "one", device) as early:
        assert early.connect() == (0, 5)
    with hub.admin() as admin:
        path = "/admin/ca-certificates/one"
        assert admin.post(f"{path}/verify", json={"certificate": ONE.issue("x").pem}).status_code == 400
        assert admin.post(f"{path}/verify", json={}).status_code == 400
        proved = admin.post(f"{path}/verify", json={"certificate": ONE.issue(code).pem}).json()
        assert proved["verified"] is True and proved["verificationCode"] is None
        assert admin.get(path).json() == proved
        assert proved["sha256"] == ONE.sha256.upper() and proved["certificate"] == ONE.pem
        assert admin.put(path, json={"certificate": TWO.pem}).status_code == 409
        assert [each["name"] for each in admin.get("/admin/ca-certificates").json()] == ["one"]
    connected(hub, "one", device).close()
    remove_authority(hub, "one")


def test_a_restart_forgets_no_ca(tmp_path: Path) -> None:
    with RunningHub(tmp_path, in_memory=False) as hub:
        add_authority(hub, "one", ONE)
        put(hub, "one", SIGNED)
        address = hub.address
    with RunningHub(tmp_path, address=address, in_memory=False) as hub:
        connected(hub, "one", ONE.issue("one")).close()


def test_an_identity_with_thumbprints_needs_one(hub: RunningHub) -> None:
    with hub.admin() as admin:
        for authentication in ({"type": "selfSigned"}, {"type": "selfSigned", "x509Thumbprint": {}}):
            answer = admin.put("/devices/none", json={"deviceId": "none", "authentication": authentication})
            assert (answer.status_code, answer.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")
