"""How fast: a bucket of turns that fills with time. Knows no clock."""

from __future__ import annotations

BURST = 0.25
"""Seconds whose turns may be saved up."""

GATHER = 0.05
"""Seconds whose turns are worth a look into the store."""


class Pace:
    """`rate` turns per second, as evenly as its owner asks."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._turns = 1.0
        self._most = max(1.0, rate * BURST)
        self._since = now

    def turns(self, now: float) -> int:
        """How many may be taken now."""
        self._turns = min(self._most, self._turns + (now - self._since) * self.rate)
        self._since = now
        return int(self._turns + 1e-9)

    def take(self, turns: int) -> None:
        self._turns -= turns

    def ready_at(self) -> float:
        """When enough turns have come together since `turns` was asked."""
        enough = min(self._most, max(1.0, self.rate * GATHER))
        return self._since + max(0.0, enough - self._turns) / self.rate
