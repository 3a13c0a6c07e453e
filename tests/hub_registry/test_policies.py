"""Policies that are created, rotated and deleted while the hub runs, and what goes with their keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from methodhub.iothub.sas import build_token
from tests.amqp.peers import AmqpPeer
from tests.harness import RunningHub
from tests.hub.peers import Caller, Device


@pytest.fixture
def admin(hub: RunningHub) -> Iterator[httpx.Client]:
    with hub.admin() as client:
        yield client


def create(admin: httpx.Client, name: str, *rights: str, **keys: str) -> httpx.Response:
    return admin.put(f"/admin/policies/{name}", json={"rights": rights, **keys})


def rotate(admin: httpx.Client, name: str, key: str) -> dict[str, Any]:
    answer = admin.post(f"/admin/policies/{name}/rotate", json={"key": key})
    assert answer.status_code == 200, answer.text
    policy: dict[str, Any] = answer.json()
    return policy


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.headers["iothub-errorcode"]


class OneToken(Caller):
    """A back end that goes on with the token that it has."""

    def __init__(self, hub: RunningHub, key: str, policy: str = "service") -> None:
        super().__init__(hub, "")
        self.token = build_token(hub.address, key, int(hub.hub.clock.wall()) + 3600, policy)

    def status(self) -> int:
        return self.ask("GET", "/jobs").status


def test_a_policy_holds_at_once_and_until_it_is_deleted(hub: RunningHub, admin: httpx.Client) -> None:
    made = create(admin, "extra", "registrywrite", "ServiceConnect").json()
    assert made["rights"] == ["RegistryRead", "RegistryWrite", "ServiceConnect"]
    assert made in admin.get("/admin/policies").json()
    with OneToken(hub, made["secondaryKey"], "extra") as caller:
        assert caller.status() == 200
        assert caller.ask("PUT", "/devices/d", {}).status == 200
        assert error(create(admin, "extra", "ServiceConnect")) == (409, "GenericConflict")
        assert admin.delete("/admin/policies/extra").status_code == 204
        assert caller.status() == 401
    assert error(admin.delete("/admin/policies/extra")) == (404, "GenericNotFound")
    assert error(admin.post("/admin/policies/extra/rotate", json={"key": "swap"})) == (404, "GenericNotFound")


@pytest.mark.parametrize(
    ("name", "body", "wanted"),
    [
        ("a b", {"rights": ["RegistryRead"]}, (400, "ArgumentInvalid")),
        ("x" * 65, {"rights": ["RegistryRead"]}, (400, "ArgumentInvalid")),
        ("p", {"rights": []}, (400, "ArgumentInvalid")),
        ("p", {"rights": ["Everything"]}, (400, "ArgumentInvalid")),
        ("p", {"rights": ["RegistryRead"], "primaryKey": "short"}, (400, "ArgumentInvalid")),
        ("p", {"rights": "RegistryRead"}, (400, "IotHubFormatError")),
        ("p", {}, (400, "IotHubFormatError")),
    ],
)
def test_what_is_no_policy(admin: httpx.Client, name: str, body: Any, wanted: tuple[int, str]) -> None:
    assert error(admin.put(f"/admin/policies/{name}", json=body)) == wanted


def test_how_many_there_may_be(admin: httpx.Client) -> None:
    """[HUB-max-policies] 16, of which 10 serve; two of the five that a hub begins with do. The last one stays."""
    for number in range(8):
        assert create(admin, f"s{number}", "ServiceConnect").status_code == 200
    assert error(create(admin, "s8", "ServiceConnect")) == (400, "InvalidOperation")
    for number in range(3):
        assert create(admin, f"d{number}", "DeviceConnect").status_code == 200
    assert error(create(admin, "d3", "DeviceConnect")) == (400, "InvalidOperation")
    *others, last = [policy["name"] for policy in admin.get("/admin/policies").json()]
    for name in others:
        assert admin.delete(f"/admin/policies/{name}").status_code == 204
    assert error(admin.delete(f"/admin/policies/{last}")) == (400, "InvalidOperation")


def test_only_the_socket_changes_policies(hub: RunningHub) -> None:
    with Caller(hub) as caller:
        for method, path in (("PUT", "p"), ("DELETE", "service"), ("POST", "service/rotate")):
            assert caller.ask(method, f"/admin/policies/{path}", {}).status == 404


def test_one_key_after_the_other_without_an_outage(hub: RunningHub, admin: httpx.Client) -> None:
    """[HUB-rotate] Whoever uses the key that is not replaced notices nothing; the replaced one is refused at once,
    by heads that were known, too."""
    hub.create_device("d")
    before = hub.hub.policies.get("service")
    assert before is not None
    with OneToken(hub, before.primary_key) as old, OneToken(hub, before.secondary_key) as idle:
        assert (old.status(), idle.status(), old.invoke("d").status) == (200, 200, 404)
        second = rotate(admin, "service", "secondary")
        assert second["primaryKey"] == before.primary_key != second["secondaryKey"] != before.secondary_key
        assert (old.status(), idle.status(), old.invoke("d").status) == (200, 401, 404)
        with OneToken(hub, second["secondaryKey"]) as new:
            assert new.status() == 200
            third = rotate(admin, "service", "primary")
            assert third["secondaryKey"] == second["secondaryKey"]
            assert (old.status(), new.status(), old.invoke("d").status) == (401, 200, 401)
            swapped = rotate(admin, "service", "swap")
            assert (swapped["primaryKey"], swapped["secondaryKey"]) == (third["secondaryKey"], third["primaryKey"])
            assert new.status() == 200
    assert error(admin.post("/admin/policies/service/rotate", json={"key": "both"})) == (400, "IotHubFormatError")


def policy_device(hub: RunningHub, device_id: str, key: str) -> Device:
    expiry = int(hub.hub.clock.wall()) + 3600
    device = Device(hub, device_id, token=build_token(f"{hub.address}/devices/{device_id}", key, expiry, "device"))
    assert device.connect() == (0, 0)
    return device


def test_devices_that_a_replaced_key_let_in_are_closed(hub: RunningHub, admin: httpx.Client) -> None:
    """[HUB-rotate] Over MQTT."""
    for each in ("a", "b", "own"):
        hub.create_device(each)
    policy = hub.hub.policies.get("device")
    assert policy is not None
    first, second = policy_device(hub, "a", policy.primary_key), policy_device(hub, "b", policy.secondary_key)
    with first, second, Device(hub, "own") as own:
        own.connect()
        rotate(admin, "device", "primary")
        assert first.is_closed()
        second.ping()
        admin.delete("/admin/policies/device")
        assert second.is_closed()
        own.ping()


@pytest.mark.parametrize("change", ["rotate", "delete"])
def test_back_ends_over_amqp_are_closed(hub: RunningHub, admin: httpx.Client, change: str) -> None:
    """[HUB-rotate] Those of the key alone that is gone."""
    with AmqpPeer(hub) as peer, AmqpPeer(hub) as other:
        for each, policy in ((peer, "service"), (other, "iothubowner")):
            session = each.open()
            assert each.claim(each.open_cbs(session), hub.token(policy))[0] == 200
            each.attach(session, "sender", "/messages/devicebound")
        if change == "rotate":
            rotate(admin, "service", "primary")
        else:
            admin.delete("/admin/policies/service")
        end = peer.ended()
        assert end is not None and end.condition == "amqp:unauthorized-access"
        other.attach(session, "receiver", "/messages/serviceBound/feedback")


def test_policies_outlive_the_hub(tmp_path: Path) -> None:
    path = tmp_path / "hub"
    with RunningHub(path, in_memory=False) as hub, hub.admin() as admin:
        made = create(admin, "kept", "RegistryRead").json()
        rotated = rotate(admin, "service", "secondary")
        admin.delete("/admin/policies/device")
    with RunningHub(path, in_memory=False) as hub, hub.admin() as admin:
        found = {policy["name"]: policy for policy in json.loads(admin.get("/admin/policies").content)}
        assert (found["kept"], found["service"]) == (made, rotated)
        assert "device" not in found
