"""One throttle: a token bucket with a line before it. Traffic above the rate is shaped, within bounds, then refused.
Knows no caller: whoever waits is told when it is their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadline, Deadlines
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.throttles.limits import Rate
from methodhub.metrics import Metrics

MAX_WAIT = 3.0
"""Seconds that anybody waits: what the shortest timers of SDKs bear on top of their own."""

MAX_LINE = 1_000

_ROUNDING = 1e-6


class Waiting:
    """A place in the line of a throttle; `cancel` gives it up."""

    __slots__ = ("_throttle", "cost", "proceed")

    def __init__(self, throttle: Throttle, cost: float, proceed: Callable[[], None]) -> None:
        self._throttle = throttle
        self.cost = cost
        self.proceed = proceed

    def cancel(self) -> None:
        self._throttle.leave(self)


class Throttle:
    """`name`: for messages and metrics."""

    def __init__(self, name: str, rate: Rate, deadlines: Deadlines, clock: Clock, metrics: Metrics) -> None:
        self.name = name
        self._rate = rate
        self._per_second = rate.count / rate.seconds
        self._capacity = self._level = rate.count
        self._deadlines = deadlines
        self._clock = clock
        self._metrics = metrics
        self._filled = clock.monotonic()
        self._line: dict[Waiting, None] = {}
        self._owed = 0.0
        """What those in the line will cost."""
        self._turn: Deadline | None = None

    def enter(self, cost: float, proceed: Callable[[], None]) -> Waiting | None:
        """None: it passes at once. Else its place in the line; `proceed` is called when its turn comes.

        [HUB-throttle] First come, first served. Raises HubError 429002 for a line that is full, 429003 for one in which
        the turn would not come in time: nobody waits in vain.
        """
        cost = min(cost, self._rate.count)
        self._fill()
        if not self._line and self._take(cost):
            return None
        if len(self._line) >= MAX_LINE:
            raise self._refusal(ErrorCode.ThrottleBacklogLimitExceeded, f"{MAX_LINE} requests wait already")
        # What costs more than this node's share passes when it is full, and leaves a debt.
        wait = (self._owed + min(cost, self._capacity) - self._level) / self._per_second
        if wait > MAX_WAIT:
            raise self._refusal(ErrorCode.ThrottlingBacklogTimeout, f"its turn would come in {wait:.0f} seconds")
        self._metrics.throttled_once(self.name, "delayed")
        waiting = Waiting(self, cost, proceed)
        self._line[waiting] = None
        self._owed += cost
        if self._turn is None:
            self._arm()
        return waiting

    async def wait(self, cost: float = 1) -> None:
        """Return when it is the caller's turn. Raises HubError 429002 or 429003, without waiting."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self.enter(cost, lambda: None if turn.done() else turn.set_result(None))
        if waiting is not None:
            try:
                await turn
            finally:
                waiting.cancel()

    def leave(self, waiting: Waiting) -> None:
        """[HUB-throttle-hang-up] Whoever waits behind moves up. Nothing happens to one whose turn has come."""
        if waiting in self._line:
            del self._line[waiting]
            self._owed -= waiting.cost
            self._arm()

    def take_share(self, share: float) -> None:
        """[HUB-throttle-share] Spend this part of the limit from now on: other nodes spend theirs."""
        self._fill()
        self._capacity = self._rate.count * share
        self._per_second = self._capacity / self._rate.seconds
        self._level = min(self._level, self._capacity)
        self._arm()

    def _refusal(self, code: ErrorCode, why: str) -> HubError:
        self._metrics.throttled_once(self.name, code.name)
        limit = f"{self._rate.count / self._rate.seconds:.4g} {self.name} per second"
        return HubError(code, f"The hub's throttle of {limit} is used up, and {why}.")

    def _fill(self) -> None:
        now = self._clock.monotonic()
        self._level = min(self._capacity, self._level + (now - self._filled) * self._per_second)
        self._filled = now

    def _take(self, cost: float) -> bool:
        if self._level + _ROUNDING < min(cost, self._capacity):
            return False
        self._level -= cost
        return True

    def _arm(self) -> None:
        """For the turn of the first in line."""
        if self._turn is not None:
            self._turn.cancel_deadline()
            self._turn = None
        first = next(iter(self._line), None)
        if first is not None:
            due = self._filled + max(0.0, min(first.cost, self._capacity) - self._level) / self._per_second
            self._turn = self._deadlines.call_at(due, self._take_turns)

    def _take_turns(self) -> None:
        self._turn = None
        self._fill()
        passed = []
        for waiting in list(self._line):
            if not self._take(waiting.cost):
                break
            del self._line[waiting]
            self._owed -= waiting.cost
            passed.append(waiting)
        self._arm()
        for waiting in passed:
            waiting.proceed()
