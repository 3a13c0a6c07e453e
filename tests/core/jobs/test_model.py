"""What follows from outcomes and counts, as pure functions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.calls import MethodResult
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.jobs.model import (
    LONGEST_BACKOFF,
    NO_OPTIONS,
    WAITING,
    DeviceJobStatus,
    JobOptions,
    JobStatus,
    JobType,
    Lease,
    Orphan,
    Progress,
    Retry,
    Rollout,
    Stage,
    abandoned,
    abort_reason,
    final_status,
    first_status,
    judge,
    stage_of,
)
from methodhub.core.jobs.pace import Pace

NOW = 1_800_000_000.0
LEASE = Lease("j", Target("d"), 1)
errors = st.sampled_from(ErrorCode).map(lambda code: HubError(code, "text"))
retries = st.builds(
    Retry,
    st.integers(0, 5),
    st.floats(0, 3_600),
    st.lists(st.sampled_from([code.name for code in ErrorCode]), max_size=3).map(tuple),
)


def progress(succeeded: int = 0, failed: int = 0, pending: int = 0, running: int = 0, **fields: object) -> Progress:
    plain = Progress(
        JobStatus.RUNNING,
        device_count=succeeded + failed + pending + running,
        succeeded_count=succeeded,
        failed_count=failed,
        pending_count=pending,
        running_count=running,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


# --- one device --------------------------------------------------------------------------------------------------


@given(st.integers(-(2**31), 2**31 - 1))
def test_any_status_of_a_device_is_an_answer(status: int) -> None:
    report = judge(LEASE, MethodResult(status, b"[1.0]"), NO_OPTIONS, NOW)
    assert (report.status, report.outcome_status, report.payload) == (DeviceJobStatus.COMPLETED, status, b"[1.0]")
    assert judge(LEASE, MethodResult(status, b""), NO_OPTIONS, NOW).payload == b"null"


@given(st.none() | retries, st.integers(1, 200))
def test_a_device_that_is_away_waits_and_its_try_does_not_count(retry: Retry | None, attempts: int) -> None:
    """[HUB-job-waits]"""
    lease = LEASE._replace(attempts=attempts)
    report = judge(lease, HubError(ErrorCode.DeviceNotOnline, "away"), JobOptions(retry=retry), NOW)
    assert (report.status, report.not_before) == (DeviceJobStatus.PENDING, WAITING)
    assert report.attempts == attempts - 1
    assert report.error_code == "DeviceNotOnline"


@given(errors.filter(lambda error: error.code is not ErrorCode.DeviceNotOnline))
def test_nothing_is_repeated_that_nobody_asked_to_repeat(error: HubError) -> None:
    report = judge(LEASE, error, NO_OPTIONS, NOW)
    assert (report.status, report.error_code, report.error_description) == (
        DeviceJobStatus.FAILED,
        error.code.name,
        "text",
    )


@given(errors, retries)
def test_a_device_is_called_at_most_as_often_as_its_job_says(error: HubError, retry: Retry) -> None:
    if error.code is ErrorCode.DeviceNotOnline:
        return
    repeated = error.code.name in {"ThrottlingException", "ServiceUnavailable", *retry.on}
    calls = 1
    while (report := judge(LEASE._replace(attempts=calls), error, JobOptions(retry=retry), NOW)).status is (
        DeviceJobStatus.PENDING
    ):
        assert report.attempts == calls
        assert NOW <= report.not_before <= NOW + LONGEST_BACKOFF
        calls += 1
    assert report.status is DeviceJobStatus.FAILED
    assert calls == (retry.count + 1 if repeated else 1)


def test_pauses_double() -> None:
    options = JobOptions(retry=Retry(20, 5))
    busy = HubError(ErrorCode.ServiceUnavailable, "x")
    pauses = [judge(LEASE._replace(attempts=n), busy, options, NOW).not_before - NOW for n in (1, 2, 3, 20)]
    assert pauses == [5, 10, 20, LONGEST_BACKOFF]


def test_a_call_that_may_have_been_delivered_is_told_as_such_and_a_twins_patch_is_repeated() -> None:
    """[HUB-job-once]"""
    call = abandoned(Orphan(LEASE, "n", JobType.METHOD), NOW)
    assert (call.status, call.error_code) == (DeviceJobStatus.FAILED, "DeviceConnectionClosedRemotely")
    assert call.error_description is not None and "may have reached the device" in call.error_description
    patch = abandoned(Orphan(LEASE, "n", JobType.TWIN), NOW)
    assert (patch.status, patch.not_before) == (DeviceJobStatus.PENDING, NOW)


# --- a job -------------------------------------------------------------------------------------------------------


def test_a_job_begins_queued_or_is_scheduled() -> None:
    assert first_status(NOW, NOW) is JobStatus.QUEUED
    assert first_status(NOW + 0.1, NOW) is JobStatus.SCHEDULED


def test_a_job_all_of_whose_devices_failed_has_completed() -> None:
    """[HUB-job-completed]"""
    assert final_status(progress(failed=3)) is JobStatus.COMPLETED
    assert final_status(progress(failed=3, failure_reason="x")) is JobStatus.FAILED
    assert final_status(progress(failed=3, cancel_requested=True)) is JobStatus.CANCELLED


@pytest.mark.parametrize(
    ("counts", "aborts"),
    [
        (progress(succeeded=8, failed=2, pending=1), True),
        (progress(succeeded=9, failed=1, pending=1), False),
        (progress(failed=9, pending=1), False),  # too few to tell
        (progress(failed=10), False),  # nothing is left to spare
        (progress(failed=10, running=4), False),
        (progress(failed=10, selecting=True), True),
        (progress(failed=10, pending=1, cancel_requested=True), False),
    ],
)
def test_a_job_aborts_at_its_share_of_failures(counts: Progress, aborts: bool) -> None:
    """[HUB-job-abort]"""
    assert (abort_reason(counts, JobOptions(abort_threshold=0.2)) is not None) is aborts
    assert abort_reason(counts, NO_OPTIONS) is None


@pytest.mark.parametrize(
    ("counts", "stage"),
    [
        (progress(succeeded=2, running=1, pending=7), Stage.WAIT),
        (progress(succeeded=2, failed=1, pending=7), Stage.STOP),
        (progress(succeeded=3, pending=7), Stage.GO_ON),
        (progress(succeeded=2, selecting=True), Stage.WAIT),  # the third may not have been chosen yet
        (progress(succeeded=2), Stage.GO_ON),  # there are no more
    ],
)
def test_a_rollout_goes_on_when_enough_of_the_first_succeeded(counts: Progress, stage: Stage) -> None:
    """[HUB-job-rollout]"""
    assert stage_of(counts, Rollout(3, 0.9)) is stage


# --- pace --------------------------------------------------------------------------------------------------------


@given(st.floats(0.01, 10_000), st.lists(st.floats(0, 5), min_size=1, max_size=50))
def test_no_more_turns_than_the_rate_allows_and_none_are_lost(rate: float, pauses: list[float]) -> None:
    now, taken = 0.0, 0
    pace = Pace(rate, now)
    for pause in pauses:
        now += pause
        turns = pace.turns(now)
        pace.take(turns)
        taken += turns
        assert taken <= rate * now + 1 + 1e-6
        assert pace.ready_at() > now
    due = pace.ready_at()
    assert pace.turns(due + 1e-6) >= 1
    assert due - now <= max(1 / rate, 0.05) + 1e-6
