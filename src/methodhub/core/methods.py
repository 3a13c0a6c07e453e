"""Invoking a method: does the target exist, who holds it, wait for it to connect, call once more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from methodhub.core.calls import MethodRequest, MethodResult, Outcome, Settle, seconds_text
from methodhub.core.clock import Clock
from methodhub.core.connections import EARLY
from methodhub.core.deadlines import Deadline, Deadlines
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.ports import Bus, CloseReason, Event, Handed, NotClaimed, TargetRevoked
from methodhub.core.registry import Registry, device_not_found
from methodhub.metrics import Metrics

log = structlog.get_logger()


LOOK_UP_PATIENCE = 5.0
"""Seconds that a call waits for the registry to tell whether its target exists."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    hub_open_calls: int = 100_000


def not_online(connect_timeout: float) -> HubError:
    return HubError(
        ErrorCode.DeviceNotOnline,
        "The operation failed because the requested device isn't online or hasn't registered the direct method "
        "callback. To learn more, see https://aka.ms/iothub404103",
        info={"timeout": seconds_text(connect_timeout)},
    )


def stopping() -> HubError:
    return HubError(ErrorCode.ServiceUnavailable, "The hub is stopping. The call did not reach the device.")


def registry_away() -> HubError:
    return HubError(ErrorCode.ServiceUnavailable, "The identity registry is away. The call reached no device.")


class Invocation(Deadline):
    """One call from the caller's request to its outcome. The deadline is first the end of the registry's time, then
    that of the connect timeout."""

    __slots__ = (
        "_handed",
        "_has_begun",
        "_methods",
        "_stop_waiting",
        "_was_woken",
        "request",
        "settle",
        "started",
        "target",
    )

    def __init__(self, methods: Methods, target: Target, request: MethodRequest, settle: Settle) -> None:
        self._bucket = None
        self._methods = methods
        self._handed: Handed | None = None
        self._stop_waiting: Callable[[], None] | None = None
        self._was_woken = False
        """Whether the target was claimed while the bus looked for it: it may have looked too early."""
        self._has_begun = False
        self.target = target
        self.request = request
        self.settle = settle
        self.started = methods.clock.monotonic()

    @property
    def is_handed_over(self) -> bool:
        return self._handed is not None

    def begin(self) -> None:
        """The target exists and is enabled: look for its claimant, and wait for one if the caller allows it."""
        self._has_begun = True
        timeout = self.request.connect_timeout
        if timeout > 0:
            # Register first, then look: a claim between the two would be missed the other way round.
            self._methods.deadlines.add(self.started + timeout - EARLY, self)
            self._stop_waiting = self._methods.bus.wait_claimed(self.target, self._try)
        self._try()

    def _try(self) -> None:
        if self._handed is not None or self not in self._methods.open:
            self._was_woken = True
            return
        self._was_woken = False
        handed = self._methods.bus.call(self.target, self.request, self._settled)
        if handed is not None and self in self._methods.open:
            self._handed = handed

    def _settled(self, outcome: Outcome | NotClaimed) -> None:
        if isinstance(outcome, NotClaimed):
            self._handed = None
            if self._stop_waiting is None:
                self.finish(not_online(self.request.connect_timeout))
            elif self._was_woken:
                self._try()
        else:
            self.finish(outcome)

    def expired(self) -> None:
        """[HUB-connect-timeout] Used up. A call that was handed over meanwhile goes on: responseTimeout runs."""
        if not self._has_begun:  # [HUB-registry-away] nobody hangs because the store does
            self.finish(registry_away())
            return
        self._forget_waiter()
        if self._handed is None:
            self.finish(not_online(self.request.connect_timeout))

    def finish(self, outcome: Outcome) -> None:
        if self._leave():
            self._methods.ended(self, outcome)
            self.settle(outcome)

    def cancel(self) -> None:
        """The caller hung up: free everything and tell nobody."""
        handed = self._handed
        if self._leave():
            if handed is not None:
                handed.cancel()
            self._methods.cancelled(self)

    def _leave(self) -> bool:
        open_calls = self._methods.open
        if self not in open_calls:
            return False
        open_calls.discard(self)
        self._handed = None  # else the two would hold each other, and wait for the collector
        if self._bucket is not None:
            self.cancel_deadline()
        if self._stop_waiting is not None:
            self._forget_waiter()
        return True

    def _forget_waiter(self) -> None:
        if self._stop_waiting is not None:
            self._stop_waiting()
            self._stop_waiting = None


class Methods:
    def __init__(
        self, registry: Registry, bus: Bus, deadlines: Deadlines, clock: Clock, limits: CallLimits, metrics: Metrics
    ) -> None:
        self.registry = registry
        self.bus = bus
        self.deadlines = deadlines
        self.clock = clock
        self.limits = limits
        self.metrics = metrics
        self.open: set[Invocation] = set()
        self._stopping = False
        self._all_ended: asyncio.Event | None = None
        self._look_ups: set[asyncio.Task[None]] = set()
        bus.subscribe(self._on_event)

    def invoke(self, target: Target, request: MethodRequest, settle: Settle) -> Invocation:
        """Call a method. `settle` is called exactly once, perhaps before this returns, unless the call is cancelled.

        Outcomes: a MethodResult, or a HubError 404001, 404010, 404103, 404104, 400027, 403800, 429001, 502000, 503001
        or 504101 (`docs/design.md`, failure table).
        """
        invocation = Invocation(self, target, request, settle)
        limit = self.limits.hub_open_calls
        if self._stopping:
            self._refuse(invocation, stopping())
        elif len(self.open) >= limit or len(self._look_ups) >= 2 * limit:  # a call that ends may leave its own behind
            self._refuse(invocation, self._too_many())
        else:
            self.open.add(invocation)
            if self.registry.is_known_active(target):
                invocation.begin()
            else:
                self.deadlines.add(invocation.started + LOOK_UP_PATIENCE, invocation)
                task = asyncio.get_running_loop().create_task(self._look_up(invocation))
                self._look_ups.add(task)
                task.add_done_callback(self._look_ups.discard)
        return invocation

    async def _look_up(self, invocation: Invocation) -> None:
        try:
            await self.registry.active(invocation.target)
        except HubError as error:
            invocation.finish(error)
        except Exception:
            log.exception("identity look-up failed", target=str(invocation.target))
            invocation.finish(registry_away())
        else:
            if invocation in self.open:
                invocation.cancel_deadline()
                invocation.begin()

    def ended(self, invocation: Invocation, outcome: Outcome) -> None:
        seconds = self.clock.monotonic() - invocation.started
        if isinstance(outcome, MethodResult):
            self.metrics.call_ended("ok", seconds)
        else:
            self.metrics.call_ended(outcome.code.name, seconds)
            log.info(
                "method call failed",
                target=str(invocation.target),
                method=invocation.request.method_name,
                code=int(outcome.code),
                error=outcome.code.name,
                reason=outcome.reason or outcome.message,
                seconds=round(seconds, 3),
            )
        self._signal_end()

    def cancelled(self, invocation: Invocation) -> None:
        self.metrics.call_ended("cancelled", self.clock.monotonic() - invocation.started)
        self._signal_end()

    def _signal_end(self) -> None:
        if self._all_ended is not None and not self.open:
            self._all_ended.set()

    def _refuse(self, invocation: Invocation, error: HubError) -> None:
        self.ended(invocation, error)
        invocation.settle(error)

    def _too_many(self) -> HubError:
        return HubError(
            ErrorCode.ThrottlingException,
            f"The hub holds as many open calls as it may: {self.limits.hub_open_calls}.",
        )

    def _on_event(self, event: Event) -> None:
        """A target that was deleted or disabled: nobody needs to wait for it any longer."""
        if isinstance(event, TargetRevoked) and event.reason in {CloseReason.DELETED, CloseReason.DISABLED}:
            for invocation in [call for call in self.open if call.target == event.target and not call.is_handed_over]:
                invocation.finish(device_not_found(event.target))

    async def stop(self) -> None:
        """[HUB-stop] Take no more calls; those not handed over end with 503001; returns when the others have ended."""
        self._stopping = True
        for invocation in [call for call in self.open if not call.is_handed_over]:
            invocation.finish(stopping())
        if self.open:
            self._all_ended = asyncio.Event()
            await self._all_ended.wait()
