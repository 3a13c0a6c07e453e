"""Outcomes on their way into the store: gathered for a moment, written together, kept until they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog

from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadlines
from methodhub.core.jobs.model import Progress, Report
from methodhub.core.ports import JobStore, StoreUnavailable

log = structlog.get_logger()

T = TypeVar("T")

GATHER = 0.05
"""Seconds of the machine's time, so that a write is shared; nothing is due by it."""

BATCH = 500
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0


class Patience:
    """Repeats what the store could not do."""

    def __init__(self, clock: Clock, deadlines: Deadlines) -> None:
        self._clock = clock
        self._deadlines = deadlines

    async def persist(self, work: Callable[[], Awaitable[T]]) -> T:
        """[HUB-job-store] What `work` returns, once the store can do it."""
        pause = FIRST_PAUSE
        while True:
            try:
                return await work()
            except StoreUnavailable as error:
                log.warning("jobs wait for the store", error=str(error), seconds=pause)
            await self.pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def pause(self, seconds: float) -> None:
        over = asyncio.Event()
        self._deadlines.call_at(self._clock.monotonic() + seconds, over.set)
        await over.wait()


class Recorder:
    """`recorded` is told what was written, and how far the jobs are."""

    def __init__(
        self,
        store: JobStore,
        clock: Clock,
        patience: Patience,
        recorded: Callable[[list[Report], dict[str, Progress]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._patience = patience
        self._recorded = recorded
        self._reports: dict[str, list[Report]] = {}
        """By the node that had the leases: this one, under the ids that it had."""
        self._count = 0
        self._enough = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, node_id: str, report: Report) -> None:
        self._reports.setdefault(node_id, []).append(report)
        self._count += 1
        if self._count >= BATCH:
            self._enough.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._reports:
                timer = asyncio.get_running_loop().call_later(GATHER, self._enough.set)
                await self._enough.wait()
                timer.cancel()
                await self._write_batch()
        finally:
            self._task = None

    async def _write_batch(self) -> None:
        batches, self._reports, self._count = self._reports, {}, 0
        self._enough.clear()
        for node_id, reports in batches.items():
            for start in range(0, len(reports), 2 * BATCH):
                some = reports[start : start + 2 * BATCH]
                write = partial(self._store.record, node_id, some, self._clock.wall())
                try:
                    progress = await self._patience.persist(write)
                except Exception:  # whatever it is: without an outcome a device of a job would run for ever
                    log.exception("outcomes of jobs were not written; trying again", devices=len(some))
                    self._reports.setdefault(node_id, []).extend(some)
                    await self._patience.pause(LONGEST_PAUSE)
                else:
                    self._recorded(some, progress)

    async def drain(self) -> None:
        """Return when everything is written."""
        while self._task is not None:
            self._enough.set()
            await asyncio.shield(self._task)

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
