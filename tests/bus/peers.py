"""Callers and devices on a bus that count: what was handed over how often, and what each caller was told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from methodhub.bus.calls import RemoteCall
from methodhub.core.calls import MethodRequest, MethodResult, Outcome, Settle
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.ports import Bus, Handed, NotClaimed

D = Target("d")
LIMIT = 15.0
"""Seconds until a test gives up."""


class Device:
    """Answers with its name at once, or holds its calls. `handed` counts each call's hand-overs, by method name."""

    def __init__(self, name: str, handed: Counter[str] | None = None, *, holds: bool = False) -> None:
        self.name = name
        self.handed: Counter[str] = Counter() if handed is None else handed
        self.holds = holds
        self.held: dict[str, Settle] = {}
        self.lost = asyncio.Event()
        self.times_lost = 0
        self.came = asyncio.Event()
        self.cancelled = asyncio.Event()

    def answer(self, request: MethodRequest, settle: Settle) -> Handed | None:
        self.handed[request.method_name] += 1
        self.came.set()
        if self.holds:
            self.held[request.method_name] = settle
            return self
        settle(MethodResult(0, self.name.encode()))
        return None

    def cancel(self) -> None:
        self.cancelled.set()

    def lose(self) -> None:
        self.times_lost += 1
        self.lost.set()

    async def has(self, *methods: str) -> None:
        async with asyncio.timeout(LIMIT):
            while not set(methods) <= self.handed.keys():
                self.came.clear()
                await self.came.wait()

    def settle(self, method: str) -> None:
        self.held.pop(method)(MethodResult(0, self.name.encode()))


class Caller:
    def __init__(self, bus: Bus, method: str, target: Target = D, response_timeout: float = 30) -> None:
        self.method = method
        self.outcomes: list[Outcome | NotClaimed] = []
        self.ended = asyncio.Event()
        self.handed = bus.call(target, MethodRequest(method, None, response_timeout, 0), self._settled)

    def _settled(self, outcome: Outcome | NotClaimed) -> None:
        self.outcomes.append(outcome)
        self.ended.set()

    async def end(self) -> str:
        """`d1` (who answered), `404104`, or `not claimed`."""
        async with asyncio.timeout(LIMIT):
            await self.ended.wait()
        (outcome,) = self.outcomes
        if isinstance(outcome, HubError):
            return str(int(outcome.code))
        return outcome.payload.decode() if isinstance(outcome, MethodResult) else "not claimed"

    @property
    def remote(self) -> RemoteCall:
        assert isinstance(self.handed, RemoteCall)
        return self.handed

    async def came_back(self) -> None:
        """Return when nobody was found to be subscribed."""
        await until(lambda: self.remote.error().code == ErrorCode.ConnectionUnavailable)


async def until(holds: Callable[[], bool]) -> None:
    """Give the loop turns until what no event tells is so."""
    async with asyncio.timeout(LIMIT):
        while not holds():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)


async def asked_in_vain(bus: Bus, method: str) -> Caller:
    """A call for which nobody was subscribed. The server takes its time to see that a node is cut off: until then it
    keeps calls for it."""
    for _ in range(100):
        call = Caller(bus, method)
        try:
            async with asyncio.timeout(0.1):
                await call.came_back()
        except TimeoutError:
            call.remote.cancel()
        else:
            return call
    raise AssertionError("the server still keeps the claim")
