"""Jobs as JSON: what is taken, what is refused, and what each client can read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.jobs.model import (
    DeviceJob,
    DeviceJobStatus,
    Job,
    JobOptions,
    JobStatus,
    JobType,
    Progress,
    Retry,
    Rollout,
)
from methodhub.core.jobs.rules import JobRequest, check
from methodhub.iothub.jobs import (
    created_json,
    device_job_json,
    job_json,
    jobs_json,
    parse_job,
    parse_name,
    parse_time,
    progress_event,
)
from methodhub.iothub.rest import MethodRules

WORK = b'{"methodName":"m", "payload": {"b":1.50,"a":"\\u0000"}}'
NOW = 1_800_000_000.25
RULES = MethodRules()


def parse(body: dict[str, Any] | bytes, job_id: str = "j") -> JobRequest:
    request = parse_job(job_id, body if isinstance(body, bytes) else json.dumps(body).encode(), RULES)
    check(request)
    return request


def method(**fields: Any) -> dict[str, Any]:
    return {"cloudToDeviceMethod": {"methodName": "m"}, "queryCondition": "*", **fields}


def code(body: dict[str, Any] | bytes, job_id: str = "j") -> int:
    with pytest.raises(HubError) as raised:
        parse(body, job_id)
    return int(raised.value.code)


def job(progress: Progress | None = None, **fields: Any) -> Job:
    given = {"options": JobOptions()} | fields
    return Job("j", JobType.METHOD, "*", NOW, NOW, 60, WORK, progress=progress or Progress(JobStatus.QUEUED), **given)


def test_what_a_job_does_is_kept_byte_for_byte() -> None:
    """[HUB-job-work]"""
    body = b'{"jobId":"j","type":"ScheduleDeviceMethod","cloudToDeviceMethod":%b,"queryCondition":"*"}' % WORK
    request = parse(body)
    assert (request.work, request.type, request.max_execution_seconds) == (WORK, JobType.METHOD, 3_600)
    assert WORK in msgspec.json.encode(job_json(job()))


def test_the_bodies_of_the_sdks() -> None:
    node = {
        "jobId": "j",
        "type": "scheduleDeviceMethod",
        "cloudToDeviceMethod": {"methodName": "m", "payload": None, "responseTimeoutInSeconds": 30},
        "updateTwin": None,
        "queryCondition": "deviceId IN ['x']",
        "startTime": "2027-01-15T08:00:00.000Z",
        "maxExecutionTimeInSeconds": 3600,
        "timeoutInSeconds": 7,
    }
    request = parse(node)
    assert (request.type, request.condition, request.start_time) == (JobType.METHOD, "deviceId IN ['x']", NOW - 0.25)
    twin = {"updateTwin": {"etag": "*", "tags": {"a": 1}}, "queryCondition": "*", "startTime": None}
    assert parse(twin).type is JobType.TWIN


def test_options_beyond_the_original() -> None:
    request = parse(
        method(
            rate=2.5,
            concurrency=10,
            retry={"count": 2, "backoffSeconds": 1, "on": ["GatewayTimeout"]},
            abortThreshold=0.2,
            abortMinimum=5,
            rollout={"first": 10, "minimumSuccess": 0.9},
            dryRun=True,
        )
    )
    options = JobOptions(2.5, 10, Retry(2, 1, ("GatewayTimeout",)), 0.2, 5, Rollout(10, 0.9))
    assert (request.options, request.dry_run) == (options, True)
    shown = json.loads(msgspec.json.encode(job_json(job(options=options))))
    assert shown["retry"] == {"count": 2, "backoffSeconds": 1, "on": ["GatewayTimeout"]}
    assert "rate" not in job_json(job())


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"queryCondition": "*"},
        {"queryCondition": "*", "cloudToDeviceMethod": {"methodName": "m"}, "updateTwin": {"tags": {"a": 1}}},
        method(type="scheduleUpdateTwin"),
        method(type="no"),
        method(jobId="other"),
        method(queryCondition=" "),
        method(queryCondition="x" * 8_193),
        method(cloudToDeviceMethod={"methodName": ""}),
        method(cloudToDeviceMethod={"methodName": "m", "responseTimeoutInSeconds": 301}),
        method(startTime="soon"),
        method(maxExecutionTimeInSeconds=0),
        method(maxExecutionTimeInSeconds=2_592_001),
        method(rate=0),
        method(concurrency=0),
        method(retry={"count": -1}),
        method(retry={"count": 1, "on": ["Nonsense"]}),
        method(retry={"count": 1, "times": 2}),
        method(abortThreshold=1.5),
        method(rollout={"first": 0}),
        method(rollout={"first": 1, "minimumSuccess": 2}),
        {"updateTwin": {"etag": "*"}, "queryCondition": "*"},
        {"updateTwin": {"tags": {"a.b": 1}}, "queryCondition": "*"},
        {"updateTwin": {"properties": {"desired": []}}, "queryCondition": "*"},
    ],
)
def test_what_is_no_job_is_refused(wrong: dict[str, Any]) -> None:
    """[HUB-job-work]"""
    assert code(wrong) == ErrorCode.ArgumentInvalid


@pytest.mark.parametrize("body", [b"", b"{", b"{} {}", b'{"a":"\xff"}', b"[" * 100_000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert code(body) == ErrorCode.IotHubFormatError


@pytest.mark.parametrize("job_id", ["", "a_b", "a b", "ä", "x" * 65, "a/b"])
def test_ids_are_letters_digits_and_dashes(job_id: str) -> None:
    """[HUB-job-id]"""
    assert code(method(), job_id) == ErrorCode.ArgumentInvalid
    assert parse(method(), "a-Z-09" + "x" * 58).job_id


def test_names_count_in_any_case() -> None:
    """[HUB-job-names]"""
    assert parse_name(JobStatus, "Running", "jobStatus") is JobStatus.RUNNING
    with pytest.raises(HubError):
        parse_name(JobStatus, "ran", "jobStatus")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("2027-01-15T08:00:00Z", NOW - 0.25),
        ("2027-01-15T08:00:00.2500000Z", NOW),
        ("2027-01-15T08:00:00.25", NOW),
        ("2027-01-15T09:00:00+01:00", NOW - 0.25),
        ("9999-12-31T23:59:59.9999999Z", 253_370_764_800.0),
    ],
)
def test_times(text: str | None, seconds: float | None) -> None:
    assert parse_time(text) == seconds


def test_create_answers_queued() -> None:
    """[HUB-job-queued] Also for one that begins later."""
    made = created_json(job(Progress(JobStatus.SCHEDULED)))
    assert json.loads(made) == {"jobId": "j", "type": "scheduleDeviceMethod", "status": "queued"}


def test_a_job_has_no_key_without_a_value() -> None:
    """[HUB-job-json]"""
    progress = Progress(JobStatus.RUNNING, device_count=10, failed_count=1, canceled_count=2, succeeded_count=3)
    shown = json.loads(msgspec.json.encode(job_json(job(progress))))
    assert shown == {
        "jobId": "j",
        "queryCondition": "*",
        "createdTime": "2027-01-15T08:00:00.2500000Z",
        "startTime": "2027-01-15T08:00:00.2500000Z",
        "maxExecutionTimeInSeconds": 60,
        "type": "scheduleDeviceMethod",
        "cloudToDeviceMethod": json.loads(WORK),
        "status": "running",
        "deviceJobStatistics": {
            "deviceCount": 10,
            "failedCount": 3,
            "succeededCount": 3,
            "runningCount": 0,
            "pendingCount": 0,
            "canceledCount": 2,
        },
    }
    ended = job_json(job(Progress(JobStatus.FAILED, failure_reason="why", end_time=NOW)))
    assert (ended["failureReason"], ended["endTime"]) == ("why", "2027-01-15T08:00:00.2500000Z")


@pytest.mark.parametrize(
    ("user_agent", "is_object"),
    [
        ("python/3.11.7 (Linux) msrest/0.7.1 iothubgatewayserviceapis/2021-04-12", True),
        ("python/3.11 msrest/0.7.1 iothubgatewayserviceapis/2024-03-31 IoTPlatformCliExtension/0.25.0", False),
        ("azure-iothub/1.16.6 (node v20; linux)", False),
        ("", False),
    ],
)
def test_only_the_python_sdk_gets_an_object(user_agent: str, is_object: bool) -> None:
    """[HUB-job-list]"""
    found = json.loads(jobs_json([job()], "more", user_agent))
    if is_object:
        assert (found["continuationToken"], found["items"][0]["jobId"]) == ("more", "j")
        assert "continuationToken" not in json.loads(jobs_json([], None, user_agent))
    else:
        assert [each["jobId"] for each in found] == ["j"]


def test_device_jobs() -> None:
    answered = DeviceJob(
        "j", JobType.METHOD, Target("d"), DeviceJobStatus.COMPLETED, NOW, NOW, NOW, NOW, 1, 200, b'{"b":1.50, "a":2}'
    )
    encoded = msgspec.json.encode(device_job_json(answered))
    assert b'"outcome":{"deviceMethodResponse":{"status":200,"payload":{"b":1.50, "a":2}}}' in encoded
    assert "error" not in json.loads(encoded) and "moduleId" not in json.loads(encoded)
    failed = DeviceJob(
        "j", JobType.METHOD, Target("d", "m"), DeviceJobStatus.FAILED, NOW, NOW, error_code="X", error_description="x"
    )
    shown = device_job_json(failed)
    assert (shown["error"], shown["moduleId"]) == ({"code": "X", "description": "x"}, "m")
    assert "outcome" not in shown


def test_events() -> None:
    """[HUB-job-progress]"""
    event = progress_event(job(Progress(JobStatus.RUNNING)))
    assert event.startswith(b"event: progress\ndata: {") and event.endswith(b"}\n\n")
    assert event.count(b"\n") == 3 and b"cloudToDeviceMethod" not in event
    assert progress_event(job(Progress(JobStatus.COMPLETED))).startswith(b"event: end\n")
