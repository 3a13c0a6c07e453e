"""The bus of a single process: claims in a dictionary, calls as function calls."""

from __future__ import annotations

from collections.abc import Callable

from methodhub.bus.waiters import Waiters
from methodhub.core.calls import MethodRequest, Outcome
from methodhub.core.identity import Target
from methodhub.core.ports import NOT_CLAIMED, Answer, Event, Handed, NotClaimed


class LocalClaim:
    __slots__ = ("_answer", "_bus", "_target")

    def __init__(self, bus: LocalBus, target: Target, answer: Answer) -> None:
        self._bus = bus
        self._target = target
        self._answer = answer

    def renew(self) -> None:
        self._bus.waiters.wake(self._target)

    def release(self) -> None:
        self._bus.release(self._target, self._answer)


class LocalBus:
    def __init__(self) -> None:
        self._claims: dict[Target, Answer] = {}
        self.waiters = Waiters()
        self._subscribers: list[Callable[[Event], None]] = []

    async def claim(
        self, target: Target, answer: Answer, lost: Callable[[], None], generation: int | None = None
    ) -> LocalClaim:
        """The newest wins. Nothing is ever lost to another node."""
        self._claims[target] = answer
        self.waiters.wake(target)
        return LocalClaim(self, target, answer)

    def release(self, target: Target, answer: Answer) -> None:
        """[HUB-takeover] Only the claim that is still in place goes; a newer one stays."""
        if self._claims.get(target) == answer:
            del self._claims[target]

    def call(
        self, target: Target, request: MethodRequest, settle: Callable[[Outcome | NotClaimed], None]
    ) -> Handed | None:
        answer = self._claims.get(target)
        if answer is not None:
            handed = answer(request, settle)
            if not isinstance(handed, NotClaimed):
                return handed
        settle(NOT_CLAIMED)
        return None

    def wait_claimed(self, target: Target, wake: Callable[[], None]) -> Callable[[], None]:
        return self.waiters.add(target, wake)

    def publish(self, event: Event) -> None:
        for receive in self._subscribers:
            receive(event)

    def subscribe(self, receive: Callable[[Event], None]) -> None:
        self._subscribers.append(receive)
