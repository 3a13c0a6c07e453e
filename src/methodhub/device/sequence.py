"""Events handled strictly in order: one that has to wait (for the store, for the bus) holds back those behind it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

E = TypeVar("E")


class Sequence(Generic[E]):
    """`handle` takes an event; it calls `wait_for` for what has to wait. `resumed` is told when nothing waits; `failed`
    when an event failed, in the exception's handler."""

    __slots__ = ("_failed", "_handle", "_queue", "_resumed", "_task")

    def __init__(self, handle: Callable[[E], None], resumed: Callable[[], None], failed: Callable[[], None]) -> None:
        self._handle = handle
        self._resumed = resumed
        self._failed = failed
        self._queue: deque[E] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_waiting(self) -> bool:
        return self._queue is not None

    def add(self, event: E) -> None:
        if self._queue is None:
            try:
                self._handle(event)
            except Exception:  # noqa: BLE001 - whatever waits behind it would wait for ever
                self._failed()
        else:
            self._queue.append(event)

    def wait_for(self, step: Coroutine[Any, Any, None]) -> None:
        """Events queue up behind `step`, which must raise nothing."""
        self._queue = deque()
        self._task = asyncio.get_running_loop().create_task(self._finish(step))

    async def _finish(self, step: Coroutine[Any, Any, None]) -> None:
        await step
        self._task = None
        waiting, self._queue = self._queue or deque(), None
        while waiting:
            self.add(waiting.popleft())
            if self.is_waiting:  # that one waits, too: the rest goes behind it
                self._queue = waiting
                return
        self._resumed()

    def drop(self) -> None:
        """No more events; what is under way comes to its end."""
        self._handle = _nothing

    def cancel(self) -> None:
        """No more events. Lets go of its owner: a cycle would keep the owner's TLS until the collector runs."""
        if self._task is not None:
            self._task.cancel()
        self._handle = self._resumed = self._failed = _nothing


def _nothing(*_: object) -> None:
    pass
