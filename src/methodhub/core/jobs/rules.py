"""What a job may be: ids, ranges and the errors for what is not. Knows no JSON and no store."""

from __future__ import annotations

import re
from dataclasses import dataclass

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.jobs.model import JobOptions, JobType

JOB_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
JOB_ID_RULE = "1 to 64 ASCII letters, digits and dashes"
CONDITION_LIMIT = 8_192
DEFAULT_EXECUTION = 3_600
LONGEST_EXECUTION = 30 * 86_400
LATEST_START = 253_370_764_800.0
"""The year 9999."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a back end asks for. `start_time`: seconds since 1970, None for now. `work`: JSON as it was written."""

    job_id: str
    type: JobType
    condition: str
    start_time: float | None
    max_execution_seconds: int
    work: bytes
    options: JobOptions
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Matching:
    """Whom a job would call: how many, and the first of them."""

    count: int
    first: tuple[Target, ...]


def argument_invalid(text: str) -> HubError:
    return HubError(ErrorCode.ArgumentInvalid, text)


def job_not_found(job_id: str) -> HubError:
    return HubError(ErrorCode.JobNotFound, f"There is no job {job_id!r}.")


def job_already_exists(job_id: str) -> HubError:
    return HubError(ErrorCode.JobAlreadyExists, f"A job {job_id!r} exists already.")


def too_many_jobs(limit: int) -> HubError:
    return HubError(
        ErrorCode.ThrottlingMaxActiveJobCountExceeded, f"{limit} jobs run or wait to run, as many as may at once."
    )


def condition_failed(error: HubError) -> str:
    """[HUB-job-query] As the original's text begins (`wire/service.md` 4.1)."""
    if error.code is ErrorCode.ArgumentInvalid:
        return f"SQL query parse failed: {error.message}"
    return error.message


def check(request: JobRequest) -> None:
    """Raises 400004."""
    check_job_id(request.job_id)
    check_condition(request.condition)
    check_execution_seconds(request.max_execution_seconds)
    check_options(request.options)


def check_job_id(job_id: str) -> None:
    """[HUB-job-id] `wire/service.md` 4.1. Raises 400004."""
    if JOB_ID.fullmatch(job_id) is None:
        raise argument_invalid(f"The job id {job_id[:70]!r} is not {JOB_ID_RULE}.")
    if job_id == "query":
        raise argument_invalid("No job can have the id 'query': its path is that of the list of jobs.")


def check_condition(condition: str) -> None:
    if not condition.strip():
        raise argument_invalid("queryCondition is missing or empty; * means all devices.")
    if "\0" in condition:
        raise argument_invalid("queryCondition holds a NUL character.")
    if len(condition) > CONDITION_LIMIT:
        raise argument_invalid(f"queryCondition has {len(condition)} characters of at most {CONDITION_LIMIT}.")


def check_execution_seconds(seconds: int) -> None:
    if not 1 <= seconds <= LONGEST_EXECUTION:
        raise argument_invalid(f"maxExecutionTimeInSeconds must be within [1; {LONGEST_EXECUTION}].")


def check_options(options: JobOptions) -> None:
    """Raises 400004."""
    _within("rate", options.rate, 0.001, 1_000_000)
    _within("concurrency", options.concurrency, 1, 1_000_000)
    _within("abortThreshold", options.abort_threshold, 0.000_001, 1)
    _within("abortMinimum", options.abort_minimum, 1, 1_000_000_000)
    if options.retry is not None:
        _within("retry.count", options.retry.count, 0, 100)
        _within("retry.backoffSeconds", options.retry.backoff_seconds, 0, 3_600)
        for name in options.retry.on:
            if name not in ErrorCode.__members__:
                raise argument_invalid(f"retry.on names {name[:60]!r}, which is no error's name.")
    if options.rollout is not None:
        _within("rollout.first", options.rollout.first, 1, 1_000_000_000)
        _within("rollout.minimumSuccess", options.rollout.minimum_success, 0, 1)


def _within(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise argument_invalid(f"{name} must be within [{least:g}; {most:g}].")
