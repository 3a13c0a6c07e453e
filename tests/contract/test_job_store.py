"""What every JobStore does, whatever it is made of."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.jobs.model import (
    BEFORE_ALL,
    NO_OPTIONS,
    WAITING,
    DeviceJob,
    DeviceJobStatus,
    Job,
    JobOptions,
    JobStatus,
    JobType,
    Lease,
    Progress,
    Report,
    Retry,
    Rollout,
)
from methodhub.core.ports import Insertion
from methodhub.store.database import Database
from methodhub.store.identities import SqlIdentityStore
from methodhub.store.jobs.store import SqlJobStore

NOW = 1_800_000_000.0
MANY = 1_000
PENDING, RUNNING, COMPLETED, FAILED, CANCELED = DeviceJobStatus


@pytest.fixture
def jobs(database: Database) -> SqlJobStore:
    return SqlJobStore(database)


def job(job_id: str = "j", status: JobStatus = JobStatus.QUEUED, start: float = NOW, **fields: Any) -> Job:
    given: dict[str, Any] = {"work": b'{"methodName":"m\xc3\xbc","payload":"\\u0000"}'} | fields
    return Job(job_id, JobType.METHOD, "*", NOW, start, 60, progress=Progress(status), **given)


def targets(number: int) -> list[Target]:
    return [Target(f"d{n:04}") for n in range(number)]


async def running(jobs: SqlJobStore, number: int = 3, job_id: str = "j", **fields: Any) -> Job:
    """A job that runs, with its devices chosen."""
    made = job(job_id, **fields)
    assert await jobs.insert(made, MANY) is Insertion.DONE
    assert await jobs.begin(job_id, NOW) == Progress(JobStatus.RUNNING, selecting=True)
    await jobs.select(made, BEFORE_ALL, targets(number), True, NOW)
    return made


async def devices(jobs: SqlJobStore, job_id: str = "j") -> list[DeviceJob]:
    return await jobs.devices(job_id, BEFORE_ALL, 10_000)


async def check(jobs: SqlJobStore, job_id: str = "j") -> Progress:
    """The counts of the job are those of its devices."""
    found = await jobs.get(job_id)
    assert found is not None
    progress = found.progress
    counted = Counter(device.status for device in await devices(jobs, job_id))
    assert (
        progress.pending_count,
        progress.running_count,
        progress.succeeded_count,
        progress.failed_count,
        progress.canceled_count,
    ) == tuple(counted[status] for status in DeviceJobStatus)
    assert progress.device_count == counted.total()
    return progress


def answered(lease: Lease, payload: bytes = b'{"b":1,"a":2.50}') -> Report:
    return Report(lease.job_id, lease.target, COMPLETED, lease.attempts, outcome_status=200, payload=payload)


async def leased(jobs: SqlJobStore, limit: int = 100, node: str = "n1", below: int | None = None) -> Sequence[Lease]:
    return (await jobs.lease("j", node, NOW, limit, below))[0]


# --- jobs --------------------------------------------------------------------------------------------------------


async def test_a_job_comes_back_as_it_was_stored(jobs: SqlJobStore) -> None:
    options = JobOptions(2.5, 10, Retry(3, 1.5, ("GatewayTimeout",)), 0.25, 7, Rollout(5, 0.9))
    stored = job(options=options)
    assert await jobs.get("j") is None
    assert await jobs.insert(stored, 1) is Insertion.DONE
    assert await jobs.get("j") == stored
    assert await jobs.get("J") is None


async def test_an_id_is_taken_once(jobs: SqlJobStore) -> None:
    ended = await asyncio.gather(*(jobs.insert(job(), MANY) for _ in range(5)))
    assert Counter(ended) == {Insertion.DONE: 1, Insertion.EXISTS: 4}


async def test_no_more_jobs_are_active_than_may_be(jobs: SqlJobStore) -> None:
    assert await jobs.insert(job("a"), 2) is Insertion.DONE
    assert await jobs.insert(job("b"), 2) is Insertion.DONE
    assert await jobs.insert(job("c"), 2) is Insertion.FULL
    assert await jobs.insert(job("b"), 2) is Insertion.EXISTS
    assert await jobs.insert(job("later", JobStatus.SCHEDULED, NOW + 9), 2) is Insertion.DONE
    await jobs.cancel("a", NOW)
    assert await jobs.insert(job("c"), 2) is Insertion.DONE


async def test_pages_follow_the_ids(jobs: SqlJobStore) -> None:
    for name in ("b", "A", "c", "a"):
        await jobs.insert(job(name), MANY)
    await jobs.cancel("c", NOW)
    assert [each.job_id for each in await jobs.page(None, None, "", 3)] == ["A", "a", "b"]
    assert [each.job_id for each in await jobs.page(None, None, "b", 3)] == ["c"]
    assert [each.job_id for each in await jobs.page(JobType.METHOD, JobStatus.QUEUED, "A", 9)] == ["a", "b"]
    assert await jobs.page(JobType.TWIN, None, "", 9) == []


async def test_what_is_due_runs_first_and_then_the_earliest(jobs: SqlJobStore) -> None:
    await jobs.insert(job("late", JobStatus.SCHEDULED, NOW + 10), MANY)
    await jobs.insert(job("later", JobStatus.SCHEDULED, NOW + 20), MANY)
    await jobs.insert(job("first"), MANY)
    await jobs.insert(job("second", start=NOW + 1), MANY)
    await jobs.begin("second", NOW + 1)
    assert [each.job_id for each in await jobs.due(NOW + 10, 9)] == ["second", "first", "late"]
    assert [each.job_id for each in await jobs.due(NOW + 10, 1)] == ["second"]
    assert await jobs.next_start(NOW) == NOW + 10
    assert await jobs.next_start(NOW + 20) is None


async def test_a_job_begins_once_and_not_before_its_time(jobs: SqlJobStore) -> None:
    await jobs.insert(job(start=NOW + 1), MANY)
    assert await jobs.begin("j", NOW) is None
    begun = await asyncio.gather(*(jobs.begin("j", NOW + 1) for _ in range(4)))
    assert [each for each in begun if each] == [Progress(JobStatus.RUNNING, selecting=True)]


async def test_cancel_ends_what_has_not_begun_and_stops_what_runs(jobs: SqlJobStore) -> None:
    assert await jobs.cancel("j", NOW) is None
    await jobs.insert(job(status=JobStatus.SCHEDULED), MANY)
    cancelled = await jobs.cancel("j", NOW + 5)
    assert cancelled is not None
    assert (cancelled.progress.status, cancelled.progress.end_time) == (JobStatus.CANCELLED, NOW + 5)
    assert await jobs.begin("j", NOW + 9) is None
    await running(jobs, job_id="k")
    stopped = await jobs.cancel("k", NOW)
    assert stopped is not None and stopped.progress.cancel_requested and stopped.progress.is_ending
    assert (await jobs.lease("k", "n1", NOW, 9, None))[0] == []
    await jobs.end_pending("k", CANCELED, None, NOW, 10)
    assert (await jobs.finish("k", JobStatus.CANCELLED, NOW + 1)).status is JobStatus.CANCELLED
    again = await jobs.cancel("k", NOW + 2)
    assert again is not None and again.progress.end_time == NOW + 1
    assert (await check(jobs, "k")).canceled_count == 3


async def test_a_job_with_devices_left_does_not_end(jobs: SqlJobStore) -> None:
    await running(jobs, 1)
    assert (await jobs.finish("j", JobStatus.COMPLETED, NOW)).status is JobStatus.RUNNING
    [lease] = await leased(jobs)
    assert (await jobs.finish("j", JobStatus.COMPLETED, NOW)).status is JobStatus.RUNNING
    await jobs.record("n1", [answered(lease)], NOW)
    ended = await jobs.finish("j", JobStatus.COMPLETED, NOW + 1)
    assert (ended.status, ended.end_time) == (JobStatus.COMPLETED, NOW + 1)


async def test_a_job_is_given_up_once_and_not_when_it_is_being_cancelled(jobs: SqlJobStore) -> None:
    await running(jobs)
    assert (await jobs.give_up("j", "first")).failure_reason == "first"
    assert (await jobs.give_up("j", "second")).failure_reason == "first"
    await running(jobs, job_id="k")
    await jobs.cancel("k", NOW)
    assert (await jobs.give_up("k", "no")).failure_reason is None


# --- devices -----------------------------------------------------------------------------------------------------


async def test_devices_are_chosen_chunk_by_chunk_each_once(jobs: SqlJobStore) -> None:
    """[HUB-job-selection] Two nodes that choose the same chunk add it once."""
    made = job()
    await jobs.insert(made, MANY)
    await jobs.begin("j", NOW)
    all_targets = [*targets(4), Target("d0003", "m")]
    chunk = (made, BEFORE_ALL, all_targets[:2], False, NOW)
    await asyncio.gather(*(jobs.select(*chunk) for _ in range(3)))
    assert (await check(jobs)).selecting
    found = await jobs.get("j")
    assert found is not None and found.selected == all_targets[1]
    stale = await jobs.select(made, BEFORE_ALL, [Target("late")], True, NOW)
    assert stale == (await check(jobs), all_targets[1])
    progress, last = await jobs.select(made, all_targets[1], all_targets[2:], True, NOW)
    assert last == all_targets[-1]
    assert progress == await check(jobs)
    assert not progress.selecting
    assert [device.target for device in await devices(jobs)] == all_targets
    await jobs.select(made, all_targets[-1], [Target("e")], True, NOW)
    assert (await check(jobs)).device_count == 5


async def test_no_device_is_chosen_after_the_last_word(jobs: SqlJobStore) -> None:
    made = job()
    await jobs.insert(made, MANY)
    await jobs.begin("j", NOW)
    await jobs.cancel("j", NOW)
    assert (await jobs.select(made, BEFORE_ALL, targets(2), True, NOW))[0].device_count == 0


async def test_a_device_is_leased_to_one_node(jobs: SqlJobStore) -> None:
    """[HUB-job-lease]"""
    await running(jobs, 50)
    slices = await asyncio.gather(*(leased(jobs, 10, f"n{n}") for n in range(8)))
    taken = [lease.target for leases in slices for lease in leases]
    while more := await leased(jobs, 10, "late"):
        taken += [lease.target for lease in more]
    assert sorted(taken) == targets(50)
    assert (await check(jobs)).running_count == 50


async def test_leases_follow_the_order_of_choice_and_stay_below_the_first_ones(jobs: SqlJobStore) -> None:
    await running(jobs, 9)
    assert [lease.target for lease in await leased(jobs, 2, below=3)] == targets(2)
    assert [lease.target for lease in await leased(jobs, 9, below=3)] == targets(3)[2:]
    assert await leased(jobs, 9, below=3) == []
    assert len(await leased(jobs, 4)) == 4


async def test_an_outcome_keeps_the_answers_bytes(jobs: SqlJobStore) -> None:
    await running(jobs, 1)
    [lease] = await leased(jobs)
    assert lease.attempts == 1
    payload = b'{"b":1,"a":2.50,"\\u0000":"\xc3\xbc"}'
    progress = await jobs.record("n1", [answered(lease, payload)], NOW + 3)
    assert progress == {"j": await check(jobs)}
    [device] = await devices(jobs)
    assert device == DeviceJob(
        "j", JobType.METHOD, Target("d0000"), COMPLETED, NOW, NOW + 3, NOW, NOW + 3, 1, 200, payload
    )


async def test_a_device_has_one_outcome_ever(jobs: SqlJobStore) -> None:
    """[HUB-job-once] Written again, by another node, or after the lease went elsewhere: without effect."""
    await running(jobs, 3)
    leases = await leased(jobs)
    first = [answered(lease) for lease in leases]
    await jobs.record("n2", first, NOW)
    assert (await check(jobs)).running_count == 3
    await jobs.record("n1", [first[0], first[0]], NOW)
    await jobs.record("n1", first[:2], NOW)
    lost = Report("j", first[0].target, FAILED, 1, error_code="X", error_description="x")
    assert (await jobs.record("n1", [lost], NOW))["j"].succeeded_count == 2
    assert [device.status for device in await devices(jobs)] == [COMPLETED, COMPLETED, RUNNING]
    await check(jobs)


async def test_a_device_that_waits_is_due_when_it_comes(jobs: SqlJobStore) -> None:
    """[HUB-job-waits]"""
    await running(jobs, 3)
    leases = await leased(jobs)
    away = [Report("j", lease.target, PENDING, 0, WAITING, error_code="DeviceNotOnline") for lease in leases[:2]]
    soon = Report("j", leases[2].target, PENDING, 1, NOW + 30)
    await jobs.record("n1", [*away, soon], NOW)
    assert await leased(jobs) == []
    assert await jobs.next_due("j", NOW) == NOW + 30
    assert await jobs.wake([Target("d0009"), Target("d0002")], NOW) == set()
    assert await jobs.wake([], NOW) == set()
    assert await jobs.wake([Target("d0001"), Target("other")], NOW) == {"j"}
    assert await jobs.wake([Target("d0001")], NOW) == set()
    assert await leased(jobs) == [Lease("j", Target("d0001"), 1)]
    assert (await jobs.lease("j", "n1", NOW + 30, 9, None))[0] == [Lease("j", Target("d0002"), 2)]
    assert await jobs.next_due("j", NOW) is None
    await check(jobs)


async def test_pending_devices_end_in_chunks_with_the_error_they_had(jobs: SqlJobStore) -> None:
    await running(jobs, 5)
    [lease] = await leased(jobs, 1)
    await jobs.record(
        "n1", [Report("j", lease.target, PENDING, 0, WAITING, None, None, "DeviceNotOnline", "away")], NOW
    )
    error = HubError(ErrorCode.RequestTimedOut, "late")
    assert (await jobs.end_pending("j", FAILED, error, NOW + 1, 3)).pending_count == 2
    assert await jobs.end_pending("j", FAILED, error, NOW + 2, 3) == await check(jobs)
    found = await devices(jobs)
    assert [device.error_code for device in found] == ["DeviceNotOnline", *["RequestTimedOut"] * 4]
    assert found[0].error_description == "away"
    assert all(device.end_time and device.status is FAILED for device in found)


async def test_whether_devices_are_enabled(jobs: SqlJobStore, database: Database) -> None:
    store = SqlIdentityStore(database)
    for device_id, enabled in (("on", True), ("off", False)):
        await store.insert(Identity(Target(device_id), "1", "e", Authentication(), enabled=enabled))
    asked = [Target("on"), Target("off"), Target("on", "m"), Target("none")]
    assert await jobs.enabled(asked) == {Target("on"): True, Target("off"): False}


# --- nodes -------------------------------------------------------------------------------------------------------


async def test_what_a_dead_node_held_is_found_and_only_that(jobs: SqlJobStore) -> None:
    """[HUB-job-lease] By the database's clock."""
    await running(jobs, 3)
    await jobs.enroll("n1", 60, False)
    await jobs.enroll("n2", -1, False)
    await leased(jobs, 1, "n1")
    await leased(jobs, 1, "n2")
    await jobs.bury()
    [orphan] = await jobs.orphans(9)
    assert (orphan.node_id, orphan.lease, orphan.job_type) == ("n2", Lease("j", Target("d0001"), 1), JobType.METHOD)
    assert not await jobs.renew("n2", 60)
    assert await jobs.renew("n1", 60)
    await jobs.record("n2", [Report("j", Target("d0001"), FAILED, 1, error_code="X")], NOW)
    assert await jobs.orphans(9) == []
    await jobs.enroll("n3", 60, True)
    assert [each.node_id for each in await jobs.orphans(9)] == ["n1"]
    assert not await jobs.renew("n1", 60)
    await jobs.retire("n3")
    assert not await jobs.renew("n3", 60)


async def test_old_jobs_go_piece_by_piece(jobs: SqlJobStore) -> None:
    """[HUB-job-retention]"""
    await running(jobs, 5)
    await running(jobs, 2, job_id="k")
    await jobs.cancel("j", NOW)
    await jobs.end_pending("j", CANCELED, None, NOW, 10)
    await jobs.finish("j", JobStatus.CANCELLED, NOW)
    assert not await jobs.purge(NOW, 3)
    steps = 0
    while await jobs.purge(NOW + 1, 3):
        steps += 1
    assert steps == 2
    assert await jobs.get("j") is None
    assert await devices(jobs) == []
    assert (await check(jobs, "k")).device_count == 2


def test_no_options_are_the_default() -> None:
    assert job().options == NO_OPTIONS
