"""Where time comes from. Everything that waits or expires takes one of these, so that tests own time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that only grow; for deadlines."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, UTC; for tokens and time stamps."""
        ...


class SystemClock:
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class CommonClock:
    """What several nodes agree on: `skew` is what is added to this node's own time."""

    def __init__(self, own: Clock) -> None:
        self.own = own
        self.skew = 0.0

    def monotonic(self) -> float:
        return self.own.monotonic()

    def wall(self) -> float:
        return self.own.wall() + self.skew
