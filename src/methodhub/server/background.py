"""Time and tasks of a running hub: turns of the clock, work at intervals, tasks that end with the hub."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from methodhub.core.clock import Clock
from methodhub.core.deadlines import TICK, Deadlines

PAUSE = 1.0
"""Seconds without a turn of the clock after which the process was paused, or starved."""


class Background:
    def __init__(self, clock: Clock, deadlines: Deadlines) -> None:
        self._clock = clock
        self._deadlines = deadlines
        self._tick: asyncio.TimerHandle | None = None
        self._last_turn = clock.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    def run_clock(self) -> None:
        # First the next turn: a deadline that fails is the loop's to log, and must not stop the clock.
        self._tick = asyncio.get_running_loop().call_later(TICK / 2, self.run_clock)
        now = self._clock.monotonic()
        was_paused, self._last_turn = now - self._last_turn > PAUSE, now
        # [HUB-pause] After a pause of the process, what peers sent meanwhile is read before their time is up.
        if not was_paused:
            self._deadlines.expire(now)

    def every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` at this interval, counted from the end of the last one."""

        async def once() -> None:
            try:
                await work()
            finally:
                self.every(seconds, work)

        self._deadlines.call_at(self._clock.monotonic() + seconds, lambda: self.spawn(once()))

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        for task in list(self._tasks):
            task.cancel()


async def first_of(*waits: Awaitable[Any]) -> None:
    """Return when one of them has; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
