"""The live connection of each target: attached when it has authenticated, claimed when it takes methods, replaced by
a newer one, and gone with its open calls."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from methodhub.core.access import Credential
from methodhub.core.calls import RID_START_LIMIT, MethodRequest, MethodResult, PendingCalls, Settle
from methodhub.core.clock import Clock
from methodhub.core.deadlines import TICK, Deadlines
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Identity, Target
from methodhub.core.ports import (
    NOT_CLAIMED,
    Bus,
    Claim,
    CloseReason,
    DesiredChanged,
    DeviceConnection,
    Handed,
    NotClaimed,
    TargetAttached,
)
from methodhub.metrics import Metrics

EARLY = 4 * TICK
"""Seconds by which timers end before their nominal time: with the ticks, 250 to 175 ms. Some callers give up exactly
then (`wire/service.md` 1.8); what is left is for the work when thousands end at once."""


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    open_calls: int = 1_000
    unsent_bytes: int = 16 * 1024 * 1024


def connection_closed() -> HubError:
    return HubError(
        ErrorCode.DeviceConnectionClosedRemotely, "The device's connection was closed before it answered the call."
    )


def connection_replaced() -> HubError:
    return HubError(
        ErrorCode.ConnectionForcefullyClosedOnNewConnection,
        "The device connected again before it answered the call, which closed the connection that had received it.",
    )


class Attachment:
    """One authenticated connection of a target, and the ledger of the calls it was handed."""

    __slots__ = (
        "_claim",
        "_table",
        "connection",
        "credential",
        "ended",
        "generation",
        "heard",
        "known_desired",
        "pending",
        "pushed_version",
        "since",
        "target",
    )

    def __init__(
        self,
        table: ConnectionTable,
        connection: DeviceConnection,
        identity: Identity,
        credential: Credential,
        generation: int | None,
    ) -> None:
        self._table = table
        self.connection = connection
        self.target = identity.target
        self.credential = credential
        self.generation = generation
        self.since = table.clock.wall()
        self.heard = table.clock.monotonic()
        """When the device was last heard, in seconds of the monotonic clock."""
        self.pending = PendingCalls(secrets.randbelow(RID_START_LIMIT), table.deadlines)
        self.pushed_version = 0
        """Of the desired properties that the device was told last."""
        self.known_desired = 0
        """The newest version of them that it was told or has read; 0: it has read none, and none changed."""
        self._claim: Claim | None = None
        self.ended = False

    async def claim(self) -> None:
        """Tell the bus that the target takes methods; or, claimed already, that it takes more of them. [HUB-takeover]
        A connection that has ended must not push out the claim of the newer one."""
        if self._claim is not None:
            self._claim.renew()
        elif not self.ended:
            self._hold(await self._table.bus.claim(self.target, self.answer, self.replace, self.generation))
        if not self.ended:
            self._table.on_ready(self.target)

    def replace(self) -> None:
        """[HUB-takeover] The target has connected anew, here or to another node."""
        self.end(connection_replaced)
        self.connection.close(CloseReason.TAKEN_OVER)

    def _hold(self, claim: Claim) -> None:
        if self.ended:
            claim.release()
        else:
            self._claim = claim

    def answer(self, request: MethodRequest, settle: Settle) -> Handed | NotClaimed | None:
        """Hand a call to the device, unless it has gone or is not subscribed to the method; 403800 if it holds too much
        already [HUB-limits]."""
        connection = self.connection
        if self.ended or not connection.accepts(request.method_name):
            return NOT_CLAIMED
        table = self._table
        unsent = connection.unsent_bytes()
        if len(self.pending) >= table.limits.open_calls or (
            unsent and unsent + len(request.payload or b"") > table.limits.unsent_bytes
        ):
            settle(self._too_many(unsent))
            return None
        due = table.clock.monotonic() + request.response_timeout - EARLY
        call = self.pending.open(request.response_timeout, due, settle)
        connection.deliver(call.rid, request)
        return call

    def settle(self, rid: int, outcome: MethodResult | HubError) -> None:
        """Take the device's answer. [HUB-late-answer] One that no call waits for is counted and dropped."""
        if not self.pending.settle(rid, outcome):
            self._table.metrics.late_answers += 1

    def end(self, error: Callable[[], HubError] = connection_closed) -> None:
        """The connection is over: release the claim, fail what was open. Does nothing the second time."""
        if self.ended:
            return
        self.ended = True
        if self._claim is not None:
            self._claim.release()
            self._claim = None
        self._table.forget(self)
        self.pending.fail_all(error)

    def _too_many(self, unsent: int) -> HubError:
        limits = self._table.limits
        return HubError(
            ErrorCode.DeviceMaximumInflightMethodExceeded,
            f"The device has {len(self.pending)} unanswered calls of at most {limits.open_calls} and {unsent} unread "
            f"bytes of at most {limits.unsent_bytes}.",
        )


class ConnectionTable:
    def __init__(self, bus: Bus, deadlines: Deadlines, clock: Clock, limits: DeviceLimits, metrics: Metrics) -> None:
        self.bus = bus
        self.deadlines = deadlines
        self.clock = clock
        self.limits = limits
        self.metrics = metrics
        self._attachments: dict[Target, Attachment] = {}
        self.on_change: Callable[[Attachment, bool], None] = lambda attachment, connected: None
        """Told of each attachment that begins or ends; the registry writes it behind."""
        self.on_ready: Callable[[Target], None] = lambda target: None
        """Told when a target takes methods, or more of them: jobs that wait for it go on."""

    def __len__(self) -> int:
        return len(self._attachments)

    def __iter__(self) -> Iterator[Attachment]:
        return iter(list(self._attachments.values()))

    def get(self, target: Target) -> Attachment | None:
        return self._attachments.get(target)

    def attach(
        self,
        connection: DeviceConnection,
        identity: Identity,
        credential: Credential,
        generation: int | None = None,
    ) -> Attachment:
        """Make this the target's connection. [HUB-takeover] The older one is closed now, not before: only whoever has
        authenticated may push another out. `generation` orders it among those of other nodes (`Bus.claim`)."""
        attachment = Attachment(self, connection, identity, credential, generation)
        older = self._attachments.get(attachment.target)
        self._attachments[attachment.target] = attachment
        self.on_change(attachment, True)
        if older is not None:
            older.replace()
        return attachment

    def attached(self, event: TargetAttached) -> TargetAttached | None:
        """[HUB-takeover] A target has connected to some node: what it holds here is over if it is older. If it is newer
        returns its own event, which the other node has not heard in time. A connection without a claim goes, too."""
        attachment = self._attachments.get(event.target)
        if attachment is None or attachment.generation is None or attachment.generation == event.generation:
            return None
        if attachment.generation > event.generation:
            return TargetAttached(attachment.target, attachment.generation)
        attachment.replace()
        return None

    def forget(self, attachment: Attachment) -> None:
        """[HUB-takeover] The end of an older connection never erases the presence of the newer one."""
        if self._attachments.get(attachment.target) is attachment:
            del self._attachments[attachment.target]
            self.on_change(attachment, False)

    def push_desired(self, event: DesiredChanged) -> None:
        """[HUB-twin-order] Tell the device, unless it knows of a later change already."""
        attachment = self._attachments.get(event.target)
        if attachment is not None and event.version > attachment.pushed_version:
            attachment.pushed_version = event.version
            attachment.known_desired = max(attachment.known_desired, event.version)
            attachment.connection.push_desired(event.version, event.patch)

    def close(self, target: Target, reason: CloseReason) -> None:
        attachment = self._attachments.get(target)
        if attachment is not None:
            attachment.end()
            attachment.connection.close(reason)

    def close_all(self, reason: CloseReason) -> None:
        for attachment in self:
            self.close(attachment.target, reason)
