"""Jobs and their parts as values, and what follows from an outcome, as pure functions. Knows no clock and no store.

job         queued, scheduled --start--> running --all ended--> completed, failed, cancelled
device job  pending --lease--> running --outcome--> completed, failed
            running --again--> pending --cancel--> canceled
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgspec

from methodhub.core.calls import MethodResult, Outcome
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target

WAITING = 1e12
"""`not_before` of a device that is away: it is tried when it comes. Seconds since 1970."""

RETRIED_CODES = frozenset({"DeviceNotOnline", "ThrottlingException", "ServiceUnavailable"})
"""Those after which nothing was delivered."""

LONGEST_BACKOFF = 3_600.0
ABORT_MINIMUM = 10
"""Devices that must have ended before a share of failures says anything."""


class JobType(StrEnum):
    METHOD = "scheduleDeviceMethod"
    TWIN = "scheduleUpdateTwin"


class JobStatus(StrEnum):
    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self in ENDED


ENDED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class DeviceJobStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


class Retry(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Up to `count` more calls of a device, the n-th `backoff_seconds` times 2^(n-1) after the one before."""

    count: int
    backoff_seconds: float = 5.0
    on: tuple[str, ...] = ()
    """Names of errors beside RETRIED_CODES."""


class Rollout(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The first devices, and the others only if at least this share of those succeeded."""

    first: int
    minimum_success: float = 1.0


class JobOptions(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a job may ask for beyond the original."""

    rate: float | None = None
    """Devices per second."""
    concurrency: int | None = None
    """Devices at once."""
    retry: Retry | None = None
    abort_threshold: float | None = None
    """Share of the ended devices that failed, at which no further one is called."""
    abort_minimum: int = ABORT_MINIMUM
    rollout: Rollout | None = None


NO_OPTIONS = JobOptions()
BEFORE_ALL = Target("")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. The counts add up: `device_count` is the sum of the others."""

    status: JobStatus
    selecting: bool = False
    """Devices are still being chosen."""
    staged: bool = False
    """Only the first devices of a rollout may be called as yet."""
    cancel_requested: bool = False
    failure_reason: str | None = None
    end_time: float | None = None
    device_count: int = 0
    pending_count: int = 0
    running_count: int = 0
    succeeded_count: int = 0
    failed_count: int = 0
    canceled_count: int = 0

    @property
    def is_ending(self) -> bool:
        """No further device may begin."""
        return self.cancel_requested or self.failure_reason is not None

    @property
    def ended_count(self) -> int:
        return self.succeeded_count + self.failed_count + self.canceled_count

    @property
    def is_done(self) -> bool:
        """Nothing is left to do but to say so."""
        return not (self.selecting or self.pending_count or self.running_count)


@dataclass(frozen=True, slots=True)
class Job:
    """Times are seconds since 1970, UTC. `work` is JSON as the back end wrote it."""

    job_id: str
    type: JobType
    condition: str
    created_time: float
    start_time: float
    max_execution_seconds: int
    work: bytes
    options: JobOptions = NO_OPTIONS
    progress: Progress = field(default=Progress(JobStatus.QUEUED))
    selected: Target = BEFORE_ALL
    """The last device that was chosen."""

    @property
    def deadline(self) -> float:
        return self.start_time + self.max_execution_seconds


@dataclass(frozen=True, slots=True)
class DeviceJob:
    """A job's part for one device, as it is stored. `payload` are the answer's own bytes."""

    job_id: str
    job_type: JobType
    target: Target
    status: DeviceJobStatus
    created_time: float
    updated_time: float
    start_time: float | None = None
    end_time: float | None = None
    attempts: int = 0
    outcome_status: int | None = None
    payload: bytes | None = None
    error_code: str | None = None
    error_description: str | None = None


class Lease(NamedTuple):
    """A device that this node, and no other, may call now. `attempts`: calls that were begun, this one included."""

    job_id: str
    target: Target
    attempts: int


class Orphan(NamedTuple):
    """What a dead node leaves: a device whose call may have been delivered."""

    lease: Lease
    node_id: str
    job_type: JobType


class Report(NamedTuple):
    """What becomes of a leased device. `not_before` counts where it is pending again."""

    job_id: str
    target: Target
    status: DeviceJobStatus
    attempts: int
    not_before: float = 0.0
    outcome_status: int | None = None
    payload: bytes | None = None
    error_code: str | None = None
    error_description: str | None = None


# --- what follows ------------------------------------------------------------------------------------------------


def first_status(start_time: float, now: float) -> JobStatus:
    return JobStatus.SCHEDULED if start_time > now else JobStatus.QUEUED


def final_status(progress: Progress) -> JobStatus:
    """Of a job whose devices have all ended. [HUB-job-completed] Also if all of them failed: that is theirs."""
    if progress.cancel_requested:
        return JobStatus.CANCELLED
    return JobStatus.FAILED if progress.failure_reason is not None else JobStatus.COMPLETED


def judge(lease: Lease, outcome: Outcome, options: JobOptions, now: float) -> Report:
    """What an outcome of a call makes of a device. Any status that the device chose is an answer.

    [HUB-job-waits] A device that is away waits for its connect, and its try does not count.
    """
    job_id, target, attempts = lease
    if isinstance(outcome, MethodResult):
        return Report(
            job_id,
            target,
            DeviceJobStatus.COMPLETED,
            attempts,
            outcome_status=outcome.status,
            payload=outcome.payload or b"null",
        )
    name = outcome.code.name
    if outcome.code is ErrorCode.DeviceNotOnline:
        return again(lease, WAITING, outcome)
    retry = options.retry
    if retry is not None and attempts <= retry.count and (name in RETRIED_CODES or name in retry.on):
        pause = min(retry.backoff_seconds * 2.0 ** (attempts - 1), LONGEST_BACKOFF)
        return again(lease, now + pause, outcome, counts=True)
    return failed(lease, outcome)


def again(lease: Lease, not_before: float, error: HubError | None = None, *, counts: bool = False) -> Report:
    job_id, target, attempts = lease
    return Report(
        job_id,
        target,
        DeviceJobStatus.PENDING,
        attempts if counts else attempts - 1,
        not_before,
        error_code=error.code.name if error else None,
        error_description=error.message if error else None,
    )


def failed(lease: Lease, error: HubError) -> Report:
    job_id, target, attempts = lease
    return Report(
        job_id,
        target,
        DeviceJobStatus.FAILED,
        attempts,
        error_code=error.code.name,
        error_description=error.message,
    )


def twin_updated(lease: Lease) -> Report:
    return Report(lease.job_id, lease.target, DeviceJobStatus.COMPLETED, lease.attempts)


def abandoned(orphan: Orphan, now: float) -> Report:
    """[HUB-job-once] A call that may have reached its device before its node died is told as such and not repeated. The
    update of a twin may be: the same patch a second time changes nothing."""
    if orphan.job_type is JobType.TWIN:
        return again(orphan.lease, now)
    return failed(
        orphan.lease,
        HubError(
            ErrorCode.DeviceConnectionClosedRemotely,
            "The hub stopped while the call was open. It may have reached the device; it was not repeated.",
        ),
    )


def never_tried() -> HubError:
    return HubError(
        ErrorCode.RequestTimedOut, "The job's maxExecutionTimeInSeconds ended before the device's turn came."
    )


def abort_reason(progress: Progress, options: JobOptions) -> str | None:
    """[HUB-job-abort] Why no further device is to be called, if so."""
    threshold, ended = options.abort_threshold, progress.succeeded_count + progress.failed_count
    if threshold is None or progress.is_ending or ended < options.abort_minimum or not progress.failed_count:
        return None
    if not (progress.pending_count or progress.selecting) or progress.failed_count / ended < threshold:
        return None
    return f"Aborted: {progress.failed_count} of {ended} devices failed, abortThreshold is {threshold:g}."


class Stage(StrEnum):
    WAIT = "the first devices have not ended"
    GO_ON = "enough of them succeeded"
    STOP = "too few of them succeeded"


def stage_of(progress: Progress, rollout: Rollout) -> Stage:
    """[HUB-job-rollout] Of a job that is still staged: only its first devices can have ended."""
    if progress.selecting and progress.device_count < rollout.first:
        return Stage.WAIT
    first = min(rollout.first, progress.device_count)
    if progress.ended_count < first:
        return Stage.WAIT
    return Stage.GO_ON if progress.succeeded_count >= rollout.minimum_success * first else Stage.STOP


def rollout_reason(progress: Progress, rollout: Rollout) -> str:
    return (
        f"Stopped after the first {progress.ended_count} devices: {progress.succeeded_count} succeeded, "
        f"minimumSuccess is {rollout.minimum_success:g}."
    )
