"""Jobs as JSON, both ways (`wire/service.md` 4). What a job does, and what devices answered, pass byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.jobs.model import (
    ABORT_MINIMUM,
    DeviceJob,
    DeviceJobStatus,
    Job,
    JobOptions,
    JobStatus,
    JobType,
    Retry,
    Rollout,
)
from methodhub.core.jobs.rules import DEFAULT_EXECUTION, LATEST_START, JobRequest, Matching, argument_invalid
from methodhub.core.twins.rules import check
from methodhub.iothub.payload import json_error
from methodhub.iothub.rest import MethodRules, parse_method_request, timestamp
from methodhub.iothub.twin_json import parse_update

WORK_KEYS = {JobType.METHOD: "cloudToDeviceMethod", JobType.TWIN: "updateTwin"}
PYTHON_SDK, AZURE_CLI = "iothubgatewayserviceapis", "IoTPlatformCliExtension"
Name = TypeVar("Name", JobType, JobStatus)


class _JobBody(msgspec.Struct, rename="camel"):
    job_id: str | None = None
    type: str | None = None
    cloud_to_device_method: msgspec.Raw | UnsetType = UNSET
    update_twin: msgspec.Raw | UnsetType = UNSET
    query_condition: str | None = None
    start_time: str | None = None
    max_execution_time_in_seconds: int | None = None
    rate: float | None = None
    concurrency: int | None = None
    retry: Retry | None = None
    abort_threshold: float | None = None
    abort_minimum: int | None = None
    rollout: Rollout | None = None
    dry_run: bool | None = None


_decode = msgspec.json.Decoder(_JobBody).decode


def parse_job(job_id: str, body: bytes, rules: MethodRules) -> JobRequest:
    """The job that a PUT asks for. Unknown keys are ignored. Raises 400004 or 400006."""
    wrong = json_error(body)
    if wrong is not None:
        raise HubError(ErrorCode.IotHubFormatError, f"The body is not JSON: {wrong}.")
    try:
        fields = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise argument_invalid(f"The body is not a job: {error}.") from None
    if fields.job_id is not None and fields.job_id != job_id:
        raise argument_invalid(f"jobId is {fields.job_id[:70]!r}, but the path says {job_id[:70]!r}.")
    job_type, work = _work(fields, rules)
    seconds = fields.max_execution_time_in_seconds
    return JobRequest(
        job_id=job_id,
        type=job_type,
        condition=fields.query_condition or "",
        start_time=parse_time(fields.start_time),
        max_execution_seconds=DEFAULT_EXECUTION if seconds is None else seconds,
        work=work,
        options=JobOptions(
            rate=fields.rate,
            concurrency=fields.concurrency,
            retry=fields.retry,
            abort_threshold=fields.abort_threshold,
            abort_minimum=ABORT_MINIMUM if fields.abort_minimum is None else fields.abort_minimum,
            rollout=fields.rollout,
        ),
        dry_run=bool(fields.dry_run),
    )


def _work(fields: _JobBody, rules: MethodRules) -> tuple[JobType, bytes]:
    """[HUB-job-work] Exactly one of the two, and of the type that is named."""
    given = {
        job_type: bytes(raw)
        for job_type, raw in ((JobType.METHOD, fields.cloud_to_device_method), (JobType.TWIN, fields.update_twin))
        if not isinstance(raw, UnsetType) and bytes(raw) != b"null"
    }
    if len(given) != 1:
        raise argument_invalid("A job has exactly one of cloudToDeviceMethod and updateTwin.")
    job_type, work = next(iter(given.items()))
    if fields.type is not None and parse_name(JobType, fields.type, "type") is not job_type:
        raise argument_invalid(f"A job of the type {fields.type} has no {WORK_KEYS[job_type]}.")
    if job_type is JobType.METHOD:
        parse_method_request(work, rules)
    else:
        update = parse_update(work, replaces=False)
        check(update.tags or {}, "tags")
        check(update.desired or {}, "properties.desired")
        if not (update.tags or update.desired):
            raise argument_invalid("updateTwin changes neither tags nor properties.desired.")
    return job_type, work


def parse_name(names: type[Name], text: str, key: str) -> Name:
    """[HUB-job-names] In any case: C# sends PascalCase. Raises 400004."""
    for name in names:
        if name.value.lower() == text.lower():
            return name
    raise argument_invalid(f"{key} is {text[:60]!r}, not one of {', '.join(name.value for name in names)}.")


def parse_time(text: str | None) -> float | None:
    """Seconds since 1970 of an ISO 8601 text, UTC where it names no offset; None for none. Raises 400004."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise argument_invalid(f"startTime {text[:60]!r} is no time in ISO 8601.") from None
    return min(seconds, LATEST_START)


# --- answers -----------------------------------------------------------------------------------------------------


def created_json(job: Job) -> bytes:
    """[HUB-job-queued] As the original answers: what becomes of it is to be asked for."""
    return msgspec.json.encode({"jobId": job.job_id, "type": job.type.value, "status": JobStatus.QUEUED.value})


def matching_json(request: JobRequest, matching: Matching) -> bytes:
    return msgspec.json.encode(
        {
            "jobId": request.job_id,
            "type": request.type.value,
            "dryRun": True,
            "deviceCount": matching.count,
            "deviceIds": [str(target) for target in matching.first],
        }
    )


def job_json(job: Job, *, with_work: bool = True) -> dict[str, Any]:
    """[HUB-job-json] A JobResponse. Keys without a value are left out: Java cannot read null in all of them."""
    progress = job.progress
    fields = {
        "jobId": job.job_id,
        "queryCondition": job.condition,
        "createdTime": timestamp(job.created_time),
        "startTime": timestamp(job.start_time),
        "endTime": None if progress.end_time is None else timestamp(progress.end_time),
        "maxExecutionTimeInSeconds": job.max_execution_seconds,
        "type": job.type.value,
        WORK_KEYS[job.type]: msgspec.Raw(job.work) if with_work else None,
        "status": progress.status.value,
        "failureReason": progress.failure_reason,
        "deviceJobStatistics": {
            "deviceCount": progress.device_count,
            "failedCount": progress.failed_count + progress.canceled_count,
            "succeededCount": progress.succeeded_count,
            "runningCount": progress.running_count,
            "pendingCount": progress.pending_count,
            "canceledCount": progress.canceled_count,
        },
        **msgspec.to_builtins(job.options),
    }
    if progress.cancel_requested and not progress.status.has_ended:
        fields["statusMessage"] = "It is being cancelled: open calls may end."
    return {key: value for key, value in fields.items() if value is not None}


def progress_event(job: Job) -> bytes:
    """One server-sent event."""
    kind = b"end" if job.progress.status.has_ended else b"progress"
    return b"event: %b\ndata: %b\n\n" % (kind, msgspec.json.encode(job_json(job, with_work=False)))


def jobs_json(jobs: list[Job], continuation: str | None, user_agent: str) -> bytes:
    """[HUB-job-list] An array; for azure-iot-hub for Python, which cannot read one, an object (4.3)."""
    items = [job_json(job) for job in jobs]
    if PYTHON_SDK in user_agent and AZURE_CLI not in user_agent:
        answer: dict[str, Any] = {"type": "jobResponse", "items": items}
        return msgspec.json.encode(answer | ({"continuationToken": continuation} if continuation else {}))
    return msgspec.json.encode(items)


def device_job_json(device_job: DeviceJob) -> dict[str, Any]:
    """An item of `devices.jobs` (4.4). Encode it with msgspec: the payload is raw."""
    fields: dict[str, Any] = {
        "deviceId": device_job.target.device_id,
        "moduleId": device_job.target.module_id or None,
        "jobId": device_job.job_id,
        "jobType": device_job.job_type.value,
        "status": device_job.status.value,
        "startTimeUtc": _time(device_job.start_time),
        "endTimeUtc": _time(device_job.end_time),
        "createdDateTimeUtc": _time(device_job.created_time),
        "lastUpdatedDateTimeUtc": _time(device_job.updated_time),
    }
    if device_job.outcome_status is not None:
        payload = msgspec.Raw(device_job.payload or b"null")
        fields["outcome"] = {"deviceMethodResponse": {"status": device_job.outcome_status, "payload": payload}}
    if device_job.status is DeviceJobStatus.FAILED:
        fields["error"] = {"code": device_job.error_code, "description": device_job.error_description}
    return {key: value for key, value in fields.items() if value is not None}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds)
