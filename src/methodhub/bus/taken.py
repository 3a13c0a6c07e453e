"""Calls that other nodes hand to the claims of this one, and the ledger of those that are not yet answered."""

from __future__ import annotations

import structlog

from methodhub.bus.claims import NatsClaim
from methodhub.bus.messages import decode_request, encode_outcome
from methodhub.bus.post import Post
from methodhub.core.calls import Outcome
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.ports import Handed, NotClaimed
from methodhub.wire.nats.protocol import Message

log = structlog.get_logger()


class _Taken:
    """One call that a device has, perhaps, been handed."""

    __slots__ = ("_ledger", "asker", "handed", "number", "reply")

    def __init__(self, ledger: TakenCalls, asker: str, number: int, reply: bytes) -> None:
        self._ledger = ledger
        self.asker = asker
        self.number = number
        self.reply = reply
        self.handed: Handed | None = None

    def settle(self, outcome: Outcome) -> None:
        self._ledger.answer(self, outcome)


class TakenCalls:
    def __init__(self, post: Post, limit: int) -> None:
        self.sent_back = 0
        """Requests that were read too late, or for a claim that is gone: their askers ask again."""
        self._post = post
        self._limit = limit
        self._size = 0
        self._open: dict[str, dict[int, _Taken]] = {}

    def __len__(self) -> int:
        return self._size

    def take(self, claim: NatsClaim | None, message: Message) -> None:
        """[HUB-moved] Without a claim, and [HUB-stalled] while the line is not trusted, the call is not handed over:
        its asker is told so, and asks again if it still waits. Raises MalformedMessage."""
        post = self._post
        if claim is None or not post.line.is_trusted:
            self.sent_back += 1
            post.reply(message.reply)
            return
        request = decode_request(message.payload)
        asker, number = post.subjects.asker_of(message.reply)
        if self._size >= self._limit:
            post.reply(message.reply, encode_outcome(_too_many(self._limit)))
            return
        calls = self._open.setdefault(asker, {})
        taken = calls[number] = _Taken(self, asker, number, message.reply)
        self._size += 1
        try:
            handed = claim.answer(request, taken.settle)
        except Exception:
            log.exception("a call could not be handed over", target=str(claim.target))
            taken.settle(HubError(ErrorCode.ServerError, "The call could not be handed over."))
            return
        if isinstance(handed, NotClaimed):
            self.answer(taken, handed)
        else:
            taken.handed = handed

    def answer(self, taken: _Taken, outcome: Outcome | NotClaimed) -> None:
        if self._forget(taken.asker, taken.number) is None:
            return
        taken.handed = None  # else the two would hold each other, and wait for the collector
        data = encode_outcome(outcome)
        if len(data) > self._post.line.max_payload > 0:
            error = HubError(ErrorCode.InvalidDeviceResponse, "The device's answer is larger than the bus can carry.")
            data = encode_outcome(error)
        self._post.reply(taken.reply, data)

    def cancel(self, asker: str, number: int) -> None:
        taken = self._forget(asker, number)
        if taken is not None and taken.handed is not None:
            taken.handed.cancel()

    def numbers(self, asker: str) -> list[int]:
        return list(self._open.get(asker, ()))

    def without(self, asker: str) -> None:
        """The node is gone: nobody waits for these."""
        for number in self.numbers(asker):
            self.cancel(asker, number)

    def _forget(self, asker: str, number: int) -> _Taken | None:
        calls = self._open.get(asker)
        taken = calls.pop(number, None) if calls is not None else None
        if taken is not None:
            self._size -= 1
            if not calls:
                del self._open[asker]
        return taken


def _too_many(limit: int) -> HubError:
    return HubError(ErrorCode.ThrottlingException, f"The device's node holds {limit} open calls of others, its limit.")
