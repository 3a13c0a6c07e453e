"""The rooms of a call wired together without sockets: real registry, table, bus, methods and memory stores, time in the
test's hands, and devices that do what the test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from methodhub.bus.local import LocalBus
from methodhub.core.access import KeyCredential
from methodhub.core.calls import MethodRequest, MethodResult, Outcome
from methodhub.core.connections import Attachment, ConnectionTable, DeviceLimits
from methodhub.core.deadlines import TICK, Deadlines
from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.methods import CallLimits, Invocation, Methods
from methodhub.core.ports import CloseReason, Event, TargetRevoked
from methodhub.core.registry import Registry
from methodhub.metrics import Metrics
from tests.clock import ManualClock
from tests.memory import MemoryHubStore, MemoryIdentityStore, MemoryTables

T = TypeVar("T")

ALL = "*"
KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQ="


class FakeDevice:
    """The port DeviceConnection, on the device's end of it. `methods`: what it has subscribed to, ALL for any."""

    def __init__(self, world: World, target: Target, methods: tuple[str, ...]) -> None:
        self.world = world
        self.target = target
        self.methods = set(methods)
        self.unsent = 0
        self.wants_desired = False
        self.told: list[tuple[int, bytes]] = []
        self.delivered: list[tuple[int, MethodRequest]] = []
        self.closed: list[CloseReason] = []
        self.attachment: Attachment

    def accepts(self, method_name: str) -> bool:
        return ALL in self.methods or method_name in self.methods

    def unsent_bytes(self) -> int:
        return self.unsent

    def deliver(self, rid: int, request: MethodRequest) -> None:
        self.delivered.append((rid, request))

    def push_desired(self, version: int, patch: bytes) -> None:
        if self.wants_desired:
            self.told.append((version, patch))

    def close(self, reason: CloseReason) -> None:
        self.closed.append(reason)
        self.attachment.end()

    @property
    def rid(self) -> int:
        """Of the newest call."""
        return self.delivered[-1][0]

    def subscribe(self, *methods: str) -> None:
        self.methods.update(methods)
        self.world.run(self.attachment.claim())

    def unsubscribe(self, *methods: str) -> None:
        self.methods.difference_update(methods)

    def answer(self, rid: int | None = None, status: int = 200, payload: bytes = b"{}") -> None:
        self.attachment.settle(self.rid if rid is None else rid, MethodResult(status, payload))

    def drop(self) -> None:
        """The connection is lost."""
        self.attachment.end()


class Caller:
    """One call and what it came to."""

    def __init__(self, world: World, target: Target, request: MethodRequest) -> None:
        self._clock = world.clock
        self.outcomes: list[Outcome] = []
        self.ended_at = 0.0
        self.invocation: Invocation = world.methods.invoke(target, request, self._settled)

    def _settled(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.ended_at = self._clock.monotonic()

    @property
    def outcome(self) -> Outcome:
        """The one outcome; each call has exactly one."""
        assert len(self.outcomes) == 1, self.outcomes
        return self.outcomes[0]

    @property
    def code(self) -> int:
        """The error's number, 0 for a result, -1 as long as there is none."""
        if not self.outcomes:
            return -1
        outcome = self.outcome
        return 0 if isinstance(outcome, MethodResult) else int(outcome.code)


class World:
    def __init__(
        self,
        device_limits: DeviceLimits | None = None,
        call_limits: CallLimits | None = None,
        now: float = 1_000.0,
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock(monotonic=now)
        self.deadlines = Deadlines(now)
        self.bus = LocalBus()
        self.metrics = Metrics()
        tables = MemoryTables()
        self.store = MemoryIdentityStore(tables)
        self.hub_store = MemoryHubStore(tables)
        self.registry = Registry(self.store, self.bus, self.clock)
        self.table = ConnectionTable(
            self.bus, self.deadlines, self.clock, device_limits or DeviceLimits(), self.metrics
        )
        self.table.on_change = self._changed
        self.bus.subscribe(self._on_event)
        self.methods = Methods(
            self.registry, self.bus, self.deadlines, self.clock, call_limits or CallLimits(), self.metrics
        )

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.close()

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(step)

    def settle(self) -> None:
        """Let look-ups that were started come to their end."""
        self.run(self._turn())

    async def _turn(self) -> None:
        while self.methods._look_ups:
            await asyncio.gather(*self.methods._look_ups)

    def _changed(self, attachment: Attachment, connected: bool) -> None:
        if not connected:
            self.registry.unpin(attachment.target)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, TargetRevoked):
            self.table.close(event.target, event.reason)

    # --- the registry --------------------------------------------------------------------------------------------

    def create(self, *targets: Target) -> None:
        for target in targets:
            self.run(self.registry.create(Identity(target, "", "", Authentication())))

    def enable(self, target: Target, enabled: bool = True) -> None:
        identity = self.run(self.registry.get(target))
        self.run(self.registry.update(replace(identity, enabled=enabled), None))

    def delete(self, target: Target) -> None:
        self.run(self.registry.delete(target, None))

    # --- devices and callers -------------------------------------------------------------------------------------

    def connect(self, target: Target, *methods: str) -> FakeDevice:
        """A device that has authenticated, and with methods has subscribed to them."""
        device = FakeDevice(self, target, methods)
        identity, parent = self.run(self.registry.active(target))
        self.registry.pin(identity, parent)
        device.attachment = self.table.attach(device, identity, KeyCredential(None, KEY))
        if methods:
            self.run(device.attachment.claim())
        return device

    def call(
        self,
        target: Target,
        method: str = "reboot",
        *,
        response: float = 30,
        connect: float = 0,
        payload: bytes | None = b"{}",
    ) -> Caller:
        request = MethodRequest(method, payload, response, connect)
        return self.run(self._call(target, request))

    async def _call(self, target: Target, request: MethodRequest) -> Caller:
        caller = Caller(self, target, request)
        await self._turn()
        return caller

    def advance(self, seconds: float) -> None:
        """Time goes on as in the hub: deadlines are looked at twice per tick."""
        end = self.clock.monotonic() + seconds
        while (left := end - self.clock.monotonic()) > 1e-9:
            self.clock.advance(min(left, TICK / 2))
            self.deadlines.expire(self.clock.monotonic())

    def is_idle(self) -> bool:
        """Nothing is left of any call: no entry, no deadline, no waiter."""
        return (
            not self.methods.open
            and not len(self.deadlines)
            and not self.bus.waiters.targets()
            and all(not len(attachment.pending) for attachment in self.table)
        )
