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
