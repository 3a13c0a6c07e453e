"""What a back end may ask of jobs: create, look, list, cancel, follow. Knows no HTTP and runs nothing itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from methodhub.core.clock import Clock
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.jobs.model import BEFORE_ALL, Job, JobStatus, JobType, Progress, first_status
from methodhub.core.jobs.rules import (
    JobRequest,
    Matching,
    argument_invalid,
    check,
    condition_failed,
    job_already_exists,
    job_not_found,
    too_many_jobs,
)
from methodhub.core.ports import Insertion, JobStore

SHOWN = 100
"""Ids that a dry run names."""

WATCHERS = 100


class Jobs:
    """`on_change` is called when there is a new job, or a changed one."""

    def __init__(
        self,
        store: JobStore,
        clock: Clock,
        select: Callable[[str, Target, int], Awaitable[Sequence[Target]]],
        count: Callable[[str], Awaitable[int]],
        *,
        running_jobs: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._select = select
        self._count = count
        self._running_jobs = running_jobs
        self.on_change: Callable[[], None] = lambda: None
        self.progress_of: Callable[[str], Progress | None] = lambda job_id: None
        """The progress of a job that runs here, if it does."""
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._closed = False

    async def create(self, request: JobRequest) -> Job:
        """Raises 400004, 409104, 429004."""
        check(request)
        now = self._clock.wall()
        start = now if request.start_time is None else max(request.start_time, now)
        job = Job(
            job_id=request.job_id,
            type=request.type,
            condition=request.condition,
            created_time=now,
            start_time=start,
            max_execution_seconds=request.max_execution_seconds,
            work=request.work,
            options=request.options,
            progress=Progress(first_status(start, now), staged=request.options.rollout is not None),
        )
        match await self._store.insert(job, self._running_jobs):
            case Insertion.EXISTS:
                raise job_already_exists(job.job_id)
            case Insertion.FULL:
                raise too_many_jobs(self._running_jobs)
        self.on_change()
        return job

    async def dry_run(self, request: JobRequest) -> Matching:
        """Whom the job would call if it began now. Raises 400004, also for a wrong condition."""
        check(request)
        try:
            first = await self._select(request.condition, BEFORE_ALL, SHOWN)
            count = len(first) if len(first) < SHOWN else await self._count(request.condition)
        except HubError as error:
            raise argument_invalid(condition_failed(error)) from None
        return Matching(count, tuple(first))

    async def get(self, job_id: str) -> Job:
        """Raises 404002."""
        job = await self._store.get(job_id)
        if job is None:
            raise job_not_found(job_id)
        return job

    async def page(self, job_type: JobType | None, status: JobStatus | None, after: str, limit: int) -> list[Job]:
        """In the order of their ids, behind the id `after`."""
        return await self._store.page(job_type, status, after, limit)

    async def cancel(self, job_id: str) -> Job:
        """[HUB-job-cancel] One that has not begun ends; of one that runs, no further device is called. One that has
        ended stays as it is. Raises 404002."""
        job = await self._store.cancel(job_id, self._clock.wall())
        if job is None:
            raise job_not_found(job_id)
        self.on_change()
        self.changed(job_id)
        return job

    # --- following one -------------------------------------------------------------------------------------------

    def check_watchers(self) -> None:
        """Raises 429001 when there are as many as may be."""
        if sum(map(len, self._watchers.values())) >= WATCHERS:
            raise HubError(ErrorCode.ThrottlingException, f"{WATCHERS} watch jobs already, as many as may.")

    @contextmanager
    def watch(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change of the job, and when the hub stops."""
        event = asyncio.Event()
        self._watchers.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            self._watchers[job_id].discard(event)
            if not self._watchers[job_id]:
                del self._watchers[job_id]

    @property
    def is_closed(self) -> bool:
        return self._closed

    def changed(self, job_id: str) -> None:
        for event in self._watchers.get(job_id, ()):
            event.set()

    def close(self) -> None:
        """The hub stops: nobody watches on."""
        self._closed = True
        for job_id in self._watchers:
            self.changed(job_id)

    async def now(self, job: Job) -> Job:
        """The job as it is: from memory if it runs here. Raises 404002."""
        progress = self.progress_of(job.job_id)
        return await self.get(job.job_id) if progress is None else replace(job, progress=progress)
