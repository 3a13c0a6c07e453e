"""How fast: a bucket of turns that fills with time. Knows no clock."""

from __future__ import annotations

from collections.abc import Callable

BURST = 0.25
"""Seconds whose turns may be saved up."""

GATHER = 0.05
"""Seconds whose turns are worth a look into the store."""


class Pace:
    """`rate` turns per second, as evenly as its owner asks; of these the `share` of this node, from 0 to 1."""

    def __init__(self, rate: float, now: float, share: Callable[[], float] = lambda: 1.0) -> None:
        self._limit = rate
        self._share = share
        self._turns = 1.0
        self._since = now

    @property
    def rate(self) -> float:
        """[HUB-throttle-share]"""
        return self._limit * self._share()

    @property
    def _most(self) -> float:
        return max(1.0, self.rate * BURST)

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
