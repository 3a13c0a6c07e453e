"""Jobs from a back end's request to the devices' answers."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from methodhub.core.jobs.scheduler import SWEEP
from methodhub.iothub.rest import timestamp
from tests.harness import RunningHub
from tests.hub.peers import Caller, Device
from tests.hub_jobs.peers import Answering, BackEnd


def devices(hub: RunningHub, number: int, prefix: str = "d") -> list[str]:
    ids = [f"{prefix}{n}" for n in range(number)]
    for device_id in ids:
        hub.create_device(device_id)
    return ids


def test_a_job_calls_its_devices_and_keeps_each_answer(timed: RunningHub, back_end: BackEnd) -> None:
    ids = devices(timed, 5)
    answering = [Answering(timed, device_id) for device_id in ids]
    back_end.create(method={"payload": {"b": 1.5, "a": "ü"}}, queryCondition="deviceId IN ['d0', 'd1', 'd3']")
    job = back_end.ended()
    assert job["status"] == "completed"
    assert job["deviceJobStatistics"]["succeededCount"] == 3
    assert job["endTime"].endswith("Z") and len(job["endTime"]) == len("2027-01-15T08:00:00.0000000Z")
    found = back_end.devices()
    assert sorted(found) == ["d0", "d1", "d3"]
    assert found["d1"]["outcome"] == {"deviceMethodResponse": {"status": 200, "payload": {"b": 1.5, "a": "ü"}}}
    assert [len(each.seen) for each in answering] == [1, 1, 0, 1, 0]


def test_a_job_waits_for_its_time_and_is_cancelled_before_it(timed: RunningHub, back_end: BackEnd) -> None:
    [device_id] = devices(timed, 1)
    device = Answering(timed, device_id)
    start = timestamp(timed.hub.clock.wall() + 100)
    back_end.create(startTime=start)
    assert back_end.get()["status"] == "scheduled"
    response = back_end.caller.ask("POST", "/jobs/v2/j/cancel", {})
    assert json.loads(response.body)["status"] == "cancelled"
    assert back_end.get()["status"] == "cancelled"
    back_end.create("k", startTime=start)
    timed.advance(99)
    assert back_end.get("k")["status"] == "scheduled"
    timed.advance(1.1)
    assert back_end.ended("k")["status"] == "completed"
    assert len(device.seen) == 1


def test_a_device_is_called_when_it_connects(timed: RunningHub, back_end: BackEnd) -> None:
    """[HUB-job-waits]"""
    ids = devices(timed, 2)
    Answering(timed, ids[0])
    back_end.create()
    back_end.until(lambda counts: counts["succeededCount"] == 1 and counts["pendingCount"] == 1)
    late = Answering(timed, ids[1])
    assert back_end.ended()["deviceJobStatistics"]["succeededCount"] == 2
    assert len(late.seen) == 1


def test_a_device_that_is_disabled_or_deleted_meanwhile_has_failed(timed: RunningHub, back_end: BackEnd) -> None:
    ids = devices(timed, 3)
    timed.create_device("off", status="disabled")
    back_end.create(rate=0.1)
    back_end.until(lambda counts: counts["pendingCount"] == 4 and counts["runningCount"] == 0)
    with timed.admin() as client:
        client.delete(f"/devices/{ids[2]}").raise_for_status()
    Answering(timed, ids[0])
    for _ in range(4):
        back_end.until(lambda counts: counts["runningCount"] == 0)
        timed.advance(10.1)
    back_end.until(lambda counts: counts["failedCount"] == 2)
    assert back_end.errors() == {ids[2]: "DeviceNotFound", "off": "DeviceNotFound"}
    Answering(timed, ids[1])
    for _ in range(2):
        back_end.until(lambda counts: counts["runningCount"] == 0)
        timed.advance(10.1)
    assert back_end.ended()["deviceJobStatistics"]["succeededCount"] == 2


def test_a_device_that_subscribes_late_is_called_then(timed: RunningHub, back_end: BackEnd) -> None:
    [device_id] = devices(timed, 1)
    again = Device(timed, device_id)
    assert again.connect() == (0, 0)
    assert again.subscribe("$iothub/methods/POST/other/#") == [0]
    back_end.create()
    back_end.until(lambda counts: counts["pendingCount"] == 1 and counts["runningCount"] == 0)
    timed.advance(SWEEP + 1)
    back_end.until(lambda counts: counts["pendingCount"] == 1)
    assert again.subscribe() == [0]
    answering = Answering(timed, device_id, device=again)
    assert back_end.ended()["deviceJobStatistics"]["succeededCount"] == 1
    assert len(answering.seen) == 1


def test_the_time_of_a_job_ends(timed: RunningHub, back_end: BackEnd) -> None:
    """[HUB-job-deadline]"""
    ids = devices(timed, 3)
    Answering(timed, ids[0])
    silent = Answering(timed, ids[1], lambda request: None)
    back_end.create(maxExecutionTimeInSeconds=20, method={"responseTimeoutInSeconds": 40})
    back_end.until(lambda counts: (counts["runningCount"], counts["pendingCount"]) == (1, 1) and len(silent.seen) == 1)
    timed.advance(21)
    back_end.until(lambda counts: counts["pendingCount"] == 0)
    assert back_end.get()["status"] == "running"
    timed.advance(20)
    job = back_end.ended()
    assert job["status"] == "completed"
    assert back_end.errors() == {"d1": "GatewayTimeout", "d2": "DeviceNotOnline"}


def test_a_running_job_is_cancelled(timed: RunningHub, back_end: BackEnd) -> None:
    """[HUB-job-cancel]"""
    ids = devices(timed, 6)
    go = threading.Event()

    def when_told(request: object) -> bytes:
        go.wait()
        return b"{}"

    answering = [Answering(timed, device_id, when_told) for device_id in ids]
    back_end.create(concurrency=2)
    back_end.until(lambda counts: counts["runningCount"] == 2)
    response = back_end.caller.ask("POST", "/jobs/v2/j/cancel")
    assert response.status == 200
    back_end.until(lambda counts: counts["canceledCount"] == 4)
    go.set()
    job = back_end.ended()
    assert job["status"] == "cancelled"
    assert job["deviceJobStatistics"]["succeededCount"] == 2
    assert sum(len(each.seen) for each in answering) == 2
    assert sorted(each["status"] for each in back_end.devices().values()) == ["canceled"] * 4 + ["completed"] * 2


def test_a_rollout_stops_where_too_few_succeed(timed: RunningHub, back_end: BackEnd) -> None:
    """[HUB-job-rollout]"""
    ids = devices(timed, 8)
    answering = [Answering(timed, device_id, lambda request: b"not json") for device_id in ids]
    back_end.create(rollout={"first": 2, "minimumSuccess": 0.5})
    job = back_end.ended()
    assert (job["status"], job["deviceJobStatistics"]["canceledCount"]) == ("failed", 6)
    assert job["failureReason"].startswith("Stopped after the first 2 devices: 0 succeeded")
    assert [len(each.seen) for each in answering] == [1, 1, 0, 0, 0, 0, 0, 0]


def test_twins_are_updated_whether_their_devices_are_there_or_not(timed: RunningHub, back_end: BackEnd) -> None:
    ids = devices(timed, 3)
    back_end.create(
        type="scheduleUpdateTwin",
        updateTwin={"etag": "*", "tags": {"site": "x"}, "properties": {"desired": {"fan": 3}}},
        queryCondition="deviceId != 'd1'",
    )
    job = back_end.ended()
    assert (job["status"], job["deviceJobStatistics"]["succeededCount"]) == ("completed", 2)
    tags = [json.loads(back_end.caller.ask("GET", f"/twins/{device_id}").body).get("tags") for device_id in ids]
    assert [(each or {}).get("site") for each in tags] == ["x", None, "x"]


def test_two_jobs_and_single_calls_run_side_by_side(tmp_path: Path) -> None:
    """[HUB-job-fair]"""
    with RunningHub(tmp_path / "hub", job_concurrency=8) as hub, Caller(hub, "service") as caller:
        back_end = BackEnd(hub, caller)
        silent = devices(hub, 8, "s")
        quick = devices(hub, 8, "q")
        held = [Answering(hub, device_id, lambda request: None) for device_id in silent]
        answering = [Answering(hub, device_id) for device_id in quick]
        back_end.create("slow", queryCondition="STARTSWITH(deviceId, 's')")
        back_end.until(lambda counts: counts["runningCount"] == 8, "slow")
        back_end.create("quick", queryCondition="STARTSWITH(deviceId, 'q')")
        assert back_end.ended("quick")["deviceJobStatistics"]["succeededCount"] == 8
        assert caller.invoke("q0").status == 200
        assert back_end.get("slow")["deviceJobStatistics"]["runningCount"] == 8
        assert [len(each.seen) for each in held] == [1] * 8
        assert [len(each.seen) for each in answering] == [2] + [1] * 7


def test_jobs_of_a_hub_outlive_it(tmp_path: Path) -> None:
    """[HUB-stop] A stop gives back what was not delivered."""
    settings: dict[str, Any] = {"in_memory": False}
    with RunningHub(tmp_path / "hub", **settings) as hub, Caller(hub, "service") as caller:
        ids = devices(hub, 3)
        first = Answering(hub, ids[0])
        BackEnd(hub, caller).create()
        BackEnd(hub, caller).until(lambda counts: counts["succeededCount"] == 1 and counts["pendingCount"] == 2)
        hub.run(hub.hub.stop())
    with RunningHub(tmp_path / "hub", address=hub.address, **settings) as hub, Caller(hub, "service") as caller:
        others = [Answering(hub, device_id) for device_id in ids]
        assert BackEnd(hub, caller).ended()["deviceJobStatistics"]["succeededCount"] == 3
        assert [len(first.seen), *(len(each.seen) for each in others)] == [1, 0, 1, 1]


@pytest.mark.parametrize("stops", [True, False])
def test_a_call_that_is_open_when_the_hub_ends_is_not_repeated(tmp_path: Path, stops: bool) -> None:
    """[HUB-job-once]"""
    settings: dict[str, Any] = {"in_memory": False, "stop_grace": 0}
    with RunningHub(tmp_path / "hub", **settings) as hub, Caller(hub, "service") as caller:
        [device_id] = devices(hub, 1)
        device = Answering(hub, device_id, lambda request: None)
        BackEnd(hub, caller).create()
        hub.until(lambda: len(device.seen) == 1)
        if stops:
            hub.run(hub.hub.stop())
    with RunningHub(tmp_path / "hub", address=hub.address, **settings) as hub, Caller(hub, "service") as caller:
        later = Answering(hub, device_id)
        back_end = BackEnd(hub, caller)
        assert back_end.ended()["deviceJobStatistics"]["failedCount"] == 1
        assert back_end.errors() == {device_id: "DeviceConnectionClosedRemotely"}
        assert not later.seen
