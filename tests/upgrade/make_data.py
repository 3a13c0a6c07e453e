"""Makes a data directory through the hub's own interfaces, to be kept beside the commit that wrote it.

Run as `python tests/upgrade/make_data.py tests/upgrade/VERSION` at a release; its keys are for these tests only.
`VERSION/data` is what the hub left, `VERSION/expected.json` what must still be true of it, `VERSION/COMMIT` its origin.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

# A script of its own, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.certificates import authority
from tests.harness import RunningHub
from tests.hub.peers import Device

KEYS = {"primaryKey": "cHJpbWFyeS1rZXktb2YtYS10ZXN0LTAwMQ==", "secondaryKey": "c2Vjb25kYXJ5LWtleS1vZi1hLXRlc3QtMQ=="}
THUMBPRINTS = {"primaryThumbprint": "AB" * 32, "secondaryThumbprint": "CD" * 20}
SPECIAL = "odd-id:.+%_#*?!(),=@;$'"
DEVICES: dict[str, dict[str, Any]] = {
    "generated-keys": {},
    "given-keys": {"authentication": {"type": "sas", "symmetricKey": KEYS}},
    "disabled": {"status": "disabled", "statusReason": "for the test"},
    "self-signed": {"authentication": {"type": "selfSigned", "x509Thumbprint": THUMBPRINTS}},
    "by-authority": {"authentication": {"type": "certificateAuthority"}},
    "edge": {"capabilities": {"iotEdge": True}},
    "with-modules": {},
    "with-session": {},
    SPECIAL: {},
}
MODULES = {"with-modules": ["m1", "m2"], "edge": ["$edgeAgent"]}


TWIN = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 5}}}
JOBS: dict[str, dict[str, Any]] = {
    "twins": {
        "type": "scheduleUpdateTwin",
        "updateTwin": {"etag": "*", "tags": {"seen": True}},
        "queryCondition": "tags.site = 'north'",
        "maxExecutionTimeInSeconds": 60,
    },
    "later": {
        "type": "scheduleDeviceMethod",
        "cloudToDeviceMethod": {"methodName": "reboot", "payload": {"a": 1}},
        "queryCondition": "deviceId = 'given-keys'",
        "startTime": "2099-01-01T00:00:00Z",
        "maxExecutionTimeInSeconds": 60,
    },
}


def until_ended(client: httpx.Client, job_id: str) -> None:
    with client.stream("GET", f"/jobs/v2/{job_id}/progress") as events:
        for _ in events.iter_lines():
            pass


def path_of(device_id: str, module_id: str = "") -> str:
    return f"/devices/{quote(device_id, safe='')}" + (f"/modules/{module_id}" if module_id else "")


def identities(client: httpx.Client) -> list[dict[str, Any]]:
    """All devices, and the modules of each."""
    devices: list[dict[str, Any]] = client.get("/devices").json()
    modules = [client.get(f"{path_of(each['deviceId'])}/modules").json() for each in devices]
    return devices + [module for found in modules for module in found]


def make(data: Path) -> dict[str, Any]:
    """What the hub says of itself and its identities when all is written."""
    with RunningHub(data, in_memory=False) as hub, hub.admin() as client:
        for device_id, fields in DEVICES.items():
            client.put(path_of(device_id), json={"deviceId": device_id, **fields}).raise_for_status()
        for device_id, modules in MODULES.items():
            for module_id in modules:
                body = {"deviceId": device_id, "moduleId": module_id}
                client.put(path_of(device_id, module_id), json=body).raise_for_status()
        fleet = {"certificate": authority("fleet", days=(-1, 36_500)).pem, "verified": True}
        client.put("/admin/ca-certificates/fleet", json=fleet).raise_for_status()
        client.patch("/twins/edge", json=TWIN).raise_for_status()
        client.put("/admin/policies/own", json={"rights": ["ServiceConnect"]}).raise_for_status()
        for job_id, job in JOBS.items():
            client.put(f"/jobs/v2/{job_id}", json={"jobId": job_id, **job}).raise_for_status()
        until_ended(client, "twins")
        device = Device(hub, "with-session")
        assert device.connect(clean=False) == (0, 0)
        assert device.subscribe() == [0]
        device.close()
        hub.until(lambda: not len(hub.hub.table))
        hub.run(hub.hub.presence.write())
        return {
            "policies": client.get("/admin/policies").json(),
            "authorities": client.get("/admin/ca-certificates").json(),
            "identities": identities(client),
            "twins": {"edge": client.get("/twins/edge").json()},
            "jobs": {job_id: client.get(f"/jobs/v2/{job_id}").json() for job_id in JOBS},
        }


def main(version: Path) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        expected = make(data)
        (data / "methodhub.lock").unlink()
        version.mkdir(parents=True, exist_ok=True)
        shutil.copytree(data, version / "data", dirs_exist_ok=True)
    (version / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    (version / "COMMIT").write_text(commit)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
