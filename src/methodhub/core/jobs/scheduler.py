"""Runs the jobs that are due on this node, side by side and fair to each other and to single calls. Knows what calls a
device only as `Work`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice

import structlog

from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadline, Deadlines
from methodhub.core.identity import Target
from methodhub.core.jobs.model import WAITING, DeviceJobStatus, Job, JobStatus, Progress, Report, abandoned
from methodhub.core.jobs.node import Node
from methodhub.core.jobs.pace import Pace
from methodhub.core.jobs.recorder import Patience, Recorder
from methodhub.core.jobs.run import JobRun, Work
from methodhub.core.ports import JobStore, StoreUnavailable
from methodhub.metrics import Metrics

log = structlog.get_logger()

SWEEP = 30.0
"""Seconds between looks at all connected targets, in case a notice was lost."""

WAKE_CHUNK = 500
LEAST_ROOM = 10
"""Calls that a job may have in flight though others have taken all the room."""

PURGE_INTERVAL = 3_600.0
PURGE_CHUNK = 1_000
ORPHAN_CHUNK = 500


@dataclass(frozen=True, slots=True)
class JobLimits:
    concurrency: int = 500
    """Devices of all jobs that are called at once."""
    running_jobs: int = 100
    retention_seconds: float = 30 * 86_400.0
    rate: float | None = None
    """Devices per second of all jobs together."""


async def nothing() -> None:
    pass


class Scheduler:
    def __init__(
        self,
        store: JobStore,
        work: Work,
        clock: Clock,
        deadlines: Deadlines,
        limits: JobLimits,
        metrics: Metrics,
        node: Node,
        connected: Callable[[], Iterable[Target]],
    ) -> None:
        self.store = store
        self.work = work
        self.clock = clock
        self.deadlines = deadlines
        self.limits = limits
        self.metrics = metrics
        self.patience = Patience(clock, deadlines)
        self.node = node
        self.on_buried: Callable[[], Awaitable[None]] = nothing
        """Told when other nodes were found dead."""
        self.share: Callable[[], float] = lambda: 1.0
        """This node's part of each rate."""
        self.places: Callable[[int], int] = lambda whole: whole
        """This node's part of a number of devices at once."""
        self.pace = None if limits.rate is None else self.new_pace(limits.rate)
        self.in_flight = 0
        self.runs: dict[str, JobRun] = {}
        self.stopping = False
        self.on_change: Callable[[str], None] = lambda job_id: None
        """Told the id of a job whose progress is another now."""
        self._connected = connected
        self._recorder = Recorder(store, clock, self.patience, self._recorded)
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking = False
        self._look_again = False
        self._start_alarm: Deadline | None = None
        self._noticed: set[Target] = set()
        self._noticing = False
        self._away: Counter[Target] = Counter()
        """Devices that were not there and are not recorded so yet."""
        self._came: set[Target] = set()
        """Those of them that have come meanwhile."""

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Its node has enrolled. Raises StoreUnavailable."""
        await self._adopt_orphans()
        self.poke()
        self._every(self.node.beat, self._beat)
        self._every(SWEEP, self._sweep)
        self._every(PURGE_INTERVAL, self._purge)

    def begin_stop(self) -> None:
        """[HUB-stop] No further device is called; calls that are open may end."""
        self.stopping = True
        for run in self.runs.values():
            run.wake()

    async def stop(self) -> None:
        """After the last call has ended: everything is recorded, and no lease is left."""
        self.begin_stop()
        while self.runs:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        await self._recorder.drain()
        await self.store.retire(self.node.node_id)
        self.abort()

    def abort(self) -> None:
        """Let go of everything at once."""
        self.stopping = True
        self._recorder.abort()
        for task in list(self._tasks):
            task.cancel()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _every(self, seconds: float, work: Callable[[], Coroutine[None, None, None]]) -> None:
        async def once() -> None:
            try:
                await work()
            except StoreUnavailable as error:
                log.warning("jobs wait for the store", error=str(error))
            except Exception:
                log.exception("job upkeep failed")
            finally:
                if not self.stopping:
                    self._every(seconds, work)

        def begin() -> None:
            if not self.stopping:
                self._spawn(once())

        self.deadlines.call_at(self.clock.monotonic() + seconds, begin)

    async def _beat(self) -> None:
        await self.node.renew()
        if await self.store.bury():
            await self.on_buried()
        await self._adopt_orphans()
        self.poke()

    async def _adopt_orphans(self) -> None:
        """[HUB-job-once] What a dead node was about when it died."""
        while orphans := await self.store.orphans(ORPHAN_CHUNK):
            now = self.clock.wall()
            nodes: dict[str, list[Report]] = {}
            for orphan in orphans:
                nodes.setdefault(orphan.node_id, []).append(abandoned(orphan, now))
            for node_id, reports in nodes.items():
                self._written(reports, await self.store.record(node_id, reports, now))

    async def _purge(self) -> None:
        """[HUB-job-retention] Piece by piece: a job may have a million devices."""
        while await self.store.purge(self.clock.wall() - self.limits.retention_seconds, PURGE_CHUNK):
            pass

    # --- which jobs ----------------------------------------------------------------------------------------------

    def poke(self) -> None:
        """Jobs may have been created, begun elsewhere or cancelled."""
        if self.stopping:
            return
        self._look_again = True
        if not self._looking:
            self._looking = True
            self._spawn(self._look())

    async def _look(self) -> None:
        try:
            while self._look_again and not self.stopping:
                self._look_again = False
                await self._look_once()
        except StoreUnavailable as error:
            log.warning("jobs wait for the store", error=str(error))  # the next beat looks again
        finally:
            self._looking = False

    async def _look_once(self) -> None:
        now = self.clock.wall()
        for job in await self.store.due(now, self.limits.running_jobs):
            run = self.runs.get(job.job_id)
            if run is not None:
                run.take(job.progress)
                run.wake()  # its part of the job's devices may be another, since nodes came or went
                continue
            begun = await self.store.begin(job.job_id, now)
            if begun is not None or job.progress.status is JobStatus.RUNNING:
                self._run(job, begun or job.progress)
            else:
                self._look_again = True  # another node began it meanwhile, or it was cancelled
        start = await self.store.next_start(now)
        if self._start_alarm is not None:
            self._start_alarm.cancel_deadline()
            self._start_alarm = None
        if start is not None:
            self._start_alarm = self.deadlines.call_at(self.clock.monotonic() + start - now, self.poke)

    def _run(self, job: Job, progress: Progress) -> None:
        run = JobRun(self, job)
        run.progress = progress
        self.runs[job.job_id] = run
        self.changed(job.job_id)
        log.info("job runs", job=job.job_id, type=job.type.value)
        self._spawn(self._run_to_end(run))

    async def _run_to_end(self, run: JobRun) -> None:
        job_id = run.job.job_id
        try:
            await run.run()
        except Exception:
            log.exception("job failed to run; it is tried again", job=job_id)
        else:
            if run.progress.status.has_ended:
                log.info("job ended", job=job_id, status=run.progress.status.value)
        finally:
            del self.runs[job_id]
            self.changed(job_id)
        self.poke()  # one that waited for room may begin

    def progress_of(self, job_id: str) -> Progress | None:
        """Of a job that runs here."""
        run = self.runs.get(job_id)
        return None if run is None else run.progress

    # --- what runs have in common --------------------------------------------------------------------------------

    def room(self, run: JobRun) -> int:
        """[HUB-job-fair] An even share for each job that has devices due; worth a transaction, or none."""
        hungry = sum(each.wants_room for each in self.runs.values())
        share = max(1, self.limits.concurrency // max(1, hungry))
        free = self.limits.concurrency - self.in_flight
        room = min(share - run.in_flight, max(free, LEAST_ROOM - run.in_flight))
        return 0 if run.in_flight and room < share // 4 else room

    def turns(self, now: float) -> int:
        return self.limits.concurrency if self.pace is None else self.pace.turns(now)

    def new_pace(self, rate: float) -> Pace:
        return Pace(rate, self.clock.monotonic(), lambda: self.share())  # noqa: PLW0108 - it may be set later

    def pace_take(self, turns: int) -> None:
        if self.pace is not None:
            self.pace.take(turns)

    def report(self, node_id: str, report: Report) -> None:
        if report.status is not DeviceJobStatus.PENDING:
            self.metrics.job_device_ended(report.error_code or "ok")
        self._recorder.add(node_id, report)

    def changed(self, job_id: str) -> None:
        self.on_change(job_id)

    def _recorded(self, reports: list[Report], progress: dict[str, Progress]) -> None:
        for report in reports:
            if (run := self.runs.get(report.job_id)) is not None:
                run.recorded(report)
        self._written(reports, progress)
        for report in reports:
            if report.not_before >= WAITING:
                self._is_recorded(report.target)

    def _written(self, reports: list[Report], progress: dict[str, Progress]) -> None:
        due = {each.job_id for each in reports if each.status is DeviceJobStatus.PENDING and each.not_before < WAITING}
        for job_id, each in progress.items():
            run = self.runs.get(job_id)
            if run is None:
                self.changed(job_id)
                continue
            run.take(each)
            if job_id in due:
                run.feed()

    # --- devices that come ---------------------------------------------------------------------------------------

    def is_away(self, target: Target) -> None:
        self._away[target] += 1

    def _is_recorded(self, target: Target) -> None:
        if self._away[target] <= 1:
            del self._away[target]
        else:
            self._away[target] -= 1
        if target in self._came:
            if target not in self._away:
                self._came.discard(target)
            self.notice(target)

    def notice(self, target: Target) -> None:
        """[HUB-job-waits] A target takes methods: its devices of jobs are due, also one that is just being recorded as
        away."""
        if self.stopping or not any(run.progress.pending_count or run.in_flight for run in self.runs.values()):
            return
        if target in self._away:
            self._came.add(target)
        self._noticed.add(target)
        if not self._noticing:
            self._noticing = True
            self._spawn(self._wake_noticed())

    async def _wake_noticed(self) -> None:
        try:
            while self._noticed:
                some = list(islice(self._noticed, WAKE_CHUNK))
                self._noticed.difference_update(some)
                await self.patience.persist(partial(self._wake, some))
        finally:
            self._noticing = False

    async def _sweep(self) -> None:
        if any(run.progress.pending_count for run in self.runs.values()):
            connected = list(self._connected())
            for start in range(0, len(connected), WAKE_CHUNK):
                await self._wake(connected[start : start + WAKE_CHUNK])

    async def _wake(self, targets: list[Target]) -> None:
        for job_id in await self.store.wake(targets, self.clock.wall()):
            run = self.runs.get(job_id)
            if run is not None:
                run.feed()
