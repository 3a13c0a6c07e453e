"""A method call and the ledger of those a connection was handed and has not answered."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from methodhub.core.deadlines import Deadline, Deadlines
from methodhub.core.errors import ErrorCode, HubError

RID_START_LIMIT = 2**31


class MethodRequest(msgspec.Struct, frozen=True, gc=False):
    """What a caller asks for. `payload` is JSON text as the caller wrote it, `None` where it gave none; seconds."""

    method_name: str
    payload: bytes | None
    response_timeout: float
    connect_timeout: float


class MethodResult(msgspec.Struct, frozen=True, gc=False):
    """What the device answered: its own status, and JSON text as it wrote it (empty: no body)."""

    status: int
    payload: bytes


Outcome = MethodResult | HubError
Settle = Callable[[Outcome], None]
"""Called exactly once with how the call ended, unless the call is cancelled first."""


class OpenCall(Deadline):
    """A call that was handed to a connection and waits for the answer until its deadline."""

    __slots__ = ("ledger", "response_timeout", "rid", "settle")

    def __init__(self, ledger: PendingCalls, rid: int, response_timeout: float, settle: Settle) -> None:
        self._bucket = None
        self.ledger = ledger
        self.rid = rid
        self.response_timeout = response_timeout
        self.settle = settle

    def expired(self) -> None:
        """[HUB-response-timeout] The device was asked and did not answer in time."""
        self.ledger.settle(self.rid, response_timed_out(self.response_timeout))

    def cancel(self) -> None:
        """The caller went away: forget the call. A later answer counts as late."""
        self.ledger.forget(self.rid)


class PendingCalls:
    """The calls one connection was handed. Ids count up from `first_rid`, a random start, so that an answer to an
    earlier connection meets no call of this one [HUB-rid]."""

    __slots__ = ("_deadlines", "_next_rid", "_open")

    def __init__(self, first_rid: int, deadlines: Deadlines) -> None:
        self._next_rid = first_rid
        self._deadlines = deadlines
        self._open: dict[int, OpenCall] = {}

    def __len__(self) -> int:
        return len(self._open)

    def is_open(self, rid: int) -> bool:
        return rid in self._open

    def open(self, response_timeout: float, due: float, settle: Settle) -> OpenCall:
        rid = self._next_rid
        self._next_rid = rid + 1
        call = self._open[rid] = OpenCall(self, rid, response_timeout, settle)
        self._deadlines.add(due, call)
        return call

    def settle(self, rid: int, outcome: Outcome) -> bool:
        """End the call `rid`. False if there is none: answered already, timed out, or of another connection."""
        call = self._open.pop(rid, None)
        if call is None:
            return False
        call.cancel_deadline()
        call.settle(outcome)
        return True

    def forget(self, rid: int) -> None:
        call = self._open.pop(rid, None)
        if call is not None:
            call.cancel_deadline()

    def fail_all(self, error: Callable[[], HubError]) -> None:
        calls, self._open = self._open, {}
        for call in calls.values():
            call.cancel_deadline()
            call.settle(error())


def seconds_text(seconds: float) -> str:
    """`HH:MM:SS`, as the original writes a timeout."""
    whole = int(seconds)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def response_timed_out(response_timeout: float) -> HubError:
    return HubError(
        ErrorCode.GatewayTimeout,
        "Timed out waiting for the response from device.",
        info={"timeout": seconds_text(response_timeout)},
    )
