"""A scheduler on a database in memory, with time and the devices in the test's hands."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self, TypeVar

from methodhub.core.calls import MethodRequest, MethodResult, Settle
from methodhub.core.deadlines import Deadlines
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.jobs.jobs import Jobs
from methodhub.core.jobs.model import BEFORE_ALL, DeviceJob, JobOptions, JobType, Progress
from methodhub.core.jobs.node import Node
from methodhub.core.jobs.rules import JobRequest
from methodhub.core.jobs.run import Work
from methodhub.core.jobs.scheduler import JobLimits, Scheduler
from methodhub.core.ports import StoreUnavailable
from methodhub.metrics import Metrics
from methodhub.store.database import open_database
from methodhub.store.jobs.store import SqlJobStore
from tests.clock import ManualClock

T = TypeVar("T")
PATIENCE = 10.0
AWAY = HubError(ErrorCode.DeviceNotOnline, "away")
DONE = MethodResult(200, b"{}")


class FlakyStore(SqlJobStore):
    """A store that is away when the test says so."""

    is_away = False
    asked: Callable[[], None] | None = None
    renewed: Callable[[], None] | None = None

    async def renew(self, *given: Any) -> bool:
        if self.renewed is not None:
            self.renewed()
        return await super().renew(*given)

    async def enabled(self, targets: Sequence[Target]) -> dict[Target, bool]:
        """All but one named `disabled`, and one named `gone`, which is not there."""
        if self.asked is not None:
            self.asked()
        return {target: target.device_id != "disabled" for target in targets if target.device_id != "gone"}

    breaks: list[Exception]

    async def record(self, *given: Any) -> dict[str, Progress]:
        self.check()
        if self.breaks:
            raise self.breaks.pop()
        return await super().record(*given)

    async def lease(self, *given: Any) -> Any:
        self.check()
        return await super().lease(*given)

    def check(self) -> None:
        if self.is_away:
            raise StoreUnavailable("the test says so")


class World:
    """`devices`: how many match `*`. A device that is no key of `answers` keeps its call open."""

    def __init__(self, devices: int = 3, **limits: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.deadlines = Deadlines(self.clock.monotonic())
        self.targets = [Target(f"d{n:04}") for n in range(devices)]
        self.online = set(self.targets)
        self.answer: Callable[[Target], MethodResult | HubError | None] = lambda target: DONE
        self.calls: list[tuple[float, Target, MethodRequest]] = []
        self._open: list[tuple[Target, Settle]] = []
        self.updated: list[Target] = []
        self.knows_absent = False
        """Whether the work can tell without a call that a device is away."""
        self.limits = JobLimits(**limits)
        self.database = self.run(open_database(None))
        self.store = FlakyStore(self.database)
        self.store.breaks = []
        self.jobs = Jobs(self.store, self.clock, self._select, self._count, running_jobs=self.limits.running_jobs)
        self.schedulers: list[Scheduler] = []
        self.scheduler = self.new_scheduler()

    def new_scheduler(self) -> Scheduler:
        work = Work(
            self._select,
            self._invoke,
            self._method_of,
            self._update,
            lambda target: self.knows_absent and target not in self.online,
        )
        node = Node(self.store, self.clock)
        scheduler = Scheduler(
            self.store, work, self.clock, self.deadlines, self.limits, Metrics(), node, lambda: self.online
        )
        self.jobs.on_change = scheduler.poke
        self.jobs.progress_of = scheduler.progress_of
        scheduler.on_change = self.jobs.changed
        self.schedulers.append(scheduler)
        return scheduler

    def __enter__(self) -> Self:
        self.start(self.scheduler, alone=True)
        return self

    def start(self, scheduler: Scheduler, *, alone: bool) -> None:
        async def enroll_and_start() -> None:
            await scheduler.node.enroll(alone=alone)
            await scheduler.start()

        self.run(enroll_and_start())

    def __exit__(self, *_: object) -> None:
        self.run(self._close())
        self.loop.close()

    async def _close(self) -> None:
        for scheduler in self.schedulers:
            scheduler.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)
        await self.database.close()

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(step)

    @property
    def open(self) -> list[Target]:
        """Whose calls have no outcome yet, the oldest first."""
        return [target for target, _ in self._open]

    # --- what the work is ----------------------------------------------------------------------------------------

    async def _select(self, condition: str, after: Target, limit: int) -> Sequence[Target]:
        if condition == "wrong":
            raise HubError(ErrorCode.ArgumentInvalid, "line 1")
        return [target for target in self.targets if target > after][:limit]

    async def _count(self, condition: str) -> int:
        return len(self.targets)

    def _method_of(self, work: bytes) -> MethodRequest:
        return MethodRequest("m", work, 30, 20)

    def _invoke(self, target: Target, request: MethodRequest, settle: Settle) -> None:
        self.calls.append((self.clock.monotonic(), target, request))
        outcome = self.answer(target) if target in self.online else AWAY
        if outcome is None:
            self._open.append((target, settle))
        else:
            settle(outcome)

    async def _update(self, targets: Sequence[Target], work: bytes) -> list[HubError | None]:
        self.updated += targets
        return [None for _ in targets]

    # --- what a test does ----------------------------------------------------------------------------------------

    def create(self, job_id: str = "j", *, type: JobType = JobType.METHOD, seconds: int = 3_600, **fields: Any) -> None:
        options = JobOptions(**{name: value for name, value in fields.items() if name in JobOptions.__struct_fields__})
        start = self.clock.wall() + fields["after"] if "after" in fields else None
        request = JobRequest(job_id, type, fields.get("condition", "*"), start, seconds, b'{"a": 1}', options)

        async def create() -> None:
            await self.jobs.create(request)

        self.run(create())

    def cancel(self, job_id: str = "j") -> None:
        self.run(self.jobs.cancel(job_id))

    def connect(self, *targets: Target) -> None:
        async def notice() -> None:
            for target in targets:
                self.online.add(target)
                self.scheduler.notice(target)

        self.run(notice())

    def settle(self, target: Target, outcome: MethodResult | HubError = DONE) -> None:
        async def settle() -> None:
            place = self.open.index(target)
            self._open.pop(place)[1](outcome)

        self.run(settle())

    def advance(self, seconds: float) -> None:
        async def advance() -> None:
            self.clock.advance(seconds)
            self.deadlines.expire(self.clock.monotonic())

        self.run(advance())

    def until(self, condition: Callable[[Progress], bool], job_id: str = "j", pace: float = 0.0) -> Progress:
        """The stored progress, once it is as wanted. Its counts add up whenever it is looked at. `pace`: time goes
        on by so many seconds between two looks."""

        async def wait() -> Progress:
            limit = time.monotonic() + PATIENCE
            while True:
                progress = (await self.jobs.get(job_id)).progress
                parts = progress.pending_count + progress.running_count + progress.ended_count
                assert progress.device_count == parts, progress
                if condition(progress):
                    return progress
                assert time.monotonic() < limit, progress
                self.clock.advance(pace)
                self.deadlines.expire(self.clock.monotonic())
                await asyncio.sleep(0.002)

        return self.run(wait())

    def ended(self, job_id: str = "j") -> Progress:
        return self.until(lambda progress: progress.status.has_ended, job_id)

    def until_gone(self, job_id: str = "j") -> None:
        async def wait() -> None:
            limit = time.monotonic() + PATIENCE
            while await self.store.get(job_id) is not None:
                assert time.monotonic() < limit
                await asyncio.sleep(0.002)

        self.run(wait())

    def ended_already(self) -> bool:
        return self.until(lambda progress: True).status.has_ended

    def devices(self, job_id: str = "j") -> list[DeviceJob]:
        return self.run(self.store.devices(job_id, BEFORE_ALL, 10_000))

    def errors(self, job_id: str = "j") -> Counter[str | None]:
        return Counter(device.error_code for device in self.devices(job_id))

    def called(self) -> Counter[Target]:
        return Counter(target for _, target, _ in self.calls)
