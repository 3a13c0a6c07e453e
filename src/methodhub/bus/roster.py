"""Which nodes there are, and whether all of them stood by their claims while a question was on its way. Knows neither
calls nor sockets.

A question that nobody answers ("who claims this target?") proves that nobody does only if no node was cut off at that
time. So each node counts its connections to NATS (its epoch), and a roll call asks every live node for its epoch:
unchanged before and after the question, and complete, no node can have missed it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from methodhub.bus.messages import Present

HEARD = 2.0
"""Seconds that a node counts as live after it was heard, even if the store does not know it (any more)."""

ROLL_PATIENCE = 0.25
"""Seconds until a roll call is given up."""


class Sign(Enum):
    """What a sign of life tells."""

    KNOWN = 0
    NEW = 1
    RECONNECTED = 2
    COMPLETED = 3


class Roster:
    """`state` grows with each change of what is known of any node, or of our own connection."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.state = 0
        self.confirmed = -1
        """The state in which the last roll call found every node complete."""
        self._epochs: dict[str, int] = {}
        self._heard: dict[str, float] = {}
        self._stored: set[str] = set()
        self._left: set[str] = set()
        self._silent: set[str] = set()
        self._complete: set[str] = set()

    @property
    def is_confirmed(self) -> bool:
        return self.confirmed == self.state

    def heard(self, node: str, epoch: int, complete: bool, now: float) -> Sign:
        if node in self._left or node == self.node:
            return Sign.KNOWN
        self._heard[node] = now
        self._silent.discard(node)
        was_complete = node in self._complete
        if complete:
            self._complete.add(node)
        else:
            self._complete.discard(node)
        before = self._epochs.get(node)
        if before == epoch:
            return Sign.COMPLETED if complete and not was_complete else Sign.KNOWN
        self._epochs[node] = epoch
        self.state += 1
        return Sign.NEW if before is None and epoch == 1 else Sign.RECONNECTED

    def said_goodbye(self, node: str) -> bool:
        """True if it was live."""
        if node in self._left:
            return False
        self._left.add(node)
        return self._forget(node) or node in self._stored

    def stored(self, live: set[str], now: float) -> set[str]:
        """What the store says is live. Returns who is gone since."""
        before = self.live()
        self._left &= live  # ids are never used again: what the store forgets may be forgotten
        self._stored = set(live)
        for node in [node for node, heard in self._heard.items() if node not in live and now - heard > HEARD]:
            self._forget(node)
        after = self.live()
        if after != before:
            self.state += 1
        return before - after

    def _forget(self, node: str) -> bool:
        self._heard.pop(node, None)
        self._complete.discard(node)
        if self._epochs.pop(node, None) is None:
            return False
        self.state += 1
        return True

    def live(self) -> set[str]:
        """Every live node but this one."""
        return ((self._stored | self._heard.keys()) - self._left) - {self.node}

    def did_not_answer(self, nodes: set[str]) -> None:
        self._silent |= nodes

    def is_silent(self, node: str) -> bool:
        return node in self._silent

    def attentive(self) -> set[str]:
        """The live ones that have not left a claim unacknowledged since they were last heard."""
        live = self.live()
        self._silent &= live
        return live - self._silent


class Roll:
    """One roll call. `ended` is called once, with whether every live node was there and complete. This node is present
    when the server has answered its PING: what was asked before has found somebody by then, or come back."""

    def __init__(self, number: int, roster: Roster, now: float, ended: Callable[[Roll, bool], None]) -> None:
        self.number = number
        self.began = now
        self.state = roster.state
        self.in_doubt_below = 0
        """Calls of smaller numbers may be lost with a node."""
        self.calls: set[int] = set()
        """The calls of this node that others hold."""
        self._roster = roster
        self._waiting = roster.live() | {roster.node}
        self._is_complete = True
        self._ended: Callable[[Roll, bool], None] | None = ended

    def present(self, message: Present) -> None:
        self._is_complete &= message.complete
        self.calls.update(message.calls)
        self._waiting.discard(message.node)
        if not self._waiting:
            self._end()

    def without(self, node: str) -> None:
        """The node is there; or it is gone, and its claims with it."""
        self._waiting.discard(node)
        if not self._waiting:
            self._end()

    def give_up(self) -> None:
        self._is_complete = False
        self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            if self._is_complete and self._roster.state == self.state:
                self._roster.confirmed = self.state
            ended(self, self._is_complete)
