"""Twins and jobs move, too: what has ended keeps its results, what is scheduled stays so, and a device that was being
called is called no second time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import RunningHub
from tests.hub.peers import Caller
from tests.hub_jobs.peers import Answering, BackEnd, close_devices
from tests.transfer.test_round_trip import exported, imported

IDS = ("answers", "silent")


@pytest.fixture(autouse=True)
def _devices() -> Iterator[None]:
    yield
    close_devices()


def documents(hub: RunningHub) -> dict[str, Any]:
    """What there is to see of them; the silent device's own job left out."""
    with hub.admin() as client, Caller(hub, "iothubowner") as caller:
        back_end = BackEnd(hub, caller)
        return {
            "twins": [client.get(f"/twins/{device_id}").json() for device_id in IDS],
            "jobs": [back_end.get(job_id) for job_id in ("done", "later")],
            "devices": back_end.devices("done"),
        }


def without_presence(found: dict[str, Any]) -> dict[str, Any]:
    volatile = {"connectionState", "lastActivityTime", "connectionStateUpdatedTime"}
    twins = [{name: value for name, value in twin.items() if name not in volatile} for twin in found["twins"]]
    return found | {"twins": twins}


def test_twins_and_jobs_move(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    """[HUB-export] [HUB-job-once]"""
    url = postgresql()
    with RunningHub(tmp_path / "one", in_memory=False) as hub:
        for device_id in IDS:
            hub.create_device(device_id)
        with hub.admin() as client:
            patch = {"tags": {"site": "north"}, "properties": {"desired": {"deep": {"list": [1, None, "ü"]}}}}
            client.patch("/twins/answers", json=patch).raise_for_status()
        Answering(hub, "answers")
        silent = Answering(hub, "silent", lambda request: None)
        with Caller(hub, "iothubowner") as caller:
            back_end = BackEnd(hub, caller)
            back_end.create("done", queryCondition="deviceId = 'answers'")
            back_end.ended("done")
            later = back_end.put("later", queryCondition="*", startTime="2099-01-01T00:00:00Z")
            assert later.status == 200
            back_end.create("open", queryCondition="deviceId = 'silent'")
            back_end.until(lambda counts: counts["runningCount"] == 1, "open")
            hub.until(lambda: len(silent.seen) == 1)
            text = exported(tmp_path / "one")
        before = documents(hub)
    imported(tmp_path / "two", text, url)
    with RunningHub(tmp_path / "two", in_memory=False, database_url=url) as hub:
        again = Answering(hub, "silent")
        with Caller(hub, "iothubowner") as caller:
            back_end = BackEnd(hub, caller)
            back_end.ended("open")
            assert back_end.errors("open") == {"silent": "DeviceConnectionClosedRemotely"}
        assert without_presence(documents(hub)) == without_presence(before)
        assert [job["status"] for job in before["jobs"]] == ["completed", "scheduled"]
        assert not again.seen
