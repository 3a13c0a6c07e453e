"""Rows of jobs and of their devices, and the columns that several statements share."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Integer, Row, bindparam, literal_column, update

from methodhub.core.identity import Target
from methodhub.core.jobs.model import (
    DeviceJob,
    DeviceJobStatus,
    Job,
    JobOptions,
    JobStatus,
    JobType,
    Progress,
)
from methodhub.store.tables import device_jobs, jobs

JOB = jobs.c
DEVICE = device_jobs.c
OF_JOB = JOB.job_id == bindparam("job")
DEVICE_KEY = (
    DEVICE.job_id == bindparam("job"),
    DEVICE.device_id == bindparam("device"),
    DEVICE.module_id == bindparam("module"),
)
# As they stand in the indexes: a bound value would not match those.
PENDING = DEVICE.status == literal_column("'pending'")
RUNNING = DEVICE.status == literal_column("'running'")

PROGRESS: tuple[Any, ...] = (
    JOB.status,
    JOB.selecting,
    JOB.staged,
    JOB.cancel_requested,
    JOB.failure_reason,
    JOB.end_time,
    JOB.device_count,
    JOB.pending_count,
    JOB.running_count,
    JOB.succeeded_count,
    JOB.failed_count,
    JOB.canceled_count,
)
COUNT_OF = {
    DeviceJobStatus.PENDING: "pending_count",
    DeviceJobStatus.RUNNING: "running_count",
    DeviceJobStatus.COMPLETED: "succeeded_count",
    DeviceJobStatus.FAILED: "failed_count",
    DeviceJobStatus.CANCELED: "canceled_count",
}


def _plus(name: str) -> ColumnElement[int]:
    return JOB[name] + bindparam(f"more_{name}", type_=Integer)


COUNT = (
    update(jobs)
    .where(OF_JOB)
    .values({name: _plus(name) for name in COUNT_OF.values()})
    .returning(JOB.job_id, *PROGRESS)
)
"""Changes the counts of a job; `changes` gives its parameters."""

_decode_options = msgspec.json.Decoder(JobOptions).decode


def changes(job_id: str, more: dict[DeviceJobStatus, int]) -> dict[str, Any]:
    """By how much which state has more devices, or fewer."""
    return {"job": job_id} | {f"more_{name}": more.get(status, 0) for status, name in COUNT_OF.items()}


def device_key(job_id: str, target: Target) -> dict[str, Any]:
    return {"job": job_id, "device": target.device_id, "module": target.module_id}


def progress_of(row: Row[Any]) -> Progress:
    return Progress(
        status=JobStatus(row.status),
        selecting=row.selecting,
        staged=row.staged,
        cancel_requested=row.cancel_requested,
        failure_reason=row.failure_reason,
        end_time=row.end_time,
        device_count=row.device_count,
        pending_count=row.pending_count,
        running_count=row.running_count,
        succeeded_count=row.succeeded_count,
        failed_count=row.failed_count,
        canceled_count=row.canceled_count,
    )


def job_of(row: Row[Any]) -> Job:
    return Job(
        job_id=row.job_id,
        type=JobType(row.type),
        condition=row.query_condition,
        created_time=row.created_time,
        start_time=row.start_time,
        max_execution_seconds=row.max_execution_seconds,
        work=row.work,
        options=_decode_options(row.options),
        progress=progress_of(row),
        selected=Target(row.selected_device_id, row.selected_module_id),
    )


def row_of(job: Job) -> dict[str, Any]:
    progress = job.progress
    return {
        "job_id": job.job_id,
        "type": job.type.value,
        "query_condition": job.condition,
        "created_time": job.created_time,
        "start_time": job.start_time,
        "max_execution_seconds": job.max_execution_seconds,
        "work": job.work,
        "options": msgspec.json.encode(job.options).decode(),
        "selected_device_id": job.selected.device_id,
        "selected_module_id": job.selected.module_id,
        "status": progress.status.value,
    } | {column.name: getattr(progress, column.name) for column in PROGRESS[1:]}


def device_job_of(row: Row[Any]) -> DeviceJob:
    """Of a row of `device_jobs` with the column `type` of its job."""
    return DeviceJob(
        job_id=row.job_id,
        job_type=JobType(row.type),
        target=Target(row.device_id, row.module_id),
        status=DeviceJobStatus(row.status),
        created_time=row.created_time,
        updated_time=row.updated_time,
        start_time=row.start_time,
        end_time=row.end_time,
        attempts=row.attempts,
        outcome_status=row.outcome_status,
        payload=row.outcome_payload,
        error_code=row.error_code,
        error_description=row.error_description,
    )
