"""A hub on PostgreSQL: what one process wrote, the next one serves; nothing of it lies in the data directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from methodhub.config import Settings
from methodhub.process import StartError
from methodhub.server import DATABASE_NAME
from methodhub.server.domain import Domain
from tests.harness import RunningHub


def test_a_hub_finds_what_another_one_wrote(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    url = postgresql()
    with RunningHub(tmp_path / "one", in_memory=False, database_url=url) as hub, hub.admin() as client:
        created = client.put("/devices/d", json={"deviceId": "d"}).json()
        policies = client.get("/admin/policies").json()
    assert not (tmp_path / "one" / DATABASE_NAME).exists()
    with RunningHub(tmp_path / "other", in_memory=False, database_url=url) as hub, hub.admin() as client:
        assert client.get("/devices/d").json()["authentication"] == created["authentication"]
        assert client.get("/admin/policies").json() == policies


def test_a_hub_without_its_database_does_not_start_and_tells_no_password(tmp_path: Path) -> None:
    """[HUB-no-keys]"""
    url = "postgresql://hub:s3cret@127.0.0.1:1/hub"
    domain = Domain(Settings(data_dir=tmp_path, database_url=url))
    with pytest.raises(StartError, match=r"postgresql://127\.0\.0\.1:1/hub cannot be used") as caught:
        asyncio.run(domain.open())
    assert "s3cret" not in str(caught.value)


def test_what_postgresql_cannot_hold_is_nobody_elses_trouble(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    """An id with NUL made others' look-ups fail, and calls with them."""
    with RunningHub(tmp_path, in_memory=False, database_url=postgresql()) as hub, hub.admin() as client:
        client.put("/devices/d", json={"deviceId": "d"}).raise_for_status()
        for path in ("/devices/a%00b", "/devices/d/modules/a%00b", "/twins/a%00b"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["iothub-errorcode"][-8:]) == (404, "NotFound"), answer.text
        etag = {"If-Match": "*"}
        assert client.delete("/devices/a%00b", headers=etag).status_code == 404
        job = {"jobId": "j", "type": "scheduleDeviceMethod", "cloudToDeviceMethod": {"methodName": "m"}}
        answer = client.put("/jobs/v2/j", json=job | {"queryCondition": "deviceId = 'd'\0"})
        assert (answer.status_code, answer.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")
