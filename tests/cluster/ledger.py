"""What became of each call, as its caller and the devices saw it, and the rules that hold for all of them whatever
happens to nodes, bus and database. Knows no socket."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from methodhub.bus.calls import PATIENCE as BUS_PATIENCE

BROKEN = -1
"""The code of a call whose connection ended before its answer: only the end of its node excuses it."""
GRACE = 2.0
"""Seconds that an answer takes on a busy machine."""
MARGIN = 0.5
"""Seconds by which a device may learn later than the hub that its connection is over."""


@dataclass(slots=True)
class Trouble:
    """A node that is killed, drained, paused or cut off, from `since` until it is whole again."""

    node: int
    kind: str
    since: float
    until: float = float("inf")


@dataclass(slots=True)
class Life:
    """One connection of a device, as the device knows it: ready for calls until it learns of its end."""

    node: int
    since: float
    until: float = float("inf")


@dataclass(slots=True)
class Call:
    """Times by the monotonic clock. `code`: 0 for an answer, BROKEN, or the hub's number."""

    number: int
    device: str
    node: int
    response: int
    connect: int
    since: float
    until: float = 0.0
    code: int | None = None
    value: object = None


@dataclass
class Ledger:
    calls: dict[int, Call] = field(default_factory=dict)
    delivered: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Which devices received the call of a number."""
    lives: dict[str, list[Life]] = field(default_factory=lambda: defaultdict(list))
    troubles: list[Trouble] = field(default_factory=list)

    def begin(self, device: str, node: int, response: int, connect: int) -> Call:
        number = len(self.calls) + 1
        call = self.calls[number] = Call(number, device, node, response, connect, time.monotonic())
        return call

    def end(self, call: Call, code: int, value: object = None) -> None:
        assert call.code is None, f"two outcomes: {call} and {code}"
        call.code, call.value, call.until = code, value, time.monotonic()

    def trouble(self, node: int, kind: str) -> Trouble:
        trouble = Trouble(node, kind, time.monotonic())
        self.troubles.append(trouble)
        return trouble

    # --- the rules -----------------------------------------------------------------------------------------------

    def check(self, allowed: set[int]) -> None:
        """All violations at once: the first one alone says little about its cause."""
        wrong = [text for call in self.calls.values() for text in self._judge(call, allowed)]
        assert not wrong, f"{len(wrong)} violations:\n" + "\n".join(wrong[:20])

    def _judge(self, call: Call, allowed: set[int]) -> list[str]:
        wrong = []
        devices = self.delivered.get(call.number, [])
        if call.code is None:
            return [f"no outcome: {call}"]
        if len(devices) > 1:
            wrong.append(f"delivered {len(devices)} times: {call}")
        if set(devices) - {call.device}:
            wrong.append(f"delivered to {devices}: {call}")
        if call.code not in allowed | {0, BROKEN}:
            wrong.append(f"code not allowed: {call}")
        if call.code == 0 and (not devices or call.value != call.number):
            wrong.append(f"answered, but by whom? {call}")
        if call.code // 1000 == 503 and devices:
            wrong.append(f"delivered, and yet its caller may repeat it: {call}")
        if call.code == 404103 and self._was_there(call):
            wrong.append(f"offline, though {self.lives[call.device][-3:]}: {call}")
        if call.code == BROKEN and not self._is_excused(call, bool(devices)):
            wrong.append(f"connection ended{' after delivery' if devices else ''}: {call}")
        if call.until - call.since > self._most_seconds(call):
            wrong.append(f"took {call.until - call.since:.1f} s: {call}")
        return wrong

    def _was_there(self, call: Call) -> bool:
        """The device was connected all the while, to a node that nothing had befallen."""
        return any(
            life.since < call.since
            and life.until > call.until + MARGIN
            and not any(each.node == life.node for each in self._during(call, {"killed", "paused"}))
            for life in self.lives[call.device]
        )

    def _is_excused(self, call: Call, delivered: bool) -> bool:
        kinds = {each.kind for each in self._during(call, {"killed", "drained"}) if each.node == call.node}
        return "killed" in kinds or ("drained" in kinds and not delivered)

    def _most_seconds(self, call: Call) -> float:
        paused = sum(
            min(each.until, call.until) - max(each.since, call.since)
            for each in self._during(call, {"paused"})
            if each.node == call.node
        )
        return call.response + call.connect + BUS_PATIENCE + GRACE + paused

    def _during(self, call: Call, kinds: set[str]) -> list[Trouble]:
        return [t for t in self.troubles if t.kind in kinds and t.since < call.until and t.until > call.since]

    # --- figures -------------------------------------------------------------------------------------------------

    def codes(self, since: float = 0.0) -> dict[int, int]:
        """How many calls ended with which code, of those begun after `since`."""
        return dict(sorted(Counter(call.code or 0 for call in self.calls.values() if call.since >= since).items()))

    def late(self) -> int:
        """Calls that took longer than the timeouts that their callers gave: the bus has a patience of its own."""
        return sum(call.until - call.since > call.response + call.connect + GRACE / 2 for call in self.calls.values())
