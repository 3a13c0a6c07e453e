"""Calls of this node to targets that it has not claimed: asked over NATS, asked again while that is safe, settled once.

waiting ──the line is ready──> asked ──answered──────────────────────────> settled
   ^                            │ nobody subscribed: a roll call
   │<───────────────────────────┤ every node stood by its claims ────────> not claimed
   │   moved, claimed meanwhile,
   │   or some node was away
   │                            └─ line or claimant's node lost ─────────> 404104; no answer in time: 504101
   └── 5 s are over ─────────────────────────────────────────────────────> 503001, 503101
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from methodhub.bus.claims import NatsClaim
from methodhub.bus.messages import Cancelled, Moved, Present, RollCalled, decode_reply, encode_request
from methodhub.bus.post import Post
from methodhub.bus.roster import ROLL_PATIENCE, Roll, Roster
from methodhub.bus.waiters import Waiters
from methodhub.core.calls import MethodRequest, Outcome, response_timed_out
from methodhub.core.clock import Clock
from methodhub.core.connections import EARLY
from methodhub.core.deadlines import Deadline, Deadlines
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.ports import NOT_CLAIMED, Handed, NotClaimed
from methodhub.metrics import Metrics
from methodhub.wire.nats.protocol import NO_RESPONDERS, Message

log = structlog.get_logger()

PATIENCE = 5.0
"""Seconds that a call waits for the bus, or for nodes that are away, while it has surely reached no device."""

DOUBT_EVERY = 4
"""Turns, of half a second, until it is asked whether the calls asked before are still held by somebody."""

MOVED_AT_ONCE = 3
"""How often a call that moved is asked again at once; after that it waits for a claim or for the next round."""

Answered = Callable[[Outcome | NotClaimed], None]


def _away() -> HubError:
    return HubError(ErrorCode.ServiceUnavailable, "The hub's bus is away. The call did not reach the device.")


def _unsure() -> HubError:
    return HubError(
        ErrorCode.ConnectionUnavailable,
        "A part of the hub is away: it cannot tell whether the device is connected. The call did not reach the device.",
    )


def _lost() -> HubError:
    return HubError(
        ErrorCode.DeviceConnectionClosedRemotely,
        "The hub lost its own connection to the device's node before the answer came. The device may have acted.",
    )


class RemoteCall(Deadline):
    """`number` is 0 unless the question is out; each asking has a number of its own."""

    __slots__ = (
        "_calls",
        "_forget",
        "asked_confirmed",
        "asked_state",
        "claimed_meanwhile",
        "error",
        "handed",
        "is_over",
        "moved",
        "number",
        "patience_ends",
        "request",
        "settle",
        "target",
    )

    def __init__(self, calls: Calls, target: Target, request: MethodRequest, settle: Answered) -> None:
        self._bucket = None
        self._calls = calls
        self.target = target
        self.request = request
        self.settle = settle
        self.number = 0
        self.asked_state = -1
        self.asked_confirmed = False
        self.claimed_meanwhile = False
        """Somewhere, since it was asked."""
        self.moved = 0
        self.is_over = False
        self.handed: Handed | None = None
        """Of a claim on this node, made while the call looked elsewhere."""
        self.error = _away
        """What has kept the call from being handed over so far."""
        self.patience_ends = calls.clock.monotonic() + PATIENCE
        self._forget = calls.waiters.add(target, self._claimed)

    def _claimed(self) -> None:
        self.claimed_meanwhile = True
        if self in self._calls.waiting:
            self._calls.ask(self)

    def expired(self) -> None:
        if self.number:
            self.end(response_timed_out(self.request.response_timeout))
        else:
            self.end(self.error())

    def end(self, outcome: Outcome | NotClaimed) -> None:
        if self._leave():
            self.settle(outcome)

    def cancel(self) -> None:
        number = self.number
        if self._leave():
            if self.handed is not None:
                self.handed.cancel()
            elif number:
                self._calls.tell_cancelled(number)

    def _leave(self) -> bool:
        if self.is_over:
            return False
        self.is_over = True
        self.cancel_deadline()
        self._forget()
        self._calls.left(self)
        return True


class Calls:
    def __init__(
        self,
        post: Post,
        roster: Roster,
        waiters: Waiters,
        clock: Clock,
        deadlines: Deadlines,
        metrics: Metrics,
        limit: int,
        claim_of: Callable[[Target], NatsClaim | None],
    ) -> None:
        self.clock = clock
        self.waiters = waiters
        self._post = post
        self._roster = roster
        self._deadlines = deadlines
        self._metrics = metrics
        self._limit = limit
        self._claim_of = claim_of
        self._next_number = 1
        self._next_roll = 1
        self._asked: dict[int, RemoteCall] = {}
        self.waiting: dict[RemoteCall, None] = {}
        """For a claim, a change or the next round."""
        self._unheard: list[RemoteCall] = []
        """Nobody was subscribed: to be judged by the next roll call."""
        self._roll: Roll | None = None
        self._judged: list[RemoteCall] = []
        """Those that the roll call under way judges."""
        self._turns = 0
        self._asked_below = 0
        self._in_doubt_below = 0
        """Calls of smaller numbers may have been lost with a node: the next roll call tells."""

    def __len__(self) -> int:
        return len(self._asked) + len(self.waiting) + len(self._unheard) + len(self._judged)

    # Asking

    def call(self, target: Target, request: MethodRequest, settle: Answered) -> RemoteCall | None:
        if len(self) >= self._limit:
            settle(HubError(ErrorCode.ThrottlingException, f"The hub holds {self._limit} calls to other nodes."))
            return None
        call = RemoteCall(self, target, request, settle)
        self.ask(call)
        return None if call.is_over else call

    def ask(self, call: RemoteCall) -> None:
        """[HUB-bus-down] Nothing is sent unless the line is ready: it would reach a device after its caller was
        answered."""
        self.waiting.pop(call, None)
        if self._is_local(call):
            return
        if self.clock.monotonic() >= call.patience_ends:
            call.end(call.error())
            return
        line = self._post.line
        if not line.is_ready:
            self._wait(call)
            return
        data = encode_request(call.request)
        if len(data) > line.max_payload:
            call.end(HubError(ErrorCode.MessageTooLarge, "The call is larger than the hub's bus can carry."))
            return
        number = call.number = self._next_number
        self._next_number = number + 1
        self._asked[number] = call
        call.asked_state = self._roster.state
        call.asked_confirmed = self._roster.is_confirmed
        call.claimed_meanwhile = False
        self._deadlines.add(self.clock.monotonic() + call.request.response_timeout - EARLY / 2, call)
        self._post.ask(self._post.subjects.call(call.target), number, data)

    def _is_local(self, call: RemoteCall) -> bool:
        """The target may have been claimed here meanwhile."""
        claim = self._claim_of(call.target)
        if claim is None:
            return False
        call.cancel_deadline()  # the claimant's own runs now
        handed = claim.answer(call.request, call.end)
        if isinstance(handed, NotClaimed):
            call.end(handed)
        elif not call.is_over:
            call.handed = handed
        return True

    def _wait(self, call: RemoteCall) -> None:
        """Until the target is claimed, the roster or the line changes, or the next round."""
        self.waiting[call] = None
        self._deadlines.add(call.patience_ends, call)

    def ask_again(self) -> None:
        """Something has changed, or a round is over."""
        if self._post.line.is_ready:
            for call in list(self.waiting):
                if call in self.waiting:
                    self.ask(call)

    def left(self, call: RemoteCall) -> None:
        self._asked.pop(call.number, None)
        self.waiting.pop(call, None)

    def tell_cancelled(self, number: int) -> None:
        self._post.to_all(Cancelled(self._post.node, number))

    # Answers

    def replied(self, message: Message) -> None:
        """Raises MalformedMessage."""
        number = self._post.subjects.number_of(message.subject)
        if message.status == NO_RESPONDERS:
            call = self._back(number, _unsure)
            if call is not None:
                self._unheard.append(call)
                self._call_roll()
            return
        answer = decode_reply(message.payload)
        if isinstance(answer, Moved):
            self._moved(number)
            return
        call = self._asked.get(number)
        if call is None:
            self._metrics.late_answers += 1
        else:
            call.end(answer)

    def _back(self, number: int, error: Callable[[], HubError]) -> RemoteCall | None:
        """The question came back: no device has it."""
        call = self._asked.pop(number, None)
        if call is not None:
            call.number = 0
            call.error = error
            self._deadlines.add(call.patience_ends, call)
        return call

    def _moved(self, number: int) -> None:
        """[HUB-moved] The claimant's node did not hand the call over."""
        call = self._back(number, _unsure)
        if call is None:
            return
        call.moved += 1
        if call.moved <= MOVED_AT_ONCE:
            self.ask(call)
        else:
            self._wait(call)

    # Roll calls

    def _call_roll(self) -> None:
        """[HUB-roll-call] Of all that wait for one, the next is called when the last has ended: it must begin after
        their questions came back."""
        if self._roll is not None or not self._post.line.is_up:
            return
        self._judged, self._unheard = self._unheard, []
        roll = self._roll = Roll(self._next_roll, self._roster, self.clock.monotonic(), self._roll_ended)
        roll.in_doubt_below, self._in_doubt_below = self._in_doubt_below, 0
        self._next_roll += 1
        self._post.to_all(RollCalled(self._post.node, roll.number, wants_calls=roll.in_doubt_below > 0))
        self._post.line.ping(lambda: roll.without(self._post.node))

    def present(self, message: Present) -> None:
        if self._roll is not None and self._roll.number == message.number:
            self._roll.present(message)

    def _roll_ended(self, roll: Roll, is_complete: bool) -> None:
        self._roll = None
        judged, self._judged = self._judged, []
        if is_complete:
            self._end_lost(roll)
        else:
            self._in_doubt_below = max(self._in_doubt_below, roll.in_doubt_below)
            self._roster.state += 1  # what was asked until now may have missed whoever did not answer
        stood = is_complete and self._roster.state == roll.state
        for call in judged:
            if call.is_over:
                continue
            if stood and self._was_asked_of_all(call, roll):
                if not self._is_local(call):
                    call.end(NOT_CLAIMED)
            elif is_complete:
                self.ask(call)
            else:
                self._wait(call)
        if self._unheard or (is_complete and self._in_doubt_below):
            self._call_roll()

    def _was_asked_of_all(self, call: RemoteCall, roll: Roll) -> bool:
        """[HUB-roll-call] A claim that moved while the question was on its way may have been missed at both places:
        the server had found the older one, which was gone when it came to deliver. Whoever made the newer one has
        announced it before it was present."""
        return call.asked_confirmed and call.asked_state == roll.state and not call.claimed_meanwhile

    def _end_lost(self, roll: Roll) -> None:
        """[HUB-lost-node] What was asked before a node was lost, and is held by none of the others, is lost."""
        for number in [number for number in self._asked if number < roll.in_doubt_below]:
            if number not in roll.calls:
                call = self._asked.get(number)
                if call is not None:
                    call.end(_lost())

    # What happens to nodes and line

    def doubt(self) -> None:
        """A node is gone, or lost its line for a time: which of our calls does nobody hold any longer?"""
        if self._asked:
            self._in_doubt_below = self._next_number
            self._call_roll()

    def another_roll(self) -> None:
        """Some node has only now begun to listen."""
        if self._roll is not None:
            self._roll.give_up()

    def without(self, node: str) -> None:
        if self._roll is not None:
            self._roll.without(node)
        self.doubt()

    def line_down(self) -> None:
        """[HUB-bus-lost] A device may have, or may yet get, whatever was asked: its answer cannot come."""
        roll = self._roll
        if roll is not None:
            roll.give_up()
        unheard, self._unheard = self._unheard, []
        for call in unheard:
            if not call.is_over:
                self._wait(call)
        for call in list(self._asked.values()):
            call.end(_lost())

    def stop(self) -> None:
        """The line is closed for good."""
        self.line_down()
        for call in list(self.waiting):
            call.end(call.error())

    def turn(self) -> None:
        """Every half second."""
        now = self.clock.monotonic()
        if self._roll is not None and now - self._roll.began > ROLL_PATIENCE:
            self._roll.give_up()
        self._turns += 1
        if self._turns % DOUBT_EVERY == 0:  # whatever was lost without a sign
            if self._asked:
                self._in_doubt_below = max(self._in_doubt_below, self._asked_below)
            self._asked_below = self._next_number
        if self._in_doubt_below or self._unheard:
            self._call_roll()
        self.ask_again()
