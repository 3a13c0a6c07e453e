"""Deadlines by the hundred thousand: buckets of a tick each, so that adding and cancelling cost the same for any
number. Knows no clock: the owner says what time it is."""

from __future__ import annotations

from collections.abc import Callable

TICK = 0.05
"""Seconds of one bucket. A deadline expires within one tick of its time."""


class Deadline:
    """Something that must happen at a time unless it is cancelled. Subclasses say what in `expired`."""

    __slots__ = ("_bucket",)

    def __init__(self) -> None:
        self._bucket: dict[Deadline, None] | None = None

    def expired(self) -> None:
        raise NotImplementedError

    def cancel_deadline(self) -> None:
        bucket = self._bucket
        if bucket is not None:
            self._bucket = None
            bucket.pop(self, None)


class CallbackDeadline(Deadline):
    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        super().__init__()
        self._callback = callback

    def expired(self) -> None:
        self._callback()


class Deadlines:
    """All deadlines of one event loop, in seconds of a monotonic clock."""

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, dict[Deadline, None]] = {}
        self._next_tick = int(now / TICK)

    def add(self, when: float, deadline: Deadline) -> None:
        """Arm `deadline` for `when`; armed already, it moves."""
        if deadline._bucket is not None:
            deadline.cancel_deadline()
        tick = int(when / TICK)
        if tick < self._next_tick:  # noqa: PLR1730 - max() would cost a call for each call
            tick = self._next_tick
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
        bucket[deadline] = None
        deadline._bucket = bucket

    def call_at(self, when: float, callback: Callable[[], None]) -> Deadline:
        deadline = CallbackDeadline(callback)
        self.add(when, deadline)
        return deadline

    def expire(self, now: float) -> None:
        """Run what is due, oldest first. One that arms another in the past sees it run at the next call. One that
        fails takes no other along: their errors come in an ExceptionGroup when all have run."""
        current = int(now / TICK)
        if current < self._next_tick:
            return
        if current - self._next_tick > len(self._buckets):
            due = sorted(tick for tick in self._buckets if tick <= current)
        else:
            due = [tick for tick in range(self._next_tick, current + 1) if tick in self._buckets]
        self._next_tick = current + 1
        errors = []
        for tick in due:
            bucket = self._buckets.pop(tick)
            for deadline in list(bucket):
                if deadline in bucket:  # an earlier one may have cancelled it
                    deadline._bucket = None
                    try:
                        deadline.expired()
                    except Exception as error:  # noqa: BLE001
                        errors.append(error)
        if errors:
            raise ExceptionGroup("deadlines failed", errors)

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))
