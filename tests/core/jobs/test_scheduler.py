"""Jobs run on a node: whom they call, when, how often, and what is recorded."""

from __future__ import annotations

import asyncio

import pytest

from methodhub.core.calls import MethodResult
from methodhub.core.clock import CommonClock
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.jobs.model import DeviceJobStatus, JobStatus, JobType, Progress, Retry, Rollout
from methodhub.core.jobs.node import LIFE, Node
from methodhub.core.jobs.scheduler import SWEEP
from tests.core.jobs.world import DONE, World

BUSY = HubError(ErrorCode.ServiceUnavailable, "busy")
SILENT = HubError(ErrorCode.GatewayTimeout, "no answer")


def test_each_device_is_called_once_and_its_answer_kept() -> None:
    with World(2_500) as world:
        world.create()
        progress = world.ended()
        assert (progress.status, progress.succeeded_count) == (JobStatus.COMPLETED, 2_500)
        assert world.called() == dict.fromkeys(world.targets, 1)
        request = world.calls[0][2]
        assert (request.payload, request.connect_timeout) == (b'{"a": 1}', 0)
        assert {device.payload for device in world.devices()} == {b"{}"}


def test_a_job_begins_at_its_time() -> None:
    with World() as world:
        world.create(after=100)
        assert world.until(lambda progress: True).status is JobStatus.SCHEDULED
        world.advance(99)
        assert not world.calls
        world.advance(1.1)
        assert world.ended().succeeded_count == 3


def test_a_wrong_condition_fails_the_job() -> None:
    """[HUB-job-query]"""
    with World() as world:
        world.create(condition="wrong")
        progress = world.ended()
        assert progress.status is JobStatus.FAILED
        assert progress.failure_reason == "SQL query parse failed: line 1"


def test_a_job_over_no_device_completes() -> None:
    with World(0) as world:
        world.create()
        assert world.ended().status is JobStatus.COMPLETED


def test_a_job_all_of_whose_devices_fail_completes() -> None:
    """[HUB-job-completed]"""
    with World(3) as world:
        world.answer = lambda target: SILENT
        world.create()
        progress = world.ended()
        assert (progress.status, progress.failed_count) == (JobStatus.COMPLETED, 3)
        assert world.errors() == {"GatewayTimeout": 3}


def test_twins_are_updated_without_calls() -> None:
    with World(250) as world:
        world.create(type=JobType.TWIN)
        assert world.ended().succeeded_count == 250
        assert sorted(world.updated) == world.targets
        assert not world.calls


# --- devices that are away ---------------------------------------------------------------------------------------


def test_a_device_that_is_away_is_called_when_it_comes() -> None:
    """[HUB-job-waits]"""
    with World(3) as world:
        away = world.targets[1]
        world.online.discard(away)
        world.create()
        world.until(lambda progress: progress.succeeded_count == 2 and progress.pending_count == 1)
        assert world.called()[away] == 1
        world.connect(away)
        assert world.ended().succeeded_count == 3
        assert world.called()[away] == 2
        assert {device.attempts for device in world.devices()} == {1}


def test_a_device_that_comes_while_it_is_recorded_as_away_is_called() -> None:
    """[HUB-job-waits] The notice finds no waiting device yet."""
    with World(1) as world:
        [device] = world.targets
        world.online.clear()

        tell_away = world.scheduler.is_away

        def tell_and_connect(target: Target) -> None:
            tell_away(target)
            world.online.add(target)
            world.scheduler.notice(target)

        world.scheduler.is_away = tell_and_connect  # type: ignore[method-assign]
        world.create()
        assert world.ended().succeeded_count == 1
        assert world.called()[device] == 2


def test_whoever_is_known_to_be_away_is_not_called() -> None:
    """[HUB-job-waits] And those that can never come are told from those that may."""
    with World(2) as world:
        world.targets += [Target("disabled"), Target("gone"), Target("gone", "m")]
        world.targets.sort()
        world.knows_absent = True
        world.online = {world.targets[0]}
        world.create()
        world.until(lambda progress: progress.failed_count == 3 and progress.pending_count == 1)
        assert world.called() == {world.targets[0]: 1}
        assert world.errors() == {None: 1, "DeviceNotOnline": 1, "DeviceNotFound": 3}
        world.connect(world.targets[1])
        assert world.ended().succeeded_count == 2


def test_a_device_that_comes_while_it_is_looked_for_is_called() -> None:
    """[HUB-job-waits]"""
    with World(1) as world:
        [target] = world.targets
        world.knows_absent = True
        world.online = set()

        def come() -> None:
            world.online.add(target)
            world.scheduler.notice(target)

        world.store.asked = come
        world.create()
        assert world.ended().succeeded_count == 1
        assert world.called() == {target: 1}


def test_a_lost_notice_heals() -> None:
    with World(2) as world:
        world.online.discard(world.targets[1])
        world.create()
        world.until(lambda progress: progress.pending_count == 1 and progress.running_count == 0)
        world.online.add(world.targets[1])
        world.advance(SWEEP + 1)
        assert world.ended().succeeded_count == 2


def test_whoever_never_came_is_told_apart_from_whose_turn_never_came() -> None:
    """[HUB-job-deadline]"""
    with World(4, rate=None) as world:
        world.online = set(world.targets[2:])
        world.create(seconds=60, concurrency=3)
        world.answer = lambda target: None
        world.until(lambda progress: progress.running_count == 2 or progress.running_count == 1 + 1)
        world.advance(61)
        world.until(lambda progress: progress.pending_count == 0)
        for target in list(world.open):
            world.settle(target)
        assert world.ended().status is JobStatus.COMPLETED
        assert world.errors()["DeviceNotOnline"] == 2


def test_a_rate_that_is_too_slow_leaves_devices_untried() -> None:
    """[HUB-job-deadline]"""
    with World(100) as world:
        world.create(seconds=10, rate=1.0)
        world.until(lambda progress: progress.ended_count >= 1)
        world.advance(11)
        progress = world.ended()
        assert progress.failed_count == 99
        assert world.errors()["RequestTimedOut"] == 99
        assert len(world.calls) == 1


# --- options -----------------------------------------------------------------------------------------------------


def test_a_rate_is_kept() -> None:
    with World(20) as world:
        world.create(rate=4.0)
        begun = world.clock.monotonic()
        for _ in range(40):
            world.until(lambda progress: progress.running_count == 0)
            if world.ended_already():
                break
            world.advance(0.25)
            seen = len(world.calls)
            assert seen <= 4 * (world.clock.monotonic() - begun) + 1
        assert world.ended().succeeded_count == 20
        assert 4.5 <= world.calls[-1][0] - begun <= 6


def test_no_more_devices_at_once_than_the_job_says() -> None:
    with World(30) as world:
        world.answer = lambda target: None
        world.create(concurrency=7)
        world.until(lambda progress: progress.running_count == 7)
        most = 0
        while world.called().total() < 30 or world.open:
            most = max(most, len(world.open))
            if world.open:
                world.settle(next(iter(world.open)))
            else:
                world.until(lambda progress: bool(world.open) or progress.status.has_ended)
        assert world.ended().succeeded_count == 30
        assert most <= 7


@pytest.mark.parametrize("parts", [(2, 1), (3, 0)])
def test_no_more_devices_at_once_than_the_job_says_on_all_nodes(parts: tuple[int, int]) -> None:
    """[HUB-job-places] Each node has a part of them; one without any lends a hand when it gets one."""
    with World(30) as world:
        other = world.new_scheduler()
        world.start(other, alone=False)
        schedulers = (world.scheduler, other)
        world.scheduler.places = lambda whole: parts[0]
        other.places = lambda whole: parts[1]
        world.answer = lambda target: None
        world.create(concurrency=3)
        world.until(lambda progress: [each.in_flight for each in schedulers] == [*parts], pace=0.05)
        other.places = lambda whole: parts[1] + 1
        world.until(lambda progress: other.in_flight == parts[1] + 1, pace=0.05)
        world.answer = lambda target: DONE
        for target in world.open:
            world.settle(target)
        assert world.until(lambda progress: progress.status.has_ended, pace=0.05).succeeded_count == 30
        assert world.called() == dict.fromkeys(world.targets, 1)


def test_a_device_is_called_again_where_that_is_asked_for() -> None:
    with World(1) as world:
        outcomes: list[HubError | MethodResult] = [BUSY, SILENT, DONE]
        world.answer = lambda target: outcomes.pop(0)
        world.create(retry=Retry(2, 10, ("GatewayTimeout",)))
        world.until(lambda progress: progress.pending_count == 1 and len(world.calls) == 1)
        world.advance(10.1)
        world.until(lambda progress: progress.pending_count == 1 and len(world.calls) == 2)
        world.advance(19)
        assert len(world.calls) == 2
        world.advance(2)
        assert world.ended().succeeded_count == 1
        assert [device.attempts for device in world.devices()] == [3]


def test_a_device_that_is_due_while_the_node_makes_sure_of_itself_is_called() -> None:
    with World(1) as world:
        outcomes: list[HubError | MethodResult] = [BUSY, DONE]
        world.answer = lambda target: outcomes.pop(0)
        world.create(retry=Retry(1, 28, ()))
        runs = world.scheduler.runs
        world.until(lambda progress: bool(progress.pending_count and world.calls) and not runs["j"].wants_room)

        def the_time_comes() -> None:
            world.store.renewed = None
            world.clock.advance(2)
            world.deadlines.expire(world.clock.monotonic())

        async def the_node_is_unsure() -> None:
            world.clock.advance(27)
            world.store.renewed = the_time_comes
            runs["j"].feed()

        world.run(the_node_is_unsure())
        assert world.ended().succeeded_count == 1


def test_outcomes_are_written_again_whatever_went_wrong() -> None:
    """A device of a job without an outcome would run for ever."""
    with World(3) as world:
        world.store.breaks = [RuntimeError("nobody expected this")]
        world.create()
        world.until(lambda progress: not world.store.breaks)
        assert world.until(lambda progress: progress.status.has_ended, pace=0.1).succeeded_count == 3


def test_a_node_goes_by_the_clock_of_the_database() -> None:
    """[HUB-common-clock]"""
    with World(0) as world:
        common = CommonClock(world.clock)
        node = Node(world.store, world.clock, 1.0, common)
        taken = [0.0]

        async def clock() -> float:
            world.clock.advance(taken.pop(0))
            return 1_700_000_000.0

        world.store.clock = clock  # type: ignore[method-assign]
        world.run(node.enroll(alone=False))
        assert common.wall() == pytest.approx(1_700_000_000.0)
        assert common.monotonic() == world.clock.monotonic()
        taken += [5.0]  # an answer that took so long says little
        world.run(node.renew())
        assert common.wall() == pytest.approx(1_700_000_005.0)


def test_a_job_aborts_when_too_many_fail() -> None:
    """[HUB-job-abort]"""
    with World(500) as world:
        world.answer = lambda target: SILENT
        world.create(abort_threshold=0.5, concurrency=20)
        progress = world.ended()
        assert progress.status is JobStatus.FAILED
        assert progress.failure_reason is not None and progress.failure_reason.startswith("Aborted: ")
        assert progress.failed_count < 100
        assert progress.failed_count + progress.canceled_count == 500


@pytest.mark.parametrize("good", [True, False])
def test_a_rollout_begins_with_few(good: bool) -> None:
    """[HUB-job-rollout]"""
    with World(1_200) as world:
        world.answer = lambda target: None
        world.create(rollout=Rollout(10, 0.8))
        world.until(lambda progress: len(world.open) == 10 and not progress.selecting)
        assert sorted(world.open) == world.targets[:10]
        world.answer = lambda target: DONE
        for number, target in enumerate(sorted(world.open)):
            world.settle(target, SILENT if number < (2 if good else 3) else DONE)
        progress = world.ended()
        if good:
            assert (progress.status, progress.succeeded_count) == (JobStatus.COMPLETED, 1_198)
        else:
            assert (progress.status, progress.canceled_count) == (JobStatus.FAILED, 1_190)
            assert "minimumSuccess is 0.8" in (progress.failure_reason or "")


# --- cancel and fairness -----------------------------------------------------------------------------------------


def test_cancel_lets_open_calls_end_and_begins_no_other() -> None:
    """[HUB-job-cancel]"""
    with World(20) as world:
        world.answer = lambda target: None
        world.create(concurrency=4)
        world.until(lambda progress: len(world.open) == 4)
        world.cancel()
        world.until(lambda progress: progress.canceled_count == 16)
        for target in list(world.open):
            world.settle(target)
        progress = world.ended()
        assert (progress.status, progress.succeeded_count) == (JobStatus.CANCELLED, 4)
        assert len(world.calls) == 4


def test_a_job_that_comes_later_gets_its_share() -> None:
    """[HUB-job-fair] Though the first one has taken all the room, and none of its devices answers."""
    with World(400, concurrency=100) as world:
        world.answer = lambda target: None
        world.create("slow")
        world.until(lambda progress: progress.running_count == 100, "slow")
        world.answer = lambda target: DONE
        world.create("quick")
        assert world.ended("quick").succeeded_count == 400
        assert world.until(lambda progress: True, "slow").running_count == 100


def test_two_jobs_share_the_room() -> None:
    """[HUB-job-fair]"""
    with World(400, concurrency=100) as world:
        world.answer = lambda target: None
        world.create("a")
        world.create("b")
        world.until(lambda progress: progress.running_count >= 50, "a")
        world.until(lambda progress: progress.running_count >= 10, "b")
        assert world.scheduler.in_flight <= 110
        while world.scheduler.in_flight and len(world.calls) < 600:
            world.settle(next(iter(world.open)))
            world.run(asyncio.sleep(0.001))
        runs = world.scheduler.runs
        assert abs(runs["a"].in_flight - runs["b"].in_flight) < 60


# --- the store and the node --------------------------------------------------------------------------------------


def test_outcomes_outlive_a_store_that_is_away() -> None:
    """[HUB-job-store]"""
    with World(5) as world:
        world.answer = lambda target: None
        world.create()
        world.until(lambda progress: len(world.open) == 5)
        world.store.is_away = True
        for target in list(world.open):
            world.settle(target)
        world.run(asyncio.sleep(0.1))
        assert world.until(lambda progress: True).running_count == 5
        world.store.is_away = False
        world.advance(10)
        assert world.ended().succeeded_count == 5
        assert set(world.called().values()) == {1}


def test_a_stop_gives_back_what_was_not_delivered() -> None:
    """[HUB-stop]"""
    with World(3) as world:
        world.answer = lambda target: None
        world.create()
        world.until(lambda progress: len(world.open) == 3)
        first, second, third = world.targets
        world.scheduler.begin_stop()
        world.settle(first)
        world.settle(second, HubError(ErrorCode.ServiceUnavailable, "The hub is stopping."))
        world.settle(third, HubError(ErrorCode.DeviceConnectionClosedRemotely, "closed"))
        world.run(world.scheduler.stop())
        assert [device.status for device in world.devices()] == [
            DeviceJobStatus.COMPLETED,
            DeviceJobStatus.PENDING,
            DeviceJobStatus.FAILED,
        ]
        world.answer = lambda target: DONE
        world.scheduler = world.new_scheduler()
        world.start(world.scheduler, alone=True)
        assert world.ended().succeeded_count == 2
        assert world.called()[second] == 2


@pytest.mark.parametrize("job_type", JobType)
def test_after_a_crash_no_call_is_repeated(job_type: JobType) -> None:
    """[HUB-job-once]"""
    with World(6) as world:
        world.answer = lambda target: None
        world.create(type=JobType.METHOD, concurrency=4)
        world.until(lambda progress: len(world.open) == 4)
        if job_type is JobType.TWIN:
            make_twin_job(world)
        world.run(crash(world))
        world.answer = lambda target: DONE
        world.scheduler = world.new_scheduler()
        world.start(world.scheduler, alone=True)
        progress = world.ended()
        if job_type is JobType.METHOD:
            assert (progress.failed_count, progress.succeeded_count) == (4, 2)
            assert world.errors() == {"DeviceConnectionClosedRemotely": 4, None: 2}
            assert set(world.called().values()) == {1}
        else:
            assert progress.succeeded_count == 6


def make_twin_job(world: World) -> None:
    async def change() -> None:
        await world.database.write(
            lambda connection: connection.exec_driver_sql("UPDATE jobs SET type = 'scheduleUpdateTwin'")
        )

    world.run(change())


async def crash(world: World) -> None:
    """The process is gone: nothing is written any more."""
    world.scheduler.abort()
    await asyncio.sleep(0)


def test_another_nodes_leases_are_taken_when_it_is_dead_and_not_before() -> None:
    """[HUB-job-lease]"""
    with World(4) as world:
        world.answer = lambda target: None
        world.create(concurrency=2)
        world.until(lambda progress: len(world.open) == 2)
        first = world.scheduler
        world.run(crash(world))
        world.scheduler = world.new_scheduler()
        world.answer = lambda target: DONE
        world.start(world.scheduler, alone=False)
        world.until(lambda progress: progress.succeeded_count == 2)
        later = world.clock.monotonic() + 30
        assert world.until(lambda progress: world.clock.monotonic() > later, pace=0.5).running_count == 2
        world.run(world.store.renew(first.node.node_id, -1))
        progress = world.until(lambda progress: progress.status.has_ended, pace=0.1)
        assert (progress.succeeded_count, progress.failed_count) == (2, 2)


def test_a_node_that_was_taken_for_dead_loses_its_leases_and_lives_on() -> None:
    """[HUB-job-lease] Its late outcome is not recorded over the one that others wrote."""
    with World(3) as world:
        world.answer = lambda target: None
        world.create(concurrency=1)
        world.until(lambda progress: len(world.open) == 1)
        old = world.scheduler.node.node_id
        world.run(world.store.retire(old))
        world.advance(LIFE + 1)  # its time is over by its own clock, too: it asks
        world.until(lambda progress: progress.failed_count == 1)
        assert world.scheduler.node.node_id != old
        world.answer = lambda target: DONE
        world.settle(world.targets[0], MethodResult(200, b'"late"'))
        progress = world.ended()
        assert (progress.succeeded_count, progress.failed_count) == (2, 1)
        assert world.errors()["DeviceConnectionClosedRemotely"] == 1


def test_two_nodes_share_a_job() -> None:
    """[HUB-job-lease] [HUB-job-selection] Both choose, both lease, and no device is chosen or called twice."""
    with World(5_000, concurrency=50) as world:
        other = world.new_scheduler()
        world.start(other, alone=False)
        own = {world.scheduler.node.node_id, other.node.node_id}
        assert len(own) == 2
        world.answer = lambda target: None

        def poke_both() -> None:
            world.scheduler.poke()
            other.poke()

        world.jobs.on_change = poke_both
        world.create()
        world.until(lambda progress: world.scheduler.in_flight >= 50 and other.in_flight >= 50)
        world.answer = lambda target: DONE
        for target in world.open:
            world.settle(target)
        progress = world.until(lambda progress: progress.status.has_ended, pace=0.05)
        assert (progress.device_count, progress.succeeded_count) == (5_000, 5_000)
        assert world.called() == dict.fromkeys(world.targets, 1)


def test_old_jobs_are_forgotten() -> None:
    """[HUB-job-retention]"""
    with World(3, retention_seconds=86_400) as world:
        world.create()
        world.ended()
        world.advance(86_000)
        assert world.until(lambda progress: True).status is JobStatus.COMPLETED
        world.advance(4_000)
        world.until_gone()


def test_one_that_watches_hears_of_each_change() -> None:
    """[HUB-job-progress]"""
    with World(3) as world:
        world.answer = lambda target: None
        world.create()
        with world.jobs.watch("j") as changed:
            world.until(lambda progress: len(world.open) == 3)
            changed.clear()
            world.settle(world.targets[0])
            world.run(asyncio.wait_for(changed.wait(), 5))
            seen: list[Progress] = [world.run(world.jobs.now(world.run(world.jobs.get("j")))).progress]
            assert seen[0].succeeded_count == 1
            changed.clear()
            world.jobs.close()
            assert changed.is_set() and world.jobs.is_closed
