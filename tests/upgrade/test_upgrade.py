"""Data that an earlier version left works with today's code: identities, policies, sessions, certificates, calls."""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from methodhub.iothub.sas import build_token
from tests.harness import API_VERSION, PATIENCE, RunningHub
from tests.hub.peers import Caller, Device
from tests.upgrade.make_data import DEVICES, MODULES, SPECIAL, THUMBPRINTS, identities, make, path_of

VERSIONS = sorted(path.parent for path in Path(__file__).parent.glob("*/expected.json"))
VOLATILE = {"connectionState", "connectionStateUpdatedTime", "lastActivityTime"}


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda path: path.name)
def kept(request: pytest.FixtureRequest) -> Path:
    version: Path = request.param
    return version


@pytest.fixture(scope="module")
def expected(kept: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((kept / "expected.json").read_text())
    return found


@pytest.fixture(scope="module")
def hub(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """Today's hub on a copy, with the modes of a copy: everybody may read it."""
    data = tmp_path_factory.mktemp("upgrade") / "data"
    shutil.copytree(kept / "data", data, copy_function=shutil.copyfile)
    for path in (data, *data.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with RunningHub(data, in_memory=False) as running:
        yield running


def key_of(expected: dict[str, Any], device_id: str, module_id: str | None = None, which: str = "primaryKey") -> str:
    [found] = [
        each for each in expected["identities"] if (each["deviceId"], each.get("moduleId")) == (device_id, module_id)
    ]
    key: str = found["authentication"]["symmetricKey"][which]
    return key


def token(hub: RunningHub, path: str, key: str, policy: str | None = None) -> str:
    return build_token(hub.address + path, key, int(hub.hub.clock.wall()) + 600, policy)


def test_there_is_data_and_where_it_came_from(kept: Path) -> None:
    assert VERSIONS
    assert re.fullmatch(r"[0-9a-f]{40}\n", (kept / "COMMIT").read_text())


def test_the_copy_is_protected_again(hub: RunningHub) -> None:
    """[HUB-file-modes] Backups, git and cp forget modes."""
    data = hub.settings.data_dir
    secret = ["methodhub.db", "ca-key.pem", "server-key.pem"]
    modes = {name: stat.S_IMODE((data / name).stat().st_mode) for name in (".", *secret)}
    assert modes == {".": 0o700, **dict.fromkeys(secret, 0o600)}


def test_identities_are_as_they_were(hub: RunningHub, expected: dict[str, Any]) -> None:
    with hub.admin() as client:
        found = identities(client)
    assert without_volatile(found) == without_volatile(expected["identities"])


def test_ca_certificates_are_as_they_were(hub: RunningHub, expected: dict[str, Any]) -> None:
    """0.1.0 had none."""
    with hub.admin() as client:
        assert client.get("/admin/ca-certificates").json() == expected.get("authorities", [])


def test_twins_and_jobs_are_as_they_were(hub: RunningHub, expected: dict[str, Any]) -> None:
    """Kept since 0.3.0."""
    with hub.admin() as client:
        for target, twin in expected.get("twins", {}).items():
            assert without_volatile([client.get(f"/twins/{target}").json()]) == without_volatile([twin])
        for job_id, job in expected.get("jobs", {}).items():
            assert client.get(f"/jobs/v2/{job_id}").json() == job


def without_volatile(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in each.items() if name not in VOLATILE} for each in found]


def by_name(policies: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in policies}


def test_policies_and_their_keys_are_as_they_were(hub: RunningHub, expected: dict[str, Any]) -> None:
    with hub.admin() as client:
        assert by_name(client.get("/admin/policies").json()) == by_name(expected["policies"])
    for policy in expected["policies"]:
        for key in (policy["primaryKey"], policy["secondaryKey"]):
            with Caller(hub, policy="") as caller:
                caller.token = token(hub, "", key, policy["name"])
                status = caller.ask("GET", "/devices/generated-keys").status
            assert status == (200 if "RegistryRead" in policy["rights"] else 401)


@pytest.mark.parametrize("which", ["primaryKey", "secondaryKey"])
@pytest.mark.parametrize("target", [("given-keys", None), ("generated-keys", None), ("with-modules", "m1")])
def test_a_call_through_a_kept_key_succeeds(
    hub: RunningHub, expected: dict[str, Any], target: tuple[str, str | None], which: str
) -> None:
    """The device trusts nothing but the authority that it was told of then."""
    device_id, module_id = target
    path = f"/devices/{device_id}" + (f"/modules/{module_id}" if module_id else "")
    key = key_of(expected, device_id, module_id, which)
    with Device(hub, device_id, module_id or "", token=token(hub, path, key)) as device:
        assert device.connect() == (0, 0)
        assert device.subscribe() == [0]
        service = next(each for each in expected["policies"] if each["name"] == "service")
        call(hub, device, path.replace("/devices/", "/twins/"), token(hub, "", service["primaryKey"], "service"))


def call(hub: RunningHub, device: Device, path: str, policy_token: str) -> None:
    with ThreadPoolExecutor(1) as pool, hub.service() as client:
        client.headers["Authorization"] = policy_token
        answer = pool.submit(client.post, f"{path}/methods", json={"methodName": "m", "payload": "kept"})
        request = device.request()
        device.answer(request, request.payload)
        assert answer.result(PATIENCE).json() == {"status": 200, "payload": "kept"}


def test_a_kept_session_is_present_and_takes_calls(hub: RunningHub, expected: dict[str, Any]) -> None:
    """[HUB-session]"""
    key = key_of(expected, "with-session")
    with Device(hub, "with-session", token=token(hub, "/devices/with-session", key)) as device:
        assert device.connect(clean=False) == (1, 0)
        call(hub, device, "/twins/with-session", hub.token())


def test_a_disabled_device_stays_out_until_it_is_enabled(kept: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(kept / "data", tmp_path / "data")
    with RunningHub(tmp_path / "data", in_memory=False) as hub:
        device_token = token(hub, "/devices/disabled", key_of(expected, "disabled"))
        with Device(hub, "disabled", token=device_token) as device:
            assert device.connect()[1] != 0
        with hub.admin() as client:
            identity = client.get("/devices/disabled").json()
            enabled = {**identity, "status": "enabled"}
            assert client.put("/devices/disabled", json=enabled, headers={"If-Match": "*"}).status_code == 200
        with Device(hub, "disabled", token=device_token) as device:
            assert device.connect() == (0, 0)


def test_the_authority_is_the_same(hub: RunningHub, kept: Path) -> None:
    """Devices and back ends need not be told anew whom to trust."""
    assert hub.ca_file.read_bytes() == (kept / "data" / "ca.pem").read_bytes()
    with hub.service() as client:
        assert client.get("/health/ready", params={"api-version": API_VERSION}).status_code == 200


def test_kept_data_takes_new_writes(hub: RunningHub) -> None:
    with hub.admin() as client:
        path = path_of("new")
        assert client.put(path, json={"deviceId": "new"}).status_code == 200
        assert client.put(f"{path}/modules/m", json={"deviceId": "new", "moduleId": "m"}).status_code == 200
        assert client.delete(path, headers={"If-Match": "*"}).status_code == 204
        assert client.get(path).status_code == 404


def test_what_makes_the_data_still_does(tmp_path: Path) -> None:
    """The script of the next release: all that it wants to keep is there."""
    made = make(tmp_path / "data")
    ids = {(each["deviceId"], each.get("moduleId")) for each in made["identities"]}
    wanted: set[tuple[str, str | None]] = {(device_id, None) for device_id in DEVICES}
    wanted |= {(device_id, module_id) for device_id, modules in MODULES.items() for module_id in modules}
    assert ids == wanted and (SPECIAL, None) in ids
    thumbprints = next(each for each in made["identities"] if each["deviceId"] == "self-signed")
    assert thumbprints["authentication"]["x509Thumbprint"] == THUMBPRINTS
