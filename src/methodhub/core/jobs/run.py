"""One running job on this node: chooses its devices, leases those that are due in slices, calls them, and ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from methodhub.core.calls import MethodRequest, Outcome, Settle
from methodhub.core.deadlines import Deadline
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.jobs.model import (
    WAITING,
    DeviceJobStatus,
    Job,
    JobType,
    Lease,
    Progress,
    Report,
    Stage,
    abort_reason,
    again,
    failed,
    final_status,
    judge,
    never_tried,
    rollout_reason,
    stage_of,
    twin_updated,
)
from methodhub.core.jobs.rules import condition_failed
from methodhub.core.methods import not_online
from methodhub.core.registry.rules import device_not_found, module_not_found

if TYPE_CHECKING:
    from methodhub.core.jobs.scheduler import Scheduler

log = structlog.get_logger()

CHUNK = 1_000
"""Devices that are chosen in one transaction."""

SLICE = 250
"""Devices that are leased in one transaction."""

TURN = 25
"""Calls that are begun before others have the loop."""

END_CHUNK = 2_000
TWIN_BATCH = 100

Select = Callable[[str, Target, int], Awaitable[Sequence[Target]]]
"""Targets that match a condition, behind one of them; fewer than asked for: there are no more. Raises HubError for a
condition that is none."""


class Work:
    """What jobs do to devices, given by who knows how."""

    def __init__(
        self,
        select: Select,
        invoke: Callable[[Target, MethodRequest, Settle], object],
        method_of: Callable[[bytes], MethodRequest],
        update_twins: Callable[[Sequence[Target], bytes], Awaitable[Sequence[HubError | None]]],
        is_absent: Callable[[Target], bool],
    ) -> None:
        self.select = select
        self.invoke = invoke
        self.method_of = method_of
        self.update_twins = update_twins
        self.is_absent = is_absent
        """Whether nobody can hold a connection of the target: a call would end with 404103, and cost more."""


class JobRun:
    def __init__(self, scheduler: Scheduler, job: Job) -> None:
        self._scheduler = scheduler
        self._store = scheduler.store
        self._clock = scheduler.clock
        self.job = job
        self.progress = job.progress
        self.in_flight = 0
        self.hungry = True
        """There may be devices that are due."""
        self._cursor = job.selected
        self._wake = asyncio.Event()
        self._alarms: list[Deadline] = []
        self._feeding: tuple[float, Deadline] | None = None
        """When the next device is due, and what tells so."""
        self._leasing = False
        self._unrecorded = {DeviceJobStatus.COMPLETED: 0, DeviceJobStatus.FAILED: 0}
        """Devices that have ended and are on their way into the store."""
        rate = job.options.rate
        self._pace = None if rate is None else scheduler.new_pace(rate)
        self._call: Callable[[str, list[Lease]], Awaitable[list[Lease]]] = self._twin_updates

    @property
    def wants_room(self) -> bool:
        return self.hungry or self._leasing

    # --- what happens --------------------------------------------------------------------------------------------

    def take(self, progress: Progress) -> None:
        """How far the job is, as the store last said."""
        if progress != self.progress:
            self.progress = progress
            self._scheduler.changed(self.job.job_id)
            self._wake.set()

    def recorded(self, report: Report) -> None:
        if report.status in self._unrecorded:
            self._unrecorded[report.status] -= 1

    def _foreseen(self) -> Progress:
        """The progress with what is not recorded yet: whether to go on is decided by what is known."""
        progress = self.progress
        succeeded, failed = self._unrecorded.values()
        return replace(
            progress,
            running_count=progress.running_count - succeeded - failed,
            succeeded_count=progress.succeeded_count + succeeded,
            failed_count=progress.failed_count + failed,
        )

    def feed(self) -> None:
        """Devices are due."""
        self.hungry = True
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    # --- the run -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the job has ended, or the hub stops."""
        patience = self._scheduler.patience
        try:
            if self.job.type is JobType.METHOD:
                await patience.persist(self._prepare)
            while not (self._scheduler.stopping or self.progress.status.has_ended):
                self._wake.clear()
                if not await patience.persist(self._step) and not self._wake.is_set():
                    await self._wake.wait()
        finally:
            self._forget_alarms()
            if self._feeding is not None:
                self._feeding[1].cancel_deadline()

    async def _prepare(self) -> None:
        try:
            self._call = self._method_calls()
        except HubError as error:  # the hub's limits were lowered since the job was created
            self.take(await self._store.give_up(self.job.job_id, error.message))

    async def _step(self) -> bool:
        """One transaction's worth, if there is something to do."""
        self._forget_alarms()
        job_id, progress, now = self.job.job_id, self.progress, self._clock.wall()
        if progress.is_done:
            self.take(await self._store.finish(job_id, final_status(progress), now))
            return not self.progress.status.has_ended and self.progress != progress
        reason = self._reason_to_stop(now)
        if reason is not None:
            self.take(await self._store.give_up(job_id, reason))
            return True
        is_over = now >= self.job.deadline
        if progress.pending_count and (is_over or progress.is_ending):
            # [HUB-job-deadline] An aborted job's devices are canceled, those of one whose time is over have failed.
            status = DeviceJobStatus.FAILED if is_over and not progress.is_ending else DeviceJobStatus.CANCELED
            error = never_tried() if status is DeviceJobStatus.FAILED else None
            self.take(await self._store.end_pending(job_id, status, error, now, END_CHUNK))
            return True
        if progress.staged and self._may_open():
            self.take(await self._store.open_rest(job_id))
            self.feed()
            return True
        has_chosen = progress.selecting and await self._select()
        return await self._lease() or has_chosen

    def _reason_to_stop(self, now: float) -> str | None:
        progress, options = self._foreseen(), self.job.options
        if progress.is_ending:
            return None
        if progress.selecting and now >= self.job.deadline:
            return "maxExecutionTimeInSeconds ended before all devices were chosen."
        if progress.staged and options.rollout is not None and stage_of(progress, options.rollout) is Stage.STOP:
            return rollout_reason(progress, options.rollout)
        return abort_reason(progress, options)

    def _may_open(self) -> bool:
        rollout = self.job.options.rollout
        return rollout is None or stage_of(self.progress, rollout) is Stage.GO_ON

    async def _select(self) -> bool:
        """[HUB-job-selection] In chunks, each in a transaction of its own."""
        job = self.job
        try:
            targets = await self._scheduler.work.select(job.condition, self._cursor, CHUNK)
        except HubError as error:
            # [HUB-job-query] A wrong condition fails the job, not the request that created it.
            self.take(await self._store.give_up(job.job_id, condition_failed(error)))
            return True
        last = len(targets) < CHUNK
        progress, self._cursor = await self._store.select(job, self._cursor, targets, last, self._clock.wall())
        self.take(progress)
        self.feed()
        return True

    # --- devices -------------------------------------------------------------------------------------------------

    async def _lease(self) -> bool:
        wanted = self._wanted()
        if wanted <= 0:
            self._set_alarms()
            return False
        scheduler, job = self._scheduler, self.job
        rollout = job.options.rollout if self.progress.staged else None
        below = rollout.first if rollout is not None else None
        self.hungry, self._leasing = False, True  # whoever feeds it meanwhile is heard
        try:
            await scheduler.node.make_sure()
            node_id, now = scheduler.node.node_id, self._clock.wall()
            leases, progress = await self._store.lease(job.job_id, node_id, now, wanted, below)
        except BaseException:
            self.hungry = True
            raise
        finally:
            self._leasing = False
        self.take(progress)
        if len(leases) == wanted:
            self.hungry = True
        else:
            await self._look_ahead(now)
        if self._pace is not None:
            self._pace.take(len(leases))
        scheduler.pace_take(len(leases))
        if leases:
            await self._deliver(node_id, leases)
        else:
            self._set_alarms()
        return bool(leases)

    async def _look_ahead(self, now: float) -> None:
        due = await self._store.next_due(self.job.job_id, now)
        if due is not None:
            self.feed_at(due)

    def _wanted(self) -> int:
        """How many devices may begin now."""
        if not self.hungry or self._scheduler.stopping:
            return 0
        room = self._scheduler.room(self)
        limit = self.job.options.concurrency
        if limit is not None:
            room = min(room, self._scheduler.places(limit) - self.in_flight)
        now = self._clock.monotonic()
        if self._pace is not None:
            room = min(room, self._pace.turns(now))
        return min(room, SLICE, self._scheduler.turns(now))

    async def _deliver(self, node_id: str, leases: list[Lease]) -> None:
        scheduler = self._scheduler
        self._count(len(leases))
        if not scheduler.node.is_sure:
            await scheduler.node.make_sure()
        undelivered = leases if scheduler.node.node_id != node_id else await self._call(node_id, leases)
        now = self._clock.wall()
        for lease in undelivered:
            self._report(node_id, again(lease, now))

    def _count(self, more: int) -> None:
        self.in_flight += more
        self._scheduler.in_flight += more

    def _method_calls(self) -> Callable[[str, list[Lease]], Awaitable[list[Lease]]]:
        # [HUB-job-waits] A device that is away is waited for in the store, not in a call that is held open.
        request = self._scheduler.work.method_of(self.job.work)
        request = MethodRequest(request.method_name, request.payload, request.response_timeout, 0)

        async def call(node_id: str, leases: list[Lease]) -> list[Lease]:
            scheduler = self._scheduler
            work = scheduler.work
            absent = await self._absent([lease.target for lease in leases if work.is_absent(lease.target)])
            for number, lease in enumerate(leases):
                if number % TURN == 0 and number:
                    await asyncio.sleep(0)  # [HUB-job-fair] single calls and other jobs have their turn
                    if not scheduler.node.is_sure or scheduler.stopping:
                        return leases[number:]
                error = absent.get(lease.target)
                # Asked again: it may have come while the store was asked, and its notice found nothing that waits.
                if error is not None and work.is_absent(lease.target):
                    self._settled(node_id, lease, error)
                else:
                    work.invoke(lease.target, request, partial(self._settled, node_id, lease))
            return []

        return call

    async def _absent(self, targets: list[Target]) -> dict[Target, HubError]:
        """What a call of each would come to."""
        if not targets:
            return {}
        asked = {*targets, *(target.device for target in targets)}
        enabled = await self._scheduler.patience.persist(partial(self._store.enabled, list(asked)))
        away = not_online(0)
        return {
            target: away
            if enabled.get(target) and enabled.get(target.device)
            else module_not_found(target)
            if enabled.get(target.device) and target not in enabled
            else device_not_found(target)
            for target in targets
        }

    async def _twin_updates(self, node_id: str, leases: list[Lease]) -> list[Lease]:
        for start in range(0, len(leases), TWIN_BATCH):
            some = leases[start : start + TWIN_BATCH]
            if self._scheduler.stopping or not self._scheduler.node.is_sure:
                return leases[start:]
            errors = await self._scheduler.patience.persist(
                partial(self._scheduler.work.update_twins, [lease.target for lease in some], self.job.work)
            )
            for lease, error in zip(some, errors, strict=True):
                self._report(node_id, twin_updated(lease) if error is None else failed(lease, error))
        return []

    def _settled(self, node_id: str, lease: Lease, outcome: Outcome) -> None:
        now = self._clock.wall()
        if self._scheduler.stopping and isinstance(outcome, HubError) and outcome.code is ErrorCode.ServiceUnavailable:
            self._report(node_id, again(lease, now))  # [HUB-stop] it reached no device, and is for the next start
            return
        report = judge(lease, outcome, self.job.options, now)
        if report.not_before >= WAITING:
            self._scheduler.is_away(lease.target)
        elif report.status is DeviceJobStatus.PENDING:
            self.feed_at(report.not_before)
        self._report(node_id, report)

    def _report(self, node_id: str, report: Report) -> None:
        self._count(-1)
        if report.status in self._unrecorded:
            self._unrecorded[report.status] += 1
        self._scheduler.report(node_id, report)
        self._wake.set()

    # --- time ----------------------------------------------------------------------------------------------------

    def feed_at(self, wall: float) -> None:
        """Feed it at a time, or at an earlier one that is known already."""
        if self._feeding is not None:
            if self._feeding[0] <= wall:
                return
            self._feeding[1].cancel_deadline()
            self._feeding = None
        delay = wall - self._clock.wall()
        if delay <= 0:
            self.feed()
            return
        due = self._scheduler.deadlines.call_at(self._clock.monotonic() + delay, self._fed)
        self._feeding = wall, due

    def _fed(self) -> None:
        self._feeding = None
        self.feed()

    def _set_alarms(self) -> None:
        """Look again when the job's time is over, and when it may go on by its rate."""
        now = self._clock.monotonic()
        left = self.job.deadline - self._clock.wall()
        if left > 0 and not self.progress.is_ending:
            self._alarm(now + left)
        if self.hungry:
            for pace in (self._pace, self._scheduler.pace):
                if pace is not None and pace.turns(now) < 1:
                    self._alarm(pace.ready_at())

    def _alarm(self, when: float) -> None:
        self._alarms.append(self._scheduler.deadlines.call_at(when, self._wake.set))

    def _forget_alarms(self) -> None:
        for alarm in self._alarms:
            alarm.cancel_deadline()
        self._alarms.clear()
