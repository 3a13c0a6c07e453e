"""The routes of jobs: who may, what is refused, lists, dry runs, and events while a job runs."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from methodhub.api.routes.jobs import HEARTBEAT
from methodhub.core.jobs import jobs
from tests.clock import ManualClock
from tests.harness import RunningHub
from tests.hub.peers import Caller, Response
from tests.hub_jobs.peers import Answering, BackEnd

PYTHON = "python/3.11 (Linux) msrest/0.7.1 iothubgatewayserviceapis/2021-04-12"


def name(response: Response) -> tuple[int, str]:
    message = json.loads(response.body)["Message"]
    assert message.startswith(f"ErrorCode:{response.headers['iothub-errorcode']};")
    return response.status, response.headers["iothub-errorcode"]


def test_ids_are_taken_once_and_unknown_ones_not_found(timed: RunningHub, back_end: BackEnd) -> None:
    back_end.create()
    assert name(back_end.put()) == (409, "JobAlreadyExists")
    assert name(back_end.put("a_b")) == (400, "ArgumentInvalid")
    for verb, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/progress")):
        assert name(back_end.caller.ask(verb, f"/jobs/v2/none{path}")) == (404, "JobNotFound")
    assert name(back_end.caller.ask("GET", "/jobs/v2/a%00b")) == (404, "JobNotFound")


def test_jobs_need_the_right_to_connect_as_a_service(timed: RunningHub) -> None:
    with Caller(timed, "registryReadWrite") as caller:
        for verb, path in (
            ("PUT", "/jobs/v2/j"),
            ("GET", "/jobs/v2/j"),
            ("POST", "/jobs/v2/j/cancel"),
            ("GET", "/jobs/v2/j/progress"),
            ("GET", "/jobs/v2/query"),
        ):
            assert name(caller.ask(verb, path, b"{}")) == (401, "IotHubUnauthorizedAccess")


def test_a_wrong_condition_fails_the_job_and_not_the_request(timed: RunningHub, back_end: BackEnd) -> None:
    """[HUB-job-query]"""
    back_end.create(queryCondition="tags. = ")
    job = back_end.ended()
    assert job["status"] == "failed"
    assert job["failureReason"].startswith("SQL query parse failed")


def test_no_more_jobs_run_than_may(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "hub", running_jobs=1) as hub, Caller(hub, "service") as caller:
        back_end = BackEnd(hub, caller)
        hub.create_device("d")
        back_end.create("first")
        assert name(back_end.put("second")) == (429, "ThrottlingMaxActiveJobCountExceeded")
        back_end.create("later", startTime="2100-01-01T00:00:00Z")
        caller.ask("POST", "/jobs/v2/first/cancel")
        back_end.ended("first")
        back_end.create("second")


def test_a_dry_run_creates_nothing(timed: RunningHub, back_end: BackEnd) -> None:
    for number in range(120):
        timed.create_device(f"d{number:03}")
    answer = json.loads(back_end.put(dryRun=True).body)
    assert (answer["dryRun"], answer["deviceCount"], len(answer["deviceIds"])) == (True, 120, 100)
    few = json.loads(back_end.put(dryRun=True, queryCondition="deviceId IN ['d007', 'none']").body)
    assert (few["deviceCount"], few["deviceIds"]) == (1, ["d007"])
    assert name(back_end.put(dryRun=True, queryCondition="tags. =")) == (400, "ArgumentInvalid")
    assert name(back_end.caller.ask("GET", "/jobs/v2/j")) == (404, "JobNotFound")


def test_lists_are_paged_and_filtered(timed: RunningHub, back_end: BackEnd) -> None:
    """[HUB-job-list]"""
    for number in range(5):
        back_end.create(f"m{number}")
        back_end.ended(f"m{number}")
    back_end.create("t", updateTwin={"tags": {"a": 1}})
    back_end.ended("t")
    back_end.create("x", startTime="2100-01-01T00:00:00Z")
    seen: list[str] = []
    more: dict[str, str] = {}
    while True:
        path = "/jobs/v2/query?jobType=ScheduleDeviceMethod&jobStatus=Completed"
        response = back_end.caller.ask("GET", path, x_ms_max_item_count="2", **more)
        assert response.headers["x-ms-item-type"] == "JobResponse"
        page = json.loads(response.body)
        assert 1 <= len(page) <= 2
        seen += [each["jobId"] for each in page]
        if "x-ms-continuation" not in response.headers:
            break
        more = {"x_ms_continuation": response.headers["x-ms-continuation"]}
    assert seen == ["m0", "m1", "m2", "m3", "m4"]
    assert [each["jobId"] for each in ask(back_end, "?jobStatus=scheduled")] == ["x"]
    assert [each["jobId"] for each in ask(back_end, "?jobType=scheduleUpdateTwin")] == ["t"]
    found = ask(back_end, "", User_Agent=PYTHON)
    assert [each["jobId"] for each in found["items"]] == [*seen, "t", "x"]
    other_list = back_end.caller.ask("GET", "/jobs/v2/query", **more)
    assert name(other_list) == (400, "ArgumentInvalid")
    assert name(back_end.caller.ask("GET", "/jobs/v2/query?jobStatus=nonsense")) == (400, "ArgumentInvalid")
    for asked in ("jobStatus=unknown", "jobType=unknown", "jobType=import&jobStatus=completed", "jobType=Export"):
        assert ask(back_end, f"?{asked}") == []  # names of which the original knows, and no job has


def ask(back_end: BackEnd, query: str, **headers: str) -> Any:
    return json.loads(back_end.caller.ask("GET", f"/jobs/v2/query{query}", **headers).body)


# --- events ------------------------------------------------------------------------------------------------------


class Watcher(Caller):
    """Reads the chunks of one answer as events."""

    def follow(self, job_id: str = "j") -> None:
        self.send(self.request("GET", f"/jobs/v2/{job_id}/progress"))
        assert b" 200 " in self.read_line()
        while self.read_line():
            pass

    def event(self) -> str:
        """The next one; empty at the end."""
        size = int(self.read_line(), 16)
        data = self.read(size).decode()
        assert self.read_line() == b""
        return data


def test_events_tell_the_progress_until_the_end(timed: RunningHub, back_end: BackEnd) -> None:
    """[HUB-job-progress] On a connection that serves on afterwards."""
    timed.create_device("d")
    go = threading.Event()

    def when_told(request: object) -> bytes:
        go.wait()
        return b"{}"

    device = Answering(timed, "d", when_told)
    back_end.create()
    back_end.until(lambda counts: counts["runningCount"] == 1 and len(device.seen) == 1)
    with Watcher(timed, "service") as watcher:
        watcher.follow()
        first = watcher.event()
        assert first.startswith("event: progress\ndata: ")
        assert json.loads(first.split("data: ")[1])["deviceJobStatistics"]["runningCount"] == 1
        timed.until(lambda: bool(timed.hub.jobs._watchers))
        timed.advance(HEARTBEAT + 0.1)
        assert watcher.event() == ": still there\n\n"
        go.set()
        while not (event := watcher.event()).startswith("event: end"):
            assert event.startswith("event: progress")
        assert json.loads(event.split("data: ")[1])["status"] == "completed"
        assert watcher.event() == ""
        assert watcher.ask("GET", "/jobs/v2/j").status == 200
        watcher.follow()
        assert watcher.event().startswith("event: end") and watcher.event() == ""
    timed.until(lambda: not timed.hub.jobs._watchers)


def test_watchers_are_bounded_and_end_with_the_hub(
    timed: RunningHub, back_end: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[HUB-job-progress]"""
    monkeypatch.setattr(jobs, "WATCHERS", 1)
    back_end.create(startTime="2100-01-01T00:00:00Z")
    with Watcher(timed, "service") as watcher:
        watcher.follow()
        assert '"status":"scheduled"' in watcher.event()
        assert name(back_end.caller.ask("GET", "/jobs/v2/j/progress")) == (429, "ThrottlingException")
        back_end.caller.ask("POST", "/jobs/v2/j/cancel")
        assert '"status":"cancelled"' in watcher.event() and watcher.event() == ""
        back_end.create("k", startTime="2100-01-01T00:00:00Z")
        watcher.follow("k")
        watcher.event()
        timed.on_loop(timed.hub.jobs.close)
        assert watcher.event() == ""


def test_a_throttled_hub_runs_jobs_as_the_original_does(tmp_path: Path) -> None:
    """One at a time, ten devices per second."""
    clock = ManualClock(wall=float(int(time.time())))
    with RunningHub(tmp_path / "hub", clock, throttle="S1") as hub, Caller(hub, "service") as caller:
        back_end = BackEnd(hub, caller)
        for number in range(12):
            hub.create_device(f"d{number}")
        back_end.create(updateTwin={"tags": {"a": 1}})
        assert name(back_end.put("k")) == (429, "ThrottlingMaxActiveJobCountExceeded")
        for _ in range(11):
            back_end.until(lambda counts: counts["runningCount"] == 0 and counts["deviceCount"] == 12)
            assert back_end.get()["status"] == "running"
            hub.advance(0.09)
        hub.advance(0.2)
        assert back_end.ended()["deviceJobStatistics"]["succeededCount"] == 12
